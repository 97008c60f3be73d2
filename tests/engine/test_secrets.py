"""Planted secrets: none may be found in anything that a run shows, records or leaves behind.

Secrets enter as stack configuration, as configuration of a provider, as an input, as an output the provider calls
secret, as an additional secret output, as a value a program computes, through a dynamic provider, and where one fails.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import PASSPHRASE, STACK, wait_for

if TYPE_CHECKING:
    from tests.engine.harness import Outcome, Stack

PLANTED = {
    name: f"planted-{name}-6f1d0a"
    for name in ("config", "provider", "input", "output", "additional", "computed", "dynamic", "error", "nested")
}
PROGRAM = """
    from pulumi.dynamic import CreateResult, Resource as Dynamic, ResourceProvider, UpdateResult

    class Vault(ResourceProvider):
        def create(self, props):
            return CreateResult("vault", {"password": props["password"], "shape": props["shape"]})
        def update(self, id, olds, news):
            return UpdateResult({"password": news["password"], "shape": news["shape"]})

    class Sealed(Dynamic):
        pass

    config = Config()
    planted = config.require_secret_object("planted")
    password = config.require_secret("password")
    def get(name):
        return planted.apply(lambda values: values[name])
    Thing("input", value=get("input"), shape=SHAPE)
    Thing("nested", settings={"deep": [{"inner": get("nested")}], "shape": SHAPE})
    made = Thing("output", secret_out=get("output"))
    extra = Thing("additional", value=get("additional").apply(lambda v: v), opts=ResourceOptions(
        additional_secret_outputs=["computed"]))
    used = Thing("computed", value=Output.concat("prefix-", get("computed")), also=extra.computed)
    Sealed(Vault(), "vault", {"password": get("dynamic"), "shape": SHAPE})
    Thing("error", value=get("error"))
    print("the program says", config.require("password"))
    export("password", password)
    export("token", made.token)
    export("joined", Output.concat(used.computed, "/", extra.computed))
"""


def set_secret(stack: Stack, key: str, value: str, *flags: str) -> None:
    """Through standard input, where no other process can read it."""
    command = stack.command("config", "set", "--stack", STACK, key, "--secret", *flags)
    subprocess.run(command, env=stack.env, input=value, text=True, check=True)


def arguments_of_all_processes() -> str:
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return "\n".join(texts)


def assert_clean(text: str, where: str) -> None:
    found = [name for name, secret in PLANTED.items() if secret in text]
    assert not found, f"{where} shows the planted secrets {found}"
    assert PASSPHRASE not in text, f"{where} shows the passphrase"


def assert_nothing_left(stack: Stack) -> None:
    """Every file the run wrote: project, state, history, journal, locks, workspace folders, recorded output."""
    folder = stack.folder.parent
    files = [path for path in folder.rglob("*") if path.is_file() and stack.world not in path.parents]
    assert len(files) > 5
    for path in files:
        assert_clean(path.read_bytes().decode(errors="replace"), str(path.relative_to(folder)))


@pytest.mark.conformance(
    feature="secrets",
    cli="Secrets are encrypted in the state and shown as `[secret]` in all output.",
    engine="same; secret configuration is also masked in what programs and providers print",
)
def test_planted_secrets_are_never_found(stack: Stack) -> None:
    set_secret(stack, "password", PLANTED["config"])
    set_secret(stack, "testbed:token", PLANTED["provider"])
    for name, secret in PLANTED.items():
        set_secret(stack, f"planted.{name}", secret, "--path")
    stack.program(PROGRAM.replace("SHAPE", "1"))
    outcomes: list[Outcome] = [stack.preview(), stack.run("preview", "--stack", STACK, "--diff")]

    stack.control(hold={"computed": ["create"]})
    running = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("computed.create"), "the engine, the program and the providers to run")
    assert_clean(arguments_of_all_processes(), "the arguments of a process")
    stack.release("computed.create")
    outcomes.append(stack.finish(running))
    assert outcomes[-1].exit_code == 0, outcomes[-1].text
    assert stack.existing()["input"]["inputs"]["value"] == PLANTED["input"], "the provider must get the real value"

    stack.program(PROGRAM.replace("SHAPE", "2"))
    stack.control(fail={"error": ["update"]})
    outcomes += [
        stack.run("up", "--stack", STACK, "--yes"),
        stack.run("up", "--stack", STACK, "--yes", "--diff", "--refresh"),
        stack.refresh(),
        stack.run("stack", "output", "--stack", STACK),
        stack.run("config", "ls", "--stack", STACK),
        stack.run("config", "ls", "--stack", STACK, "--json"),
        stack.run("state", "export", "--stack", STACK),
        stack.run("history", "--stack", STACK, "--json"),
    ]
    for index, outcome in enumerate(outcomes):
        assert_clean(outcome.text, f"command {index}")
    assert_nothing_left(stack)

    shown = stack.outputs("--show-secrets")
    assert shown["password"] == PLANTED["config"]
    assert shown["token"] == PLANTED["output"]
    assert PLANTED["computed"] in shown["joined"]
    # The only file that may hold them now is the recorded output of that last command.
    (stack.folder.parent / f"{stack.commands}.stdout").unlink()
    stack.destroy()
    assert_nothing_left(stack)


def test_planted_secrets_are_not_in_what_a_crash_leaves(stack: Stack) -> None:
    set_secret(stack, "password", PLANTED["config"])
    for name, secret in PLANTED.items():
        set_secret(stack, f"planted.{name}", secret, "--path")
    stack.program(PROGRAM.replace("SHAPE", "1"))
    stack.control(hold={"computed": ["create"]})
    running = stack.start(*stack.operation("up"))
    wait_for(lambda: stack.held("computed.create"), "a create to be under way")
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
    journals = list(stack.backend.rglob("*journal*"))
    assert journals, "the journal must be there for the check to mean anything"
    assert_nothing_left(stack)
    stack.release("computed.create")
    stack.up(ok=True)
    assert_nothing_left(stack)


@pytest.mark.conformance(
    feature="secrets",
    cli="A value that becomes secret, and does not change otherwise, stays readable in the state.",
    engine="is encrypted by the update that makes it secret, in inputs and outputs",
)
def test_what_becomes_secret_leaves_the_state(stack: Stack) -> None:
    words = ("plainword", "listword", "mapword", "ignoredword", "outputword", "argword", "exportword", "w")
    program = """
        {hide}
        a = Thing("a", value=hide("plainword"), list=["x", hide("listword")], map={{"k": [{{"d": hide("mapword")}}]}})
        Thing("b", value=hide("ignoredword"), opts=ResourceOptions(ignore_changes=["value"]))
        Thing("c", other="outputword", opts=ResourceOptions(additional_secret_outputs={additional}))
        Thing("d", value=a.computed)
        Thing("short", value=hide("w"))
        class Box(ComponentResource):
            def __init__(self):
                super().__init__("test:index:Box", "box", {{"arg": hide("argword")}})
                self.register_outputs({{"out": hide("argword")}})
        Box()
        export("exported", hide("exportword"))
    """

    def readable() -> list[str]:
        text = json.dumps([[r.get("inputs"), r.get("outputs")] for r in stack.export()["deployment"]["resources"]])
        # What is encrypted is Base64, in which a letter may stand between signs.
        return [word for word in words if re.search(rf"(?<![\w+/=]){word}(?![\w+/=])", text)]

    stack.program(program.format(hide="hide = lambda text: text", additional=[]))
    stack.up()
    assert readable() == list(words)
    stack.program(program.format(hide="hide = Output.secret", additional=["other"]))
    stack.forget_calls()
    assert set(stack.up().changes) == {"same"}
    assert not stack.calls("update")
    # The input `other` of c is the program's plain text still.
    assert readable() == ["outputword"]
    assert "outputword" not in json.dumps(stack.state()["c"]["outputs"])
    assert stack.state()["short"]["id"].startswith("short-")
    assert set(stack.up().changes) == {"same"}


@pytest.mark.parametrize("hide", ["", "hide = Output.secret"], ids=["plain", "secret"])
def test_a_provider_may_return_a_list_of_another_length(stack: Stack, hide: str) -> None:
    program = """
        from pulumi.dynamic import CreateResult, Resource as Dynamic, ResourceProvider, UpdateResult

        class Members(ResourceProvider):
            def create(self, props):
                return CreateResult("members", {{"names": [*props["names"], "default"]}})
            def diff(self, id, olds, news):
                from pulumi.dynamic import DiffResult
                return DiffResult(changes=olds["names"][:-1] != news["names"])
            def update(self, id, olds, news):
                return UpdateResult({{"names": news["names"][:1]}})

        class Group(Dynamic):
            names: Output[list]

        hide = lambda text: text
        {hide}
        export("names", Group(Members(), "group", {{"names": [hide(name) for name in {names}]}}).names)
    """
    stack.program(program.format(hide=hide, names=["one"]))
    stack.up()
    assert stack.outputs("--show-secrets")["names"] == ["one", "default"]
    stack.program(program.format(hide=hide, names=["one", "two", "three"]))
    stack.preview()
    stack.up()
    assert stack.outputs("--show-secrets")["names"] == ["one"]
    if hide:
        names = json.dumps(stack.state()["group"]["outputs"])
        assert "one" not in names
        assert "default" not in names
