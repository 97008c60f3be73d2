"""Every alert, made true and mended: from what is wrong to a message, and to the message that it is over.

All programs are the bundle's, with the manifests' own options; rules, intervals and what is scraped are as on a
cluster, and nothing is shortened: that takes half an hour. `lab test --monitoring` runs it and writes
docs/reference/monitoring.md.
"""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest

from tests.k8s import report
from tests.k8s.chain import Chain
from tests.k8s.faults import Fault, Faults
from tests.k8s.monitors import LOG_RULES, RULES
from tests.k8s.planted import surfaces
from tests.k8s.test_alerts import MOST_SECONDS, alerts_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

WATCHDOG = "Watchdog"
GRACE = 120
"""After how many seconds without a heartbeat a service tells its people."""
NAMED = sorted(
    rule["alert"] for folder in (RULES, LOG_RULES) for path in folder.glob("*.yaml") for rule in alerts_of(path)
)


@dataclass
class Outcome:
    """Seconds from a fault to its message, and from its mending to the message that it is over; or what went wrong."""

    fault: Fault
    told: float = 0
    over: float = 0
    failure: str = ""


class Day:
    """All faults, each in a thread of its own, as soon as those before it are over."""

    def __init__(self, chain: Chain, faults: list[Fault]) -> None:
        self.chain = chain
        self.outcomes = {one.alert: Outcome(one) for one in faults}
        self._done = {one.alert: threading.Event() for one in faults}

    def go(self) -> None:
        """Until all are over."""
        threads = [threading.Thread(target=self._lived, args=(one,), daemon=True) for one in self.outcomes.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _lived(self, outcome: Outcome) -> None:
        try:
            for name in outcome.fault.after:
                if name in self._done:
                    self._done[name].wait()
            self._live(outcome)
        except Exception:  # whatever it is, the others go on, and the report says it
            outcome.failure = traceback.format_exc()
        finally:
            self._done[outcome.fault.alert].set()
            said = outcome.failure.splitlines()[-1:] or [f"told {outcome.told:.0f} s, over {outcome.over:.0f} s"]
            print(f"{outcome.fault.alert}: {said[0]}", flush=True)

    def _live(self, outcome: Outcome) -> None:
        fault, heard = outcome.fault, self.chain.heard
        self._until(lambda: None if self.chain.active(fault.alert, fault.labels) else 1.0, 400, "it is not so before")
        began = time.monotonic()
        fault.makes()
        made = time.monotonic() if fault.slowly else began
        came = self._until(
            lambda: heard.first("firing", fault.alert, fault.labels, began), fault.seconds, "the message"
        )
        outcome.told = came - made
        fault.mends()
        mended = time.monotonic()
        ended = self._until(
            lambda: heard.first("resolved", fault.alert, fault.labels, came), 900, "the message that it is over"
        )
        outcome.over = max(ended - mended, 0)

    @staticmethod
    def _until(ask: Callable[[], float | None], seconds: float, what: str) -> float:
        deadline = time.monotonic() + seconds
        while True:
            if (found := ask()) is not None:
                return found
            assert time.monotonic() < deadline, f"{seconds:.0f} s without {what}"
            time.sleep(0.2)


def dead_mans_switch(chain: Chain, outcome: Outcome) -> None:
    """What evaluates the rules is killed: the heartbeat is missed; it is started, and the heartbeat comes."""
    deadline = time.monotonic() + 90
    while not (beats := chain.heard.times("beat")) or time.monotonic() - beats[-1] > 2:
        assert time.monotonic() < deadline, "no heartbeat"
        time.sleep(0.2)
    command, began = chain.monitors.stop("rules"), time.monotonic()
    deadline = began + 900
    while time.monotonic() - chain.heard.times("beat")[-1] < GRACE:
        assert time.monotonic() < deadline, "the heartbeat goes on"
        time.sleep(0.2)
    outcome.told, before = time.monotonic() - began, len(chain.heard.times("beat"))
    chain.monitors.launch("rules", [*command[3:]], chain.monitors.ports["rules"])
    mended = time.monotonic()
    while len(chain.heard.times("beat")) == before:
        assert time.monotonic() < mended + 180, "no heartbeat again"
        time.sleep(0.2)
    outcome.over = time.monotonic() - mended


@pytest.fixture(scope="module")
def day(
    chain: Chain, faults: list[Fault], request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> dict[str, Outcome]:
    """All alerts', or of those whose tests are asked for by name (`-k`)."""
    wanted = {item.callspec.params["alert"] for item in request.session.items if hasattr(item, "callspec")} or {*NAMED}
    lived = Day(chain, [one for one in faults if one.alert in wanted])
    lived.go()
    outcomes = lived.outcomes
    memory = chain.monitors.memory()
    if WATCHDOG in wanted:
        outcomes[WATCHDOG] = Outcome(Fault(WATCHDOG, "vmalert is killed; it is started", lambda: None, lambda: None))
        try:
            dead_mans_switch(chain, outcomes[WATCHDOG])
        except AssertionError:
            outcomes[WATCHDOG].failure = traceback.format_exc()
    target = pytestconfig.getoption("--monitoring-report")
    kept = report.rows(target, "Alerts") if target else {}
    rows: dict[str, tuple[str, ...]] = {
        f"`{name}`": (
            f"`{name}`", one.fault.how, *(("no message", "") if one.failure else (f"{one.told:.0f}", f"{one.over:.0f}"))
        )
        for name, one in outcomes.items()
    }  # fmt: skip
    others = sorted(name for name in kept if name not in rows and name.strip("`") in NAMED)
    only = f"Of this run are {', '.join(sorted(rows))}; the others are of a run before it.\n\n" if others else ""
    rows = {**{name: row for name, row in kept.items() if name.strip("`") in NAMED}, **rows}
    text = report.table(("alert", "fault, and how it is mended", "told after s", "over after s"), sorted(rows.values()))
    used = {name: memory[name] for name in ("metrics", "rules", "log-rules", "alerts", "logs", "agent", "state")}
    text += "\n" + report.table(("program", "MiB resident"), [(name, f"{size:.0f}") for name, size in used.items()])
    print(f"\n{text}", flush=True)
    if target:
        report.write(target, "Alerts", NOTE + only + text)
    return outcomes


NOTE = """\
Each fault is made, waited for and mended with the rules as they are. *told*: from the fault to the message at a
webhook. *over*: from its mending to the message that it is over; rules that look back minutes are over minutes later.
Nodes' and pods' states, a node's memory, clock and kernel's log are told in their place: no process has its own.

"""


def test_no_alert_is_without_a_fault(tmp_path: Path) -> None:
    told = [one.alert for one in Faults(Chain(tmp_path, cast("ControlPlane", None))).all()]
    assert sorted([*told, WATCHDOG]) == NAMED


@pytest.mark.slow_monitoring
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("alert", NAMED)
def test_it_comes_and_it_goes(day: dict[str, Outcome], alert: str) -> None:
    assert not day[alert].failure, day[alert].failure


@pytest.mark.slow_monitoring
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("day")
def test_no_fault_made_a_program_tell_a_secret(chain: Chain) -> None:
    """But for Alertmanager's own log, which names receivers that refuse messages, and is not collected."""
    found = {where: chain.planted.found(text) for where, text in surfaces(chain)}
    assert {where for where, hits in found.items() if hits} <= {"log of alerts"}


@pytest.mark.slow_monitoring
@pytest.mark.timeout(3600)
def test_a_model_that_answers_errors_is_told_within_a_minute(day: dict[str, Outcome]) -> None:
    assert 0 < day["ModelAnswersErrors"].told <= MOST_SECONDS
