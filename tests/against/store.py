"""The engine's faults with a state in a bucket, of a real object store."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from engine.backend.s3 import connect
from tests.against.points import Point
from tests.engine.harness import wait_for
from tests.weed import object_store_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.against.checkout import Checkout, Stack
    from tests.against.points import Tried

REFUSAL = "<Error><Key>{}</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
QUERY = "endpoint={}&disableSSL=true&s3ForcePathStyle=true"


class Refusing(BaseHTTPRequestHandler):
    """Hands requests on to the store, but for those that delete several objects: their answer refuses each of them."""

    protocol_version = "HTTP/1.1"
    store = ""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "POST" and "delete" in self.path.partition("?")[2].split("&")[0]:
            keys = re.findall(rb"<Key>(.*?)</Key>", body)
            refused = "".join(REFUSAL.format(key.decode()) for key in keys)
            self.answer(200, {"Content-Type": "application/xml"}, f"<DeleteResult>{refused}</DeleteResult>".encode())
            return
        connection = http.client.HTTPConnection(self.store)
        connection.request(self.command, self.path, body, dict(self.headers))
        found = connection.getresponse()
        headers = {name: value for name, value in found.getheaders() if name.lower() != "transfer-encoding"}
        self.answer(found.status, headers, found.read())
        connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def refusing(store: str) -> Iterator[str]:
    """The address of a store that refuses to delete several objects at once."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Refusing,), {"store": store}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextmanager
def store(checkout: Checkout) -> Iterator[str]:
    folder = checkout.scratch / "store"
    folder.mkdir()
    with object_store_in(folder) as endpoint:
        yield endpoint


def in_bucket(checkout: Checkout, endpoint: str, prefix: str) -> Stack:
    """A new stack whose state is in the bucket, below a prefix."""
    stack = checkout.stack()
    stack.env |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    stack.env["PULUMI_BACKEND_URL"] = f"s3://state/{prefix}?{QUERY.format(endpoint)}"
    (stack.folder / "Pulumi.dev.yaml").unlink(missing_ok=True)
    stack.init()
    return stack


def refused_deletions(checkout: Checkout, tried: Tried) -> None:
    with store(checkout) as endpoint, refusing(endpoint) as proxy:
        stack = in_bucket(checkout, endpoint, "end")
        stack.program('Thing("a", value=1)')
        stack.env["PULUMI_BACKEND_URL"] = f"s3://state/end?{QUERY.format(proxy)}"
        up = stack.up(ok=None)
        with tried.of("of a journal, at the end of an update"):
            assert "AccessDenied" in up.text, f"not a word; ends with {up.exit_code}"
        stack = in_bucket(checkout, endpoint, "next")
        stack.program('Thing("a", value=1)')
        stack.control(hold={"a": ["create"]})
        running = stack.start(*stack.operation("up"))
        wait_for(lambda: stack.held("a.create"), "the create")
        running.signal(signal.SIGKILL)
        running.process.wait()
        stack.control()
        stack.env["PULUMI_BACKEND_URL"] = f"s3://state/next?{QUERY.format(proxy)}"
        up = stack.up(ok=None)
        with tried.of("of the journal that a killed update left"):
            assert "AccessDenied" in up.text, f"not a word; ends with {up.exit_code}"


def copied_machine(checkout: Checkout, tried: Tried) -> None:
    """Copies of one machine share its ID and its name; only of a process of this very system is the end known."""
    with store(checkout) as endpoint:
        client: Any = connect(f"s3://state?{QUERY.format(endpoint)}")
        for name, changes in {
            "another boot": {"bootId": "another"},
            "another process, too": {"bootId": "another", "pid": 1, "processStart": 1},
        }.items():
            prefix = name.replace(" ", "-").replace(",", "")
            stack = in_bucket(checkout, endpoint, prefix)
            stack.program('Thing("a", value=1)')
            stack.control(hold={"a": ["create"]})
            running = stack.start(*stack.operation("up"))
            wait_for(lambda stack=stack: stack.held("a.create"), "the create")  # type: ignore[misc]
            running.signal(signal.SIGKILL)
            running.process.wait()
            found = client.list_objects_v2(Bucket="state", Prefix=f"{prefix}/.pulumi/locks/")["Contents"]
            for entry in found:
                lock = json.loads(client.get_object(Bucket="state", Key=entry["Key"])["Body"].read())
                client.put_object(Bucket="state", Key=entry["Key"], Body=json.dumps(lock | changes).encode())
            stack.control()
            up = stack.up(ok=None)
            with tried.of(name):
                assert up.exit_code, "taken over"
                assert "lock" in up.text, up.text


POINTS = (
    Point("9", "S3: refused deletions are ignored", refused_deletions),
    Point("9", "S3: the lock of a copied machine is taken over", copied_machine),
)
