"""Components, outputs and secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.harness import Stack

conformance = pytest.mark.conformance


@conformance(
    feature="component resources",
    cli="Components nest, are stored with parent and registered outputs, and come and go without provider calls.",
)
def test_components(stack: Stack) -> None:
    stack.program("""
        outer = Box("outer", type_="test:index:Outer")
        inner = Box("inner", ResourceOptions(parent=outer))
        leaf = Thing("leaf", opts=ResourceOptions(parent=inner))
        inner.register_outputs({"leaf": leaf.id})
        outer.register_outputs({"count": 1, "secret": Output.secret("hush-hush")})
    """)
    up = stack.up()
    state = stack.state()
    assert state["leaf"]["urn"].split("::")[2] == "test:index:Outer$test:index:Box$testbed:index:Thing"
    assert state["inner"]["parent"] == state["outer"]["urn"]
    assert state["inner"]["outputs"] == {"leaf": state["leaf"]["id"]}
    assert state["outer"]["custom"] is False
    assert "hush-hush" not in up.text + json.dumps(state)
    order = [resource["urn"] for resource in stack.export()["deployment"]["resources"]]
    assert order.index(state["outer"]["urn"]) < order.index(state["inner"]["urn"]) < order.index(state["leaf"]["urn"])
    assert order[0].endswith("::pulumi:pulumi:Stack::conformance-dev")
    assert stack.up().changes == {"same": 4}
    stack.program("")
    plan = stack.preview()
    assert [name for _, name in plan.planned] == ["leaf", "inner", "outer"]
    assert stack.up().changes == {"delete": 3, "same": 1}
    assert stack.state() == {}


@conformance(
    feature="component resources", cli="Two resources of one type, name and parent are an error naming the URN."
)
def test_duplicate_urn(stack: Stack) -> None:
    stack.program('Thing("twin"); Thing("twin")')
    up = stack.up(ok=False)
    assert "urn:pulumi:dev::conformance::testbed:index:Thing::twin" in up.text
    assert "uplicate" in up.text


@conformance(
    feature="stack outputs",
    cli="Changed and removed exports change the stack's outputs; a failed update keeps what it could not compute.",
)
def test_stack_outputs_change(stack: Stack) -> None:
    stack.program('export("a", 1); export("b", {"x": [None, True, 1.5]})')
    stack.up()
    assert stack.outputs() == {"a": 1, "b": {"x": [None, True, 1.5]}}
    stack.program('export("a", 2); export("c", "x")')
    stack.up()
    assert stack.outputs() == {"a": 2, "c": "x"}


PLANTED = "planted-5f1d2a"


@conformance(
    feature="secrets",
    cli="Secret values travel marked, are encrypted in the state and shown as [secret]; they reach the "
    "provider in clear.",
)
def test_secrets_leak_nowhere(stack: Stack) -> None:
    stack.config("conformance:password", f"{PLANTED}-config", "--secret")
    stack.program(f"""
        config = Config()
        password = config.require_secret("password")
        nested = {{"deep": [Output.secret("{PLANTED}-input")]}}
        a = Thing("a", value=password, nested=nested, secret_out="{PLANTED}-token")
        b = Thing("b", value=Output.format("pw={{0}}", password), token_of_a=a.token)
        export("password", password)
        export("derived", b.value)
        export("token", a.token)
    """)
    outcomes = [stack.preview(), stack.up()]
    assert stack.existing()["a"]["inputs"]["value"] == f"{PLANTED}-config"
    assert stack.existing()["b"]["inputs"]["token_of_a"] == f"{PLANTED}-token"
    call = stack.call("create", "a")["inputs"]
    assert call["value"] == {"$secret": f"{PLANTED}-config"}
    assert stack.outputs() == dict.fromkeys(("password", "derived", "token"), "[secret]")
    assert stack.outputs("--show-secrets")["derived"] == f"pw={PLANTED}-config"
    outcomes += [stack.up(), stack.refresh(), stack.preview("--diff")]
    files = [
        path
        for path in (*stack.backend.rglob("*"), *stack.home.rglob("*"), *stack.folder.glob("*.yaml"))
        if path.is_file()
    ]
    for secret in (f"{PLANTED}-config", f"{PLANTED}-input"):
        assert not [path for path in files if secret in path.read_text(errors="replace")]
        assert not [outcome.text for outcome in outcomes if secret in outcome.text]
    state = stack.state()
    assert set(state["a"]["outputs"]["token"]) == {"4dabf18193072939515e22adb298388d", "ciphertext"}
    assert set(state["b"]["inputs"]["token_of_a"]) == {"4dabf18193072939515e22adb298388d", "ciphertext"}


@conformance(
    feature="configuration",
    cli="The program gets the stack's configuration, structured values and project defaults included, and "
    "knows which are secret.",
)
def test_configuration_reaches_the_program(stack: Stack) -> None:
    stack.project_file("config:\n  with-default:\n    type: integer\n    default: 7\n")
    stack.config("plain", "text")
    stack.config("structured.list[0]", "1", "--path")
    stack.program("""
        config = Config()
        export("seen", [config.require("plain"), config.require_object("structured"), config.get_int("with-default")])
        export("where", [get_project(), get_stack(), get_organization()])
    """)
    stack.up()
    assert stack.outputs() == {
        "seen": ["text", {"list": [1]}, 7],
        "where": ["conformance", "dev", "organization"],
    }
