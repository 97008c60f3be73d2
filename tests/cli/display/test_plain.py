"""Progress where output is not a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from cli.display import make_display
from cli.display.model import Model, Options
from cli.display.plain import HEARTBEAT_SECONDS, PlainDisplay
from terminal.text import open_console
from tests.cli.display.stream import (
    SECRET,
    STACK,
    UNKNOWN,
    Event,
    Gone,
    begin,
    begin_stack,
    change,
    end,
    end_stack,
    fail,
    finish,
    say,
    show,
    state,
)


def test_a_step_prints_when_it_begins_and_when_it_ends() -> None:
    out, _ = show([begin_stack(), begin("create", "node"), end("create", "node"), end_stack(), *finish({"create": 1})])
    lines = re.sub(r"\(\d+(\.\d+)?s\)", "(N)", out).splitlines()
    assert lines[0] == "Updating (dev):"
    assert " +  openstack:compute:Instance node creating (N)" in lines
    assert " +  openstack:compute:Instance node created (N)" in lines
    assert lines[-5:] == ["Resources:", "    + 1 created", "", "Duration: 3s", ""]


def test_a_preview_lists_what_would_change() -> None:
    old, new = {"size": 1, "gone": "x", "same": True}, {"size": 2, "tags": ["a"], "same": True}
    out, _ = show(
        [begin_stack(), change("node", old, new), *finish({"update": 1, "same": 12}, preview=True)], dry_run=True
    )
    assert "Previewing update (dev):" in out
    assert " ~  openstack:compute:Instance node update [diff: +tags-gone~size]" in out
    assert "    ~ 1 to update\n    12 unchanged\n" in out
    assert "Duration" not in out


def test_unchanged_resources_are_only_counted_unless_asked_for() -> None:
    events = [begin_stack(), begin("same", "node"), end("same", "node"), *finish({"same": 2})]
    assert " node" not in show(events)[0]
    assert " node" in show(events, show_sames=True)[0]


def test_several_kinds_of_change_are_totalled() -> None:
    out, _ = show(finish({"create": 3, "delete": 1, "replace": 2, "same": 12}, preview=True))
    assert "    + 3 to create\n    - 1 to delete\n    +-2 to replace\n    6 changes. 12 unchanged\n" in out


def test_a_failure_is_shown_at_once_and_again_at_the_end() -> None:
    out, _ = show(
        [
            begin_stack(),
            begin("create", "node"),
            say("quota exceeded\nrequest id req-7", about="node"),
            fail("create", "node"),
            *finish({"create": 1}),
        ]
    )
    assert re.search(r"node \*\*creating failed \(.*s\)\*\* error: quota exceeded$", out, re.MULTILINE)
    report = out.partition("Diagnostics:\n")[2]
    expected = "  openstack:compute:Instance (node):\n    error: quota exceeded\n    request id req-7\n\n"
    assert report.startswith(expected)
    assert "    1 errored\n" in report


def test_what_was_under_way_when_all_ended_is_called_interrupted() -> None:
    out, _ = show([begin_stack(), begin("create", "node")])
    assert "node creating (interrupted)" in out


def test_messages_without_a_resource_belong_to_the_stack() -> None:
    out, _ = show([say("no plugin", severity="warning"), begin_stack(), *finish({})])
    assert "  pulumi:pulumi:Stack (lab-dev):\n    warning: no plugin\n" in out


def test_outputs_show_after_an_update_in_full() -> None:
    outputs = {
        "address": "10.0.0.1",
        "key": SECRET,
        "plain_secret": "[secret]",
        "later": UNKNOWN,
        "list": [1, {"a": None}],
    }
    after = state("lab-dev", "pulumi:pulumi:Stack", outputs=outputs)
    out, _ = show([begin_stack("create"), end_stack("create", new=after), *finish({"create": 1})])
    assert (
        "Outputs:\n"
        '    address     : "10.0.0.1"\n'
        "    key         : [secret]\n"
        "    later       : [unknown]\n"
        "    list        : [\n"
        "        [0]: 1\n"
        "        [1]: {\n"
        "            a: <null>\n"
        "        }\n"
        "    ]\n"
        "    plain_secret: [secret]\n"
    ) in out


def test_changed_outputs_are_marked() -> None:
    before = state("lab-dev", "pulumi:pulumi:Stack", outputs={"address": "10.0.0.1", "kept": 1, "old": 2})
    after = state("lab-dev", "pulumi:pulumi:Stack", outputs={"address": "10.0.0.2", "kept": 1, "new": 3})
    out, _ = show([begin_stack(), end_stack(old=before, new=after), *finish({"same": 1})])
    assert '  ~ address: "10.0.0.1" => "10.0.0.2"\n    kept   : 1\n  + new    : 3\n  - old    : 2\n' in out
    assert "Outputs:" not in show([begin_stack(), end_stack(new=after)], suppress_outputs=True)[0]


def test_protection_changes_are_shown_though_nothing_else_changes() -> None:
    out, _ = show([begin_stack(), begin("same", "node", old=state("node"), new=state("node", protect=True))])
    assert "node [diff: ~protect]" in re.sub(" +", " ", out)


def test_resources_left_in_the_cloud_are_marked() -> None:
    out, _ = show([begin_stack(), begin("delete", "node", old=state("node", retainOnDelete=True))])
    assert re.search(r"node deleting \(\d+s\)\[retain\]", out)


def test_reads_are_a_passing_word_about_the_stack() -> None:
    events = [begin_stack(), begin("read", "image"), end("read", "image"), *finish({"read": 1})]
    out, _ = show(events)
    assert "pulumi:pulumi:Stack lab-dev running read openstack:compute:Instance image" in out
    assert " > " not in out
    assert " >  openstack:compute:Instance image read" in show(events, show_reads=True)[0]


@pytest.mark.parametrize(
    "event",
    [
        {"policyAnalyzeSummaryEvent": {"resourceUrn": STACK, "policyPackName": "p", "failed": ["q"]}},
        {"policyLoadEvent": {}},
        {"startDebuggingEvent": {"config": {}}},
        {"errorEvent": {"error": "internal"}},
        {"somethingNew": {"urn": STACK}},
        {},
    ],
)
def test_events_that_mean_nothing_to_a_display_are_ignored(event: Event) -> None:
    rest = [begin_stack(), *finish({"same": 1})]
    for flags in ({}, {"diff": True}):
        assert show([event, *rest], **flags) == show(rest, **flags)


def test_an_operation_of_a_newer_engine_is_shown_by_its_name() -> None:
    out, _ = show([begin_stack(), begin("teleport", "node"), *finish({"teleport": 1})])
    assert "node teleport" in out
    assert "1 teleport" in out


def test_downloads_are_shown_once_when_they_start_and_end() -> None:
    steps = [{"received": 1, "done": False}, {"received": 2, "done": False}, {"received": 3, "done": True}]
    base = {"type": "plugin-download", "id": "x", "message": "Downloading plugin x", "total": 3}
    out, _ = show([{"progressEvent": base | step} for step in steps])
    assert [line for line in out.splitlines() if "plugin" in line] == [
        "Downloading plugin x: starting",
        "Downloading plugin x: done",
    ]


def test_silence_is_broken_by_a_word_about_what_takes_so_long() -> None:
    now = [0.0]
    out = io.StringIO()
    model = Model(Options("dev", "lab"), clock=lambda: now[0])
    display = PlainDisplay(model, open_console(out, color="never", interactive=False))
    display(begin("create", "slow"))
    display(begin("create", "slower"))
    display.beat()
    assert "in progress" not in out.getvalue()
    now[0] += HEARTBEAT_SECONDS
    display.beat()
    display.close()
    assert "@ 2 resources in progress, the longest: openstack:compute:Instance slow (20s)\n" in out.getvalue()


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("flags", [{}, {"diff": True}, {"json": True}, {"json": True, "dry_run": True}])
@pytest.mark.parametrize("room", [0, 40])
def test_an_update_continues_when_its_output_is_closed(room: int, error: OSError, flags: dict[str, Any]) -> None:
    defaults: dict[str, Any] = {"json": False, "diff": False, "dry_run": False}
    display = make_display(
        "update", **(defaults | flags), interactive=None, color="never", show_sames=True, stack="dev", project="lab",
        out=Gone(error, room), errors=Gone(error, room),
    )  # fmt: skip
    for event in [begin_stack(), begin("create", "node"), say("x"), end("create", "node"), *finish({"create": 1})]:
        display(event)
    display.close()


def test_names_and_messages_cannot_move_the_cursor() -> None:
    out, _ = show(
        [begin_stack(), begin("create", "evil\x1b[2J\x9b2Jname"), say("\x1b]0;title\x07gotcha\rback", about="evil")]
    )
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out)
    assert "gotchaback" in out


def test_colour_is_there_when_asked_for() -> None:
    events = [begin_stack(), begin("create", "node"), *finish({"create": 1})]
    assert "\x1b[32m" in show(events, color="always")[0]
    assert "\x1b" not in show(events, color="auto")[0]
