"""Verdicts: what a gate says of a model, by which of the test rows it was right about."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from services.promotion.gates import Gate

ROWS = 1_000_000
HALVINGS = 40
Right = Annotated[str, Field(pattern="^[01]+$", max_length=ROWS)]
"""`1` for each row that the model was right about, `0` for the others, in the order of the rows."""
Name = Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,100}$")]
STRICT = ConfigDict(extra="forbid", frozen=True)


class Baseline(BaseModel):
    """What production's version says of the same rows."""

    model_config = STRICT
    version: int
    right: Right


class Evidence(BaseModel):
    """What was measured of a run's model."""

    model_config = STRICT
    run: Name
    test: Name
    """Names the test rows and their order: what was measured on the same rows can be compared."""
    right: Right
    columns: dict[str, list[str]] = {}
    """The group of each row, for every column that the gate has slices of."""
    figures: dict[str, float] = {}
    """What else was measured, such as `latency_ms`."""
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        rows = len(self.right)
        wrong = [f"column {name} has {len(column)}" for name, column in self.columns.items() if len(column) != rows]
        if self.baseline and len(self.baseline.right) != rows:
            wrong.append(f"the baseline has {len(self.baseline.right)}")
        if wrong:
            raise ValueError(f"there are {rows} test rows; {', '.join(wrong)}")
        return self


@dataclass(frozen=True)
class Compared:
    """What production's version is right about, on the same rows."""

    version: int
    right: str


@dataclass
class Verdict:
    """What the gate says, and why."""

    figures: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the gate passes it."""
        return not self.reasons


def judge(gate: Gate, evidence: Evidence, production: Compared | None) -> Verdict:
    """What a gate says of a model; `production` is None where nothing is served. Gives every reason against it."""
    made = Verdict()
    right = [one == "1" for one in evidence.right]
    score = fmean(right)
    made.figures = {"rows": len(right), gate.score.name: score}
    if len(right) < gate.score.rows:
        made.reasons.append(f"{len(right)} test rows, fewer than {gate.score.rows}")
    if score < gate.score.minimum:
        made.reasons.append(f"{gate.score.name} {score:.4f}, below {gate.score.minimum:g}")
    _judge_slices(gate, evidence, right, made)
    for name, most in gate.budgets.items():
        measured = evidence.figures.get(name)
        if measured is None:
            made.reasons.append(f"{name} was not measured")
        elif not measured <= most:  # nor what is no number
            made.reasons.append(f"{name} {measured:g}, above {most:g}")
    made.figures |= evidence.figures
    if gate.production and production:
        found, reason = compare(gate, evidence.right, production)
        made.figures["production"] = found
        made.reasons += [reason] if reason else []
    return made


def _judge_slices(gate: Gate, evidence: Evidence, right: list[bool], made: Verdict) -> None:
    for column in {**gate.slices, **gate.fairness}:
        if column not in evidence.columns:
            made.reasons.append(f"the column {column} was not sent")
            continue
        groups: dict[str, list[bool]] = {}
        for group, one in zip(evidence.columns[column], right, strict=True):
            groups.setdefault(group, []).append(one)
        shares = {group: fmean(rows) for group, rows in sorted(groups.items())}
        made.figures[column] = shares
        if wanted := gate.slices.get(column):
            few = {group: len(rows) for group, rows in sorted(groups.items()) if len(rows) < wanted.rows}
            made.reasons += [
                f"{column} {group} has {rows} rows, fewer than {wanted.rows}" for group, rows in few.items()
            ]
            made.reasons += [
                f"{gate.score.name} of {column} {group} {share:.4f}, below {wanted.minimum:g}"
                for group, share in shares.items()
                if share < wanted.minimum and group not in few
            ]
        if allowed := gate.fairness.get(column):
            low, high = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
            if shares[high] - shares[low] > allowed.gap:
                made.reasons.append(
                    f"{column} {low} {shares[low]:.4f}, {high} {shares[high]:.4f}: more than {allowed.gap:g} apart"
                )


def compare(gate: Gate, right: str, production: Compared) -> tuple[dict[str, Any], str]:
    """How much better or worse than production a model is on the same rows; and why it is refused, if it is."""
    assert gate.production
    confidence, margin = gate.production.confidence, gate.production.margin
    difference, least = worst(right, production.right, confidence)
    found = {"version": production.version, "difference": difference, "at_least": least, "confidence": confidence}
    if least >= -margin:
        return found, ""
    return found, (
        f"up to {-least:.4f} worse than production's version {production.version} on the same {len(right)} rows, with"
        f" {confidence:.0%} confidence: more than {margin:g}"
    )


def worst(one: str, other: str, confidence: float) -> tuple[float, float]:
    """The difference of two models' shares on the same rows, and the least that it is with a one-sided confidence.

    Tango's score interval for matched pairs (Statistics in Medicine 17, 1998, pages 891 to 908), which keeps what it
    promises for few rows, and where the models differ on few.
    """
    rows = len(one)
    better = sum(a > b for a, b in zip(one, other, strict=True))
    worse = sum(a < b for a, b in zip(one, other, strict=True))
    wanted = NormalDist().inv_cdf(confidence)
    low, high = -1.0, (better - worse) / rows
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(better, worse, rows, middle) > wanted else (low, middle)
    return (better - worse) / rows, low


def _score(better: int, worse: int, rows: int, difference: float) -> float:
    """How many standard errors the difference found is above another, if that were the true one."""
    b = (2 * rows - better + worse) * difference - better - worse
    c = -worse * difference * (1 - difference)
    only_other = (sqrt(max(0.0, b * b - 8 * rows * c)) - b) / (4 * rows)
    variance = rows * (2 * only_other + difference * (1 - difference))
    return (better - worse - rows * difference) / sqrt(variance) if variance > 0 else 0.0
