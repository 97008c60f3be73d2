"""A model registry as the tests of the rollout need it: MLflow's, and what stands between it and the controller."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "digits"


@dataclass(frozen=True)
class Registry:
    """MLflow's REST API, as its administrator."""

    environment: Mapping[str, str]

    def ask(self, method: str, path: str, **body: Any) -> Any:
        """What it answers."""
        environment = self.environment
        request = urllib.request.Request(
            f"{environment['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}", json.dumps(body).encode(), method=method
        )
        request.add_header("Content-Type", "application/json")
        login = f"{environment['MLFLOW_TRACKING_USERNAME']}:{environment['MLFLOW_TRACKING_PASSWORD']}"
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def register(self, name: str = MODEL) -> None:
        """Make the registered model."""
        self.ask("POST", "registered-models/create", name=name)

    def version(self) -> str:
        """Make one more version."""
        made = self.ask("POST", "model-versions/create", name=MODEL, source="s3://mlflow/models/none")
        return str(made["model_version"]["version"])

    def point(self, alias: str, version: str) -> None:
        """Have an alias name a version."""
        self.ask("POST", "registered-models/alias", name=MODEL, alias=alias, version=version)

    def forget(self, alias: str) -> None:
        """Delete an alias."""
        self.ask("DELETE", "registered-models/alias", name=MODEL, alias=alias)

    def delete(self, version: str) -> None:
        """Delete a version."""
        self.ask("DELETE", "model-versions/delete", name=MODEL, version=version)

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the registered model."""
        self.ask("POST", "registered-models/set-tag", name=MODEL, key=key, value=value)


class Between:
    """A proxy before the registry, that answers something else while `answer` is set; a context manager.

    `answer` is a status and a body; a status of 0 cuts the connection.
    """

    def __init__(self, url: str) -> None:
        self.answer: tuple[int, bytes] | None = None
        self.asked = 0
        between, target = self, urlsplit(url)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                between.asked += 1
                status, body = between.answer or self._forward()
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815

            def _forward(self) -> tuple[int, bytes]:
                asked = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {key: value for key, value in self.headers.items() if key != "Host"}
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                connection.request(self.command, self.path, asked, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Between:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
