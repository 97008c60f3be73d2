"""Remote components: a provider in a process of its own constructs them and answers their methods."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import ENGINE, name_of, virtualenv

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance

PROVIDER = """
import pulumi
from pulumi import Input, Output, ResourceOptions
from pulumi.provider import CallResult, ConstructResult, Provider
from pulumi.provider.server import main
from pulumi_testbed import Thing


class Pair(pulumi.ComponentResource):
    def __init__(self, name, inputs, opts):
        super().__init__("parts:index:Pair", name, {}, opts)
        below = ResourceOptions(parent=self)
        self.first = Thing(f"{name}-first", below, value=inputs["value"])
        self.second = Thing(f"{name}-second", below, value=self.first.computed)
        self.outputs = {
            "both": Output.concat(self.first.id, "+", self.second.id),
            "key": Output.secret(inputs.get("key")),
            "setting": pulumi.Config("demo").get("setting"),
        }
        self.register_outputs(self.outputs)


class Parts(Provider):
    def construct(self, name, resource_type, inputs, options):
        if resource_type != "parts:index:Pair":
            raise Exception(f"there is no component {resource_type}")
        if "value" not in inputs:
            raise pulumi.InputPropertyError("value", "it is required")
        pair = Pair(name, inputs, options)
        return ConstructResult(pair.urn, pair.outputs)

    def call(self, token, args):
        return CallResult({"text": Output.all(args["word"], args["__self__"]).apply(" of ".join)})


main(Parts("0.3.0"), [])
"""
PROGRAM = """
class Pair(ComponentResource):
    def __init__(self, name, opts=None, **props):
        outputs = dict.fromkeys(("both", "key", "setting"))
        super().__init__("parts:index:Pair", name, {**outputs, **props}, opts, remote=True)

    def greet(self, word):
        return pulumi.runtime.call("parts:index:Pair/greet", {"__self__": self, "word": word}, self)
"""


@pytest.fixture
def parts(stack: Stack) -> Stack:
    """A stack whose project has the provider `parts`, as source."""
    folder = stack.folder / "parts"
    folder.mkdir()
    runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": virtualenv()}}
    (folder / "PulumiPlugin.yaml").write_text(json.dumps({"runtime": runtime}))
    (folder / "__main__.py").write_text(PROVIDER)
    if ENGINE == "pulumi":
        executable = stack.folder.parent / "bin" / "pulumi-resource-parts"
        executable.write_text(f'#!/bin/sh\nexec "{sys.executable}" -u "{folder}" "$@"\n')
        executable.chmod(0o755)
    else:
        stack.project_file("plugins:\n  providers: [{name: parts, path: ./parts}]\n")
    return stack


def program(stack: Stack, text: str) -> None:
    stack.program(textwrap.dedent(PROGRAM) + textwrap.dedent(text))


@conformance(
    feature="remote components",
    cli="Runs Construct on the provider's plugin, which registers the component and its children.",
)
def test_remote_component(parts: Stack) -> None:
    parts.run("config", "set", "demo:setting", "green", "--stack", "dev")
    text = """
        source = Thing("source", value="v")
        box = Box("box")
        pair = Pair("pair", ResourceOptions(parent=box), value=source.computed, key=Output.secret("hush-hush"))
        Thing("after", value=pair.both, opts=ResourceOptions(depends_on=[pair]))
        export("setting", pair.setting)
        export("key", pair.key)
    """
    program(parts, text)
    preview = parts.preview()
    assert {name for operation, name in preview.planned if operation == "create"} >= {"pair", "pair-first", "after"}
    assert parts.state() == {}
    parts.up()
    state = parts.state()
    assert state["pair"]["parent"] == state["box"]["urn"]
    assert state["pair-first"]["parent"] == state["pair"]["urn"]
    assert state["pair-first"]["inputs"]["value"] == state["source"]["outputs"]["computed"]
    assert state["after"]["inputs"]["value"] == f"{state['pair-first']['id']}+{state['pair-second']['id']}"
    assert parts.outputs("--show-secrets") == {"setting": "green", "key": "hush-hush"}
    assert "hush-hush" not in parts.checkpoint_path.read_text()
    # Who depends on a component depends on its children, the provider's too.
    assert {name_of(urn) for urn in state["after"]["dependencies"]} >= {"pair-first", "pair-second"}
    assert set(parts.up().changes) == {"same"}

    program(parts, text.replace('value="v"', 'value="w"'))
    changed = parts.up()
    assert {name for operation, name in changed.done if operation == "update"} == {
        "source",
        "pair-first",
        "pair-second",
    }
    parts.destroy()
    assert parts.state() == {}
    assert parts.existing() == {}


@conformance(
    feature="remote components",
    cli="Options and transforms of the program reach the component and its children: providers, protect, transforms.",
)
def test_options_of_a_remote_component(parts: Stack) -> None:
    program(
        parts,
        """
        def louder(args):
            if args.type_ == "testbed:index:Thing":
                return ResourceTransformResult({**args.props, "value": "LOUD"}, args.opts)

        chosen = Provider("chosen")
        Pair("pair", ResourceOptions(providers=[chosen], protect=True, transforms=[louder]), value="v")
        """,
    )
    parts.up()
    state = parts.state()
    assert {state[name]["inputs"]["value"] for name in ("pair-first", "pair-second")} == {"LOUD"}
    assert all("::chosen::" in state[name]["provider"] for name in ("pair-first", "pair-second"))
    assert all(state[name]["protect"] for name in ("pair", "pair-first", "pair-second"))


@conformance(
    feature="method calls",
    cli="Runs Call on the provider's plugin; its result depends on the resources that the arguments come from.",
)
def test_method(parts: Stack) -> None:
    program(
        parts,
        """
        word = Thing("word", value="word")
        pair = Pair("pair", value="v")
        export("greeting", pair.greet(word.id)["text"])
        """,
    )
    parts.preview()
    parts.up()
    state = parts.state()
    assert parts.outputs()["greeting"] == f"{state['word']['id']} of {state['pair']['urn']}"


@conformance(
    feature="remote components",
    cli="What the provider refuses, or a resource below the component that fails, fails the update by name.",
)
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ('Pair("pair")', ["pair", "value", "it is required"]),
        (
            'ComponentResource("parts:index:Trio", "three", {}, remote=True)',
            ["three", "there is no component parts:index:Trio"],
        ),
        ('Pair("pair", value="v")', ["pair-first", "told to fail the create"]),
    ],
    ids=["an input is missing", "no such component", "a child fails"],
)
def test_a_remote_component_that_fails(parts: Stack, call: str, named: list[str]) -> None:
    parts.control(fail={"pair-first": ["create"]})
    program(parts, call)
    up = parts.up(ok=False)
    for text in named:
        assert text in up.messages
    assert not parts.existing()
    parts.control()
    program(parts, 'Pair("pair", value="v")')
    parts.up()
    assert {"pair-first", "pair-second"} == set(parts.existing())


@pytest.mark.skipif(ENGINE == "pulumi", reason="the CLI runs providers of each language")
def test_a_provider_in_another_language_is_refused(parts: Stack) -> None:
    (parts.folder / "parts" / "PulumiPlugin.yaml").write_text("runtime: nodejs\n")
    program(parts, 'Pair("pair", value="v")')
    assert "this engine runs providers in Python" in parts.preview(ok=False).messages
