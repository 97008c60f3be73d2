"""The real program on a real cloud, ended by ``kill -9`` while it asks the cloud for changes.

One stack is brought up and destroyed. Each run is killed at its second or third request that changes something, engine,
program and providers together, and the same command is run again, until it gets through: so the kills are spread over
all that `up` and `destroy` do, by what was asked and not by the clock.

Costs some 25 runs: about 8 minutes on idle cores. Runs as root.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal

import pytest

from tests.e2e.victim import Victim

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.e2e.fault_proxy import Call, Moment, Proxy
    from tests.e2e.harness import Cloud
    from tests.e2e.victim import Outcome, Run

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]

Death = Literal["unsent", "outlived", "unheard", "heard"]
DEATHS: Final[tuple[Death, ...]] = ("outlived", "unheard", "heard", "unsent")
"""When the run dies: the cloud never gets the request; it gets it once its sender is dead and the next run is under
way; it has carried it out, and nobody hears of it; the provider has just heard of it."""
AT: Final = (2, 3)
"""The requests of runs at which they are killed, in turn. What is before gets through, so that they come further."""
STILL_ON_ITS_WAY: Final = 4.0
"""Seconds that a request takes to reach the cloud after its sender died."""
ENOUGH: Final = 20


class Killer:
    """Watches the proxy, and kills a run once."""

    def __init__(self, proxy: Proxy) -> None:
        self._death: Death = "unsent"
        self._run: Run | None = None
        self._at = itertools.cycle(AT)
        self._remaining = 0
        self._started = threading.Event()
        self._lock = threading.Lock()
        self._fatal: Call | None = None
        self._proxy = proxy

    def kill(self, victim: Victim, verb: str, death: Death) -> tuple[Outcome, Call | None]:
        """Run a verb until its request comes; how it ended, and that request, None if it got through."""
        self._death, self._remaining, self._fatal, self._run = death, next(self._at), None, None
        self._started.clear()
        self._proxy.watch = self._watch
        try:
            self._run = victim.start(verb, "--yes", "--skip-preview")
            self._started.set()
            outcome = self._run.end()
        finally:
            self._proxy.watch = lambda _call, _moment: False
        assert outcome.status == (-9 if self._fatal else 0), outcome.output
        return outcome, self._fatal

    def _watch(self, call: Call, moment: Moment) -> bool:
        if moment == "sent":
            with self._lock:
                self._remaining -= 1
                if self._remaining == 0:
                    self._fatal = call
        if call is not self._fatal:
            return False
        wanted: dict[Death, Moment] = {"unsent": "sent", "outlived": "sent", "unheard": "done", "heard": "answered"}
        if moment == wanted[self._death]:
            self._started.wait()
            assert self._run is not None
            self._run.kill()
            if self._death == "outlived":
                time.sleep(STILL_ON_ITS_WAY)
            return self._death in {"unsent", "unheard"}
        return False


def test_every_crash_on_a_real_cloud_is_survived(
    tmp_path: Path, cloud: Cloud, proxy: Proxy, record_property: Callable[[str, object], None]
) -> None:
    victim = Victim(tmp_path, cloud, "crashes", proxy.urls["keystone"])
    killer = Killer(proxy)
    deaths = itertools.cycle(DEATHS)
    killed: dict[str, list[Death]] = {"up": [], "destroy": []}
    began = time.monotonic()

    while sum(map(len, killed.values())) < ENOUGH:
        for verb, points in killed.items():
            while True:
                death = next(deaths)
                outcome, fatal = killer.kill(victim, verb, death)
                if fatal is None:
                    break
                print(f"{time.monotonic() - began:6.1f} s  {verb} killed: {death:8} {fatal}", flush=True)
                points.append(death)
            print(outcome.output)
            assert "was interrupted" not in outcome.output, outcome.output  # what is told of where nobody can tell
            if verb == "up":
                victim.assert_whole()
        left = victim.left()
        assert left == []

    by_death = ", ".join(f"{count} {death}" for death, count in Counter(itertools.chain(*killed.values())).items())
    record_property(
        "figures",
        f"crashes on devcloud: {len(killed['up'])} kills in up, {len(killed['destroy'])} in destroy ({by_death}), "
        f"0 duplicates, {len(left)} orphans, {time.monotonic() - began:.0f} s",
    )
