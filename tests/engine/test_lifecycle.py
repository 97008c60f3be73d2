"""Create, update, replace, delete, read, import, refresh: what each does, in which order, and what its preview says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance


@conformance(
    feature="preview", cli="Shows the plan and changes nothing; outputs that a create would compute are unknown."
)
@conformance(feature="create", cli="Creates what the program declares, dependencies first, passing outputs on.")
@conformance(feature="same", cli="A second run of an unchanged program calls no provider method that changes anything.")
@conformance(feature="stack outputs", cli="Exports of the program are the stack's outputs.")
def test_create_then_nothing_to_do(stack: Stack) -> None:
    stack.program("""
        a = Thing("a", value=1)
        b = Thing("b", value=a.computed, other={"list": [1, 2.5, True, None, "x"]})
        export("b", b.computed)
        export("nested", {"ids": [a.id, b.id]})
    """)
    plan = stack.preview()
    assert plan.planned == [("create", "a"), ("create", "b")]
    assert plan.changes == {"create": 3}
    assert stack.call("create", "b")["preview"]
    assert stack.call("create", "b")["inputs"]["value"] == "$unknown"
    assert stack.existing() == {}

    up = stack.up()
    assert up.done == [("create", "a"), ("create", "b")]
    assert up.changes == {"create": 3}
    a, b = stack.existing()["a"], stack.existing()["b"]
    assert b["inputs"]["value"] == f"{a['id']}:1"
    assert b["inputs"]["other"]["list"] == [1, 2.5, True, None, "x"]
    assert stack.outputs() == {"b": f'{b["id"]}:"{a["id"]}:1"', "nested": {"ids": [a["id"], b["id"]]}}

    stack.forget_calls()
    assert stack.preview().changes == {"same": 3}
    assert stack.up().changes == {"same": 3}
    assert not stack.order("create", "update", "delete", "read")
    assert stack.existing() == {"a": a, "b": b}


@conformance(feature="update", cli="A changed input that needs no replacement is updated in place; the id stays.")
@conformance(feature="preview", cli="Property diffs of an update name each changed property.")
def test_update_in_place(stack: Stack) -> None:
    stack.program('Thing("a", value=1, gone="x"); Thing("b", value="still")')
    stack.up()
    before = stack.existing()
    stack.program('Thing("a", value=2, added="y"); Thing("b", value="still")')
    plan = stack.preview()
    assert plan.changes == {"update": 1, "same": 2}
    assert {k: d["diffKind"] for k, d in plan.step("update", "a")["detailedDiff"].items()} == {
        "value": "update",
        "gone": "delete",
        "added": "add",
    }
    up = stack.up()
    assert up.changes == {"update": 1, "same": 2}
    after = stack.existing()
    assert after["a"]["id"] == before["a"]["id"]
    assert after["a"]["inputs"]["value"] == 2
    assert "gone" not in after["a"]["inputs"]
    assert after["b"] == before["b"]
    assert stack.call("update", "a")["olds"]["value"] == 1
    assert stack.state()["a"]["outputs"]["computed"] == f"{before['a']['id']}:2"


@conformance(
    feature="replace, create first",
    cli="The new resource is created, dependents are moved to it, then the old one is deleted.",
)
def test_replace_creates_first_and_moves_dependents(stack: Stack) -> None:
    program = """
        a = Thing("a", key={key})
        b = Thing("b", value=a.id)
    """
    stack.program(program.format(key=1))
    stack.up()
    old = stack.existing()["a"]["id"]
    stack.program(program.format(key=2))
    plan = stack.preview()
    assert [s for s in plan.planned if s[1] == "a"] == [
        ("create-replacement", "a"),
        ("replace", "a"),
        ("delete-replaced", "a"),
    ]
    assert ("update", "b") in plan.planned
    assert plan.step("create-replacement", "a")["keys"] == ["key"]
    stack.forget_calls()
    up = stack.up()
    assert stack.order("create", "update", "delete") == [("create", "a"), ("update", "b"), ("delete", "a")]
    assert stack.call("delete", "a")["id"] == old
    assert up.changes == {"replace": 1, "update": 1, "same": 1}
    assert stack.existing()["b"]["inputs"]["value"] == stack.existing()["a"]["id"] == stack.state()["a"]["id"] != old


@conformance(
    feature="replace, delete first",
    cli="Where the provider's diff or the option says so, dependents that would need replacement are deleted "
    "first, then the resource, then all are created again.",
)
def test_delete_before_replace_takes_the_dependents_along(stack: Stack) -> None:
    program = """
        a = Thing("a", slot="s{n}")
        b = Thing("b", key=a.id)
        c = Thing("c", value=b.id)
        d = Thing("d", value=a.id)
    """
    stack.program(program.format(n=1))
    stack.up()
    before = stack.existing()
    stack.program(program.format(n=2))
    stack.forget_calls()
    stack.up()
    order = stack.order("create", "update", "delete")
    assert order[:4] == [("delete", "b"), ("delete", "a"), ("create", "a"), ("create", "b")] or order[:2] == [
        ("delete", "b"),
        ("delete", "a"),
    ]
    assert sorted(order) == sorted(
        [("delete", "b"), ("delete", "a"), ("create", "a"), ("create", "b"), ("update", "c"), ("update", "d")]
    )
    assert order.index(("create", "a")) < order.index(("create", "b")) < order.index(("update", "c"))
    after = stack.existing()
    assert after["c"]["id"] == before["c"]["id"]
    assert after["d"]["inputs"]["value"] == after["a"]["id"] != before["a"]["id"]


@conformance(
    feature="delete", cli="What the program no longer declares is deleted, dependents before what they depend on."
)
@conformance(feature="destroy", cli="Deletes everything in reverse order of dependency and leaves an empty stack.")
def test_delete_and_destroy_in_reverse_order(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        b = Thing("b", value=a.id)
        c = Thing("c", opts=ResourceOptions(depends_on=[b]))
        x = Thing("x")
        y = Thing("y", opts=ResourceOptions(parent=x))
    """)
    stack.up()
    stack.program('a = Thing("a"); x = Thing("x"); y = Thing("y", opts=ResourceOptions(parent=x))')
    plan = stack.preview()
    assert [s for s in plan.planned if s[0] == "delete"] == [("delete", "c"), ("delete", "b")]
    stack.forget_calls()
    assert stack.up().changes == {"delete": 2, "same": 4}
    assert stack.order("delete") == [("delete", "c"), ("delete", "b")]
    stack.forget_calls()
    destroy = stack.destroy()
    assert destroy.changes == {"delete": 4}
    order = stack.order("delete")
    assert sorted(order) == [("delete", "a"), ("delete", "x"), ("delete", "y")]
    assert order.index(("delete", "y")) < order.index(("delete", "x"))
    assert stack.existing() == {}
    assert not stack.export()["deployment"].get("resources")


@conformance(feature="read (get)", cli="`Resource.get` reads an existing resource; it is never updated or deleted.")
def test_get_reads_and_never_deletes(stack: Stack) -> None:
    stack.plant("found-1", "found", value="theirs")
    stack.program("""
        g = Thing.get("g", "found-1")
        Thing("a", value=g.value)
        export("value", g.value)
    """)
    up = stack.up()
    assert ("read", "g") in up.done
    assert stack.outputs() == {"value": "theirs"}
    assert stack.existing()["a"]["inputs"]["value"] == "theirs"
    assert stack.state()["g"]["external"] is True
    stack.program("")
    plan = stack.preview()
    assert ("discard", "g") in plan.planned or ("read-discard", "g") in plan.planned
    stack.up()
    assert list(stack.existing()) == ["found"]
    assert not stack.calls("delete", "g")


@conformance(feature="read (get)", cli="Reading what does not exist fails the update, naming the resource.")
def test_get_of_a_missing_resource_fails(stack: Stack) -> None:
    stack.program('Thing.get("g", "nowhere")')
    up = stack.up(ok=False)
    assert "nowhere" in up.messages
    assert "does not exist" in up.messages


@conformance(feature="`import_`", cli="The existing resource with the given id is read and adopted, not created.")
def test_import_adopts(stack: Stack) -> None:
    stack.plant("found-1", "a", value=1, name="given")
    stack.program('Thing("a", value=1, name="given", opts=ResourceOptions(import_="found-1"))')
    plan = stack.preview()
    assert plan.planned == [("import", "a")]
    assert plan.changes == {"import": 1, "create": 1}
    assert stack.up().changes == {"import": 1, "create": 1}
    assert not stack.calls("create")
    assert stack.state()["a"]["id"] == "found-1"
    stack.program('Thing("a", value=2, name="given")')
    assert stack.up().changes == {"update": 1, "same": 1}
    stack.destroy()
    assert stack.existing() == {}


@conformance(
    feature="`import_`",
    cli="Where the program's inputs differ from the imported resource's it is updated after the import; an import that "
    "would need a replacement, or finds nothing, fails.",
)
def test_import_with_differences(stack: Stack) -> None:
    stack.plant("found-1", "a", value="theirs", name="given")
    stack.program('Thing("a", value="mine", name="given", opts=ResourceOptions(import_="found-1"))')
    assert stack.up().changes == {"import": 1, "update": 1, "create": 1}
    assert stack.existing()["a"]["id"] == "found-1"
    assert stack.existing()["a"]["inputs"]["value"] == "mine"
    stack.plant("found-2", "b", name="given", key=1)
    stack.program("""
        Thing("a", value="mine", name="given")
        Thing("b", name="given", key=2, opts=ResourceOptions(import_="found-2"))
    """)
    assert "may not be replaced" in stack.up(ok=False).messages
    assert stack.existing()["b"]["inputs"]["key"] == 1
    stack.program('Thing("a", value="mine", name="given"); Thing("c", opts=ResourceOptions(import_="nowhere"))')
    assert "does not exist" in stack.up(ok=False).messages


@conformance(
    feature="refresh",
    cli="Reads every resource and writes what it finds to the state; what vanished is dropped from it.",
)
def test_refresh_takes_drift_into_the_state(stack: Stack) -> None:
    stack.program('Thing("a", value=1); Thing("b", value=1); Thing("c", value=1)')
    stack.up()
    stack.drift("a", value="drifted")
    stack.vanish("b")
    preview = stack.refresh("--preview-only")
    assert stack.state()["a"]["outputs"]["value"] == 1
    assert preview.exit_code == 0
    refresh = stack.refresh()
    assert refresh.changes == {"update": 1, "delete": 1, "same": 2}
    state = stack.state()
    assert state["a"]["outputs"]["value"] == state["a"]["inputs"]["value"] == "drifted"
    assert "b" not in state
    up = stack.up()
    assert up.changes == {"update": 1, "create": 1, "same": 2}
    assert stack.existing()["a"]["inputs"]["value"] == 1
    assert "b" in stack.existing()


@conformance(feature="`--refresh`", cli="`up`, `preview` and `destroy` with `--refresh` take drift into account first.")
def test_up_with_refresh_repairs_drift(stack: Stack) -> None:
    stack.program('Thing("a", value=1); Thing("b")')
    stack.up()
    stack.drift("a", value="drifted")
    stack.vanish("b")
    assert stack.up().changes == {"same": 3}
    plan = stack.preview("--refresh")
    assert {("update", "a"), ("create", "b")} <= set(plan.planned)
    stack.up("--refresh")
    assert stack.existing()["a"]["inputs"]["value"] == 1
    stack.vanish("b")
    stack.destroy("--refresh")
    assert stack.existing() == {}


@conformance(feature="`--expect-no-changes`", cli="Exits non-zero if the update or preview has any change.")
def test_expect_no_changes(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    assert stack.preview("--expect-no-changes", ok=False).exit_code != 0
    stack.up()
    stack.preview("--expect-no-changes")
    stack.up("--expect-no-changes")
    stack.drift("a", value=2)
    stack.refresh("--expect-no-changes", ok=False)


@conformance(feature="`--parallel`", cli="Independent resources are operated on at once, at most N of them.")
def test_parallel(stack: Stack) -> None:
    names = [f"t{i}" for i in range(6)]
    stack.program(f"for name in {names}: Thing(name)")
    stack.control(hold={"*": ["create"]})
    process = stack.start(*stack.operation("up", "--parallel", "3"))
    try:
        held = stack.world / "held"
        wait_for(lambda: len(list(held.iterdir())) == 3, "three creates at once")
    finally:
        stack.release(*(f"{name}.create" for name in names))
    assert stack.finish(process).exit_code == 0
    assert peak(stack) == 3
    assert sorted(stack.existing()) == names
    stack.control()
    stack.forget_calls()
    stack.destroy("--parallel", "1")
    assert peak(stack) == 1


def peak(stack: Stack) -> int:
    """The most creates and deletes that were under way at one moment."""
    now = most = 0
    for call in stack.calls(event="any"):
        if call["method"] in {"create", "delete"}:
            now += 1 if call["event"] == "begin" else -1
            most = max(most, now)
    return most


@conformance(
    feature="autonaming", cli="The provider gets a seed that is stable between preview and update of one resource."
)
def test_autonames_are_stable_and_new_for_a_replacement(stack: Stack) -> None:
    stack.program('Thing("a", key=1); Thing("b")')
    stack.up()
    first = stack.existing()
    assert len(stack.call("check", "a")["seed"]) == 64
    assert stack.call("check", "a")["seed"] != stack.call("check", "b")["seed"]
    assert first["a"]["inputs"]["name"].startswith("a-")
    stack.up()
    stack.program('Thing("a", key=2); Thing("b")')
    stack.up()
    assert stack.existing()["a"]["inputs"]["name"] != first["a"]["inputs"]["name"]
    assert stack.existing()["b"] == first["b"]


@conformance(
    feature="`import_`",
    cli="An object that the state keeps under another name or spelling of its ID is deleted as what was replaced.",
    engine="is never deleted while the state keeps it",
)
def test_an_imported_object_is_not_deleted_while_the_state_keeps_it(stack: Stack) -> None:
    stack.plant("found-1", "a", value=1, name="given")
    imported = 'Thing("{name}", value=1, name="given", opts=ResourceOptions(import_="{id}"))'
    stack.program(imported.format(name="a", id="FOUND-1"))
    stack.up()
    assert stack.state()["a"]["id"] == "found-1"
    # Taken away, and put back.
    stack.program('Thing("a", value=1, name="given")')
    stack.up()
    stack.program(imported.format(name="a", id="FOUND-1"))
    assert set(stack.preview().changes) == {"same"}
    stack.up()
    stack.program(imported.format(name="a", id="Found-1"))
    stack.up()
    # Read under another spelling, and imported again.
    stack.program('Thing.get("a", "FOUND-1")')
    stack.up()
    stack.program(imported.format(name="a", id="Found-1"))
    stack.up()
    # Imported under another name of the program.
    stack.program(imported.format(name="b", id="FOUND-1"))
    stack.up()
    assert [record["id"] for record in stack.existing().values()] == ["found-1"]
    assert not stack.calls("delete")
    assert [name for name, r in stack.state().items() if r["type"].endswith("Thing")] == ["b"]
    stack.program("")
    stack.up()
    assert stack.existing() == {}


@conformance(
    feature="numbers", cli="Whole numbers are kept and shown as such up to 1e21; NaN and infinity are refused."
)
def test_numbers(stack: Stack) -> None:
    stack.program("""
        a = Thing("a", value=2**53 + 1, list=[2**53, -(2**63), 1e20, 1e21, 1.5, 1e-7])
        export("big", a.value)
        export("list", a.list if hasattr(a, "list") else [2**53, 1e20])
    """)
    up = stack.up()
    kept = stack.state()["a"]["inputs"]["value"]
    assert (type(kept), kept) == (int, 2**53)
    assert "9007199254740992.0" not in up.text
    assert stack.run("stack", "output", "--stack", "dev", "big").stdout.strip() == "9007199254740992"
    assert set(stack.preview().changes) == {"same"}
    stack.program('Thing("a", value=float("nan")); export("x", float("inf"))')
    refused = stack.up(ok=False)
    assert "nan" in refused.messages
    assert "Traceback" not in refused.text
    assert stack.state()["a"]["inputs"]["value"] == 2**53


@conformance(feature="up", cli="Runs the program as it is, however soon after the last run it was changed.")
def test_a_change_within_a_second_of_the_last_run(stack: Stack) -> None:
    stack.program('Thing("a", value=1)')
    stack.up()
    before = (stack.folder / "__main__.py").stat()
    stack.program('Thing("a", value=2)')
    os.utime(stack.folder / "__main__.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stack.preview().changes == {"update": 1, "same": 1}
