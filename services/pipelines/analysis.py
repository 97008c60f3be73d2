"""Whether a canary is worse than production: shares of errors and of slow answers, of what the gateway has counted."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

from services.pipelines.errors import DecidedError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.pipelines.settings import Canary

SECONDS_TO_ANSWER, SECONDS_BETWEEN = 20, 5.0
REQUESTS, BUCKETS = "traefik_service_requests_total", "traefik_service_request_duration_seconds_bucket"


@dataclass(frozen=True)
class Counted:
    """What a stage has answered."""

    requests: int
    errors: int
    slow: int


@dataclass(frozen=True)
class Measured:
    """How a canary compares with production, in one respect."""

    what: str
    canary: float
    production: float
    margin: float
    at_least: float
    """The difference is that large at least, with the confidence asked for."""

    @property
    def is_worse(self) -> bool:
        """Whether it is certain enough that it is worse by more than the margin."""
        return self.at_least > self.margin

    @property
    def looks_worse(self) -> bool:
        """Whether it was worse by more than the margin in what was counted."""
        return self.canary - self.production > self.margin

    def __str__(self) -> str:
        return (
            f"{self.what}: canary {self.canary:.2%}, production {self.production:.2%}, at most {self.margin:.2%} more"
        )


def least(bad: int, of: int, other_bad: int, other_of: int, confidence: float) -> float:
    """The least that one share is larger than another, with a one-sided confidence: Newcombe's score interval.

    Statistics in Medicine 17, 1998, pages 873 to 890, method 10. `of` is one at least.
    """
    wanted = NormalDist().inv_cdf(confidence)
    share, other = bad / of, other_bad / other_of if other_of else 0.0
    low, high = _wilson(bad, of, wanted)[0], _wilson(other_bad, other_of, wanted)[1] if other_of else 0.0
    return share - other - sqrt((share - low) ** 2 + (high - other) ** 2)


def _wilson(bad: int, of: int, wanted: float) -> tuple[float, float]:
    share, square = bad / of, wanted * wanted / of
    middle, half = share + square / 2, wanted * sqrt(share * (1 - share) / of + square / (4 * of))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def compare(canary: Counted, production: Counted, asked: Canary) -> list[Measured]:
    """How a canary that has answered compares with production."""
    found = []
    for what, margin, bad, other in (
        ("errors", asked.errors, canary.errors, production.errors),
        (f"answers slower than {asked.slow_ms} ms", asked.slow, canary.slow, production.slow),
    ):
        at_least = least(bad, canary.requests, other, production.requests, asked.confidence)
        other_share = other / production.requests if production.requests else 0.0
        found.append(Measured(what, bad / canary.requests, other_share, margin, at_least))
    return found


@dataclass(frozen=True)
class Metrics:
    """A store of the gateway's figures that answers PromQL; with VictoriaMetrics' `increase_pure`.

    Raises:
        PipelineError: it does not answer; of every method.
    """

    address: str

    def counted(self, deployment: str, seconds: float, slow_ms: int) -> Counted:
        """What a stage, by its Deployment, has answered in the last seconds."""
        service = f'service=~".+-svc-serving-{deployment}-[0-9]+@.+"'
        window = f"[{max(int(seconds), 1)}s]"
        requests = self._sum(f"{REQUESTS}{{{service}}}{window}")
        errors = self._sum(f'{REQUESTS}{{{service},code=~"5.."}}{window}')
        fast = self._sum(f'{BUCKETS}{{{service},le="{slow_ms / 1000:g}"}}{window}')
        return Counted(round(requests), min(round(errors), round(requests)), max(round(requests - fast), 0))

    def _sum(self, series: str) -> float:
        # A counter that is new counts from nothing: a canary's has never been there before.
        query = urllib.parse.urlencode({"query": f"sum(increase_pure({series}))"})
        try:
            with urllib.request.urlopen(f"{self.address}/api/v1/query?{query}", timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
                result = json.load(answer)["data"]["result"]
        except (OSError, ValueError, KeyError) as error:
            raise PipelineError(f"the metrics do not answer: {error}") from error
        return float(result[0]["value"][1]) if result else 0.0


def watch(count: Callable[[str, float], Counted], model: str, asked: Canary, say: Callable[[str], None]) -> list[str]:
    """Watch a canary that gets requests, until it is certain that it is worse, or its time is over; the figures.

    `count` gives what a Deployment has answered in the last seconds.

    Raises:
        DecidedError: it is worse, or it got too few requests to say so.
        PipelineError: the figures cannot be had.
    """
    began, told = time.monotonic(), -60.0
    while True:
        time.sleep(SECONDS_BETWEEN)
        passed = time.monotonic() - began
        canary, production = (count(f"{model}-{stage}", passed) for stage in ("canary", "production"))
        found = compare(canary, production, asked) if canary.requests else []
        if worse := [str(one) for one in found if one.is_worse]:
            raise DecidedError(f"the canary is worse, after {canary.requests} requests: {'; '.join(worse)}")
        if passed - told >= 60:
            told = passed
            say(f"{canary.requests} requests; {'; '.join(map(str, found))}" if found else "no requests yet")
        if passed < asked.minutes * 60:
            continue
        if canary.requests >= asked.requests:
            if worse := [str(one) for one in found if one.looks_worse]:
                raise DecidedError(f"the canary is worse, of {canary.requests} requests: {'; '.join(worse)}")
            return [f"{canary.requests} requests", *map(str, found)]
        if passed >= asked.patience * 60:
            raise DecidedError(
                f"the canary got {canary.requests} requests in {asked.patience:g} minutes, fewer than the"
                f" {asked.requests} that say something"
            )
