"""Failures and interruptions: what still happens, what is reported, what the state says afterwards."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE, wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Outcome, Stack

conformance = pytest.mark.conformance


def failed(outcome: Outcome) -> set[tuple[str, str]]:
    return {
        (event["metadata"]["op"], event["metadata"]["urn"].rsplit("::", 1)[-1])
        for event in outcome.of_kind("resOpFailedEvent")
    }


@conformance(
    feature="failure of one resource",
    cli="With `--continue-on-error` unrelated resources go on, dependents are skipped, and the command fails.",
    engine="continues by default; the CLI stops starting new operations without `--continue-on-error`",
)
def test_failed_create_lets_the_unrelated_finish(stack: Stack) -> None:
    stack.program("""
        bad = Thing("bad")
        Thing("after-bad", value=bad.computed)
        good = Thing("good")
        Thing("after-good", value=good.id)
        export("good", good.id)
    """)
    stack.control(fail={"bad": ["create"]}, hold={"good": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("good.create") and stack.calls("create", "bad", event="end"), "bad to fail")
    stack.release("good.create")
    up = stack.finish(process)
    assert up.exit_code != 0
    assert failed(up) == {("create", "bad")}
    assert "the testbed was told to fail the create of bad" in up.messages
    assert set(stack.existing()) == {"good", "after-good"}
    assert set(stack.state()) == {"default", "good", "after-good"}
    assert not stack.calls("create", "after-bad")
    stack.control()
    assert stack.up().changes == {"create": 2, "same": 3}
    assert set(stack.existing()) == {"good", "after-good", "bad", "after-bad"}


@conformance(feature="failure of update", cli="The old state stays; the next update tries again.")
@conformance(feature="failure of delete", cli="The resource stays in the state, and what it depends on is not deleted.")
def test_failed_update_and_delete(stack: Stack) -> None:
    stack.program('a = Thing("a", value=1); b = Thing("b", value=a.id)')
    stack.up()
    stack.program('a = Thing("a", value=2); b = Thing("b", value=a.id)')
    stack.control(fail={"a": ["update"], "b": ["delete"]})
    up = stack.up(ok=False)
    assert failed(up) == {("update", "a")}
    assert stack.state()["a"]["inputs"]["value"] == 1
    destroy = stack.destroy(ok=False)
    assert failed(destroy) == {("delete", "b")}
    assert "the testbed was told to fail the delete of b" in destroy.messages
    assert set(stack.existing()) == {"a", "b"} <= set(stack.state())
    stack.control()
    stack.up()
    assert stack.existing()["a"]["inputs"]["value"] == 2
    stack.destroy()
    assert stack.existing() == {}


@conformance(
    feature="failure of replace",
    cli="If the new resource cannot be created, the old one stays. If the old one cannot be deleted, it is "
    "kept as pending deletion and deleted by the next update.",
)
def test_failed_replacement(stack: Stack) -> None:
    stack.program('Thing("a", key=1)')
    stack.up()
    old = stack.existing()["a"]["id"]
    stack.program('Thing("a", key=2)')
    stack.control(fail={"a": ["create"]})
    stack.up(ok=False)
    assert stack.existing()["a"]["id"] == stack.state()["a"]["id"] == old
    stack.control(fail={"a": ["delete"]})
    stack.up(ok=False)
    pending = [r for r in stack.export()["deployment"]["resources"] if r.get("delete")]
    assert [r["id"] for r in pending] == [old]
    assert stack.state()["a"]["id"] != old
    stack.control()
    plan = stack.preview()
    assert ("delete-replaced", "a") in plan.planned or ("delete", "a") in plan.planned
    stack.up()
    assert stack.existing()["a"]["id"] == stack.state()["a"]["id"] != old


@conformance(
    feature="initialization errors",
    cli="A create that made the resource but did not become ready is recorded with its errors, fails the "
    "update, and is updated next time.",
)
def test_partial_failures(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.control(fail={"a": ["create-partial"]})
    up = stack.up(ok=False)
    assert "a exists but did not become ready" in up.messages
    state = stack.state()["a"]
    assert state["id"] == stack.existing()["a"]["id"]
    assert state["initErrors"] == ["a exists but did not become ready"]
    stack.control(fail={"a": ["update-partial"]})
    stack.up(ok=False)
    assert stack.state()["a"]["initErrors"]
    stack.control()
    assert stack.up().changes == {"update": 1, "same": 1}
    assert "initErrors" not in stack.state()["a"]
    assert stack.up().changes == {"same": 2}


@conformance(
    feature="check failures",
    cli="A rejected property is reported with its resource and reason, in preview already; the resource is not made.",
    engine="a preview reports all; an update, those of independent resources; the CLI stops the program at the first",
)
def test_check_failures(stack: Stack) -> None:
    rejected = {"a": "no such flavor", "b": "no such image"}
    stack.program("".join(f'Thing("{name}", reject="{reason}")\n' for name, reason in rejected.items()) + 'Thing("c")')
    for attempt in (stack.preview, stack.up):
        outcome = attempt(ok=False)
        reported = [
            name
            for name, reason in rejected.items()
            if reason in outcome.messages and f"testbed:index:Thing::{name}" in outcome.text
        ]
        assert reported == ["a", "b"] if ENGINE == "embedded" else reported
    assert set(stack.existing()) <= {"c"}


@pytest.mark.skipif(ENGINE != "embedded", reason="the CLI stops at the first")
def test_a_preview_finds_check_failures_of_dependents(stack: Stack) -> None:
    program = 'a = Thing("a", {})\nb = Thing("b", value=a.id, {})\nThing("c", value=b.id, {})'
    stack.program(program.replace(", {}", ""))
    stack.up()
    before = stack.existing()
    stack.program(program.format(*(f'reject="no image {name}"' for name in "abc")))
    preview = stack.preview(ok=False)
    errors = [event["message"] for event in preview.of_kind("diagnosticEvent") if event["severity"] == "error"]
    assert [sum(f"has a problem: no image {name}" in error for error in errors) for name in "abc"] == [1, 1, 1]
    assert {event["metadata"]["op"] for event in preview.of_kind("resourcePreEvent")} <= {"same", "update"}
    assert stack.existing() == before


@conformance(
    feature="failure of the program",
    cli="An exception fails the update; nothing is deleted because the program did not declare it any more; a"
    " RunError has no traceback.",
)
def test_failing_program(stack: Stack) -> None:
    stack.program('Thing("kept"); Thing("also-kept")')
    stack.up()
    stack.program('Thing("kept"); raise ValueError("the program broke")')
    up = stack.up(ok=False)
    assert "ValueError: the program broke" in up.text
    assert set(stack.existing()) == {"kept", "also-kept"}
    assert "also-kept" in stack.state()
    stack.program('raise RunError("fix the setting")')
    up = stack.up(ok=False)
    assert "fix the setting" in up.text
    assert "Traceback" not in up.text
    stack.program('Config().require("absent")')
    up = stack.up(ok=False)
    assert "absent" in up.text
    assert "Traceback" not in up.text
    assert set(stack.existing()) == {"kept", "also-kept"}


@conformance(feature="diagnostics", cli="Messages of the program and of providers are shown with their resource.")
def test_diagnostics(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        pulumi.log.warn("from the program", resource=a)
        print("printed by the program")
    """)
    stack.control(log={"a": "from the provider"})
    up = stack.up()
    by_message = {event["message"].strip(): event for event in up.of_kind("diagnosticEvent")}
    urn = stack.state()["a"]["urn"]
    assert (by_message["from the program"]["severity"], by_message["from the program"]["urn"]) == ("warning", urn)
    assert (by_message["from the provider"]["severity"], by_message["from the provider"]["urn"]) == ("warning", urn)
    assert "printed by the program" in up.text


@conformance(
    feature="Ctrl-C once",
    cli="Nothing new is started, what is under way ends and is recorded; the exit code is not 0.",
    engine="does not send Cancel to providers at the first Ctrl-C, so that they finish what is under way; the CLI does",
)
def test_interrupt_once(stack: Stack) -> None:
    stack.env["TESTBED_IGNORES_CANCEL"] = "1"
    stack.program('a = Thing("a"); Thing("b", value=a.id); Thing("c")')
    stack.control(hold={"a": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("a.create") and stack.calls("create", "c", event="end"), "the create of a to start")
    process.signal(signal.SIGINT)
    if ENGINE == "pulumi":
        wait_for(lambda: stack.calls("cancel"), "the CLI to cancel the provider")
    stack.release("a.create")
    outcome = stack.finish(process)
    assert outcome.exit_code != 0
    assert bool(stack.calls("cancel")) is (ENGINE == "pulumi")
    assert set(stack.existing()) == {"a", "c"} == set(stack.state()) - {"default"}
    assert not stack.export()["deployment"].get("pending_operations")
    stack.control()
    assert stack.up().changes == {"create": 1, "same": 3}


@conformance(
    feature="Ctrl-C twice",
    cli="Providers are told to cancel; the command ends at once, and the stack is usable afterwards.",
)
def test_interrupt_twice(stack: Stack) -> None:
    stack.program('Thing("a"); Thing("b")')
    stack.control(hold={"a": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("a.create") and stack.calls("create", "b", event="end"), "the create of a to start")
    process.signal(signal.SIGINT)
    wait_for(lambda: "cancel" in process.output, "the first interrupt to be noticed")
    process.signal(signal.SIGINT)
    outcome = stack.finish(process)
    assert outcome.exit_code != 0
    assert stack.calls("cancel")
    assert set(stack.existing()) == {"b"}
    stack.control()
    stack.up()
    assert set(stack.existing()) == {"a", "b"}
