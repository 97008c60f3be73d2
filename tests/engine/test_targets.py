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


@conformance(
    feature="`--target`",
    cli="An untargeted resource that needed another one in the state keeps it, whether the program still registers it, "
    "before or after, or not at all.",
    engine="the CLI stops with `Duplicate resource URN` where it is registered after",
)
def test_target_with_a_bystander_whose_edge_is_gone(stack: Stack) -> None:
    stack.program("""
        a = Thing("a", value=1)
        b = Thing("b", value=a.id)
        c = Thing("c", value=1)
    """)
    stack.up()
    before = stack.existing()
    # Registered after, as it was and with changes; then not at all.
    for n, program in enumerate(
        (
            'b = Thing("b", value="lit"); a = Thing("a", value=1); c = Thing("c", value={n})',
            """
            b = Thing("b", value="lit")
            a = Thing("a", value=9, opts=ResourceOptions(depends_on=[b]))
            c = Thing("c", value={n})
            """,
            'b = Thing("b", value="lit"); c = Thing("c", value={n})',
        ),
        2,
    ):
        stack.program(program.format(n=n))
        up = stack.up("--target", urn("c"))
        assert "Duplicate" not in up.text
        after = stack.existing()
        assert after["c"]["inputs"]["value"] == n
        assert (after["a"], after["b"]) == (before["a"], before["b"])
    stack.program('b = Thing("b", value="lit"); a = Thing("a", value=5); c = Thing("c", value=1)')
    stack.up("--target", urn("a"))
    assert stack.existing()["a"]["inputs"]["value"] == 5
    assert stack.existing()["b"] == before["b"]
    stack.program('b = Thing("b", value="lit"); Thing("z", value=5, opts=ResourceOptions(aliases=[Alias(name="a")]))')
    stack.up("--target", urn("c"), "--target", urn("b"))
    after = stack.existing()
    assert (set(after), after["b"]["inputs"]["value"]) == ({"a", "b"}, "lit")
    assert "a" not in stack.state()


@conformance(
    feature="`--replace`",
    cli="The old resource is deleted first where the provider's diff says so.",
    engine="asks the provider what it would do; the CLI creates first, and fails where a name or address is exclusive",
)
def test_replace_flag_of_what_excludes_itself(stack: Stack) -> None:
    program = """
        a = Thing("a", slot="s", value={n}, opts=ResourceOptions(
            replacement_trigger={n}, replace_on_changes=["value"]))
        b = Thing("b", value=a.id)
        c = Thing("c", key=1)
    """
    stack.program(program.format(n=1))
    stack.up()
    old = stack.existing()["a"]["id"]
    stack.forget_calls()
    stack.up("--replace", urn("a"), "--replace", urn("c"))
    order = stack.order("create", "update", "delete")
    assert [step for step in order if step[1] == "a"] == [("delete", "a"), ("create", "a")]
    assert [step for step in order if step[1] == "c"] == [("create", "c"), ("delete", "c")]
    new = stack.existing()
    assert new["b"]["inputs"]["value"] == new["a"]["id"] != old
    # Its siblings: the trigger, and an update that `replace_on_changes` makes a replacement.
    stack.program(program.format(n=2))
    stack.up()
    assert stack.existing()["a"]["id"] != new["a"]["id"]
