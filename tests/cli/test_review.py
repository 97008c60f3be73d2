"""What a preview says to whoever approves it: `--markdown`, and `--fail-on-destructive`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cli.markdown import LIMIT_BYTES, render
from cli.review import LOSSES, Review

if TYPE_CHECKING:
    from tests.cli.harness import Lab

SERVER = "openstack:compute/instance:Instance"
VOLUME = "openstack:blockstorage/volume:Volume"
RULE = "openstack:networking/secGroupRule:SecGroupRule"
LEASE = "pulumi-python:dynamic/blazar:Lease"
LEASE_END = "pulumi-python:dynamic/blazar:LeaseEnd"

Event = dict[str, Any]
Inputs = dict[str, Any] | None
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "plaintext": '"hunter2-planted"'}


def step(op: str, type_: str, name: str, old: Inputs = None, new: Inputs = None, **flags: Any) -> list[Event]:
    """The events of one step of a preview."""
    urn = f"urn:pulumi:dev::ml-cluster::{type_}::{name}"

    def state(inputs: Inputs) -> Event | None:
        return None if inputs is None else {"urn": urn, "type": type_, "custom": True, "inputs": inputs, **flags}

    metadata = {"op": op, "urn": urn, "type": type_, "old": state(old), "new": state(new), "detailedDiff": None}
    return [{"resourcePreEvent": {"metadata": metadata}}, {"resOutputsEvent": {"metadata": metadata}}]


def replacement(type_: str, name: str, old: Inputs, new: Inputs) -> list[Event]:
    return [
        *step("delete-replaced", type_, name, old),
        *step("replace", type_, name, old, new),
        *step("create-replacement", type_, name, old, new),
    ]


def finished(*steps: list[Event]) -> list[Event]:
    return [*(event for events in steps for event in events), {"summaryEvent": {"result": "succeeded"}}]


def lease(group: str, amount: int, hours: int) -> tuple[Event, Event]:
    """The inputs of a lease and of its end."""
    name = f"dev-lease-{group}"
    return {"name": name, "amount": amount, "flavor": "m1.large"}, {"name": name, "hours": hours}


def markdown(events: list[Event], kind: str = "update", limit: int = LIMIT_BYTES) -> str:
    return render(Review(events, kind), events, stack="dev", project="ml-cluster", limit=limit)


def test_warnings_come_first_then_changes_then_costs_then_the_whole_plan() -> None:
    reserved = {"flavorName": "04da6b54-80e4-46f7-96ec-b56ff0331ba9"}  # not known yet
    before, end_before = lease("worker", 2, 8)
    after, end_after = lease("worker", 3, 12)
    events = finished(
        step("same", SERVER, "control-0", {"flavorName": "m1.medium"}, {"flavorName": "m1.medium"}),
        replacement(LEASE, "lease-worker", before, after),
        step("update", LEASE_END, "lease-worker-end", end_before, end_after),
        replacement(SERVER, "worker-0", {"flavorName": "reservation:1"}, reserved),
        step("create", SERVER, "worker-1", None, reserved),
        step("delete", VOLUME, "data", {"size": 10}),
        step("create", RULE, "web-80", None,
             {"direction": "ingress", "remoteIpPrefix": "0.0.0.0/0", "portRangeMin": 80, "portRangeMax": 80}),
    )  # fmt: skip
    text = markdown(events)
    assert text.startswith("<!-- ml-cluster: preview of stack dev -->\n### Preview of stack `dev`: 1 to delete, ")
    order = [
        "**Destructive**",
        "**Opened to more addresses**",
        "| | operation |",
        "| nodes by flavor |",
        "| lease |",
        "<details>",
    ]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    for sentence in (
        "- deletes volume `data`: its data is lost",
        "- replaces server `worker-0`: the data on its disk is lost",
        "- replaces lease `lease-worker`: Blazar deletes its servers",
        "- security group rule `web-80` allows everyone to reach port 80 (0.0.0.0/0)",
        "| `m1.large` | 1 | 2 |",
        "| `m1.medium` | 1 | 1 |",
        "| all | 2 | 3 |",
        "| `dev-lease-worker` | 8 | 12 | 16 | 36 |",
    ):
        assert sentence in text, text
    assert text.index("`data`") < text.index("| `+` | create |")


def test_a_shorter_lease_is_warned_of() -> None:
    made, _ = lease("worker", 2, 8)
    events = finished(
        step("same", LEASE, "lease-worker", made, made),
        step("update", LEASE_END, "lease-worker-end", lease("worker", 2, 8)[1], lease("worker", 2, 5)[1]),
    )
    assert "lease `dev-lease-worker` ends 3 hours sooner" in markdown(events)


@pytest.mark.parametrize("type_", LOSSES)
@pytest.mark.parametrize("op", ["delete", "replace"])
def test_what_is_destructive(type_: str, op: str) -> None:
    steps = step("delete", type_, "it", {"x": 1}) if op == "delete" else replacement(type_, "it", {"x": 1}, {"x": 2})
    (sentence,) = Review(finished(steps), "update").destructive
    assert "`it`" in sentence


@pytest.mark.parametrize(
    "steps",
    [
        step("update", VOLUME, "it", {"size": 1}, {"size": 2}),
        step("delete", VOLUME, "kept", {"size": 1}, retainOnDelete=True),
        step("delete", "openstack:networking/port:Port", "port", {}),
        step("discard", SERVER, "not ours", {}),
        step("create", SERVER, "new", None, {}),
        step("same", SERVER, "same", {}, {}),
    ],
    ids=["update", "retained", "port", "discard", "create", "same"],
)
def test_what_is_not(steps: list[Event]) -> None:
    assert Review(finished(steps), "update").destructive == []


def test_only_what_is_new_to_everyone_is_an_opening() -> None:
    world = {"direction": "ingress", "remoteIpPrefix": "::/0"}
    campus = {"direction": "ingress", "remoteIpPrefix": "192.0.2.0/24"}
    events = finished(
        step("same", RULE, "was open", world, world),
        step("create", RULE, "campus", None, campus),
        replacement(RULE, "widened", campus, world),
        step("create", "kubernetes:core/v1:Service", "web", None, {"spec": {"type": "LoadBalancer"}}),
        step("create", "kubernetes:core/v1:Service", "inner", None, {"spec": {"type": "ClusterIP"}}),
        step("delete", "kubernetes:networking.k8s.io/v1:NetworkPolicy", "default-deny", {}),
    )
    openings = "\n".join(Review(events, "update").openings)
    assert [
        name for name in ("was open", "campus", "widened", "`web`", "inner", "default-deny") if name in openings
    ] == [
        "widened",
        "`web`",
        "default-deny",
    ]


def test_drift_is_not_our_destruction() -> None:
    urn = step("refresh", SERVER, "worker-0", {}, {})[0]
    gone = step("delete", SERVER, "worker-0", {})[1]
    text = markdown(finished([urn, gone]), "refresh")
    assert "### Drift of stack `dev`: 1 missing" in text
    assert "Destructive" not in text


def test_secrets_are_never_in_it() -> None:
    events = finished(step("create", SERVER, "a", None, {"userData": SECRET, "plain": "seen"}))
    text = markdown(events)
    assert "hunter2" not in text
    assert "[secret]" in text
    assert "seen" in text


def test_a_failure_says_why() -> None:
    events = [{"diagnosticEvent": {"severity": "error", "message": "ValueError: no\n```\n@all", "prefix": "error: "}}]
    text = markdown(events)
    assert "### Preview of stack `dev`: failed" in text
    assert "````text\nValueError: no\n```\n@all\n````" in text


def test_names_cannot_break_out_of_the_table() -> None:
    events = finished(step("create", VOLUME, "a|b` @team <img src=x>", None, {"x": "```\n</details>"}))
    text = markdown(events)
    (row,) = [line for line in text.splitlines() if "@team" in line and line.startswith("|")]
    assert "`` a\\|b` @team <img src=x> ``" in row


@pytest.mark.parametrize("count", [1, 40, 400, 4000])
def test_it_fits_and_says_what_is_missing(count: int) -> None:
    events = finished(*(step("delete", VOLUME, f"volume-{i}-ä", {"size": i, "text": "x" * 100}) for i in range(count)))
    text = markdown(events)
    assert len(text.encode()) <= LIMIT_BYTES
    whole = text.count("[urn=") == count
    assert whole == ("too long for a comment" not in text)
    listed = text.count("| `-` | delete |")
    assert listed == count or f"| | | {count - listed} more resources; see the whole plan | |" in text
    assert text.count("<details>") == text.count("</details>") == 1
    assert whole == (count <= 40)


def test_long_warnings_and_errors_are_cut_where_nothing_breaks() -> None:
    def output(severity: str, text: str) -> Event:
        return {"diagnosticEvent": {"severity": severity, "message": text}}

    lines = "\n".join(f"line {i} {'x' * 50}" for i in range(4000))
    events = [output("error", lines), *(output("warning", f"{i} {'y' * 90}") for i in range(4000))]
    text = markdown(events)
    assert len(text.encode()) <= LIMIT_BYTES
    assert text.count("```") == 2
    assert "more lines of warnings; `lab preview` shows all" in text
    assert "line 0 x" in text


PROGRAM = """
from pulumi.dynamic import CreateResult, Resource, ResourceProvider
class Provider(ResourceProvider):
    def create(self, props):
        return CreateResult("id", props)
class Lease(Resource, module="blazar", name="Lease"):
    def __init__(self, name, **props):
        super().__init__(Provider(), name, {"name": name, **props})
"""


def test_the_verb(dev: Lab) -> None:
    dev.write(PROGRAM + "Lease('one', password=pulumi.Output.secret('hunter2-planted'))\nLease('two')\n")
    dev.env["PULUMI_STACK"] = "dev"
    file = dev.home / "preview.md"
    dev.run("preview", "--markdown", str(file), "--fail-on-destructive")
    assert "2 to create" in file.read_text()
    assert "hunter2" not in file.read_text()
    dev.run("up", "--skip-preview")

    dev.write(PROGRAM + "Lease('one')\n")
    dev.refuse(
        "preview", "--markdown", str(file), "--fail-on-destructive", status=10, saying="deletes lease `two`: Blazar"
    )
    assert "- deletes lease `two`" in file.read_text()
    shown = dev.run("preview", "--markdown", "-")
    assert shown.stdout.startswith("<!-- ml-cluster: preview of stack dev -->\n###")
    assert "Previewing update (dev)" in shown.stderr

    dev.write("raise ValueError('planted')\n")
    dev.run("preview", "--markdown", str(file), "--fail-on-destructive", status=1)
    assert "ValueError: planted" in file.read_text()
    dev.refuse("preview", "--markdown", "-", "--json", status=2, saying="cannot be used together")
    dev.refuse("preview", "--markdown", str(dev.home / "no" / "folder"), status=1, saying="could not write")
    assert json.loads(dev.run("status", "--json").stdout)["resources"]
