"""The state: its format, its exchange with the Pulumi CLI, pending operations, locks and history."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import ENGINE, STACK, wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance

FIXTURES = Path(__file__).parent / "fixtures"

# apitype.ResourceV3: every key that a resource of a version-3 deployment may have.
# fmt: off
RESOURCE_KEYS = {
    "additionalSecretOutputs", "aliases", "created", "custom", "customTimeouts", "delete", "deletedWith",
    "dependencies", "extensionRef", "external", "hideDiff", "id", "ignoreChanges", "importID", "initErrors",
    "inputs", "modified", "outputs", "parent", "pendingReplacement", "propertyDependencies", "protect",
    "provider", "refreshBeforeUpdate", "replaceOnChanges", "replaceWith", "replacementTrigger",
    "resourceHooks", "retainOnDelete", "snippetID", "sourcePosition", "stackTrace", "taint", "type", "urn",
    "viewOf",
}
# fmt: on
DEPLOYMENT_KEYS = frozenset({"manifest", "secrets_providers", "resources", "pending_operations", "metadata"})

EVERYTHING = """
    a = Thing("a", value=1, secret=Output.secret("hush"), text=StringAsset("hello"))
    box = Box("box")
    b = Thing("b", value=a.computed, ref=a,
              opts=ResourceOptions(parent=box, depends_on=[a], protect=True, retain_on_delete=True,
                                   custom_timeouts=CustomTimeouts(create="5m"), ignore_changes=["value"],
                                   additional_secret_outputs=["computed"]))
    north = Provider("north", region="north")
    Thing("n", opts=ResourceOptions(provider=north, deleted_with=a))
    export("b", b.computed)
"""


@conformance(feature="state format", cli="A checkpoint of version 3 in the layout of the CLI's file backend.")
def test_state_format(stack: Stack) -> None:
    stack.program(EVERYTHING)
    stack.up()
    exported = stack.export()
    assert exported["version"] == 3
    deployment = exported["deployment"]
    assert set(deployment) <= DEPLOYMENT_KEYS
    assert deployment["secrets_providers"]["type"] == "passphrase"
    assert deployment["secrets_providers"]["state"]["salt"].startswith("v1:")
    assert set(deployment["manifest"]) >= {"time", "magic", "version"}
    resources = deployment["resources"]
    unknown = {key for resource in resources for key in resource} - RESOURCE_KEYS
    assert not unknown
    state = stack.state()
    a, b, n = state["a"], state["b"], state["n"]
    assert a["custom"] is True
    assert a["inputs"]["__defaults"] == ["name"]
    assert a["inputs"]["text"]["4dabf18193072939515e22adb298388d"] == "c44067f5952c0a294b673a41bacd8c17"
    assert a["created"].endswith("Z")
    assert b["propertyDependencies"]["value"] == b["dependencies"] == [a["urn"]]
    assert b["parent"] == state["box"]["urn"]
    assert b["protect"] is True
    assert b["retainOnDelete"] is True
    assert b["customTimeouts"]["create"] == 300
    assert n["deletedWith"] == a["urn"]
    urns = [resource["urn"] for resource in resources]
    for resource in resources:
        needed = [
            *resource.get("dependencies", []),
            resource.get("parent"),
            (resource.get("provider") or "").rpartition("::")[0],
        ]
        for urn in filter(None, needed):
            assert urns.index(urn) < urns.index(resource["urn"]), f"{resource['urn']} is written before {urn}"
    checkpoint = json.loads(stack.checkpoint_path.read_text())
    assert checkpoint["version"] == 3
    assert [r["urn"] for r in checkpoint["checkpoint"]["latest"]["resources"]] == urns


@conformance(
    feature="state export/import",
    cli="An exported deployment can be edited and imported; the next update goes on from there.",
)
def test_export_edit_import(stack: Stack) -> None:
    stack.program('Thing("a", value=1); Thing("b")')
    stack.up()
    exported = stack.export()
    exported["deployment"]["resources"] = [
        r for r in exported["deployment"]["resources"] if not r["urn"].endswith("::b")
    ]
    stack.import_(exported)
    assert "b" not in stack.state()
    assert stack.up().changes == {"create": 1, "same": 2}
    exported["deployment"]["resources"].append({"urn": "nonsense"})
    before = stack.export()
    assert stack.import_(exported, ok=False).exit_code != 0
    assert stack.export() == before


@pytest.mark.parametrize("fixture", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
@conformance(
    feature="state from the CLI",
    cli="A deployment that the CLI wrote is taken over: no change for the same program, and it can be destroyed.",
)
def test_a_stack_of_the_cli_is_taken_over(stack: Stack, fixture: Path) -> None:
    document = json.loads(fixture.read_text())
    for record in document["world"]:
        (stack.world / "resources" / f"{record['id']}.json").write_text(json.dumps(record))
    stack.program(document["program"])
    stack.import_(document["deployment"])
    plan = stack.preview()
    assert set(plan.changes) == {"same"}, plan.text
    stack.up("--expect-no-changes")
    before = document["deployment"]["deployment"]["resources"]
    assert {r["urn"] for r in stack.export()["deployment"]["resources"]} == {r["urn"] for r in before}
    stack.program(document["program"].replace("protect=True", "protect=False"))
    stack.up()
    stack.destroy()
    assert stack.export()["deployment"].get("resources", []) == []


@conformance(
    feature="state to the CLI",
    cli="`pulumi stack import` takes a deployment exported here; `pulumi preview` finds no change; `pulumi "
    "destroy` deletes all.",
)
@pytest.mark.skipif(
    not shutil.which("pulumi"), reason="needs the Pulumi CLI on PATH; test_state_format checks the format without it"
)
def test_the_cli_takes_the_stack_over(stack: Stack) -> None:
    stack.program(EVERYTHING.replace("protect=True, ", ""))
    stack.up()
    path = stack.folder / "export.json"
    path.write_text(json.dumps(stack.export()))

    def pulumi(*arguments: str) -> str:
        command = ["pulumi", "-C", str(stack.folder), "--non-interactive", *arguments, "--stack", STACK]
        done = subprocess.run(command, env=stack.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # The same file backend first, then by way of an import.
    pulumi("preview", "--expect-no-changes")
    pulumi("stack", "import", "--file", str(path))
    pulumi("preview", "--expect-no-changes")
    pulumi("up", "--yes", "--skip-preview", "--expect-no-changes")
    stack.up("--expect-no-changes")
    assert stack.run("stack", "output", "--stack", STACK, "--show-secrets", "b").stdout.strip().endswith(':1"')
    pulumi("destroy", "--yes", "--skip-preview")
    # b was retained; n went with a, so its Delete was not called.
    assert set(stack.existing()) == {"b", "n"}


def killed_while_creating(stack: Stack) -> None:
    stack.program('Thing("a"); Thing("b")')
    stack.control(hold={"a": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("a.create") and stack.calls("create", "b", event="end"), "the create of a to start")
    wait_for(lambda: "b" in stack.state(), "b to be recorded")
    process.signal(signal.SIGKILL)
    process.process.wait()
    for pid in {call["pid"] for call in stack.calls()}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    stack.control()


@conformance(
    feature="pending operations",
    cli="An update killed in the middle leaves the operation under way as pending in the state; the next one warns, "
    "naming the resource, and goes on; `refresh --clear-pending-creates` forgets it.",
    engine="any refresh forgets it; a provider that can find what an interrupted create made is asked to",
)
def test_pending_operations(stack: Stack) -> None:
    killed_while_creating(stack)
    flags = []
    if ENGINE == "pulumi":
        stack.run("cancel", "--yes", STACK)
        flags = ["--clear-pending-creates"]
    (pending,) = stack.export()["deployment"]["pending_operations"]
    assert pending["type"] == "creating"
    assert pending["resource"]["urn"].endswith("::a")
    assert "b" in stack.state()
    up = stack.up()
    (warning,) = [event["message"] for event in up.of_kind("diagnosticEvent") if "interrupted" in event["message"]]
    assert "Thing::a" in up.text
    assert warning
    assert set(stack.existing()) == {"a", "b"}
    assert stack.export()["deployment"]["pending_operations"]
    stack.refresh(*flags)
    assert not stack.export()["deployment"].get("pending_operations")


@conformance(
    feature="lock",
    cli="A second command on a stack being updated fails at once and names the holder.",
    engine="takes the lock of a dead process on this host over, with a warning; the CLI wants `pulumi cancel`",
)
def test_lock(stack: Stack) -> None:
    stack.program('Thing("a")')
    stack.control(hold={"a": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("a.create"), "the first update to hold the lock")
    second = stack.up(ok=False)
    assert "locked" in second.text
    named = re.search(r"(?:process|pid) (\d+)", second.text)
    assert named, second.text
    assert os.getpgid(int(named[1])) == process.process.pid
    stack.release("a.create")
    assert stack.finish(process).exit_code == 0
    stack.up()


@conformance(feature="history", cli="Each update is kept with its kind, result, changes and a copy of the state.")
def test_history(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.up("--message", "the first one")
    stack.destroy()
    history = stack.backend / ".pulumi" / "history" / "conformance" / STACK
    entries = [json.loads(path.read_text()) for path in sorted(history.glob("*.history.json"))]
    assert [(e["kind"], e["result"]) for e in entries] == [("update", "succeeded"), ("destroy", "succeeded")]
    assert entries[0]["message"] == "the first one"
    assert entries[0]["resourceChanges"]["create"] == 2
    assert len(list(history.glob("*.checkpoint.json"))) == 2


@conformance(feature="wrong passphrase", cli="A wrong or missing passphrase is refused before anything is done.")
@pytest.mark.parametrize("passphrase", ["wrong", None])
def test_wrong_passphrase(stack: Stack, passphrase: str | None) -> None:
    stack.program('Thing("a", value=Output.secret("x"))')
    stack.up()
    stack.forget_calls()
    env: dict[str, Any] = {**stack.env, "PULUMI_CONFIG_PASSPHRASE": passphrase}
    stack.env = {key: value for key, value in env.items() if value is not None}
    up = stack.up(ok=False)
    assert "passphrase" in up.text
    assert "Traceback" not in up.text
    assert not stack.calls()
