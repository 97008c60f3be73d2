"""A Git repository on loopback, over HTTP with a login, as a forge has it."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USER = "gitops"
COMMITTER = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
for _role in ("AUTHOR", "COMMITTER"):
    COMMITTER |= {f"GIT_{_role}_NAME": "ada", f"GIT_{_role}_EMAIL": "ada@example.org"}


class Remote:
    """Use as a context manager. `change` commits to `main`.

    `answers`: whether the server does; `refused`: how many requests it has not answered.
    """

    def __init__(self, folder: Path) -> None:
        self.work, self._bare = folder / "work", folder / "served" / "cluster"
        self.password = secrets.token_hex(16)
        self.answers, self.refused = True, 0
        self.work.mkdir(parents=True)
        self._git(self.work, "init", "--quiet", "--initial-branch=main")

    def __enter__(self) -> Self:
        self._git(self.work, "clone", "--quiet", "--bare", str(self.work), str(self._bare))
        self._git(self.work, "remote", "add", "origin", str(self._bare))
        remote = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                remote.serve(self)

            def do_POST(self) -> None:
                remote.serve(self)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/cluster"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def change(self, edit: Callable[[Path], None]) -> str:
        """Commit an edit of the work tree, and push it; the new revision."""
        edit(self.work)
        self._git(self.work, "add", "--all")
        self._git(self.work, "commit", "--quiet", "--message", "change")
        if self._bare.exists():
            self._git(self.work, "push", "--quiet", "origin", "main")
        return self.head

    def revert(self) -> str:
        """Undo the last commit by another one."""
        self._git(self.work, "revert", "--no-edit", "HEAD")
        self._git(self.work, "push", "--quiet", "origin", "main")
        return self.head

    @property
    def head(self) -> str:
        """The last revision."""
        return self._git(self.work, "rev-parse", "HEAD").strip()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request by git's own program."""
        if not self.answers:
            self.refused += 1
            request.close_connection = True
            request.connection.close()
            return
        wanted = f"Basic {base64.b64encode(f'{USER}:{self.password}'.encode()).decode()}"
        if request.headers.get("Authorization") != wanted:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        parts = urlsplit(request.path)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self._bare.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        }
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        request.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    def _git(self, folder: Path, *words: str) -> str:
        environment = {**os.environ, **COMMITTER}
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
