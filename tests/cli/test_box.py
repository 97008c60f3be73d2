"""The repository is pushed to the forge behind the gateway: a server with TLS on loopback, with Git's own HTTP program.

Only its API's few answers are made up. The forge itself: tests/forge.
"""

from __future__ import annotations

import ssl
import subprocess
import threading
from base64 import b64decode
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cli.box import ADMIN, API, FORGE, MAIN, REPOSITORY, provide_repository
from cli.workloads import Platform
from infra.manifests import DOMAIN
from tests.k8s.chain import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "of-the-forge"  # noqa: S105


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=Ada", "-c", "user.email=ada@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Gateway(BaseHTTPRequestHandler):
    """Answers for the forge's API and its Git."""

    root: Path

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        basic = b64decode(self.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if basic != f"{ADMIN}:{PASSWORD}":
            return self.answer(401, WWW_Authenticate="Basic")
        if path.startswith(API):
            missing = path == f"{API}/branches/{MAIN}"
            return self.answer(404 if missing else 200)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = {"GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                 "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_USER": ADMIN,
                 "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body))}  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=body, env=asked, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return self.answer(int(headers.pop("Status", "200").split()[0]), content, **headers)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A gateway of a domain that no name server knows, with a certificate that no system trusts."""
    repository = tmp_path / "served" / f"{REPOSITORY}.git"
    repository.mkdir(parents=True)
    git(repository, "init", "--quiet", "--bare")
    made = certificate(timedelta(days=1))
    pem = tmp_path / "gateway.pem"
    pem.touch(0o600)
    pem.write_text(made["tls.key"] + made["tls.crt"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    handler = type("Served", (Gateway,), {"root": tmp_path / "served"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Platform(
            profile="ci", domain=DOMAIN, address="127.0.0.1", port=server.server_port, authority=made["tls.crt"],
            credentials={FORGE: {ADMIN: PASSWORD}}, kubeconfig="",
        )  # fmt: skip
        server.shutdown()


def test_the_users_own_authorities_and_proxy_are_not_for_the_forge(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "campus.pem"
    other.write_text(certificate(timedelta(days=1))["tls.crt"])
    monkeypatch.setenv("GIT_SSL_CAINFO", str(other))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "--quiet")
    (project / "Pulumi.yaml").write_text("name: lab\n")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message=First")
    head = git(project, "rev-parse", "HEAD")
    provide_repository(platform, project)
    assert f"Pushed {head[:12]}" in capsys.readouterr().out
    assert git(tmp_path / "served" / f"{REPOSITORY}.git", "rev-parse", MAIN) == head
