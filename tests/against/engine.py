"""The engine's faults, by `lab`, the testbed's provider and its SDK."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.against.points import Point
from tests.engine.backend.reference.scalars.make import HERE as SCALARS
from tests.engine.harness import STACK, name_of, wait_for
from tests.engine.test_hooks import HOOKS
from tests.engine.test_integrity import PROGRAM as FAMILY
from tests.engine.test_policies import NO_OPEN, config, pack
from tests.engine.test_remote import PROGRAM as PAIR
from tests.engine.test_remote import PROVIDER as PARTS

if TYPE_CHECKING:
    from tests.against.checkout import Checkout, Stack
    from tests.against.points import Tried
    from tests.engine.harness import Outcome

A_NUMBER_TOO_LARGE = re.compile(r"[-+]?[0-9.]+[eE]\+?[1-9][0-9]{2,}")
AN_ERROR = re.compile(r"[\w.]*(Error|Exception): ")
FALSY = ("0", "False", "''", "[]", "{}", "0.0")


def urn(name: str) -> str:
    return f"**::{name}"


def told(outcome: Outcome) -> str:
    """What a command says: an error if it names one, or else its first line."""
    lines = [line.strip() for line in outcome.messages.splitlines() if line.strip()]
    return next((line for line in lines if AN_ERROR.match(line)), lines[0] if lines else "nothing")


def takes_its_own_state(stack: Stack) -> None:
    """What is exported can be imported."""
    taken = stack.import_(stack.export(), ok=None)
    assert taken.exit_code == 0, f"{len(taken.stderr.splitlines())} lines: {taken.stderr}"


def refresh_order(checkout: Checkout, tried: Tried) -> None:
    def deployed() -> Stack:
        stack = checkout.stack()
        stack.program(FAMILY)
        stack.up()
        return stack

    stack = deployed()
    # The parent is read last.
    stack.control(hold={"a": ["read"]})
    refresh = stack.start(*stack.operation("refresh"))
    wait_for(lambda: stack.held("a.read") and stack.calls("read", "c", event="end"), "the others to be read")
    stack.release("a.read")
    assert stack.finish(refresh).exit_code == 0
    with tried.of("refresh"):
        takes_its_own_state(stack)
    stack = deployed()
    stack.refresh("--target", urn("a"), "--target", urn("b"))
    with tried.of("refresh --target"):
        takes_its_own_state(stack)
    stack = deployed()
    stack.program(FAMILY + '    raise Exception("stop")\n')
    stack.up("--refresh", ok=False)
    with tried.of("up --refresh that fails"):
        takes_its_own_state(stack)
    stack = deployed()
    stack.vanish("c")
    stack.refresh()
    with tried.of("refresh where one is gone"):
        takes_its_own_state(stack)


def bystander(checkout: Checkout, tried: Tried) -> None:
    programs = {
        "registered after": 'b = Thing("b", value="lit"); a = Thing("a", value=1); c = Thing("c", value=2)',
        "registered after, changed": 'b = Thing("b", value="lit"); a = Thing("a", value=9); c = Thing("c", value=2)',
        "depends on what needed it": (
            'b = Thing("b", value="lit"); a = Thing("a", value=1, opts=ResourceOptions(depends_on=[b])); '
            'c = Thing("c", value=2)'
        ),
        "not registered": 'b = Thing("b", value="lit"); c = Thing("c", value=2)',
        "renamed by an alias": (
            'b = Thing("b", value="lit"); z = Thing("z", value=1, opts=ResourceOptions(aliases=[Alias(name="a")])); '
            'c = Thing("c", value=2)'
        ),
    }
    for name, program in programs.items():
        stack = checkout.stack()
        stack.program('a = Thing("a", value=1); b = Thing("b", value=a.id); c = Thing("c", value=1)')
        stack.up()
        stack.program(program)
        up = stack.up("--target", urn("c"), ok=None)
        with tried.of(name):
            assert up.exit_code == 0, told(up)
            assert stack.existing()["c"]["inputs"]["value"] == 2


def large_scalars(checkout: Checkout, tried: Tried) -> None:
    scalars = json.loads((SCALARS / "scalars.json").read_text())
    texts = [text for text, kind, _ in scalars if kind == "string" and A_NUMBER_TOO_LARGE.fullmatch(text)]
    stack = checkout.stack()
    settings = stack.folder / f"Pulumi.{STACK}.yaml"
    head = settings.read_text()
    for text in texts[:12]:
        settings.write_text(f"{head}config:\n  conformance:tag: {text}\n")
        got = stack.run("config", "get", "--stack", STACK, "tag", ok=None)
        with tried.of(f"tag: {text}"):
            assert got.exit_code == 0, f"ends with {got.exit_code}: {got.stderr}"
            assert got.stdout.strip() == text


def becomes_secret(checkout: Checkout, tried: Tried) -> None:
    places = {
        "an input": "plainword",
        "an input of one letter": "w",
        "in a list": "listword",
        "deep in a map": "mapword",
        "an input that is ignored": "ignoredword",
        "of a component": "argword",
        "an export": "exportword",
    }
    program = """
        {hide}
        Thing("a", value=hide("plainword"), list=["x", hide("listword")], map={{"k": [{{"d": hide("mapword")}}]}})
        Thing("b", value=hide("ignoredword"), opts=ResourceOptions(ignore_changes=["value"]))
        Thing("short", value=hide("w"))
        class Box(ComponentResource):
            def __init__(self):
                super().__init__("test:index:Box", "box", {{"arg": hide("argword")}})
                self.register_outputs({{"out": hide("argword")}})
        Box()
        export("exported", hide("exportword"))
    """
    stack = checkout.stack()
    stack.program(program.format(hide="hide = lambda text: text"))
    stack.up()
    stack.program(program.format(hide="hide = Output.secret"))
    stack.up()
    kept = [[r.get("inputs"), r.get("outputs")] for r in stack.export()["deployment"]["resources"]]
    for place, word in places.items():
        with tried.of(place):
            # What is encrypted is Base64, in which a letter may stand between signs.
            readable = re.search(rf"(?<![\w+/=]){word}(?![\w+/=])", json.dumps(kept))
            assert not readable, "readable in the state"


def triggers(checkout: Checkout, tried: Tried) -> None:
    program = """
        for index, value in enumerate([{values}]):
            Thing(f"t{{index}}", opts=ResourceOptions(replacement_trigger=value))
    """
    stack = checkout.stack()
    stack.program(program.format(values=", ".join(FALSY)))
    stack.up()
    before = stack.existing()
    stack.program(program.format(values=", ".join(["'new'"] * len(FALSY))))
    up = stack.up()
    after = stack.existing()
    for index, value in enumerate(FALSY):
        name = f"t{index}"
        with tried.of(f"from {value}"):
            assert after[name]["id"] != before[name]["id"], f"not replaced: {up.changes}"


def imported(checkout: Checkout, tried: Tried) -> None:
    def importing(name: str, id_: str) -> str:
        return f'Thing("{name}", value=1, name="given", opts=ResourceOptions(import_="{id_}"))'

    taken_away = 'Thing("a", value=1, name="given")'
    programs = {
        "taken away and put back": [importing("a", "FOUND-1"), taken_away, importing("a", "FOUND-1")],
        "by a third spelling": [importing("a", "FOUND-1"), importing("a", "Found-1")],
        "read, then imported": ['Thing.get("a", "FOUND-1")', importing("a", "Found-1")],
        "under another name": [importing("a", "FOUND-1"), importing("b", "FOUND-1")],
    }
    for name, steps in programs.items():
        stack = checkout.stack()
        stack.plant("found-1", "a", value=1, name="given")
        for step in steps:
            stack.program(step)
            up = stack.up(ok=None)
        with tried.of(name):
            assert [record["id"] for record in stack.existing().values()] == ["found-1"], "the object is gone"
            assert up.exit_code == 0, told(up)


def exclusive(checkout: Checkout, tried: Tried) -> None:
    first = 'Thing("a", slot="s", value=1{options})'
    ways = {
        "--replace": ("", 'Thing("a", slot="s", value=1)', ["--replace", urn("a")]),
        "replace_on_changes": (
            ', opts=ResourceOptions(replace_on_changes=["value"])',
            'Thing("a", slot="s", value=2, opts=ResourceOptions(replace_on_changes=["value"]))',
            [],
        ),
        "replacement_trigger": (
            ", opts=ResourceOptions(replacement_trigger=1)",
            'Thing("a", slot="s", value=1, opts=ResourceOptions(replacement_trigger=2))',
            [],
        ),
    }
    for name, (options, changed, flags) in ways.items():
        stack = checkout.stack()
        stack.program(first.format(options=options))
        stack.up()
        before = stack.existing()["a"]["id"]
        stack.program(changed)
        up = stack.up(*flags, ok=None)
        with tried.of(name):
            assert up.exit_code == 0, told(up)
            assert stack.existing()["a"]["id"] != before, "not replaced"


def numbers(checkout: Checkout, tried: Tried) -> None:
    for value, shown in (
        ("2**53 + 1", "9007199254740992"),
        ("-(2**63)", "-9223372036854775808"),
        ("1e20", str(10**20)),
    ):
        stack = checkout.stack()
        stack.program(f'a = Thing("a", value={value}); export("big", a.value)')
        stack.up()
        printed = stack.run("stack", "output", "--stack", STACK, "big").stdout.strip()
        with tried.of(value):
            assert printed == shown, printed
    for value in ("float('nan')", "float('inf')"):
        stack = checkout.stack()
        stack.program(f'Thing("a", value={value})')
        up = stack.up(ok=None)
        with tried.of(value):
            assert up.exit_code, "is taken"
            assert "Traceback" not in up.text, "a traceback"


def remote(checkout: Checkout, tried: Tried) -> None:
    def parts(text: str) -> Stack:
        stack = checkout.stack()
        folder = stack.folder / "parts"
        folder.mkdir()
        options = {"toolchain": "pip", "virtualenv": str(Path(sys.executable).parents[1])}
        (folder / "PulumiPlugin.yaml").write_text(json.dumps({"runtime": {"name": "python", "options": options}}))
        (folder / "__main__.py").write_text(PARTS)
        stack.project_file("plugins:\n  providers: [{name: parts, path: ./parts}]\n")
        stack.program(textwrap.dedent(PAIR) + text)
        return stack

    texts = {
        "a component": 'pair = Pair("pair", value="v")\nexport("word", pair.both)\n',
        "its parent and provider": (
            'own = Provider("own", region="r1")\n'
            'Pair("pair", ResourceOptions(parent=Box("box"), providers=[own]), value="v")\n'
        ),
        "a secret input": 'pair = Pair("pair", value="v", key=Output.secret("hush"))\nexport("word", pair.key)\n',
        "a method": 'export("word", Pair("pair", value="v").greet(Thing("word", value="w").id)["text"])\n',
    }
    for name, text in texts.items():
        stack = parts(text)
        up = stack.up(ok=None)
        with tried.of(name):
            assert up.exit_code == 0, told(up)
            assert {"pair-first", "pair-second"} <= set(stack.existing())
    stack = checkout.stack()
    bound = 'Thing("a", value=1, opts=ResourceOptions(hooks=ResourceHookBinding(before_create=[noting("before")])))'
    stack.program(f"{HOOKS}\n{bound}")
    up = stack.up(ok=None)
    with tried.of("a resource hook"):
        assert up.exit_code == 0, told(up)
        assert (stack.folder.parent / "hooks.jsonl").exists(), "the hook was not called"


def policies(checkout: Checkout, tried: Tried) -> None:
    stack = checkout.stack()
    stack.program('Thing("a", value="open")')
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')
    for level in ("mandatory", "advisory", "disabled"):
        file = config(stack, {"no-open": level if level != "disabled" else {"enforcementLevel": level}})
        preview = stack.preview("--policy-pack", folder, "--policy-pack-config", file, ok=None)
        found = [event["enforcementLevel"] for event in preview.of_kind("policyEvent")]
        with tried.of(level):
            assert found == ([level] if level != "disabled" else []), told(preview)
            assert (preview.exit_code != 0) == (level == "mandatory"), told(preview)


def state_of_the_cli(checkout: Checkout, tried: Tried) -> None:
    empty: dict[str, dict[str, Any]] = {
        "__internal": {"__internal": {}},
        "version": {"version": ""},
        "pluginDownloadURL": {"pluginDownloadURL": ""},
    }
    for name, added in empty.items():
        stack = checkout.stack()
        stack.program('own = Provider("own", region="r1"); Thing("a", opts=ResourceOptions(provider=own)); Thing("b")')
        stack.up()
        exported = stack.export()
        for resource in exported["deployment"]["resources"]:
            if resource["type"].startswith("pulumi:providers:"):
                resource.setdefault("inputs", {}).update(added)
        stack.import_(exported)
        plan = stack.preview(ok=None)
        with tried.of(f"{name}, empty"):
            steps = [event["metadata"] for event in plan.of_kind("resourcePreEvent")]
            changed = [f"{step['op']} {name_of(step['urn'])}" for step in steps if step["op"] != "same"]
            assert not changed, ", ".join(changed)


def benchmark(checkout: Checkout, tried: Tried) -> None:
    def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", "bench", "engine", *arguments]
        return subprocess.run(command, cwd=checkout.root, capture_output=True, text=True, check=False)

    few = ["--sizes", "3"]
    if "--dynamic" in bench("--help").stdout:
        few += ["--dynamic", "3"]
    done = bench(*few)
    with tried.of("lab bench engine"):
        errors = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if "Error" in line]
        assert done.returncode == 0, errors[0] if errors else f"ends with {done.returncode}"


POINTS = (
    Point("1", "A refresh writes children before their parents", refresh_order),
    Point("2", "`--target`, and a bystander whose edge is gone", bystander),
    Point("3", "A number too large in a stack file ends every command", large_scalars),
    Point("4", "What becomes secret stays readable in the state", becomes_secret),
    Point("5", "`replacement_trigger` from a falsy value", triggers),
    Point("6", "An imported object is deleted while the state keeps it", imported),
    Point("7", "`up --replace` of what excludes itself", exclusive),
    Point("8", "Whole numbers beyond 2**53 are shown as floats", numbers),
    Point("10", "Remote components, methods and hooks are refused", remote),
    Point("10", "Policy packs are refused", policies),
    Point("10", "What the CLI writes is shown as a change", state_of_the_cli),
    Point("19", "A benchmark hides a module of Python", benchmark),
)
