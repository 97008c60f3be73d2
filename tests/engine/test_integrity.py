"""The order of a state, and that nothing works with a damaged one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.integrity import problems
from tests.engine.harness import wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance

PROGRAM = """
    provider = Provider("own", region="r1")
    box = Box("box")
    a = Thing("a", opts=ResourceOptions(parent=box, provider=provider))
    b = Thing("b", value=a.id, opts=ResourceOptions(parent=a, provider=provider))
    c = Thing("c", opts=ResourceOptions(depends_on=[b]))
"""


def resources(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.export()["deployment"]["resources"])


@conformance(
    feature="state order",
    cli="What a resource refers to (provider, parent, dependencies) comes before it in the state, after a refresh too.",
)
def test_a_refresh_keeps_the_order_of_the_state(stack: Stack) -> None:
    stack.program(PROGRAM)
    stack.up()
    before = [resource["urn"] for resource in resources(stack)]
    # The parent is read last.
    stack.control(hold={"a": ["read"]})
    refresh = stack.start(*stack.operation("refresh"))
    wait_for(lambda: stack.held("a.read") and stack.calls("read", "c", event="end"), "the others to be read")
    stack.release("a.read")
    assert stack.finish(refresh).exit_code == 0
    assert [resource["urn"] for resource in resources(stack)] == before
    stack.control()
    stack.refresh("--target", "**::a", "--target", "**::b")
    assert [resource["urn"] for resource in resources(stack)] == before
    stack.program(PROGRAM + '    raise Exception("stop")\n')
    stack.up("--refresh", ok=False)
    assert not list(problems(resources(stack)))
    stack.import_(stack.export())
    stack.vanish("b")
    stack.program(PROGRAM)
    stack.up("--refresh")
    assert not list(problems(resources(stack)))


@conformance(
    feature="state order",
    cli="A state whose resources come before what they refer to is refused.",
    engine="is put in order by the next command",
)
def test_a_state_out_of_order_is_put_in_order(stack: Stack) -> None:
    stack.program(PROGRAM)
    stack.up()
    exported = stack.export()
    exported["deployment"]["resources"].reverse()
    refused = stack.import_(exported, ok=False)
    assert "comes after it" in refused.stderr
    stack.import_(exported, "--force")
    stack.up("--expect-no-changes")
    assert not list(problems(resources(stack)))
    stack.destroy()
    assert stack.existing() == {}


def test_a_damaged_state_is_not_worked_with(stack: Stack) -> None:
    stack.program(PROGRAM)
    stack.up()
    exported = stack.export()
    exported["deployment"]["resources"] = [r for r in exported["deployment"]["resources"] if r["urn"][-3:] != "::a"]
    stack.import_(exported, "--force")
    for verb in (stack.preview, stack.up, stack.refresh, stack.destroy):
        refused = verb(ok=False)
        assert "parent urn:pulumi:dev::conformance::test:index:Box$testbed:index:Thing::a is missing" in refused.stderr
        assert "lab state import" in refused.stderr
    assert set(stack.existing()) == {"a", "b", "c"}
