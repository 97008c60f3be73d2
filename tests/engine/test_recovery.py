"""Creates that a killed engine left behind: found, completed, or warned of."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE, wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Outcome, Stack

pytestmark = pytest.mark.skipif(ENGINE != "embedded", reason="the Pulumi CLI looks nothing up")
SIGKILLED = -9


def crash(stack: Stack, point: str) -> None:
    stack.env["TESTBED_CRASH"] = point
    assert stack.up(ok=None).exit_code == SIGKILLED
    del stack.env["TESTBED_CRASH"]


def warnings(outcome: Outcome) -> list[str]:
    return [
        event["message"]
        for event in outcome.of_kind("diagnosticEvent")
        if event["severity"] == "warning" and "interrupted" in event["message"]
    ]


@pytest.mark.parametrize(("point", "change"), [("1:before", "create"), ("1:half", "update"), ("1:after", "same")])
def test_an_interrupted_create_is_completed(stack: Stack, point: str, change: str) -> None:
    """What a create of two requests has made by the first lacks what the second was to bring."""
    stack.env["TESTBED_RECOVERS"] = "yes"
    stack.program('Thing("a", late="tag")')
    crash(stack, point)
    up = stack.up()
    assert up.changes[change] >= 1
    assert stack.existing()["a"]["inputs"]["late"] == "tag"
    assert warnings(up) == []
    assert set(stack.up().changes) == {"same"}
    stack.destroy()
    assert stack.existing() == {}


@pytest.mark.parametrize("failure", ["create-unknown", "create-death"])
@pytest.mark.parametrize("verb", ["up", "destroy"])
def test_a_create_of_unknown_outcome_is_looked_up(stack: Stack, failure: str, verb: str) -> None:
    """Not only a killed engine leaves one: an answer may be lost for good, or a provider die."""
    stack.env["TESTBED_RECOVERS"] = "yes"
    stack.program('Thing("a")')
    stack.control(fail={"a": [failure]})
    assert stack.up(ok=False).exit_code != 0
    assert set(stack.existing()) == {"a"}
    stack.control()
    if verb == "up":
        assert set(stack.up().changes) == {"same"}
        assert set(stack.existing()) == {"a"}
        assert "pending_operations" not in stack.export()["deployment"]
    stack.destroy()
    assert stack.existing() == {}


def test_a_half_made_resource_is_destroyed(stack: Stack) -> None:
    stack.env["TESTBED_RECOVERS"] = "yes"
    stack.program('Thing("a", late="tag")')
    crash(stack, "1:half")
    assert set(stack.existing()) == {"a"}
    stack.destroy()
    assert stack.existing() == {}


def test_an_unknown_outcome_is_told_once_a_resource(stack: Stack) -> None:
    stack.program('Thing("a"); Thing("b")')
    for _ in range(2):
        stack.control(hold={"a": ["create"]})
        process = stack.start(*stack.operation("up"))
        wait_for(lambda: stack.held("a.create") and "b" in stack.state(), "the create of a")
        (stack.world / "held" / "a.create").unlink()
        process.signal(signal.SIGKILL)
        process.process.wait()
        for pid in {call["pid"] for call in stack.calls()}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    stack.control()
    assert len(stack.export()["deployment"]["pending_operations"]) == 2
    (warning,) = warnings(stack.up())
    assert "`lab sweep`" in warning
    # Nothing is known of it after a destroy either.
    assert len(warnings(stack.destroy())) == 1
    assert len(stack.export()["deployment"]["pending_operations"]) == 2
    stack.env["TESTBED_RECOVERS"] = "yes"
    (warning,) = warnings(stack.up())
    assert "its provider is not in the state any more" in warning
    assert warnings(stack.up()) == []
    assert "pending_operations" not in stack.export()["deployment"]


REPLACED = """
    server = Thing("server", key={key!r}, opts=ResourceOptions(delete_before_replace=True))
    Thing("cluster", value=server.computed, opts=ResourceOptions(depends_on=[server]))
"""


@pytest.mark.parametrize("point", ["1:before", "1:after"])
@pytest.mark.parametrize("verb", ["up", "destroy"])
def test_a_replacement_that_was_killed_at_its_delete_goes_on(stack: Stack, point: str, verb: str) -> None:
    """What stays refers to what went: the state keeps its place, whether or not the delete was heard of."""
    stack.program(REPLACED.format(key="a"))
    stack.up()
    stack.program(REPLACED.format(key="b"))
    (stack.world / "mutations").unlink()
    crash(stack, point)
    if verb == "up":
        assert warnings(stack.up()) == []
        assert {name: found["inputs"].get("key") for name, found in stack.existing().items()} == {
            "server": "b",
            "cluster": None,
        }
        assert set(stack.up().changes) == {"same"}
    stack.destroy()
    assert stack.existing() == {}


DYNAMIC = """
    import os, pathlib, signal, time
    from pulumi.dynamic import *

    WORLD = pathlib.Path(os.environ["TESTBED_WORLD"])

    class Files(ResourceProvider):
        def create(self, props):
            (WORLD / props["path"]).write_text("content")
            if "FAIL" in os.environ:
                raise Exception("the answer was lost")
            if "CRASH" in os.environ:
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            return CreateResult(props["path"], props)
        def diff(self, id, olds, news):
            return DiffResult(changes=olds["path"] != news["path"])
        def delete(self, id, props):
            (WORLD / id).unlink()
        def read(self, id, props):
            found = (WORLD / props["path"]).exists()
            return ReadResult(props["path"], props) if found else ReadResult("", {{}})

    class File(Resource):
        def __init__(self, name, path):
            super().__init__(Files(), name, {{"path": path, {recovers}}})

    File("f", "one.txt")
"""


def test_a_dynamic_resource_can_be_looked_up(stack: Stack) -> None:
    stack.env["CRASH"] = "yes"
    stack.program(DYNAMIC.format(recovers='"__recovers": True'))
    assert stack.up(ok=None).exit_code == SIGKILLED
    del stack.env["CRASH"]
    up = stack.up()
    assert (up.changes, warnings(up)) == ({"same": 2}, [])
    assert "pending_operations" not in json.dumps(stack.export())
    stack.destroy()
    assert not (stack.world / "one.txt").exists()


def test_a_dynamic_resource_whose_create_failed_is_looked_up(stack: Stack) -> None:
    stack.env["FAIL"] = "yes"
    stack.program(DYNAMIC.format(recovers='"__recovers": True'))
    assert "the answer was lost" in stack.up(ok=False).text
    stack.destroy()
    assert not (stack.world / "one.txt").exists()


def test_saying_that_it_can_be_looked_up_changes_no_dynamic_resource(stack: Stack) -> None:
    stack.program(DYNAMIC.format(recovers=""))
    stack.up()
    stack.program(DYNAMIC.format(recovers='"__recovers": True'))
    assert set(stack.up().changes) == {"same"}
