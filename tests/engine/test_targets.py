"""`--target`, `--target-dependents`, `--replace`, `--exclude`: what they touch and what they leave alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance

PROGRAM = """
    a = Thing("a", value={n})
    b = Thing("b", value=a.computed, other={n})
    c = Thing("c", value={n})
"""


def urn(name: str) -> str:
    return f"urn:pulumi:dev::conformance::testbed:index:Thing::{name}"


@pytest.fixture
def deployed(stack: Stack) -> Stack:
    stack.program(PROGRAM.format(n=1))
    stack.up()
    return stack


def values(stack: Stack) -> dict[str, object]:
    return {name: record["inputs"].get("other", record["inputs"]["value"]) for name, record in stack.existing().items()}


@conformance(
    feature="`--target`", cli="Only the named resources are updated, deleted or refreshed; the others stay as they are."
)
def test_target_limits_update_and_destroy(deployed: Stack) -> None:
    deployed.program(PROGRAM.format(n=2))
    plan = deployed.preview("--target", urn("a"))
    assert [step for step in plan.planned if step[0] != "same"] == [("update", "a")]
    deployed.up("--target", urn("a"))
    assert values(deployed) == {"a": 2, "b": 1, "c": 1}
    deployed.up("--target", urn("b"), "--target", urn("c"))
    assert values(deployed) == {"a": 2, "b": 2, "c": 2}
    deployed.destroy("--target", urn("c"))
    assert set(deployed.existing()) == {"a", "b"}
    assert set(deployed.state()) >= {"a", "b"}
    assert "c" not in deployed.state()


@conformance(feature="`--target`", cli="With a wildcard, every resource whose URN matches.")
def test_target_wildcard(deployed: Stack) -> None:
    deployed.program(PROGRAM.format(n=2))
    deployed.up("--target", "**::c")
    assert values(deployed) == {"a": 1, "b": 1, "c": 2}


@conformance(
    feature="`--target`", cli="A created resource that a target needs but that is not targeted itself is an error."
)
def test_target_that_needs_an_untargeted_creation(deployed: Stack) -> None:
    deployed.program(PROGRAM.format(n=1) + '    d = Thing("d")\n    e = Thing("e", value=d.id)\n')
    up = deployed.up("--target", urn("e"), ok=False)
    assert urn("d") in up.messages
    assert "d" not in deployed.existing()
    assert "e" not in deployed.existing()


@conformance(feature="`--target`", cli="Refresh of a target reads that resource only.")
def test_target_limits_refresh(deployed: Stack) -> None:
    deployed.drift("a", value="drifted")
    deployed.drift("c", value="drifted")
    deployed.forget_calls()
    deployed.refresh("--target", urn("c"))
    assert [call["name"] for call in deployed.calls("read")] == ["c"]
    assert deployed.state()["c"]["outputs"]["value"] == "drifted"
    assert deployed.state()["a"]["outputs"]["value"] == 1


@conformance(
    feature="`--target-dependents`",
    cli="What depends on the targets is taken along; without it, a destroy of a target with dependents fails.",
)
def test_target_dependents(deployed: Stack) -> None:
    refused = deployed.destroy("--target", urn("a"), ok=False)
    assert urn("b") in refused.messages or "'b'" in refused.messages
    assert set(deployed.existing()) == {"a", "b", "c"}
    deployed.program(PROGRAM.format(n=2))
    deployed.up("--target", urn("a"), "--target-dependents")
    assert values(deployed) == {"a": 2, "b": 2, "c": 1}
    deployed.destroy("--target", urn("a"), "--target-dependents")
    assert set(deployed.existing()) == {"c"}


@conformance(feature="`--replace`", cli="The named resources are replaced though unchanged; nothing else is forced.")
def test_replace_flag(deployed: Stack) -> None:
    before = deployed.existing()
    up = deployed.up("--replace", urn("a"))
    assert up.changes["replace"] == 1
    after = deployed.existing()
    assert after["a"]["id"] != before["a"]["id"]
    assert after["b"]["id"] == before["b"]["id"]
    assert after["b"]["inputs"]["value"] == f"{after['a']['id']}:1"
    assert after["c"] == before["c"]
