"""What a gate says of a model, of the rows that it is right about."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from services.promotion.errors import InvalidError
from services.promotion.gates import Folder, Gate, parsed
from services.promotion.verdicts import Compared, Evidence, judge, worst

ROWS = 200
STRICT = {
    "score": {"minimum": 0.9}, "slices": {"town": {"minimum": 0.8}}, "fairness": {"town": {"gap": 0.1}},
    "production": {"margin": 0.02}, "budgets": {"latency_ms": 10},
}  # fmt: skip


def right(*wrong: int, rows: int = ROWS) -> str:
    return "".join("0" if row in wrong else "1" for row in range(rows))


def evidence(bits: str, **more: Any) -> Evidence:
    towns = ["A", "B"] * (len(bits) // 2)
    return Evidence(run="r1", test="t1", right=bits, columns={"town": towns}, figures={"latency_ms": 3}, **more)


def test_a_good_model_passes_with_all_its_figures() -> None:
    verdict = judge(Gate.model_validate(STRICT), evidence(right(0, 1)), Compared(4, right(0, 5)))
    assert verdict.passed
    assert verdict.figures["accuracy"] == pytest.approx(0.99)
    assert verdict.figures["town"] == {"A": pytest.approx(0.99), "B": pytest.approx(0.99)}
    assert verdict.figures["latency_ms"] == 3
    assert verdict.figures["production"]["difference"] == 0
    assert -0.02 < verdict.figures["production"]["at_least"] < 0


def test_every_reason_is_given() -> None:
    bad = Evidence(run="r1", test="t1", right=right(*range(0, 60, 2)), columns={"town": ["A", "B"] * 100}, figures={})
    verdict = judge(Gate.model_validate(STRICT), bad, Compared(4, right()))
    assert verdict.reasons == [
        "accuracy 0.8500, below 0.9", "accuracy of town A 0.7000, below 0.8",
        "town A 0.7000, B 1.0000: more than 0.1 apart", "latency_ms was not measured",
        "up to 0.1962 worse than production's version 4 on the same 200 rows, with 95% confidence: more than 0.02",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "more", "reason"),
    [
        (right(rows=50), {}, "50 test rows, fewer than 100"),
        (right(), {"columns": {}}, "the column town was not sent"),
        (right(), {"columns": {"town": ["A"] * 197 + ["B"] * 3}}, "town B has 3 rows, fewer than 5"),
        (right(), {"figures": {"latency_ms": 10.5}}, "latency_ms 10.5, above 10"),
        (right(), {"figures": {"latency_ms": float("nan")}}, "latency_ms nan, above 10"),
    ],
)
def test_what_says_too_little_is_refused(bits: str, more: dict[str, Any], reason: str) -> None:
    told = {**evidence(bits).model_dump(), **more}
    assert reason in judge(Gate.model_validate(STRICT), Evidence.model_validate(told), None).reasons


def test_the_interval_keeps_its_promise() -> None:
    """Of models that are as much worse as the margin allows, at most one of twenty passes."""
    chance, passed, tries = random.Random(7), 0, 2000  # noqa: S311
    for _ in range(tries):
        kinds = chance.choices(("11", "10", "01", "00"), (0.9, 0.01, 0.06, 0.03), k=360)
        _, least = worst("".join(kind[0] for kind in kinds), "".join(kind[1] for kind in kinds), 0.95)
        passed += least >= -0.05
    assert passed / tries <= 0.05


def test_models_that_are_always_or_never_right_are_compared() -> None:
    assert worst("0" * 100, "1" * 100, 0.95) == (-1, -1)
    difference, least = worst("1" * 100, "1" * 100, 0.95)
    assert difference == 0
    assert least == pytest.approx(-0.0263, abs=0.0001)


def test_evidence_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValidationError, match="there are 4 test rows; column town has 1, the baseline has 3"):
        Evidence(run="r", test="t", right="1111", columns={"town": ["A"]}, baseline={"version": 1, "right": "101"})  # type: ignore[arg-type]


def test_all_faults_of_a_gate_are_told() -> None:
    with pytest.raises(InvalidError) as refused:
        parsed("{score: {minimum: 95}, production: {confidence: 0.95}, slice: {}}", "gate.yaml")
    for fault in ("score.minimum: ", "production.margin: Field required", "slice: Extra inputs are not permitted"):
        assert fault in str(refused.value)
    with pytest.raises(InvalidError, match=r"gate\.yaml is not YAML"):
        parsed("{", "gate.yaml")


def test_every_model_of_the_platform_has_a_gate() -> None:
    from infra.manifests import TREE  # noqa: PLC0415

    gates = Folder(TREE / "models")
    assert gates.models() == {path.parent.name for path in (TREE / "models").glob("*/kustomization.yaml")}
    assert all(gates.of(model).production for model in gates.models())
