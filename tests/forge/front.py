"""The gateway's part for `lab`: one address with TLS, which passes on each host name to a server of this machine."""

from __future__ import annotations

import ssl
import tempfile
import threading
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from infra.manifests import DOMAIN
from tests.k8s.chain import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OWN = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}
"""Headers of each of the two connections. These servers know their host by its address."""


@contextmanager
def front(servers: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Pass on `<name>.<domain>` to the server of that name, by its URL; the port, and the authority's certificate."""
    pool = urllib3.PoolManager(retries=False, timeout=120)

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.headers["Host"].partition(f".{DOMAIN}")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = {key: value for key, value in self.headers.items() if key.lower() not in OWN}
            url = servers[name] + self.path
            answer = pool.request(
                self.command, url, body=body, headers=sent, redirect=False, decode_content=False, preload_content=True
            )
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                if key.lower() not in OWN:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.wfile.write(answer.data)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    pair = certificate(timedelta(days=1))
    with tempfile.NamedTemporaryFile("w") as file, ThreadingHTTPServer(("127.0.0.1", 0), Front) as server:
        file.write(pair["tls.key"] + pair["tls.crt"])
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(file.name))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, pair["tls.crt"]
        server.shutdown()
