"""Clients that have the example read a digit, through the gateway by its address, and keep account of the answers."""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self

import urllib3

from cli.services import SAMPLE
from cli.workloads import ASK_SECONDS

if TYPE_CHECKING:
    from tests.e2e.platform_stack import PlatformStack

MODEL = "digits"
SHOWN = [0]
"""The digit that the sample shows."""
CONNECT_SECONDS = 5
"""How long a client waits for an address before it takes the next one."""
PAUSE_SECONDS = 0.1
"""Between two requests of a client: ten a second at most, so that what the tests do has cores left."""


class Answer(NamedTuple):
    """What came of a request."""

    began: float
    """By time.monotonic()."""
    seconds: float
    version: str
    """Of the model that answered; empty where it failed."""
    fault: str
    """Empty where it went well."""


def ask(pools: list[urllib3.HTTPSConnectionPool], body: bytes) -> Answer:
    """Send one request, once, to the first address that takes the connection; it is the first for the next request.

    Anything but the digit that the sample shows is a fault.
    """
    began = time.monotonic()
    version = fault = ""
    try:
        answer = _send(pools, body)
        result = json.loads(answer.data) if answer.status == 200 else {}
        labels = [output["data"] for output in result.get("outputs", ()) if output["name"] == "label"]
        if labels == [SHOWN]:
            version = str(result["model_version"])
        else:
            fault = f"{answer.status}: {answer.data[:200].decode(errors='replace')}"
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    return Answer(began, time.monotonic() - began, version, fault)


def _send(pools: list[urllib3.HTTPSConnectionPool], body: bytes) -> urllib3.BaseHTTPResponse:
    for left in reversed(range(len(pools))):
        headers = {**(pools[0].headers or {}), "Content-Type": "application/json"}
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=ASK_SECONDS)
        try:
            return pools[0].request("POST", f"/v2/models/{MODEL}/infer", body=body, headers=headers, timeout=timeout)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            if not left:
                raise
            pools.append(pools.pop(0))
    raise AssertionError("a client needs an address")


def ask_often(stack: PlatformStack, count: int, clients: int = 8) -> list[Answer]:
    """The answers to so many requests, of clients that send one after the other."""
    body = SAMPLE.read_bytes()

    def client(share: int) -> list[Answer]:
        pools = [stack.pool(MODEL)]
        return [ask(pools, body) for _ in range(share)]

    shares = [count // clients + (number < count % clients) for number in range(clients)]
    with ThreadPoolExecutor(clients) as threads:
        return [answer for answers in threads.map(client, shares) for answer in answers]


class Load:
    """While it is entered, some clients ask without end, each on a connection that it keeps; none asks twice.

    With several addresses of the gateway, a client takes the next one where it gets no connection.
    """

    def __init__(self, stack: PlatformStack, clients: int = 4, addresses: list[str] | None = None) -> None:
        self.answers: list[Answer] = []
        self._stack = stack
        self._addresses = addresses or [stack.platform.address]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self.ended = time.monotonic()

    def _client(self) -> None:
        pools = [self._stack.pool(MODEL, address=address) for address in self._addresses]
        body = SAMPLE.read_bytes()
        while not self._ended.is_set():
            self.answers.append(ask(pools, body))
            self._ended.wait(PAUSE_SECONDS)

    @property
    def faults(self) -> list[Answer]:
        """The requests that failed."""
        return [answer for answer in self.answers if answer.fault]

    @property
    def gap(self) -> float:
        """The longest time without a good answer, in seconds; of a load that has ended."""
        good = sorted(answer.began + answer.seconds for answer in self.answers if not answer.fault)
        moments = [self.began, *good, self.ended]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def __str__(self) -> str:
        """How it went, for the figures."""
        good = [answer.seconds for answer in self.answers if not answer.fault]
        percentiles = statistics.quantiles(good, n=100)
        return (
            f"{len(self.answers)} requests of {len(self._threads)} clients in {self.ended - self.began:.0f} s, "
            f"{len(self.faults)} failed, p50 {percentiles[49] * 1000:.0f} ms, p99 {percentiles[98] * 1000:.0f} ms, "
            f"longest without an answer {self.gap:.1f} s"
        )
