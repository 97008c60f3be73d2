"""Whether a canary is worse, by what was counted."""

from __future__ import annotations

import random

import pytest

from services.pipelines import analysis
from services.pipelines.analysis import Counted, compare, least, watch
from services.pipelines.errors import DecidedError
from services.pipelines.settings import Canary

CANARY = Canary()
LOOKS, OF_CANARY, OF_PRODUCTION = 120, 8, 72
"""Ten minutes, looked at every five seconds, of 16 requests a second with a share of 10 %."""


def test_the_interval_is_newcombes() -> None:
    """His own examples, of a two-sided 95 % interval: Statistics in Medicine 17, 1998, page 877, method 10."""
    for bad, of, other_bad, other_of, lower in (
        (56, 70, 48, 80, 0.0524),
        (9, 10, 3, 10, 0.1705),
        (5, 56, 0, 29, -0.0381),
    ):
        assert least(bad, of, other_bad, other_of, 0.975) == pytest.approx(lower, abs=5e-5)


def test_without_production_nothing_is_certain_by_few_requests() -> None:
    assert least(1, 1, 0, 0, 0.95) < least(20, 20, 0, 0, 0.95) < 1


def judged(share: float, other: float, seed: int) -> bool:
    """Whether a canary with a share of errors is ended, or refused at the end; beside a production with another."""
    chance = random.Random(seed)  # noqa: S311 - a simulation
    bad = other_bad = 0
    for look in range(1, LOOKS + 1):
        bad += sum(chance.random() < share for _ in range(OF_CANARY * 5))
        other_bad += sum(chance.random() < other for _ in range(OF_PRODUCTION * 5))
        canary, production = Counted(look * OF_CANARY * 5, bad, 0), Counted(look * OF_PRODUCTION * 5, other_bad, 0)
        if any(one.is_worse for one in compare(canary, production, CANARY)):
            return True
    return any(one.looks_worse for one in compare(canary, production, CANARY))


def test_who_is_as_good_stays_and_who_is_much_worse_goes() -> None:
    """In simulations of ten minutes, looked at every five seconds."""
    quiet = sum(judged(0.005, 0.005, seed) for seed in range(60))
    bad = sum(judged(0.03, 0.005, seed) for seed in range(60))
    assert quiet <= 3
    assert bad == 60


def test_a_canary_without_requests_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "SECONDS_BETWEEN", 0.01)
    asked = Canary(minutes=0.001, patience=0.002)
    with pytest.raises(DecidedError, match=r"got 7 requests in 0\.002 minutes, fewer than the 100"):
        watch(lambda *_: Counted(7, 0, 0), "digits", asked, lambda _: None)


def test_a_canary_that_slows_down_is_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "SECONDS_BETWEEN", 0.01)
    with pytest.raises(DecidedError, match=r"answers slower than 250 ms: canary 50\.00%, production 0\.00%"):
        watch(lambda name, _: Counted(100, 0, 50 if "canary" in name else 0), "digits", CANARY, lambda _: None)
