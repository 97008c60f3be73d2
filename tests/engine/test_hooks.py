"""Resource hooks: functions of the program around the steps of its resources."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE

if TYPE_CHECKING:
    from tests.engine.harness import Json, Stack

conformance = pytest.mark.conformance

HOOKS = """
import json, pathlib

def noting(kind, fail=None, **options):
    def hook(args):
        call = {"kind": kind, "name": args.name, "id": args.id}
        for part in ("new_inputs", "old_inputs", "new_outputs", "old_outputs"):
            properties = getattr(args, part)
            call[part] = properties.get("value") if properties else None
        with pathlib.Path("../hooks.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\\n")
        if fail:
            raise ValueError(fail)
    return ResourceHook(kind, hook, ResourceHookOptions(**options) if options else None)

KINDS = ["before_create", "after_create", "before_update", "after_update", "before_delete", "after_delete"]
"""


def calls(stack: Stack) -> list[dict[str, Json]]:
    """What hooks were called with, in order; forgotten afterwards."""
    path = stack.folder.parent / "hooks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


@conformance(
    feature="resource hooks",
    cli="Functions of the program run before and after a create, update or delete of what is bound to them, with the "
    "inputs and outputs that there are then; not in previews, unless asked for.",
)
def test_hooks_around_each_step(stack: Stack) -> None:
    every = HOOKS + "hooks = ResourceHookBinding(**{kind: [noting(kind)] for kind in KINDS})\n"
    bound = ", opts=ResourceOptions(hooks=hooks))\n"
    stack.program(every + f'Thing("a", value="1"{bound}')
    stack.preview()
    assert calls(stack) == []
    stack.up()
    before, after = calls(stack)
    id_ = stack.state()["a"]["id"]
    assert (before["kind"], before["id"], before["new_inputs"], before["new_outputs"]) == (
        "before_create",
        "",
        "1",
        None,
    )
    assert (after["kind"], after["id"], after["new_inputs"], after["new_outputs"]) == ("after_create", id_, "1", "1")
    names = stack.state()["a"]["resourceHooks"]
    assert names["BeforeCreate"] == ["before_create"]
    assert names["AfterDelete"] == ["after_delete"]

    stack.program(every + f'Thing("a", value="2"{bound}')
    stack.up()
    parts = ("kind", "new_inputs", "old_inputs", "new_outputs", "old_outputs")
    assert [tuple(call[part] for part in parts) for call in calls(stack)] == [
        ("before_update", "2", "1", None, "1"),
        ("after_update", "2", "1", "2", "1"),
    ]
    stack.up()
    assert calls(stack) == [], "nothing is done to what stays the same"

    stack.program(every + f'Thing("a", value="2", key="k"{bound}')
    stack.up()
    assert [call["kind"] for call in calls(stack)] == ["before_create", "after_create", "before_delete", "after_delete"]

    stack.program(every)
    stack.up()
    assert [tuple(call[part] for part in parts) for call in calls(stack)] == [
        ("before_delete", None, "2", None, "2"),
        ("after_delete", None, "2", None, "2"),
    ], "the program stays until its hooks have run"
    assert stack.state() == {}


@conformance(feature="resource hooks", cli="With `on_dry_run` they run in previews too; components have hooks as well.")
def test_dry_run_and_components(stack: Stack) -> None:
    stack.program(
        HOOKS
        + """
hooks = ResourceHookBinding(before_create=[noting("before", on_dry_run=True)], after_create=[noting("after")])
box = Box("box", ResourceOptions(hooks=hooks))
Thing("leaf", value="1", opts=ResourceOptions(parent=box, hooks=hooks))
box.register_outputs({"value": "told"})
"""
    )
    stack.preview()
    assert sorted((call["kind"], call["name"]) for call in calls(stack)) == [("before", "box"), ("before", "leaf")]
    stack.up()
    seen = {(call["kind"], call["name"]): call["new_outputs"] for call in calls(stack)}
    assert seen == {
        ("before", "box"): None,
        ("before", "leaf"): None,
        ("after", "box"): "told",
        ("after", "leaf"): "1",
    }


@conformance(
    feature="resource hooks",
    cli="A hook that fails before a step keeps it from being done; after it, the step stands and the update fails; "
    "with `ignore_errors` there is a warning.",
)
def test_failing_hooks(stack: Stack) -> None:
    stack.program(
        HOOKS
        + """
def bind(name, **hooks):
    Thing(name, value="1", opts=ResourceOptions(hooks=ResourceHookBinding(**hooks)))
bind("before", before_create=[noting("b", "not now")])
bind("after", after_create=[noting("a", "too late")])
bind("ignored", after_create=[noting("i", "never mind", ignore_errors=True)])
"""
    )
    up = stack.up(ok=False)
    assert set(stack.existing()) == {"after", "ignored"}
    assert {"after", "ignored"} <= set(stack.state())
    messages = [(event["severity"], event["message"]) for event in up.of_kind("diagnosticEvent")]
    for severity, said in (("error", "not now"), ("error", "too late"), ("warning", "never mind")):
        assert any(severity == how and said in message for how, message in messages), messages


@conformance(
    feature="resource hooks",
    cli="A destroy, which does not run the program, refuses what has hooks for its delete; so does an update whose "
    "program does not have them any more. `destroy --run-program` runs them.",
    engine="has no `--run-program`: an update with a program that declares nothing but the hooks does the same",
)
@pytest.mark.skipif(ENGINE == "pulumi", reason="the messages are the engine's own")
def test_delete_hooks_need_the_program(stack: Stack) -> None:
    program = HOOKS + 'hooks = ResourceHookBinding(before_delete=[noting("before")])\n'
    stack.program(program + 'Thing("a", value="1", opts=ResourceOptions(hooks=hooks))')
    stack.up()
    refused = stack.destroy(ok=False)
    assert "has delete hooks, and a destroy does not run the program: before" in refused.messages
    stack.program("")
    assert "hook 'before' was not registered" in stack.up(ok=False).messages
    assert set(stack.existing()) == {"a"}
    stack.program(program)
    stack.up()
    assert [call["kind"] for call in calls(stack)] == ["before"]
    stack.destroy()


ERROR_HOOKS = """
import json, os, pathlib

def decide(name, attempts, fail=None):
    def hook(args):
        call = {"name": args.name, "operation": args.failed_operation, "errors": len(args.errors)}
        call |= {part: bool(getattr(args, part)) for part in ("id", "new_inputs", "old_inputs", "old_outputs")}
        with pathlib.Path("../hooks.jsonl").open("a") as file:
            file.write(json.dumps(call) + "\\n")
        if fail:
            raise ValueError(fail)
        if len(args.errors) == attempts:
            pathlib.Path(os.environ["TESTBED_WORLD"], "control.json").write_text("{}")
        return len(args.errors) <= attempts
    return ErrorHook(name, hook)

def bind(*hooks):
    return ResourceOptions(hooks=ResourceHookBinding(on_error=list(hooks)))
"""


@conformance(
    feature="resource hooks",
    cli="Error hooks decide whether a failed create, update or delete is tried again; they see the errors so far.",
)
def test_error_hooks_try_again(stack: Stack) -> None:
    def program(body: str) -> None:
        stack.program(ERROR_HOOKS + 'again = decide("again", 2)\n' + body)

    program('Thing("a", value="1", opts=bind(again))')
    stack.control(fail={"a": ["create"]})
    stack.up()
    seen = calls(stack)
    assert [(call["operation"], call["errors"]) for call in seen] == [("create", 1), ("create", 2)]
    assert {(call["new_inputs"], call["old_inputs"], call["old_outputs"]) for call in seen} == {(True, False, False)}
    assert set(stack.existing()) == {"a"}
    assert stack.state()["a"]["resourceHooks"] == {"OnError": ["again"]}

    program('Thing("a", value="2", opts=bind(again))')
    stack.control(fail={"a": ["update"]})
    stack.up()
    seen = calls(stack)
    assert [(call["operation"], call["errors"]) for call in seen] == [("update", 1), ("update", 2)]
    assert {(call["id"], call["new_inputs"], call["old_inputs"], call["old_outputs"]) for call in seen} == {
        (True, True, True, True)
    }
    assert stack.existing()["a"]["inputs"]["value"] == "2"

    program("")
    stack.control(fail={"a": ["delete"]})
    stack.up()
    assert [(call["operation"], call["errors"]) for call in calls(stack)] == [("delete", 1), ("delete", 2)]
    assert stack.existing() == {}


@conformance(
    feature="resource hooks",
    cli="Where no error hook wants it, or one fails, a failed step is not tried again; a destroy runs none.",
    engine="same; what may have been made already is not made again",
)
def test_error_hooks_that_give_up(stack: Stack) -> None:
    body = """
        Thing("refused", opts=bind(decide("never", 0)))
        Thing("broken", opts=bind(decide("fails", 1, "the hook broke")))
        Thing("made", opts=bind(decide("always", 50)))
    """
    stack.program(ERROR_HOOKS + textwrap.dedent(body))
    stack.control(fail={"refused": ["create"], "broken": ["create"], "made": ["create-partial"]})
    up = stack.up(ok=False)
    assert sorted((call["name"], call["errors"]) for call in calls(stack)) == [("broken", 1), ("refused", 1)]
    assert "the hook broke" in up.messages
    assert set(stack.existing()) == {"made"}
    stack.control(fail={"made": ["delete"]})
    stack.destroy(ok=False)
    assert calls(stack) == []
    stack.control()
    stack.destroy()
