"""What the embedded engine does not have, it refuses by name, before anything is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance
pytestmark = pytest.mark.skipif(ENGINE == "pulumi", reason="the Pulumi CLI has these features")


@conformance(feature="remote components", cli="Runs Construct on the provider's plugin.", engine="refused by name")
def test_remote_component(stack: Stack) -> None:
    stack.program('ComponentResource("testbed:index:Remote", "far", {}, remote=True)')
    for attempt in (stack.preview, stack.up):
        outcome = attempt(ok=False)
        assert "remote component" in outcome.text.lower()
        assert "testbed:index:Remote" in outcome.text
        assert "Traceback" not in outcome.messages
    assert stack.state() == {}


@conformance(feature="method calls", cli="Runs Call on the provider's plugin.", engine="refused by name")
def test_call(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        export("r", pulumi.runtime.call("testbed:index:Thing/method", {"__self__": a}, a))
    """)
    outcome = stack.up(ok=False)
    assert "testbed:index:Thing/method" in outcome.text
