"""Default and explicit providers, their configuration, invokes, dynamic providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance


@conformance(
    feature="default provider",
    cli="One instance a package and version, configured from the stack's configuration `<package>:<key>`.",
)
def test_default_provider_is_configured_from_the_stack(stack: Stack) -> None:
    stack.config("testbed:region", "north")
    stack.config("testbed:token", "s3cr3t-token", "--secret")
    stack.program('Thing("a"); Thing("b")')
    stack.up()
    a, b = stack.call("create", "a"), stack.call("create", "b")
    assert a["pid"] == b["pid"]
    assert a["config"]["region"] == "north"
    assert a["config"]["token"] in ("s3cr3t-token", {"$secret": "s3cr3t-token"})
    provider = stack.state()["default"]
    assert provider["type"] == "pulumi:providers:testbed"
    assert provider["inputs"]["region"] == "north"
    assert stack.state()["a"]["provider"] == f"{provider['urn']}::{provider['id']}"
    assert "s3cr3t-token" not in stack.checkpoint_path.read_text()
    stack.config("testbed:region", "south")
    before = stack.existing()
    stack.up()
    assert all(stack.existing()[name]["id"] != before[name]["id"] for name in before)


@conformance(
    feature="explicit provider",
    cli="A provider resource has a state entry of its own; `provider` and `providers` select it, children inherit it.",
)
def test_explicit_providers(stack: Stack) -> None:
    stack.program("""
        north = Provider("north", region="north")
        south = Provider("south", region="south")
        Thing("n", opts=ResourceOptions(provider=north))
        box = Box("box", ResourceOptions(providers={"testbed": south}))
        Thing("s", opts=ResourceOptions(parent=box))
        Thing("d")
    """)
    stack.up()
    assert stack.call("create", "n")["config"]["region"] == "north"
    assert stack.call("create", "s")["config"]["region"] == "south"
    assert "region" not in stack.call("create", "d")["config"]
    assert {"north", "south", "default"} <= set(stack.state())
    stack.destroy()
    assert stack.existing() == {}
    assert stack.call("delete", "n")["config"]["region"] == "north"


@conformance(
    feature="explicit provider",
    cli="A provider whose inputs are unknown in preview is not configured; what uses it has unknown outputs.",
)
def test_provider_with_unknown_configuration(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        p = Provider("p", region=a.computed)
        b = Thing("b", opts=ResourceOptions(provider=p))
        export("b", b.computed)
    """)
    assert stack.preview().changes == {"create": 4}
    assert not any(call["config"].get("region") for call in stack.calls("create", "b"))
    stack.up()
    assert stack.call("create", "b")["config"]["region"] == f"{stack.existing()['a']['id']}:null"


@conformance(
    feature="explicit provider",
    cli="A configuration change that the provider calls an update is no change of its resources; a "
    "replacement replaces them all.",
)
def test_provider_update_and_replacement(stack: Stack) -> None:
    program = """
        p = Provider("p", region="{region}", label="{label}")
        Thing("a", opts=ResourceOptions(provider=p))
    """
    stack.program(program.format(region="north", label="x"))
    stack.up()
    first = stack.existing()["a"]["id"]
    stack.program(program.format(region="north", label="y"))
    assert stack.up().changes == {"update": 1, "same": 2}
    assert stack.existing()["a"]["id"] == first
    stack.program(program.format(region="south", label="y"))
    assert stack.up().changes == {"replace": 2, "same": 1}
    assert stack.existing()["a"]["id"] != first


@conformance(
    feature="explicit provider",
    cli="Configuration refused by CheckConfig fails the update, naming property and reason.",
)
def test_refused_configuration(stack: Stack) -> None:
    stack.program("""
        p = Provider("p", reject="the region is closed")
        Thing("a", opts=ResourceOptions(provider=p))
        found = invoke_output("echo", {"region": "any"}, InvokeOutputOptions(provider=p))
        Thing("b", value=found)
    """)
    for attempt in (stack.preview, stack.up):
        outcome = attempt(ok=False)
        assert "the region is closed" in outcome.messages
        assert "Traceback" not in outcome.text
    assert "b" not in stack.existing()


@conformance(
    feature="provider protocol",
    cli="Providers with Handshake and with output values as inputs are served as those without.",
)
def test_provider_with_handshake(stack: Stack) -> None:
    stack.env["TESTBED_HANDSHAKE"] = "1"
    stack.program('a = Thing("a"); b = Thing("b", value=a.computed, s=Output.secret("hush")); export("b", b.value)')
    stack.preview()
    stack.up()
    assert stack.calls("handshake")
    assert stack.existing()["b"]["inputs"]["value"] == f"{stack.existing()['a']['id']}:null"
    assert stack.existing()["b"]["inputs"]["s"] == "hush"
    assert stack.up().changes == {"same": 3}


@conformance(
    feature="provider plugins",
    cli="A plugin in PULUMI_HOME/plugins is used as `resource-<name>-v<version>`; a missing one is named, "
    "with how to install it.",
)
def test_plugin_lookup(stack: Stack) -> None:
    folder = stack.home / "plugins" / "resource-testbed-v0.2.0"
    folder.mkdir(parents=True)
    stack.install_plugin(folder / "pulumi-resource-testbed", TESTBED_HANDSHAKE="1", TESTBED_VERSION="0.2.0")
    (stack.folder.parent / "bin" / "pulumi-resource-testbed").unlink()
    stack.program('Thing("a", opts=ResourceOptions(version="0.2.0"))')
    stack.up()
    assert stack.calls("handshake")
    stack.program('CustomResource("absent:index:Thing", "b", {})')
    up = stack.up(ok=False)
    assert "absent" in up.messages
    assert "plugin" in up.messages


@conformance(
    feature="invoke",
    cli="Functions are called on the provider during preview too; secrets in results stay secret; failures "
    "fail the program.",
)
def test_invokes(stack: Stack) -> None:
    stack.program("""
        a = Thing("a")
        export("echo", invoke("echo", {"x": [1, "two"]})["x"])
        found = invoke_output("lookup", {"name": "a"}, InvokeOutputOptions(depends_on=[a]))
        export("found", found.apply(lambda r: r["ids"]))
        export("implied", invoke_output("echo", {"id": a.id}).apply(lambda r: r["id"]))
        export("hidden", invoke_output("secretive", {"value": "hush-hush"}).apply(lambda r: r["token"]))
    """)
    preview = stack.preview()
    assert not [c for c in stack.calls("invoke") if c["inputs"] == {"name": "a"}]
    up = stack.up()
    outputs = stack.outputs("--show-secrets")
    assert outputs["echo"] == [1, "two"]
    assert outputs["found"] == [stack.existing()["a"]["id"]]
    assert outputs["implied"] == stack.existing()["a"]["id"]
    assert outputs["hidden"] == "hush-hush"
    assert stack.outputs()["hidden"] == "[secret]"
    for text in (preview.text, up.text, stack.checkpoint_path.read_text()):
        assert "hush-hush" not in text


@conformance(
    feature="invoke",
    cli="An invoke that the provider refuses, or a function it lacks, fails the program with the provider's words.",
)
def test_failing_invokes(stack: Stack) -> None:
    stack.program('invoke("refuse", {"name": "x"})')
    assert "the testbed refuses" in stack.preview(ok=False).text
    stack.program('invoke("nonsense", {})')
    assert "no function testbed:index:nonsense" in stack.preview(ok=False).text


@conformance(feature="invoke", cli="`provider` and `parent` of InvokeOptions select the provider instance.")
def test_invoke_with_explicit_provider(stack: Stack) -> None:
    stack.program("""
        p = Provider("p", region="north")
        box = Box("box", ResourceOptions(providers=[p]))
        export("a", invoke_output("echo", {"by": "provider"}, InvokeOutputOptions(provider=p)))
        export("b", invoke_output("echo", {"by": "parent"}, InvokeOutputOptions(parent=box)))
    """)
    stack.up()
    regions = {call["inputs"]["by"]: call["config"].get("region") for call in stack.calls("invoke")}
    assert regions == {"provider": "north", "parent": "north"}


DYNAMIC = """
    import os, pathlib
    from pulumi.dynamic import *

    WORLD = os.environ["TESTBED_WORLD"]

    class Files(ResourceProvider):
        def check(self, olds, news):
            failures = [CheckFailure("text", "must not be empty")] if not news["text"] else []
            return CheckResult(news, failures)
        def create(self, props):
            path = pathlib.Path(WORLD) / props["path"]
            path.write_text(props["text"])
            return CreateResult(str(path), {**props, "size": len(props["text"])})
        def diff(self, id, olds, news):
            return DiffResult(changes=olds["text"] != news["text"] or olds["path"] != news["path"],
                              replaces=["path"] if olds["path"] != news["path"] else [], delete_before_replace=True)
        def update(self, id, olds, news):
            pathlib.Path(id).write_text(news["text"])
            return UpdateResult({**news, "size": len(news["text"])})
        def delete(self, id, props):
            pathlib.Path(id).unlink()
        def read(self, id, props):
            return ReadResult(id, {**props, "text": pathlib.Path(id).read_text()})

    class File(Resource):
        size: Output[int]
        def __init__(self, name, path, text, opts=None):
            super().__init__(Files(), name, {"path": path, "text": text, "size": None}, opts)
"""


@conformance(
    feature="dynamic providers",
    cli="`pulumi.dynamic` resources run in the SDK's own provider process, with check, diff, update, replace,"
    " read and delete.",
)
def test_dynamic_provider(stack: Stack) -> None:
    def declare(path: str, text: str) -> None:
        stack.program(DYNAMIC + f'    f = File("f", "{path}", "{text}"); export("size", f.size)')

    declare("one.txt", "hello")
    stack.preview()
    stack.up()
    assert (stack.world / "one.txt").read_text() == "hello"
    assert stack.outputs() == {"size": 5}
    assert stack.state()["f"]["type"] == "pulumi-python:dynamic:Resource"
    declare("one.txt", "longer text")
    assert stack.up().changes == {"update": 1, "same": 1}
    assert (stack.world / "one.txt").read_text() == "longer text"
    (stack.world / "one.txt").write_text("drift")
    stack.refresh()
    assert stack.state()["f"]["outputs"]["text"] == "drift"
    declare("two.txt", "longer text")
    assert stack.up().changes == {"replace": 1, "same": 1}
    assert not (stack.world / "one.txt").exists()
    declare("two.txt", "")
    assert "must not be empty" in stack.up(ok=False).messages
    stack.destroy()
    assert not (stack.world / "two.txt").exists()


@conformance(
    feature="StackReference",
    cli="Outputs of another stack are read from its state; secrets stay secret; a missing stack fails.",
)
def test_stack_reference(stack: Stack) -> None:
    stack.program('export("plain", 42); export("hidden", Output.secret("hush-hush"))')
    stack.up()
    other = "other"
    stack.run("stack", "init", other)
    stack.program("""
        ref = StackReference("organization/conformance/dev")
        a = Thing("a", value=ref.get_output("plain"), hidden=ref.get_output("hidden"))
        export("hidden", ref.require_output("hidden"))
        export("absent", ref.get_output("absent"))
    """)
    arguments = stack.operation("up")
    arguments[arguments.index("dev")] = other
    up = stack.run(*arguments)
    assert stack.existing()["a"]["inputs"]["value"] == 42
    assert stack.existing()["a"]["inputs"]["hidden"] == "hush-hush"
    checkpoint = stack.checkpoint_path.with_name(f"{other}.json").read_text()
    assert "hush-hush" not in checkpoint
    assert "hush-hush" not in up.text
    stack.program('StackReference("organization/conformance/nowhere")')
    assert "nowhere" in stack.up(ok=False).messages


@conformance(
    feature="state from the CLI",
    cli="Writes `__internal: {}` among a provider's inputs.",
    engine="does not write it, and takes a state with it for unchanged",
)
def test_empty_inputs_of_the_clis_own_are_no_change(stack: Stack) -> None:
    stack.program("""
        own = Provider("own", region="r1")
        Thing("a", opts=ResourceOptions(provider=own)); Thing("b")
    """)
    stack.up()
    exported = stack.export()
    for resource in exported["deployment"]["resources"]:
        if resource["type"].startswith("pulumi:providers:"):
            resource.setdefault("inputs", {}).update(__internal={}, version="", pluginDownloadURL="")
    stack.import_(exported)
    plan = stack.preview("--expect-no-changes")
    assert {event["metadata"]["op"] for event in plan.of_kind("resourcePreEvent")} == {"same"}
    stack.up("--expect-no-changes")
