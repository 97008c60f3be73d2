"""Events for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.display.stream import (
    SECRET,
    SIGNATURE,
    STACK,
    Event,
    begin,
    begin_stack,
    change,
    end,
    finish,
    metadata,
    say,
    show,
    state,
    urn,
)
from tests.cli.display.test_recorded import recorded


def digest(events: list[Event], **flags: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(show(events, json=True, dry_run=True, **flags)[0])
    return parsed


@pytest.mark.parametrize("kind", ["update", "refresh", "destroy"])
def test_an_operation_streams_its_events_one_a_line(kind: str) -> None:
    events = [event for event in recorded("up-create") if "default" not in json.dumps(event)]
    out, _ = show(events, json=True, kind=kind, color="always")
    assert [json.loads(line) for line in out.splitlines()] == events


def test_colour_tags_are_taken_out_of_the_stream() -> None:
    out, _ = show([say("bad <{%fg 2%}>thing<{%reset%}>\x1b[1m")], json=True)
    event = json.loads(out)["diagnosticEvent"]
    assert (event["prefix"], event["message"], event["color"]) == ("error: ", "bad thing\n", "never")


def test_a_preview_is_one_document() -> None:
    events = [
        {"preludeEvent": {"config": {"lab:size": "3", "lab:key": "[secret]"}}},
        begin_stack(),
        change(
            "node", {"size": 1, "key": SECRET}, {"size": 2, "key": SECRET},
            detailedDiff={"size": {"diffKind": "update", "inputDiff": True}}, diffs=["size"],
        ),
        say("careful", severity="warning", about="node"),
        say("passing", severity="info", ephemeral=True),
        {"stdoutEvent": {"message": "a word", "color": "raw"}},
        *finish({"update": 1, "same": 1}, preview=True),
    ]  # fmt: skip
    assert digest(events) == {
        "config": {"lab:size": "3", "lab:key": "[secret]"},
        "steps": [
            {
                "op": "same",
                "urn": STACK,
                "oldState": {"urn": STACK, "custom": False, "type": "pulumi:pulumi:Stack"},
                "newState": {"urn": STACK, "custom": False, "type": "pulumi:pulumi:Stack"},
                "detailedDiff": None,
            },
            {
                "op": "update",
                "urn": urn("node"),
                "oldState": {
                    "urn": urn("node"), "custom": True, "id": "id-node", "type": "openstack:compute/instance:Instance",
                    "inputs": {"size": 1, "key": "[secret]"}, "outputs": {"size": 1, "key": "[secret]"},
                    "parent": STACK,
                },
                "newState": {
                    "urn": urn("node"), "custom": True, "type": "openstack:compute/instance:Instance",
                    "inputs": {"size": 2, "key": "[secret]"}, "parent": STACK,
                },
                "diffReasons": ["size"],
                "detailedDiff": {"size": {"kind": "update", "inputDiff": True}},
            },
        ],
        "diagnostics": [
            {"urn": urn("node"), "message": "warning: careful\n", "severity": "warning"},
            {"message": "a word", "severity": "info"},
        ],
        "duration": 3_000_000_000,
        "changeSummary": {"update": 1, "same": 1},
    }  # fmt: skip


def test_the_digest_leaves_out_what_does_not_change_unless_asked_for() -> None:
    events = [begin_stack(), begin("same", "node"), change("other", {}, {}, op="create-replacement", logical=False)]
    assert [step["urn"] for step in digest(events)["steps"]] == [STACK]
    assert [step["urn"] for step in digest(events, show_sames=True)["steps"]] == [STACK, urn("node")]
    assert len(digest(events, show_replacement_steps=True)["steps"]) == 2


def test_the_digest_of_a_refresh_has_the_differences() -> None:
    found = {"resOutputsEvent": metadata("delete", "node", old=state("node"), new=None)}
    steps = digest([begin("refresh", "node"), begin("refresh", "other"), found, end("refresh", "other")])["steps"]
    assert [(step["op"], step["urn"]) for step in steps] == [("delete", urn("node")), ("refresh", urn("other"))]


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_a_preview_can_be_streamed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PULUMI_ENABLE_STREAMING_JSON_PREVIEW", value)
    out, _ = show([begin_stack(), begin("create", "node")], json=True, dry_run=True)
    assert len(out.splitlines()) == 2


def test_a_digest_of_nothing_is_a_document() -> None:
    assert digest([]) == {}


PLANTED = "correct-horse-battery"


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"diff": True},
        {"json": True},
        {"json": True, "dry_run": True},
        {"dry_run": True},
        {"diff": True, "dry_run": True},
    ],
)
@pytest.mark.parametrize(
    "wrapper",
    [
        {SIGNATURE: SECRET[SIGNATURE], "plaintext": f'"{PLANTED}"'},
        {SIGNATURE: SECRET[SIGNATURE], "value": PLANTED},
        {SIGNATURE: "d0e6a833031e9bbcd3f4e8bde6ca49a4", "value": PLANTED, "secret": True},
    ],
)
def test_a_secret_is_never_shown_even_where_an_engine_forgot_to_blind_it(wrapper: Event, flags: dict[str, Any]) -> None:
    values = {"direct": wrapper, "nested": {"list": [wrapper]}}
    changed = change("node", values, {**values, "direct": "open"})
    outputs = end(
        "create", "lab-dev", "pulumi:pulumi:Stack", new=state("lab-dev", "pulumi:pulumi:Stack", outputs=values)
    )
    created = begin("create", "other", new=state("other", inputs=values, outputs=values))
    shown = show([begin_stack("create"), changed, created, outputs, *finish({"update": 1})], show_config=True, **flags)
    assert PLANTED not in "".join(shown)
    assert "[secret]" in "".join(shown) or not flags.get("diff")
