"""Update plans: `preview --save-plan` and `up --plan`, their file, and what they refuse."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import ENGINE, PASSPHRASE, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine.harness import Outcome, Stack

conformance = pytest.mark.conformance


def plan_of(stack: Stack, *flags: str) -> Path:
    path = stack.folder.parent / "plan.json"
    stack.preview("--save-plan", str(path), *flags)
    return path


def resources(path: Path) -> dict[str, Any]:
    """The plan's resources by name, without the stack and its providers."""
    plans = json.loads(path.read_text())["resourcePlans"]
    own = {urn: plan for urn, plan in plans.items() if "pulumi:pulumi:" not in urn and ":providers:" not in urn}
    return {name_of(urn): plan for urn, plan in own.items()}


def under(stack: Stack, path: Path, *flags: str, ok: bool = True) -> Outcome:
    """`up` under the plan."""
    return stack.up("--plan", str(path), *flags, ok=ok)


PROGRAM = """
    config = Config()
    box = Box("box")
    made = Thing("made", value=config.require("size"), password=config.get_secret("password"),
                 opts=ResourceOptions(parent=box))
    Thing("user", value=made.id, name=made.computed)
    export("made", made.id)
"""


@conformance(
    feature="update plans",
    cli="`preview --save-plan` writes, by URN, the program's goal, what changes and the operations; `up --plan` does "
    "just that. Secrets are encrypted in the file.",
    engine="same; the file can be read by its owner alone, and names the state that it was made of",
)
def test_a_plan_is_carried_out(stack: Stack) -> None:
    stack.config("size", "1")
    stack.config("password", "hunter2-planted", "--secret")
    stack.program(PROGRAM)
    path = plan_of(stack)
    assert stack.existing() == {}
    planned = resources(path)
    assert {name: plan["steps"] for name, plan in planned.items()} == {
        "box": ["create"],
        "made": ["create"],
        "user": ["create"],
    }
    goal = planned["made"]["goal"]
    assert goal["type"] == "testbed:index:Thing"
    assert goal["parent"].endswith("::box")
    assert goal["inputDiff"]["adds"]["value"] == "1"
    assert planned["user"]["goal"]["dependencies"] == [urn_of(path, "made")]
    assert len(planned["made"]["seed"]) == 44
    document = json.loads(path.read_text())
    assert document["manifest"]["version"].startswith("v3.")
    assert document["config"]["conformance:size"] == "1"
    assert "hunter2" not in path.read_text()
    assert PASSPHRASE not in path.read_text()
    if ENGINE != "pulumi":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    under(stack, path)
    assert stack.existing()["made"]["inputs"]["password"] == "hunter2-planted"  # noqa: S105
    assert stack.preview("--expect-no-changes").changes == {"same": 4}


def urn_of(path: Path, name: str) -> str:
    (urn,) = [urn for urn in json.loads(path.read_text())["resourcePlans"] if name_of(urn) == name]
    return str(urn)


def test_secrets_within_secrets_are_those_of_the_plan(stack: Stack) -> None:
    """As in a Secret of Kubernetes: it is made of secret passwords, and its provider marks it as a whole."""
    stack.config("password", "hunter2-planted", "--secret")
    program = 'Thing("box", vault={"password": Config().require_secret("password"), "user": "%s"})'
    stack.program(program % "ada")
    under(stack, plan_of(stack))
    path = plan_of(stack)
    assert resources(path)["box"]["goal"]["inputDiff"] == {}
    under(stack, path)
    stack.program(program % "grace")
    assert under(stack, path, ok=False).exit_code
    under(stack, plan_of(stack))
    assert stack.existing()["box"]["inputs"]["vault"]["user"] == "grace"


@conformance(
    feature="update plans",
    cli="An operation that the plan does not have, or has another for, is refused before it is done.",
    engine="same; the message has all that was planned for the resource and what to do",
)
def test_operations_that_are_not_planned(stack: Stack) -> None:
    stack.program('Thing("a", key=1); Thing("b"); Thing("c", value=1)')
    stack.up()
    before = stack.existing()

    path = plan_of(stack)
    stack.program('Thing("a", key=1); Thing("b"); Thing("c", value=1); Thing("d")')
    refused = under(stack, path, ok=False)
    assert "create is not allowed by the plan: no steps were expected for this resource" in refused.messages

    stack.program('Thing("a", key=1); Thing("c", value=1)')
    refused = under(stack, path, ok=False)
    assert "delete is not allowed by the plan: this resource is constrained to same" in refused.messages

    stack.program('Thing("a", key=2); Thing("b"); Thing("c", value=1)')
    refused = under(stack, path, ok=False)
    assert "violates plan: properties changed" in refused.messages
    assert "key" in refused.messages
    assert stack.existing() == before
    if ENGINE != "pulumi":
        assert f"resource {urn_of(path, 'a')} violates plan" in refused.messages
        assert "key (planned: kept; now: set to 2)" in refused.messages
        assert "preview again with --save-plan" in refused.messages.lower()


@conformance(
    feature="update plans", cli="An update in place is planned with the values it sets; other values are refused."
)
def test_values_are_held_to_the_plan(stack: Stack) -> None:
    program = """
        a = Thing("a", value={value}, nested={nested}, {extra})
        export("out", "{value}")
    """
    stack.program(program.format(value=1, nested={"x": [1, 2]}, extra="gone=1"))
    stack.up()
    stack.program(program.format(value=2, nested={"x": [1, 3]}, extra="new=[1]"))
    path = plan_of(stack)
    (plan,) = resources(path).values()
    assert plan["steps"] == ["update"]
    difference = plan["goal"]["inputDiff"]
    assert difference == {"adds": {"new": [1]}, "deletes": ["gone"], "updates": {"nested": {"x": [1, 3]}, "value": 2}}
    for wrong in (
        program.format(value=3, nested={"x": [1, 3]}, extra="new=[1]"),
        program.format(value=2, nested={"x": [1, 4]}, extra="new=[1]"),
        program.format(value=2, nested={"x": [1, 3]}, extra="new=[1], gone=1"),
        program.format(value=2, nested={"x": [1, 3]}, extra=""),
        program.format(value=2, nested={"x": [1, 3]}, extra="new=[1], other=1"),
        program.format(value=2, nested={"x": [1, 3]}, extra="new=[1], opts=ResourceOptions(protect=True)"),
    ):
        stack.program(wrong)
        assert "violates plan" in under(stack, path, ok=False).messages
        assert stack.existing()["a"]["inputs"]["value"] == 1
    stack.program(program.format(value=2, nested={"x": [1, 3]}, extra="new=[1]"))
    under(stack, path)
    assert stack.existing()["a"]["inputs"]["value"] == 2
    assert stack.outputs() == {"out": "2"}


@conformance(
    feature="update plans",
    cli="What the preview could not know yet may become anything, also nothing.",
    engine="same; it may also depend on more resources than the preview could see, where the CLI refuses that",
)
def test_unknown_values(stack: Stack) -> None:
    nested = "" if ENGINE == "pulumi" else 'Thing("third", value=first.computed.apply(lambda known: other.computed))'
    stack.program(f"""
        first = Thing("first")
        other = Thing("other")
        Thing("second", value=first.computed, maybe=first.computed.apply(lambda known: None))
        {nested}
        export("known", first.computed)
    """)
    under(stack, plan_of(stack))
    assert "maybe" not in stack.existing()["second"]["inputs"]


@conformance(
    feature="update plans", cli="Replacements and deletions are carried out as planned, in either order of the two."
)
def test_replacements_and_deletions(stack: Stack) -> None:
    program = """
        a = Thing("a", key={n})
        Thing("b", key={n}, opts=ResourceOptions(delete_before_replace=True))
        Thing("dependent", key=a.id)
        {more}
    """
    stack.program(program.format(n=1, more='Thing("gone")'))
    stack.up()
    stack.program(program.format(n=2, more=""))
    path = plan_of(stack)
    assert {name: plan["steps"] for name, plan in resources(path).items()} == {
        "a": ["create-replacement", "replace", "delete-replaced"],
        "b": ["delete-replaced", "replace", "create-replacement"],
        "dependent": ["create-replacement", "replace", "delete-replaced"],
        "gone": ["delete"],
    }
    assert "goal" not in resources(path)["gone"]
    before = {name: record["id"] for name, record in stack.existing().items()}
    under(stack, path)
    after = {name: record["id"] for name, record in stack.existing().items()}
    assert set(after) == {"a", "b", "dependent"}
    assert not set(before.values()) & set(after.values())


@conformance(feature="update plans", cli="What was planned and does not come about is an error at the end.")
def test_operations_that_are_missing(stack: Stack) -> None:
    stack.program('Thing("a"); Thing("b")')
    path = plan_of(stack)
    stack.program('Thing("a")')
    refused = under(stack, path, ok=False)
    assert "expected resource operations" in refused.messages
    assert "none were seen" in refused.messages


@conformance(feature="update plans", cli="Names that a provider makes up are those of the plan.")
def test_names_are_those_of_the_plan(stack: Stack) -> None:
    stack.program('Thing("a")')
    path = plan_of(stack)
    planned = resources(path)["a"]["goal"]["inputDiff"]["adds"]
    under(stack, path)
    made = stack.existing()["a"]["inputs"]
    assert {key: made[key] for key in planned} == planned


embedded_only = pytest.mark.skipif(ENGINE == "pulumi", reason="beyond what the Pulumi CLI does")


@conformance(
    feature="update plans",
    cli="Has no such thing.",
    engine="a plan is carried out on the state that it was made of and no other: what changed since is named",
)
@embedded_only
def test_a_plan_of_another_state_is_refused(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.up()
    stack.program('Thing("a", value=1); Thing("b")')
    path = plan_of(stack)
    stack.program('Thing("a", value=2)')
    stack.up()
    stack.program('Thing("a", value=2); Thing("b")')
    stack.forget_calls()
    refused = under(stack, path, ok=False)
    assert "the state of stack 'dev' is not the one that the plan was made of: a changed" in refused.stderr
    assert "preview again" in refused.stderr
    assert not stack.calls("create")

    # An update that changed nothing, and another order of the resources, make no other state.
    path = plan_of(stack)
    stack.up("--target", "**::a")
    deployment = stack.export()
    deployment["deployment"]["manifest"]["time"] = "2026-01-01T00:00:00Z"
    stack.import_(deployment)
    under(stack, path)
    assert set(stack.existing()) == {"a", "b"}


@conformance(
    feature="update plans",
    cli="Has no such thing.",
    engine="a plan of another stack, a file that is no plan, and a missing one are refused before anything is done",
)
@embedded_only
def test_files_that_are_no_plan_of_this_stack(stack: Stack) -> None:
    stack.program('Thing("a")')
    path = plan_of(stack)
    document = json.loads(path.read_text())
    document["base"]["stack"] = "production"
    path.write_text(json.dumps(document))
    assert "the plan is one of stack 'production'" in under(stack, path, ok=False).stderr
    for text, saying in (("{}", "is not an update plan"), ("PLAN", "is not an update plan")):
        path.write_text(text)
        assert saying in under(stack, path, ok=False).stderr
    path.write_text(json.dumps({"resourcePlans": {"urn:x": {"steps": 1, "goal": []}}, "manifest": {}}))
    assert "is not an update plan" in under(stack, path, ok=False).stderr
    stack.config("password", "hunter2", "--secret")
    stack.program('Thing("a", value=Config().get_secret("password"))')
    path = plan_of(stack)
    document = json.loads(path.read_text())
    path.write_text(path.read_text().replace('"ciphertext": "v1:', '"ciphertext": "v1:AAAA'))
    assert document != json.loads(path.read_text())
    assert "the plan's secrets cannot be decrypted" in under(stack, path, ok=False).stderr
    path.unlink()
    assert "could not read" in under(stack, path, ok=False).stderr
    assert stack.existing() == {}


@conformance(
    feature="update plans",
    cli="Has no such thing.",
    engine="`preview --plan` says whether a plan of an earlier state still covers all, and saves the one of now",
)
@embedded_only
def test_a_plan_is_carried_over_to_a_newer_state(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.up()
    stack.program('Thing("a", value=1); Thing("mine")')
    reviewed = plan_of(stack)
    stack.program('Thing("a", value=2); Thing("theirs")')
    stack.up()
    merged = 'Thing("a", value=2); Thing("theirs"); Thing("mine")'
    stack.program(merged)
    now = reviewed.with_name("now.json")
    stack.preview("--plan", str(reviewed), "--save-plan", str(now))
    under(stack, now)
    assert set(stack.existing()) == {"a", "theirs", "mine"}

    stack.program(merged + '; Thing("more", value=1); Thing("and more")')
    refused = stack.preview("--plan", str(reviewed), "--save-plan", str(now), ok=False)
    assert refused.messages.count("create is not allowed by the plan") == 2


@conformance(
    feature="update plans",
    cli="What an update that was cut off has done already makes the rest of its plan an error.",
    engine="the rest of the plan is allowed: the next run finishes it",
)
@embedded_only
def test_the_rest_of_a_plan(stack: Stack) -> None:
    stack.program('Thing("a", key=1); Thing("b", value=1)')
    stack.up()
    stack.program('Thing("a", key=2); Thing("b", value=2); Thing("c")')
    reviewed = plan_of(stack)
    stack.control(fail={"a": ["delete"], "c": ["create"]})
    under(stack, reviewed, ok=False)
    stack.control()
    now = reviewed.with_name("now.json")
    stack.preview("--plan", str(reviewed), "--save-plan", str(now))
    under(stack, now)
    assert stack.existing()["a"]["inputs"]["key"] == 2
    assert set(stack.existing()) == {"a", "b", "c"}


@conformance(
    feature="update plans",
    cli="A plan of `preview --refresh` needs `up --refresh`.",
    engine="such a plan refreshes by itself",
)
@embedded_only
def test_a_plan_with_refresh(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.up()
    stack.drift("a", value=7)
    path = plan_of(stack, "--refresh")
    assert resources(path)["a"]["steps"] == ["update"]
    under(stack, path)
    assert stack.existing()["a"]["inputs"]["value"] == 1


@conformance(
    feature="update plans",
    cli="Refuses what a provider adds to inputs that the preview could not have it check.",
    engine="the program's own inputs are held to the plan there",
)
@embedded_only
def test_a_provider_that_could_not_be_asked(stack: Stack) -> None:
    program = """
        first = Thing("first")
        provider = Provider("later", region=first.computed)
        Thing("on it", value={value}, opts=ResourceOptions(provider=provider))
    """
    stack.program(program.format(value=1))
    path = plan_of(stack)
    assert "name" not in resources(path)["on it"]["goal"]["inputDiff"]["adds"]
    stack.program(program.format(value=2))
    assert "value (planned: set to 1; now: set to 2)" in under(stack, path, ok=False).messages
    assert "on it" not in stack.existing()
    stack.program(program.format(value=1))
    now = path.with_name("now.json")
    stack.preview("--plan", str(path), "--save-plan", str(now))
    under(stack, now)
    assert stack.existing()["on it"]["inputs"]["name"].startswith("on it-")
