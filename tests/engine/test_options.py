"""Every resource option, each with a test that fails without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance


@conformance(feature="`protect`", cli="A protected resource is neither deleted nor replaced; the plan itself fails.")
def test_protect(stack: Stack) -> None:
    stack.program('Thing("a", key=1, opts=ResourceOptions(protect=True)); Thing("b")')
    stack.up()
    stack.program('Thing("b")')
    for attempt in (stack.preview, stack.up, stack.destroy):
        assert "protect" in attempt(ok=False).messages
        assert set(stack.existing()) >= {"a"}
    stack.program('Thing("a", key=2, opts=ResourceOptions(protect=True))')
    assert "protect" in stack.up(ok=False).messages
    assert stack.existing()["a"]["inputs"]["key"] == 1
    stack.program('Thing("a", key=1, opts=ResourceOptions(protect=False))')
    stack.up()
    stack.destroy()
    assert stack.existing() == {}


@conformance(
    feature="`retain_on_delete`", cli="Delete, destroy and replace forget the resource without calling Delete."
)
def test_retain_on_delete(stack: Stack) -> None:
    program = """
        Thing("a", opts=ResourceOptions(retain_on_delete=True))
        Thing("b", key={key}, opts=ResourceOptions(retain_on_delete=True))
    """
    stack.program(program.format(key=1))
    stack.up()
    first = {record["id"] for record in stack.existing().values()}
    stack.program(program.format(key=2))
    stack.up()
    stack.destroy()
    assert not stack.calls("delete")
    kept = {path.stem for path in (stack.world / "resources").glob("*.json")}
    assert first < kept
    assert len(kept) == 3
    assert stack.state() == {}


@conformance(
    feature="`ignore_changes`", cli="Changes of the named input paths are not taken over; the old values are kept."
)
def test_ignore_changes(stack: Stack) -> None:
    program = """
        Thing("a", value={n}, key={n}, nested={{"kept": {n}, "list": [{n}, {n}]}},
              opts=ResourceOptions(ignore_changes=["key", "nested.kept", "nested.list[0]"]))
        Thing("all", value={n}, opts=ResourceOptions(ignore_changes=["*"]))
    """
    stack.program(program.format(n=1))
    stack.up()
    before = stack.existing()["a"]["id"]
    stack.program(program.format(n=2))
    assert stack.up().changes == {"update": 1, "same": 2}
    inputs = stack.existing()["a"]["inputs"]
    assert stack.existing()["a"]["id"] == before
    assert (inputs["value"], inputs["key"], inputs["nested"]) == (2, 1, {"kept": 1, "list": [1, 2]})
    assert stack.existing()["all"]["inputs"]["value"] == 1
    assert set(stack.call("diff", "a")["ignore_changes"]) == {"key", "nested.kept", "nested.list[0]"}


@conformance(feature="`replace_on_changes`", cli="A change of a named path replaces though the provider would update.")
def test_replace_on_changes(stack: Stack) -> None:
    program = """
        Thing("a", value={v}, deep={{"x": [{d}]}}, opts=ResourceOptions(replace_on_changes=["deep.x[*]"]))
        Thing("b", value={v}, opts=ResourceOptions(replace_on_changes=["*"]))
    """
    stack.program(program.format(v=1, d=1))
    stack.up()
    first = stack.existing()
    stack.program(program.format(v=2, d=1))
    assert stack.up().changes == {"update": 1, "replace": 1, "same": 1}
    second = stack.existing()
    assert second["a"]["id"] == first["a"]["id"]
    assert second["b"]["id"] != first["b"]["id"]
    stack.program(program.format(v=2, d=2))
    assert stack.up().changes == {"replace": 1, "same": 2}
    assert stack.existing()["a"]["id"] != first["a"]["id"]


@conformance(feature="`delete_before_replace`", cli="The old resource is deleted before the new one is created.")
def test_delete_before_replace(stack: Stack) -> None:
    program = """
        a = Thing("a", key={n}, opts=ResourceOptions(delete_before_replace=True))
        Thing("b", value=a.id)
    """
    stack.program(program.format(n=1))
    stack.up()
    stack.program(program.format(n=2))
    stack.forget_calls()
    stack.up()
    assert stack.order("create", "update", "delete") == [("delete", "a"), ("create", "a"), ("update", "b")]
    assert stack.existing()["b"]["inputs"]["value"] == stack.existing()["a"]["id"]


@conformance(feature="`deleted_with`", cli="If the named resource is deleted too, Delete is not called for this one.")
def test_deleted_with(stack: Stack) -> None:
    stack.program("""
        host = Thing("host")
        Thing("guest", value=host.id, opts=ResourceOptions(deleted_with=host))
    """)
    stack.up()
    stack.destroy()
    assert stack.order("delete") == [("delete", "host")]
    assert stack.state() == {}
    assert list(stack.existing()) == ["guest"]


@conformance(feature="`deleted_with`", cli="If only this resource is deleted, Delete is called as usual.")
def test_deleted_with_alone(stack: Stack) -> None:
    stack.program("""
        host = Thing("host")
        Thing("guest", opts=ResourceOptions(deleted_with=host))
    """)
    stack.up()
    stack.program('Thing("host")')
    stack.up()
    assert stack.order("delete") == [("delete", "guest")]


@conformance(
    feature="`depends_on`",
    cli="The resource waits for those named, is deleted before them; a component stands for its children.",
)
def test_depends_on(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        box = Box("box")
        inner = Thing("inner", opts=ResourceOptions(parent=box))
        box.register_outputs({})
        Thing("after", opts=ResourceOptions(depends_on=[a, box]))
    """)
    stack.control(hold={"a": ["create"], "inner": ["create"]})
    process = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("a.create") and stack.held("inner.create"), "both creates to start")
    stack.release("a.create")
    wait_for(lambda: stack.calls("create", "a", event="end"), "a to be created")
    assert not stack.calls("create", "after")
    stack.release("inner.create")
    assert stack.finish(process).exit_code == 0
    assert stack.order("create")[-1] == ("create", "after")
    dependencies = stack.state()["after"]["dependencies"]
    assert {urn.rsplit("::", 1)[-1] for urn in dependencies} == {"a", "inner"}
    stack.destroy()
    assert stack.order("delete")[0] == ("delete", "after")


@conformance(
    feature="`aliases`", cli="A resource found in the state under an alias (name, type, parent, URN) is the same one."
)
def test_aliases(stack: Stack) -> None:
    stack.program("""
        Thing("named"); Thing("typed"); Thing("by-urn")
        Thing("adopted")
        old = Box("old-box"); Thing("child", opts=ResourceOptions(parent=old))
    """)
    stack.up()
    before = stack.existing()
    stack.program("""
        Thing("renamed", opts=ResourceOptions(aliases=[Alias(name="named")]))
        Gadget("typed", opts=ResourceOptions(aliases=[Alias(type_="testbed:index:Thing")]))
        Thing("by-urn-2", opts=ResourceOptions(aliases=["urn:pulumi:dev::conformance::testbed:index:Thing::by-urn"]))
        new = Box("new-box", ResourceOptions(aliases=[Alias(name="old-box")]))
        Thing("child", opts=ResourceOptions(parent=new))
        Thing("adopted", opts=ResourceOptions(parent=new, aliases=[Alias(parent=ROOT_STACK_RESOURCE)]))
    """)
    up = stack.up()
    assert not stack.order("delete", "update"), up.text
    assert not {op for op, _ in up.done} & {"create", "delete", "replace"}
    state = stack.state()
    for new, old in {
        "renamed": "named",
        "typed": "typed",
        "by-urn-2": "by-urn",
        "child": "child",
        "adopted": "adopted",
    }.items():
        assert state[new]["id"] == before[old]["id"]
    assert "named" not in state
    assert stack.up("--expect-no-changes").changes == {"same": 7}


@conformance(feature="`additional_secret_outputs`", cli="The named outputs are secrets, encrypted in the state.")
def test_additional_secret_outputs(stack: Stack) -> None:
    stack.program("""
        a = Thing("a", value="plain-to-see", opts=ResourceOptions(additional_secret_outputs=["computed"]))
        export("computed", a.computed)
        export("value", a.value)
    """)
    up = stack.up()
    assert stack.outputs() == {"computed": "[secret]", "value": "plain-to-see"}
    assert stack.outputs("--show-secrets")["computed"].endswith(':"plain-to-see"')
    assert '"plain-to-see\\"' not in up.stdout
    computed = stack.state()["a"]["outputs"]["computed"]
    assert set(computed) >= {"ciphertext"}
    assert stack.state()["a"]["additionalSecretOutputs"] == ["computed"]


@conformance(feature="`custom_timeouts`", cli="The provider gets the timeouts of create, update and delete in seconds.")
def test_custom_timeouts(stack: Stack) -> None:
    program = """
        timeouts = CustomTimeouts(create="5m", update="90s", delete="1h30m")
        Thing("a", value={}, opts=ResourceOptions(custom_timeouts=timeouts))
    """
    stack.program(program.format(1))
    stack.up()
    stack.program(program.format(2))
    stack.up()
    assert stack.state()["a"]["customTimeouts"] == {"create": 300, "update": 90, "delete": 5400}
    stack.destroy()
    assert [stack.call(m, "a")["timeout"] for m in ("create", "update", "delete")] == [300, 90, 5400]


@conformance(
    feature="`parent`",
    cli="The child's URN carries its parent's type; options such as protect and provider are inherited.",
)
def test_parent(stack: Stack) -> None:
    stack.program("""
        explicit = Provider("explicit", region="north")
        box = Box("box", ResourceOptions(protect=True, providers=[explicit]))
        Thing("child", opts=ResourceOptions(parent=box))
        Thing("grown", opts=ResourceOptions(parent=box, protect=False))
    """)
    stack.up()
    child, grown = stack.state()["child"], stack.state()["grown"]
    assert child["urn"] == "urn:pulumi:dev::conformance::test:index:Box$testbed:index:Thing::child"
    assert child["parent"] == stack.state()["box"]["urn"]
    assert child["protect"] is True
    assert not grown.get("protect")
    assert "::explicit::" in child["provider"]


@conformance(
    feature="`version`",
    cli="Resources of different provider versions get a default provider each, with that plugin version.",
)
def test_version(stack: Stack) -> None:
    stack.program("""
        Thing("a")
        Thing("b", opts=ResourceOptions(version="0.1.0"))
    """)
    stack.up()
    providers = {name: stack.state()[name]["provider"] for name in ("a", "b")}
    assert "::default::" in providers["a"]
    assert "::default_0_1_0::" in providers["b"]
    assert stack.call("create", "a")["pid"] != stack.call("create", "b")["pid"]


@conformance(
    feature="transformations",
    cli="`transformations` run in the program and may change props and options of a resource and its children.",
)
@conformance(
    feature="transforms",
    cli="`transforms` are called back by the engine for a resource and its children, also for the whole stack.",
)
def test_transforms(stack: Stack) -> None:
    stack.program("""
        def old_style(args):
            return ResourceTransformationResult({**args.props, "old": True}, args.opts)

        def new_style(args):
            if args.type_ != "testbed:index:Thing":
                return None
            return ResourceTransformResult({**args.props, "new": args.name}, args.opts)

        async def on_stack(args):
            if args.name == "alone":
                args.opts.protect = True
                return ResourceTransformResult(args.props, args.opts)

        pulumi.runtime.register_resource_transform(on_stack)
        box = Box("box", ResourceOptions(transformations=[old_style], transforms=[new_style]))
        Thing("child", opts=ResourceOptions(parent=box))
        Thing("alone")
    """)
    stack.up()
    inputs = stack.existing()["child"]["inputs"]
    assert (inputs["old"], inputs["new"]) == (True, "child")
    assert "new" not in stack.existing()["alone"]["inputs"]
    assert stack.state()["alone"]["protect"] is True
    assert not stack.state()["child"].get("protect")


@conformance(feature="transforms", cli="An exception in a transform fails the resource, with its message.")
def test_failing_transform(stack: Stack) -> None:
    stack.program("""
        def broken(args):
            raise Exception("the transform broke")
        Thing("a", opts=ResourceOptions(transforms=[broken]))
    """)
    assert "the transform broke" in stack.up(ok=False).text
    assert stack.existing() == {}


@conformance(
    feature="resource references",
    cli="A resource passed as an input or exported is a reference: URN and id, resolved at the other end.",
)
def test_resource_references(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        Thing("b", ref=a)
        export("ref", a)
    """)
    stack.up()
    reference = stack.call("create", "b")["inputs"]["ref"]
    assert reference["$ref"] == stack.state()["a"]["urn"]
    assert reference["id"] == stack.existing()["a"]["id"]
    assert stack.state()["b"]["dependencies"] == [stack.state()["a"]["urn"]]
    assert stack.state()["b"]["inputs"]["ref"]["id"] == stack.existing()["a"]["id"]


@conformance(
    feature="assets and archives",
    cli="Providers get text, file and archive assets with their SHA-256; only a change of content is a change.",
)
def test_assets(stack: Stack) -> None:
    (stack.folder / "note.txt").write_text("hello")
    (stack.folder / "tree").mkdir()
    (stack.folder / "tree" / "leaf.txt").write_text("leaf")
    stack.program("""
        archive = AssetArchive({"x": StringAsset("x"), "note": FileAsset("note.txt")})
        Thing("a", text=StringAsset("hello"), file=FileAsset("note.txt"), archive=archive, tree=FileArchive("tree"))
    """)
    stack.up()
    inputs = stack.call("create", "a")["inputs"]
    sha256_of_hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert inputs["text"]["$asset"] == {"text": "hello", "hash": sha256_of_hello}
    assert inputs["file"]["$asset"]["hash"] == sha256_of_hello
    assert inputs["file"]["$asset"]["path"].endswith("note.txt")
    assert set(inputs["archive"]["$archive"]["assets"]) == {"x", "note"}
    assert len(inputs["tree"]["$archive"]["hash"]) == 64
    assert stack.up().changes == {"same": 2}
    (stack.folder / "note.txt").write_text("changed")
    assert stack.up().changes == {"update": 1, "same": 1}
    (stack.folder / "tree" / "leaf.txt").write_text("another leaf")
    assert stack.up().changes == {"update": 1, "same": 1}


@conformance(
    feature="`replacement_trigger`",
    cli="A change of the trigger replaces the resource; a trigger where there was none does not.",
)
def test_replacement_trigger(stack: Stack) -> None:
    """Every value in turn, each on a resource of its own: falsy ones are values too, and true is not 1."""
    listed = "[0, False, '', [], {}, 1, True, '0', [0], [False], {'a': 0}, 1.5, Output.secret(2), None]"
    program = """
        values = {listed}
        for index in range(len(values)):
            Thing(f"t{{index}}", opts=ResourceOptions(replacement_trigger=values[(index + {shift}) % len(values)]))
    """
    count = 14
    stack.program(program.format(listed=listed, shift=0))
    stack.up()
    first = stack.existing()
    assert set(stack.up().changes) == {"same"}
    stack.program(program.format(listed=listed, shift=1))
    plan = stack.preview()
    stack.up()
    after = stack.existing()
    replaced = {name for name in first if after[name]["id"] != first[name]["id"]}
    # The last two: to none, and from none.
    assert replaced == {f"t{index}" for index in range(count - 2)}
    assert plan.changes["replace"] == count - 2
