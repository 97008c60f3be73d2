"""Asks a model over kept-alive connections, one for each client; prints latencies and its own processor time as JSON.

The same program runs in a pod and on the machine of whoever measures: `python load.py PLAN`, the plan being JSON.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

WARM_UP = 5
"""Requests of each client before the clock starts: connections, handshakes, caches."""


async def run(plan: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Ask as planned, for `seconds` or until `requests` were answered."""
    headers = {"Content-Type": "application/json"}
    options: dict[str, Any] = {}
    if plan["name"]:
        headers["Host"] = plan["name"]
        options = {"server_hostname": plan["name"], "ssl": ssl.create_default_context(cafile=plan["authority"])}
    latencies: list[float] = []

    async def ask() -> None:
        async with session.post(plan["url"], data=body, headers=headers, **options) as answer:
            content = await answer.read()
        if answer.status != 200:
            raise SystemExit(f"{plan['url']} answers {answer.status}: {content[:200]!r}")

    async def warm_up() -> None:
        for _ in range(WARM_UP):
            await ask()

    async def client() -> None:
        while (began := time.perf_counter()) < end and len(latencies) < plan["requests"]:
            await ask()
            latencies.append(time.perf_counter() - began)

    connector = aiohttp.TCPConnector(limit=plan["clients"])
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        await asyncio.gather(*(warm_up() for _ in range(plan["clients"])))
        began, used = time.perf_counter(), time.process_time()
        end = began + plan["seconds"]
        await asyncio.gather(*(client() for _ in range(plan["clients"])))
        return {
            "latencies": [round(latency, 6) for latency in latencies],
            "seconds": time.perf_counter() - began,
            "processor": time.process_time() - used,
        }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(asyncio.run(run(given, Path(given["body"]).read_bytes()))))
