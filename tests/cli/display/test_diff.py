"""The diff view, and the details of a preview."""

from __future__ import annotations

import io
from typing import Any

import pytest

from cli.display import print_details
from tests.cli.display.stream import (
    SECRET,
    SIGNATURE,
    UNKNOWN,
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
)


def diff(*events: Event, **flags: Any) -> str:
    return show([begin_stack(), *events], diff=True, **flags)[0]


def body(out: str) -> str:
    """The property lines of the only step, without their common indentation."""
    lines = out.splitlines()
    start = next(index for index, line in enumerate(lines) if "[urn=" in line and "::node" in line)
    return "\n".join(line.removeprefix("      ") for line in lines[start + 1 :])


def test_a_new_resource_shows_all_it_will_have() -> None:
    out = diff(begin("create", "node", new=state("node", inputs={"size": 3, "key": SECRET, "ip": UNKNOWN, "__x": 1})))
    assert out.endswith(
        "    + openstack:compute/instance:Instance: (create)\n"
        "        [urn=urn:pulumi:dev::lab::openstack:compute/instance:Instance::node]\n"
        "        ip  : [unknown]\n"
        "        key : [secret]\n"
        "        size: 3\n"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": 1}, {"a": 2}, "~ a: 1 => 2"),
        ({"a": 1}, {}, "- a: 1"),
        ({}, {"a": True}, "+ a: true"),
        ({"a": 1.5}, {"a": None}, "- a: 1.5"),
        ({"a": "x"}, {"a": SECRET}, '~ a: "x" => [secret]'),
        ({"a": SECRET}, {"a": UNKNOWN}, "~ a: [secret] => [unknown]"),
        ({"a": 1}, {"a": True}, "~ a: 1 => true"),
        ({"a": "x"}, {"a": [1]}, '- a: "x"\n+ a: [\n+     [0]: 1\n  ]'),
        ({"a": [1, 2, 3]}, {"a": [1, 5]}, "~ a: [\n      [0]: 1\n    ~ [1]: 2 => 5\n    - [2]: 3\n  ]"),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 9, "d": 2}}},
         "~ a: {\n    ~ b: {\n        ~ c: 1 => 9\n          d: 2\n      }\n  }"),
        ({"a": '{"x":1,"y":2}'}, {"a": '{"x":1,"y":3}'}, "~ a: (json) {\n      x: 1\n    ~ y: 2 => 3\n  }"),
        ({"a": "x: 1\ny: 2"}, {"a": "x: 1\ny: 3"}, "~ a: (yaml) {\n      x: 1\n    ~ y: 2 => 3\n  }"),
        ({"a": 'say "hi"\t'}, {"a": "bye\x1b[2J"}, '~ a: "say \\"hi\\"\\t" => "bye\\x1b[2J"'),
    ],
)  # fmt: skip
def test_changes_of_properties(old: Event, new: Event, expected: str) -> None:
    assert body(diff(change("node", old, new))) == expected


def test_texts_of_several_lines_show_the_lines_that_differ() -> None:
    old = "".join(f"line {number}\n" for number in range(20))
    out = body(diff(change("node", {"script": old}, {"script": old.replace("line 10\n", "line ten\n")})))
    lines = [line.strip() for line in out.splitlines()[1:]]
    assert lines == ["...", "line 8", "line 9", "- line 10", "+ line ten", "line 11", "line 12", "..."]


def test_long_texts_are_cut_unless_shown_in_full() -> None:
    step = begin("create", "node", new=state("node", inputs={"wide": "w" * 200, "tall": "a\nb\nc\nd\ne: "}))
    out = body(diff(step))
    assert '  wide: "' + "w" * 150 + '..."' in out
    assert '  tall: "a\\nb\\nc\\n..."' in out
    assert "w" * 200 in diff(step, show_full_output=True)


def test_the_providers_diff_is_believed_and_what_forces_a_replacement_is_marked() -> None:
    step = change(
        "node",
        {"image": "a", "tags": ["x", "y"], "noise": 1},
        {"image": "b", "tags": ["x", "z"], "noise": 2},
        op="replace",
        detailedDiff={
            "image": {"diffKind": "update-replace", "inputDiff": False},
            "tags[1]": {"diffKind": "update", "inputDiff": True},
        },
        keys=["image"],
    )
    out = diff(step)
    assert "    +-openstack:compute/instance:Instance: (replace)\n        [id=id-node]\n" in out
    assert body(out) == '~ image: "a" => "b" (forces replacement)\n~ tags : [\n    ~ [1]: "y" => "z"\n  ]'
    assert "[diff: ~image,tags]" in show([step])[0]


def test_keys_force_a_replacement_without_a_detailed_diff_too() -> None:
    out = diff(change("node", {"image": "a"}, {"image": "b"}, op="replace", keys=["image"], diffs=["image"]))
    assert body(out) == '~ image: "a" => "b" (forces replacement)'


def test_steps_within_a_replacement_are_left_out_unless_asked_for() -> None:
    events = [
        change("node", {"a": 1}, {"a": 2}, op="create-replacement", logical=False),
        change("node", {"a": 1}, {"a": 2}, op="replace"),
        begin("delete-replaced", "node", logical=False),
    ]
    assert "(create-replacement)" not in diff(*events)
    assert "(delete-replaced)" not in diff(*events)
    out = diff(*events, show_replacement_steps=True)
    assert "    ++openstack:compute/instance:Instance: (create-replacement)\n" in out
    assert "    --openstack:compute/instance:Instance: (delete-replaced)\n" in out


def test_diffs_the_program_hides_are_only_named() -> None:
    old, new = (
        state("node", inputs={"a": {"b": 1}, "c": 1}),
        state("node", inputs={"a": {"b": 2}, "c": 2}, hideDiffs=["a"]),
    )
    for detailed in (
        None,
        {"a.b": {"diffKind": "update", "inputDiff": True}, "c": {"diffKind": "update", "inputDiff": True}},
    ):
        assert (
            body(diff(begin("update", "node", old=old, new=new, detailedDiff=detailed))) == "~ a (hidden)\n~ c: 1 => 2"
        )


def test_assets_show_their_kind_and_hash() -> None:
    def asset(digest: str, **where: str) -> Event:
        return {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "hash": digest, **where}

    old, new = {"a": asset("1" * 40, path="./x")}, {"a": asset("2" * 40, path="./y")}
    assert body(diff(change("node", old, new))) == "~ a: asset(file:1111111->2222222) { ./x->./y }"
    archive = {
        SIGNATURE: "0def7320c3a5731c473e5ecbe6d01bc7",
        "hash": "3" * 40,
        "assets": {"m": asset("4" * 40, uri="u")},
    }
    out = body(diff(begin("create", "node", new=state("node", inputs={"z": archive}))))
    assert out == '  z: archive(assets:3333333) {\n      "m": asset(uri:4444444) { u }\n  }'


def test_a_changed_provider_is_shown() -> None:
    old_provider = "urn:pulumi:dev::lab::pulumi:providers:openstack::west::1"
    new_provider = f"urn:pulumi:dev::lab::pulumi:providers:openstack::east::{UNKNOWN}"
    old, new = state("node", provider=old_provider), state("node", provider=new_provider)
    out = diff(begin("update", "node", old=old, new=new, provider=new_provider))
    assert f"[provider: {old_provider} => {new_provider.replace(UNKNOWN, '[unknown]')}]" in out


def test_protected_resources_have_a_lock() -> None:
    locked, unlocked = state("node", protect=True), state("node")
    assert "(update) 🔒\n" in diff(begin("update", "node", old=unlocked, new=locked))
    assert "(same) 🔓\n" in diff(begin("same", "node", old=locked, new=unlocked))


def test_outputs_follow_once_they_are_known() -> None:
    inputs, outputs = {"size": 3}, {"size": 3, "address": "10.0.0.1"}
    done = end("create", "node", new=state("node", inputs=inputs, outputs=outputs))
    assert diff(begin("create", "node"), done).endswith('        --outputs:--\n        address: "10.0.0.1"\n')
    assert "--outputs:--" not in diff(begin("create", "node"), done, suppress_outputs=True)
    assert "address" not in diff(begin("create", "node"), done, dry_run=True)


def test_a_refresh_shows_drift_of_the_state() -> None:
    fields: Event = {
        "old": state("node", inputs={"size": 1}, outputs={"size": 1}),
        "new": state("node", inputs={"size": 1}, outputs={"size": 2}),
        "detailedDiff": {"size": {"diffKind": "update", "inputDiff": False}},
    }
    out = diff(begin("refresh", "node"), {"resOutputsEvent": metadata("update", "node", **fields)}, kind="refresh")
    assert "Refreshing (dev):" in out
    assert body(out) == "~ size: 1 => 2"


def test_children_are_indented_below_their_parent() -> None:
    component = begin("create", "cluster", "lab:Cluster")
    child = state("node", parent=component["resourcePreEvent"]["metadata"]["urn"])
    assert "\n        + openstack:compute/instance:Instance: (create)\n" in diff(
        component, begin("create", "node", new=child)
    )


def test_messages_go_to_standard_error() -> None:
    out, errors = show([begin_stack(), say("quota exceeded"), *finish({"same": 1})], diff=True)
    assert errors == "error: quota exceeded\n"
    assert "quota" not in out
    assert "    1 unchanged\n" in out


def test_details_are_the_changes_in_full() -> None:
    events = [
        begin_stack(),
        change("node", {"a": "w" * 200, "same": 1}, {"a": "v" * 200, "same": 1}),
        begin("delete", "old", old=state("old", inputs={"kept": "quiet"})),
        say("not here"),
        *finish({"update": 1}, preview=True),
    ]
    out = io.StringIO()
    print_details(events, color="never", out=out)
    assert f'      ~ a   : "{"w" * 200}" => "{"v" * 200}"\n' in out.getvalue()
    assert "    - openstack:compute/instance:Instance: (delete)\n" in out.getvalue()
    for absent in ("same:", "quiet", "not here", "Resources:"):
        assert absent not in out.getvalue()
