"""`lab stages`, `lab gate`, and how verbs ask the promotion service: through the gateway, as MLflow's administrator.

What the service decides is tested with it, on the real MLflow: tests/images/test_promotion.py.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from base64 import b64encode
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cli import promotion
from cli.errors import LabError
from cli.workloads import Platform, Stage
from infra.credentials import issue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import typer

LOGIN = {"username": "admin", "password": "a-password-of-tests"}
SINCE = "2026-11-02T10:00:00Z"
STAGES = {"production": {"version": "7", "since": SINCE, "former": ["5", "3"]}}
COMMIT = "4be1c0f3a9d2" + "0" * 28
HISTORY = [
    {"at": SINCE, "stage": "production", "did": "rolled back", "version": "7", "by": "trainer", "git": None},
    {
        "at": SINCE, "stage": "production", "did": "promoted", "version": "8", "by": "admin",
        "git": {"commit": COMMIT, "pull_request": 12, "author": "ada"},
    },
]  # fmt: skip
GIT = {"commit": COMMIT, "said": {"production": {"version": 8, "ahead": True}}}
REFUSED = {
    "error": "digits has no version 9 that has passed the gate",
    "remedy": "`lab train digits` registers what passes",
}
ANSWERS: dict[str, tuple[int, Any]] = {
    "GET /v1/models/digits/stages": (
        200, {"model": "digits", "stages": STAGES, "versions": ["7", "5", "3"], "git": GIT}
    ),
    "GET /v1/models/digits/history?count=10": (200, {"model": "digits", "history": HISTORY}),
    "GET /v1/models/digits/gate": (200, {"gate": {"score": {"minimum": 0.95}, "production": None}}),
    "GET /v1/models/digits/verdict?version=4": (
        200, {"passed": False, "figures": {"accuracy": 0.5, "digit": {"3": 0.25}}, "reasons": ["accuracy 0.5"]}
    ),
    "POST /v1/models/digits/stages/production/rollback": (200, {"version": "5", "passed_over": ["6"]}),
    "POST /v1/models/digits/stages/canary/promote": (409, REFUSED),
}  # fmt: skip


@pytest.fixture
def asked() -> list[tuple[str, str, Any]]:
    """What was asked, with the login and the body."""
    return []


@pytest.fixture
def platform(tmp_path: Path, asked: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A gateway that answers as the service does."""
    authority = issue({"names": ["tests"]})
    signed = {"authority_certificate": authority["certificate"], "authority_key": authority["key"]}
    made = issue({"names": ["promotion.lab.example"], **signed})
    (tmp_path / "pair.pem").write_text(made["certificate"] + made["key"])

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            asked.append((self.path, self.headers["Authorization"], json.loads(body) if body else None))
            status, answer = ANSWERS[f"{self.command} {self.path}"]
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    found = Platform(
        "lab", "lab.example", "127.0.0.1", server.server_port, authority["certificate"], {"tracking": LOGIN}, ""
    )
    monkeypatch.setattr(Platform, "of", lambda *_: found)
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def context() -> typer.Context:
    return cast("typer.Context", SimpleNamespace(obj=None))


def test_a_decision_is_asked_for_as_the_administrator(
    platform: Platform, asked: list[tuple[str, str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert promotion.decide(platform, "digits", Stage.production, "rollback", incident="i1") == "5"
    assert capsys.readouterr().out == "Skipped deleted versions: 6.\n"
    login = b64encode(b"admin:a-password-of-tests").decode()
    assert asked == [("/v1/models/digits/stages/production/rollback", f"Basic {login}", {"incident": "i1"})]


def test_a_refusal_is_told_with_its_remedy(platform: Platform, asked: list[tuple[str, str, Any]]) -> None:
    with pytest.raises(LabError) as refused:
        promotion.decide(platform, "digits", Stage.canary, "promote", "9")
    assert (str(refused.value.args[0]), refused.value.remedy) == (REFUSED["error"], REFUSED["remedy"])
    assert asked[0][2] == {"version": 9}
    with pytest.raises(LabError, match="--version latest is not a number"):
        promotion.decide(platform, "digits", Stage.canary, "promote", "latest")


@pytest.mark.usefixtures("platform")
def test_stages_and_gates_are_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    warm = {"production": {"version": "5", "until": "2026-11-03T10:00:00Z", "ready": True}}
    monkeypatch.setattr(Platform, "kept_warm", lambda *_: warm)
    promotion.stages(context(), "digits")
    output = capsys.readouterr().out
    assert "Version 5 is kept warm for a rollback of production, until 2026-11-03T10:00:00Z." in output
    shown = [line.split() for line in output.splitlines()]
    assert ["production", "7", SINCE, "5,", "3"] in shown
    assert ["canary", "none"] in shown
    assert [SINCE, "production", "rolled", "back", "7", "trainer"] in shown
    assert [SINCE, "production", "promoted", "8", "ada", "(#12,", "commit", "4be1c0f3a9d2)"] in shown
    assert "Git names version 8 until the pull request is merged" in output
    promotion.stages(context(), "digits", json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["history"], told["warm"]) == (HISTORY, warm)
    promotion.gate(context(), "digits")
    assert ["score", "minimum", "0.95"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    promotion.gate(context(), "digits", version=4)
    output = capsys.readouterr().out
    assert ["digit", "3", "0.25"] in [line.split() for line in output.splitlines()]
    assert output.endswith("Refused: accuracy 0.5\n")
