"""Policy packs: real ones, made with pulumi-policy, judging real programs."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import ENGINE, STACK, name_of, virtualenv

if TYPE_CHECKING:
    from tests.engine.harness import Outcome, Stack

conformance = pytest.mark.conformance
own_rule = pytest.mark.skipif(ENGINE == "pulumi", reason="stricter than the Pulumi CLI, or in other words")

PREAMBLE = """\
import sys
import pulumi
from pulumi_policy import *
MANDATORY, ADVISORY, REMEDIATE = EnforcementLevel.MANDATORY, EnforcementLevel.ADVISORY, EnforcementLevel.REMEDIATE
"""
NO_OPEN = """
def no_open(args, report):
    if args.resource_type == "testbed:index:Thing" and args.props["value"] in args.get_config()["forbidden"]:
        report(f"The value is {args.props['value']}.")

words = {"type": "array", "items": {"type": "string"}, "default": ["open"]}
no_open = ResourceValidationPolicy(
    "no-open", "Nothing is open.", no_open, MANDATORY, PolicyConfigSchema({"forbidden": words}, ["forbidden"]),
    severity=Severity.HIGH,
)
"""
CLOSE = """
def close(args):
    if args.resource_type == "testbed:index:Thing" and args.props.get("value") == "open":
        fixed = {**args.props, "value": "closed"}
        if "hidden" in fixed:
            fixed |= {"copy": fixed["hidden"], "note": f"it is {fixed['hidden']}"}
        return fixed

close = ResourceValidationPolicy("close", "What is open is closed.", remediate=close, enforcement_level=REMEDIATE)
"""


def pack(stack: Stack, text: str, name: str = "pack", version: str = "1.2.3", *, warm: bool = True) -> str:
    """Write a policy pack beside the project; its folder. Not `warm`: its process is started, not forked."""
    folder = stack.folder.parent / name
    folder.mkdir(exist_ok=True)
    environment = virtualenv() if warm else str(Path(sys.executable).parents[1])
    options = {"toolchain": "pip", "virtualenv": environment}
    project = {"runtime": {"name": "python", "options": options}} | ({"version": version} if version else {})
    (folder / "PulumiPolicy.yaml").write_text(json.dumps(project))
    (folder / "__main__.py").write_text(PREAMBLE + textwrap.dedent(text))
    return str(folder)


def config(stack: Stack, value: object, name: str = "config.json") -> str:
    path = stack.folder.parent / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def violations(outcome: Outcome) -> list[tuple[str, str, str]]:
    """(policy, level, logical name of the resource) of each, sorted."""
    events = outcome.of_kind("policyEvent")
    return sorted((e["policyName"], e["enforcementLevel"], name_of(e["resourceUrn"])) for e in events)


def names(outcome: Outcome) -> list[str]:
    return sorted(name for _, name in outcome.planned)


@conformance(
    feature="policy packs",
    cli="A mandatory violation fails a preview, which goes on to name all, and stops an update before the resource is "
    "made; nothing new is begun after it.",
)
def test_mandatory(stack: Stack) -> None:
    stack.program("""
        first = Thing("first", value="closed")
        bad = Thing("bad", value="open", opts=ResourceOptions(depends_on=[first]))
        worse = Thing("worse", value="open", opts=ResourceOptions(depends_on=[bad]))
    """)
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')
    preview = stack.preview("--policy-pack", folder, ok=False)
    assert violations(preview) == [("no-open", "mandatory", "bad"), ("no-open", "mandatory", "worse")]
    (event, _) = preview.of_kind("policyEvent")
    assert event["message"] == "Nothing is open.\nThe value is open.\n"
    assert (event["policyPackName"], event["policyPackVersion"], event["severity"]) == ("testpack", "1.2.3", "high")
    assert names(preview) == ["bad", "first", "worse"]
    assert stack.calls("create", event="end") == [
        call for call in stack.calls("create", event="end") if call["preview"]
    ]

    up = stack.up("--policy-pack", folder, ok=False)
    assert violations(up) == [("no-open", "mandatory", "bad")]
    assert set(stack.existing()) == set(stack.state()) - {"default"} == {"first"}

    stack.program("""
        first = Thing("first", value="closed")
        bad = Thing("bad", value="closed", opts=ResourceOptions(depends_on=[first]))
    """)
    up = stack.up("--policy-pack", folder)
    assert violations(up) == []
    (summary,) = up.of_kind("summaryEvent")
    assert [(name.split("|")[0], version) for name, version in summary["PolicyPacks"].items()] == [
        ("testpack", "1.2.3")
    ]
    assert set(stack.existing()) == {"first", "bad"}


@conformance(
    feature="policy packs",
    cli="Advisory violations are shown and change nothing; a disabled policy is not asked; `--policy-pack-config` "
    "chooses the level of a policy, or of all.",
)
def test_levels(stack: Stack) -> None:
    stack.program('Thing("a", value="open")')
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')

    def preview(configuration: object, *, ok: bool) -> list[tuple[str, str, str]]:
        file = config(stack, configuration)
        return violations(stack.preview("--policy-pack", folder, "--policy-pack-config", file, ok=ok))

    assert preview({"no-open": "advisory"}, ok=True) == [("no-open", "advisory", "a")]
    assert preview({"no-open": {"enforcementLevel": "disabled"}}, ok=True) == []
    assert preview({"all": "advisory"}, ok=True) == [("no-open", "advisory", "a")]
    assert preview({"all": "advisory", "no-open": "mandatory"}, ok=False) == [("no-open", "mandatory", "a")]
    assert preview("", ok=False) == [("no-open", "mandatory", "a")]
    # With nothing to remedy it, what is to be remedied is forbidden.
    assert preview({"all": "remediate"}, ok=False) == [("no-open", "mandatory", "a")]
    up = stack.up("--policy-pack", folder, "--policy-pack-config", config(stack, {"all": "advisory"}))
    assert violations(up) == [("no-open", "advisory", "a")]
    assert stack.existing()["a"]["inputs"]["value"] == "open"


@conformance(
    feature="policy packs",
    cli="Configuration is checked against each policy's JSON schema before the program runs; defaults fill it in.",
)
def test_configuration(stack: Stack) -> None:
    stack.program('Thing("a", value="ajar")')
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open], initial_config={"no-open": ADVISORY})')
    flags = ["--policy-pack", folder, "--policy-pack-config"]
    assert violations(stack.preview("--policy-pack", folder)) == []
    found = violations(stack.preview(*flags, config(stack, {"no-open": {"forbidden": ["ajar"]}})))
    assert found == [("no-open", "advisory", "a")]

    refused = stack.up(*flags, config(stack, {"no-open": {"forbidden": "ajar"}}), ok=False)
    assert "no-open: forbidden" in refused.text
    assert "Traceback" not in refused.text
    invalid = stack.up(*flags, config(stack, {"no-open": "obligatory"}), ok=False)
    assert '"obligatory" is not a valid enforcement level' in invalid.text
    for broken in (config(stack, "{"), str(stack.folder / "nowhere.json")):
        assert "Traceback" not in stack.up(*flags, broken, ok=False).text
    uneven = stack.up(*flags, config(stack, {}), "--policy-pack", folder, ok=False)
    assert "--policy-pack-config" in uneven.text
    assert stack.existing() == {}
    assert stack.calls() == [call for call in stack.calls() if call.get("preview") or call["method"] != "create"]


@own_rule
@conformance(
    feature="policy packs",
    cli="A configuration for policies and settings that a pack does not have is passed over.",
    engine="refused, with the name that was meant: a misspelt limit would limit nothing",
)
def test_misspelt_configuration(stack: Stack) -> None:
    stack.program('Thing("a", value="open")')
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')
    file = config(stack, {"no-opn": "advisory", "no-open": {"forbiden": ["x"]}, "environments": ["x"]})
    refused = stack.up("--policy-pack", folder, "--policy-pack-config", file, ok=False).stderr
    assert "environments" in refused
    file = config(stack, {"no-opn": "advisory", "no-open": {"forbiden": ["x"]}})
    refused = stack.up("--policy-pack", folder, "--policy-pack-config", file, ok=False).stderr
    assert f"{file}: no-opn: the policy pack has no such policy (did you mean 'no-open'?)." in refused
    assert f"{file}: no-open: forbiden: the policy has no such setting (did you mean 'forbidden'?)." in refused
    assert stack.calls() == []


@conformance(
    feature="policy packs",
    cli="A remediation rewrites a resource's inputs in preview and update, before policies judge them; each pack sees "
    "what the one before it made.",
    engine="same; what it makes of a secret stays one",
)
def test_remediation(stack: Stack) -> None:
    stack.program('Thing("a", value="open", hidden=Output.secret("hush-hush"), key="k")')
    fix = pack(stack, CLOSE + NO_OPEN + 'PolicyPack("fixpack", [close, no_open])')
    judge = pack(stack, NO_OPEN + 'PolicyPack("judge", [no_open])', "judge")
    flags = ["--policy-pack", fix, "--policy-pack", judge]
    preview = stack.preview(*flags)
    assert preview.step("create", "a")["new"]["inputs"]["value"] == "closed"
    (event,) = [e for e in preview.of_kind("policyRemediationEvent") if name_of(e["resourceUrn"]) == "a"]
    assert (event["policyName"], event["policyPackName"]) == ("close", "fixpack")
    assert (event["before"]["value"], event["after"]["value"]) == ("open", "closed")
    up = stack.up(*flags)
    assert violations(up) == []
    assert stack.existing()["a"]["inputs"]["value"] == "closed"
    assert stack.existing()["a"]["inputs"]["hidden"] == "hush-hush"
    assert stack.existing()["a"]["inputs"]["note"] == "it is hush-hush"
    if ENGINE != "pulumi":
        assert "hush-hush" not in preview.text + up.text + stack.checkpoint_path.read_text()
    assert stack.up(*flags).changes == {"same": 2}


@own_rule
@conformance(
    feature="policy packs",
    cli="A remediation is lost where the resource is replaced, create first: its inputs are checked once more.",
    engine="kept",
)
def test_remediation_of_a_replacement(stack: Stack) -> None:
    folder = pack(stack, CLOSE + 'PolicyPack("fixpack", [close])')
    stack.program('Thing("a", value="open", key="1")')
    stack.up("--policy-pack", folder)
    stack.program('Thing("a", value="open", key="2")')
    up = stack.up("--policy-pack", folder)
    assert ("create-replacement", "a") in up.planned
    assert stack.existing()["a"]["inputs"]["value"] == "closed"
    assert len(up.of_kind("policyRemediationEvent")) == 1


@conformance(
    feature="policy packs",
    cli="Policies of the stack judge the outputs of all resources when a preview or an update has succeeded.",
)
def test_stack_policies(stack: Stack) -> None:
    text = """
        def few(args, report):
            things = {r.name: r for r in args.resources if r.resource_type == "testbed:index:Thing"}
            if len(things) > args.get_config()["most"]:
                report(f"There are {len(things)}.")
            for name, thing in things.items():
                if name == "b":
                    assert [d.name for d in thing.dependencies] == ["a"], thing.dependencies
                    assert thing.parent.name == "conformance-dev", thing.parent
                    assert thing.provider.resource_type == "pulumi:providers:testbed"
                    report(f"It has {thing.props['value']}.", thing.urn)
        most = PolicyConfigSchema({"most": {"type": "integer", "minimum": 1, "default": 2}})
        PolicyPack("testpack", [StackValidationPolicy("few", "There are few things.", few, MANDATORY, most)])
    """
    folder = pack(stack, text)
    stack.program('a = Thing("a", value="x"); c = Thing("c", value="y")')
    assert violations(stack.preview("--policy-pack", folder)) == []
    assert violations(stack.up("--policy-pack", folder)) == []
    stack.program('a = Thing("a", value="x"); b = Thing("b", value=a.computed); c = Thing("c", value="y")')
    up = stack.up("--policy-pack", folder, ok=False)
    assert violations(up) == [("few", "mandatory", "b"), ("few", "mandatory", "conformance-dev")]
    messages = {name_of(e["resourceUrn"]): e["message"] for e in up.of_kind("policyEvent")}
    assert messages["conformance-dev"] == "There are few things.\nThere are 3.\n"
    assert messages["b"] == f"There are few things.\nIt has {stack.state()['a']['outputs']['computed']}.\n"
    assert set(stack.existing()) == {"a", "b", "c"}, "the stack is judged when it is done"
    assert up.of_kind("summaryEvent")[0]["result"] == "failed"
    stack.control(b={"fail": ["update"]})
    stack.program('a = Thing("a", value="x"); b = Thing("b", value="z"); c = Thing("c", value="y")')
    assert violations(stack.up("--policy-pack", folder, ok=False)) == [], "a failed update is not judged"


@conformance(
    feature="policy packs",
    cli="Packs see every registration, components, providers and the stack too, with its options and its provider; "
    "what a preview does not know makes a policy advisory.",
)
def test_what_policies_see(stack: Stack) -> None:
    text = """
        def see(args, report):
            if args.name == "leaf":
                assert args.provider.resource_type == "pulumi:providers:testbed", args.provider
                assert args.opts.protect and args.opts.ignore_changes == ["other"], args.opts
                assert args.opts.parent.endswith("::outer"), args.opts.parent
                assert args.opts.custom_timeouts.create_seconds == 60, args.opts
                assert args.props["value"] == "v"
                assert pulumi.runtime.is_dry_run() or args.props["ref"].startswith("first-"), args.props["ref"]
                assert not [key for key in args.props if key.startswith("__")]
            project, key = pulumi.get_project(), pulumi.Config().require("key")
            report(f"{args.resource_type} {project} {pulumi.get_stack()} {key} {pulumi.runtime.is_dry_run()}")
        def unknown(args, report):
            if args.name == "later":
                report(args.props["value"])
        PolicyPack("testpack", [
            ResourceValidationPolicy("see", "Sees.", see),
            ResourceValidationPolicy("unknown", "Knows.", unknown, MANDATORY),
        ])
    """
    stack.config("key", "42")
    stack.program("""
        outer = Box("outer")
        first = Thing("first", value="u", opts=ResourceOptions(parent=outer))
        leaf = Thing("leaf", value="v", ref=first, opts=ResourceOptions(
            parent=outer, protect=True, ignore_changes=["other"], custom_timeouts=CustomTimeouts(create="1m")))
        Thing("later", value=first.computed)
    """)
    preview = stack.preview("--policy-pack", pack(stack, text))
    seen = {name_of(e["resourceUrn"]): e for e in preview.of_kind("policyEvent") if e["policyName"] == "see"}
    kinds = {name: event["message"].splitlines()[1].split()[0] for name, event in seen.items()}
    provider = next(name for name in kinds if name.startswith("default"))
    assert kinds == {
        "conformance-dev": "pulumi:pulumi:Stack",
        "outer": "test:index:Box",
        provider: "pulumi:providers:testbed",
        **dict.fromkeys(("first", "leaf", "later"), "testbed:index:Thing"),
    }
    assert seen["leaf"]["message"].splitlines()[1] == "testbed:index:Thing conformance dev 42 True"
    (unknown,) = [e for e in preview.of_kind("policyEvent") if e["policyName"] == "unknown"]
    assert unknown["enforcementLevel"] == "advisory"
    assert "can't be known during preview" in unknown["message"]
    assert ("unknown", "mandatory", "later") in violations(stack.up("--policy-pack", pack(stack, text), ok=False))


@conformance(
    feature="policy packs",
    cli="Secrets reach policies in clear; in messages, secret configuration is shown as `[secret]`.",
    engine="secrets of resources too, and of what a pack writes",
)
@own_rule
def test_secrets_are_masked(stack: Stack) -> None:
    text = """
        from pathlib import Path
        def tell(args, report):
            assert b"planted" not in Path("/proc/self/environ").read_bytes()
            if args.resource_type == "testbed:index:Thing":
                print("noted", args.props["hidden"], file=sys.stderr, flush=True)
                report(f"{args.props['hidden']} {args.props['pin']} {pulumi.Config().require('key')} {args.props}")
        def tell_all(args, report):
            report(" ".join(str(r.props.get("hidden")) for r in args.resources))
        PolicyPack("testpack", [
            ResourceValidationPolicy("tell", "Tells.", tell),
            StackValidationPolicy("tell-all", "Tells all.", tell_all),
        ])
    """
    stack.config("key", "planted-in-config", "--secret")
    stack.program("""
        hidden = "-----BEGIN KEY-----\\nplanted-in-line-two\\n-----END KEY-----"
        Thing("a", value="x", hidden=Output.secret(hidden), pin=Output.secret(271828))
    """)
    folder = pack(stack, text, warm=False)
    outcomes = [stack.preview("--policy-pack", folder), stack.up("--policy-pack", folder)]
    plain = [
        stack.run(*verb, "--stack", STACK, *flags, "--policy-pack", folder)
        for verb, flags in ((["preview"], ["--diff"]), (["preview"], []), (["up", "--yes"], []))
    ]
    text = "".join(outcome.text for outcome in [*outcomes, *plain])
    assert "noted [secret]" in text
    for secret in ("planted-in-config", "planted-in-line-two", "271828"):
        assert secret not in text
        assert secret not in "".join(path.read_text() for path in stack.backend.rglob("*.json"))


DEFECTS = {
    "ends": ("print('started', file=sys.stderr)", "started"),
    "raises": ("raise RuntimeError('no such rule')", "RuntimeError: no such rule"),
    "syntax": ("def (:", "SyntaxError"),
    "imports": ("import nowhere", "No module named 'nowhere'"),
    "prints": ("print('hello')\nPolicyPack('p', [ResourceValidationPolicy('n', 'd', lambda a, r: None)])", "hello"),
    "empty": ("PolicyPack('p', [])", "Missing policies argument"),
    "name": ("PolicyPack('a b', [1])", "Invalid policy pack name"),
}


@pytest.mark.parametrize("defect", DEFECTS)
@own_rule
def test_a_pack_that_does_not_start(stack: Stack, defect: str) -> None:
    stack.program('Thing("a", value="open")')
    program, said = DEFECTS[defect]
    folder = pack(stack, program)
    for outcome in (stack.preview("--policy-pack", folder, ok=False), stack.up("--policy-pack", folder, ok=False)):
        assert outcome.stderr.startswith(f"error: policy pack {folder} did not start: ")
        assert said in outcome.stderr
        assert outcome.exit_code == 1
        assert str(Path(__file__).parents[2] / "engine") not in outcome.stderr, "the engine's own frames are left out"
        assert outcome.of_kind("summaryEvent") == []
    assert stack.calls() == []
    assert not list(stack.backend.rglob("history/**/*.json")), "nothing was begun"


@own_rule
def test_every_fault_of_every_pack_at_once(stack: Stack) -> None:
    stack.program('Thing("a", value="open")')
    node = Path(pack(stack, "", "node"))
    (node / "PulumiPolicy.yaml").write_text("runtime: nodejs\nversion: 1\n")
    bare = stack.folder.parent / "bare"
    bare.mkdir()
    empty = Path(pack(stack, "", "empty"))
    (empty / "__main__.py").unlink()
    (empty / "PulumiPolicy.yaml").write_text("runtime: {name: python, options: {virtualenv: gone}}")
    raises = pack(stack, "1 / 0", "raises")
    flags = [flag for folder in (node, "misspelt", bare, empty) for flag in ("--policy-pack", str(folder))]
    refused = stack.up(*flags, ok=False).stderr
    for said in (
        "says runtime 'nodejs'",
        "version should be text in quotes",
        f"policy pack misspelt: there is no folder {stack.folder / 'misspelt'}",
        f"{bare} has no PulumiPolicy.yaml",
        f"{empty / '__main__.py'} does not exist",
        f"{empty / 'gone/bin/python'} does not exist",
    ):
        assert said in refused
    both = stack.up("--policy-pack", raises, "--policy-pack", pack(stack, "1 / 0", "too"), ok=False).stderr
    assert both.count("ZeroDivisionError") == 2
    assert stack.calls() == []


@conformance(
    feature="policy packs", cli="A policy that fails itself fails the preview and the update, naming pack and reason."
)
def test_a_policy_that_fails(stack: Stack) -> None:
    text = """
        def fail(args, report):
            if args.resource_type == "testbed:index:Thing":
                raise ValueError("no opinion")
        PolicyPack("testpack", [ResourceValidationPolicy("fail", "Fails.", fail)])
    """
    stack.program('Thing("a", value="open")')
    for attempt in (stack.preview, stack.up):
        outcome = attempt("--policy-pack", pack(stack, text), ok=False)
        assert "no opinion" in outcome.messages
    assert stack.existing() == {}


@conformance(
    feature="policy packs",
    cli="With `--target`, resources that are left alone are judged all the same, by the inputs they have.",
)
def test_targets(stack: Stack) -> None:
    folder = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')
    stack.program('Thing("a", value="open"); Thing("b", value="x")')
    stack.up()
    urn = stack.state()["b"]["urn"]
    stack.program('Thing("a", value="closed"); Thing("b", value="y")')
    assert violations(stack.preview("--target", urn, "--policy-pack", folder, ok=False)) == [
        ("no-open", "mandatory", "a")
    ]


def test_what_a_person_sees(stack: Stack) -> None:
    """One section for the packs, in plain lines: pack and version, policy, level, resource, message."""
    stack.program('Thing("a", value="open"); Thing("b", value="ajar")')
    fix = pack(stack, CLOSE + 'PolicyPack("fixpack", [close])', "fix", version="")
    other = pack(stack, NO_OPEN + 'PolicyPack("testpack", [no_open])')
    file = config(stack, {"no-open": {"forbidden": ["ajar"], "enforcementLevel": "advisory"}})
    flags: list[Any] = ["--policy-pack", fix, "--policy-pack", other]
    flags += ["--policy-pack-config", config(stack, {}, "none.json"), "--policy-pack-config", file]
    preview = stack.run("preview", "--stack", STACK, *flags)
    section = preview.stdout.partition("Policies:\n")[2].partition("\n\n")[0]
    assert section.splitlines() == [
        f"    ✅ fixpack@v0.0.1 (local: {fix})",
        "        - [remediate]  close  (1 resource)",
        f"    ⚠️ testpack@v1.2.3 (local: {other})",
        "        - [advisory] [severity: high]  no-open  (testbed:index:Thing: b)",
        "          Nothing is open.",
        "          The value is ajar.",
    ]
    assert "Resources:" in preview.stdout
    forbidden = stack.run("preview", "--stack", STACK, "--policy-pack", other, ok=False)
    assert f"    ❌ testpack@v1.2.3 (local: {other})" in forbidden.stdout
    assert "Resources:" not in forbidden.stdout, "what is forbidden is not summed up"
