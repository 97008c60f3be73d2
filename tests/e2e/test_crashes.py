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

from tests.e2e.deployment import WHOLE, found, left_in_databases

if TYPE_CHECKING:
    from collections.abc import Callable

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud
    from tests.e2e.deployment import Run, Stack
    from tests.e2e.fault_proxy import Call, Moment, Proxy

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
        self._victim: Call | None = None
        self._proxy = proxy

    def kill(self, stack: Stack, verb: str, death: Death) -> tuple[str, Call | None]:
        """Run a command until its request; what it printed, and where it died, None if it got through."""
        self._death, self._remaining, self._victim, self._run = death, next(self._at), None, None
        self._started.clear()
        self._proxy.watch = self._watch
        try:
            self._run = stack.start(verb, "--yes", "--skip-preview")
            self._started.set()
            outcome = self._run.end()
        finally:
            self._proxy.watch = lambda _call, _moment: False
        assert outcome.status == (-9 if self._victim else 0), outcome.output
        assert "Traceback" not in outcome.output, outcome.output
        return outcome.output, self._victim

    def _watch(self, call: Call, moment: Moment) -> bool:
        if moment == "sent":
            with self._lock:
                self._remaining -= 1
                if self._remaining == 0:
                    self._victim = call
        if call is not self._victim:
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
    devcloud: Devcloud,
    student: Connection,
    proxy: Proxy,
    stack: Stack,
    record_property: Callable[[str, object], None],
) -> None:
    killer = Killer(proxy)
    deaths = itertools.cycle(DEATHS)
    killed: dict[str, list[tuple[Death, Call]]] = {"up": [], "destroy": []}
    began = time.monotonic()

    while sum(map(len, killed.values())) < ENOUGH:
        for verb, points in killed.items():
            while True:
                death = next(deaths)
                output, victim = killer.kill(stack, verb, death)
                if victim is None:
                    break
                print(f"{time.monotonic() - began:6.1f} s  {verb} killed: {death:8} {victim}")
                points.append((death, victim))
            print(output)
            assert "interrupted" not in output or "warning" not in output.lower(), output
            if verb == "up":
                made = Counter(kind for kind, _ in found(student, stack.name))
                assert made == WHOLE, f"{verb}: {made}"
                stack.run("preview", "--expect-no-changes")

    left = sum(found(student, stack.name).values()) + left_in_databases(devcloud, stack.name)
    assert "Nothing is left" in stack.run("sweep").output
    by_death = Counter(death for points in killed.values() for death, _ in points)
    record_property(
        "figures",
        f"crashes on devcloud: {len(killed['up'])} kills in up, {len(killed['destroy'])} in destroy "
        f"({', '.join(f'{count} {death}' for death, count in by_death.items())}), "
        f"0 duplicates, {left} orphans, {time.monotonic() - began:.0f} s",
    )
    assert left == 0
