"""Copies the cloud's log lines into the log store: asks, again and again, for those after the last one."""

import os
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

CLOUD, STORE = os.environ["CLOUD"], os.environ["STORE"]
HOST, PORT = os.environ.get("HOST", ""), int(os.environ.get("PORT", "8080"))
POSITION = Path(os.environ.get("POSITION", "/data/position"))
PAUSE_SECONDS = float(os.environ.get("PAUSE_SECONDS", "10"))
ASK_SECONDS = 30
FIELDS = {"_stream_fields": "cloud,service", "_time_field": "_time", "_msg_field": "_msg"}
told = {"cloud_lines_total": 0, "cloud_lines_up": 0}
"""Lines that were copied, and whether the last attempt was one that worked."""


def copy() -> int:
    """Copy what is new. Returns how many lines that were.

    Raises:
        OSError: the cloud or the store does not answer, or refuses. Nothing is lost: the position stays.
    """
    after = POSITION.read_text(encoding="utf-8") if POSITION.exists() else ""
    asked = f"{CLOUD}/logs?{urlencode({'after': after})}"
    try:
        with urllib.request.urlopen(asked, timeout=ASK_SECONDS) as answer:  # noqa: S310 - an address of the manifest's
            lines: bytes = answer.read()
            position: str = answer.headers["X-Cursor"]
    except urllib.error.HTTPError as error:
        if error.code == 400:  # the position is of another release
            POSITION.unlink(missing_ok=True)
        raise
    if lines:
        kind = {"Content-Type": "application/stream+json"}
        sent = urllib.request.Request(f"{STORE}/insert/jsonline?{urlencode(FIELDS)}", lines, kind)  # noqa: S310
        urllib.request.urlopen(sent, timeout=ASK_SECONDS).close()  # noqa: S310 - an address of the manifest's
    new = POSITION.with_suffix(".new")
    new.write_text(position, encoding="utf-8")
    new.replace(POSITION)
    return lines.count(b"\n")


def copy_for_ever() -> None:
    """Copy what is new; wait where there is nothing, or nobody."""
    failed = ""
    while True:
        try:
            count = copy()
            told["cloud_lines_total"] += count
            told["cloud_lines_up"], failed = 1, ""
        except OSError as error:
            count = told["cloud_lines_up"] = 0
            if str(error) != failed:
                print(f"cannot copy lines: {error}", flush=True)
            failed = str(error)
        if not count:
            time.sleep(PAUSE_SECONDS)


class Handler(BaseHTTPRequestHandler):
    """`/metrics`, which is also what probes ask for."""

    def do_GET(self) -> None:
        """Answer."""
        body = "".join(f"{name} {value}\n" for name, value in told.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: probes ask every few seconds."""


if __name__ == "__main__":
    threading.Thread(target=copy_for_ever, daemon=True).start()
    ThreadingHTTPServer((HOST, PORT), Handler).serve_forever()
