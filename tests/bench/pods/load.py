"""Asks a model over kept-alive connections, a thread for each; prints latencies and its own processor time as JSON.

The same program runs in a pod and on the machine of whoever measures: `python load.py PLAN`, the plan being JSON. It
has Python's own HTTP client, which takes less processor time for a request than aiohttp and urllib3 do: what the
client takes is in every latency, and makes servers look more alike than they are.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

WARM_UP = 5
"""Requests of each client before the clock starts: connections, handshakes, caches."""
TIMEOUT_SECONDS = 30


def connect(plan: dict[str, Any]) -> HTTPConnection:
    """A connection to the plan's address, where its `name` is told by TLS, and checked, if it has one."""
    url = urlsplit(plan["url"])
    assert url.hostname
    connection = HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_SECONDS)
    plain = socket.create_connection((url.hostname, url.port or (443 if plan["name"] else 80)), TIMEOUT_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if plan["name"]:
        context = ssl.create_default_context(cafile=plan["authority"])
        connection.sock = context.wrap_socket(plain, server_hostname=plan["name"])
    else:
        connection.sock = plain
    return connection


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Ask as planned, for `seconds` or until `requests` were answered."""
    body, path = Path(plan["body"]).read_bytes(), urlsplit(plan["url"]).path
    headers = {"Content-Type": "application/json"} | ({"Host": plan["name"]} if plan["name"] else {})
    began = used = 0.0
    latencies: list[float] = []

    def start() -> None:
        nonlocal began, used
        began, used = time.perf_counter(), time.process_time()

    def ask(connection: HTTPConnection) -> None:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{plan['url']} answers {answer.status}: {content[:200]!r}")
        if answer.will_close:
            raise SystemExit(f"{plan['url']} closes its connections")

    def client() -> None:
        try:
            connection = connect(plan)
            for _ in range(WARM_UP):
                ask(connection)
        except BaseException:
            ready.abort()
            raise
        ready.wait()
        while (before := time.perf_counter()) < began + plan["seconds"] and len(latencies) < plan["requests"]:
            ask(connection)
            latencies.append(time.perf_counter() - before)
        connection.close()

    ready = threading.Barrier(plan["clients"], action=start)
    with ThreadPoolExecutor(plan["clients"]) as pool:
        clients = [pool.submit(client) for _ in range(plan["clients"])]
    failures = [error for one in clients if (error := one.exception())]
    for error in failures:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return {
        "latencies": [round(latency, 6) for latency in latencies],
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - used,
    }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
