"""What policy packs found, in every display."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.display.stream import SECRET, Event, begin, begin_stack, end, finish, show, urn

PACKS = {"course|local|policies/course": "1.0.0", "team": "2.1.0"}
LABELS = {"policyPackName": "course", "policyPackVersion": "1.0.0", "policyPackVersionTag": "1.0.0", "color": "raw"}


def violate(about: str, level: str, policy: str = "no-open-ssh", **fields: Any) -> Event:
    # As the CLI writes messages; the embedded engine leaves the tags out.
    message = "<{%fg 13%}>SSH is open to known ranges only.\nPort 22 is open.<{%reset%}>\n"
    head = {"resourceUrn": urn(about) if about else "", "message": message, "policyName": policy}
    return {"policyEvent": {**head, "enforcementLevel": level, **LABELS, **fields}}


def remediate(about: str, before: Event, after: Event) -> Event:
    head = {"resourceUrn": urn(about), "policyName": "close", "before": before, "after": after}
    return {"policyRemediationEvent": {**head, **LABELS}}


def ended(changes: dict[str, int], **fields: Any) -> list[Event]:
    summary, cancel = finish(changes, **fields)
    summary["summaryEvent"]["PolicyPacks"] = PACKS
    return [summary, cancel]


def test_packs_that_found_nothing_are_listed() -> None:
    out, _ = show([begin_stack(), *ended({"create": 1})])
    assert "Policies:\n    ✅ course@v1.0.0 (local: policies/course)\n    ✅ team@v2.1.0\n\nResources:" in out


def test_violations_come_worst_first_and_before_diagnostics() -> None:
    events = [
        begin_stack(),
        violate("node", "advisory", "few-nodes"),
        violate("other", "advisory", "few-nodes", severity="critical"),
        violate("", "advisory", "size"),
        remediate("node", {"size": 1}, {"size": 2}),
        remediate("other", {"size": 1}, {"size": 2}),
        *ended({"create": 1}, preview=True),
    ]
    out, _ = show(events, dry_run=True)
    section = out.partition("Policies:\n")[2].partition("\n\n")[0].splitlines()
    assert section == [
        "    ⚠️ course@v1.0.0 (local: policies/course)",
        "        - [remediate]  close  (2 resources)",
        "        - [advisory] [severity: critical]  few-nodes  (openstack:compute:Instance: other)",
        "          SSH is open to known ranges only.",
        "          Port 22 is open.",
        "        - [advisory]  few-nodes  (openstack:compute:Instance: node)",
        "          SSH is open to known ranges only.",
        "          Port 22 is open.",
        "        - [advisory]  size",
        "          SSH is open to known ranges only.",
        "          Port 22 is open.",
        "    ✅ team@v2.1.0",
    ]
    assert "Resources:\n    + 1 to create" in out


def test_a_mandatory_violation_ends_without_a_summary() -> None:
    events = [
        begin_stack(),
        violate("node", "advisory", "few-nodes"),
        violate("node", "mandatory"),
        *ended({"same": 1}),
    ]
    out, _ = show(events)
    assert " openstack:compute:Instance node  mandatory: no-open-ssh" in out, "the row says why it is not made"
    assert "    ❌ course@v1.0.0 (local: policies/course)\n        - [mandatory]  no-open-ssh  (" in out
    assert "Resources:" not in out


def test_the_diff_view_shows_them_where_they_happen() -> None:
    events = [
        begin_stack(),
        remediate("node", {"size": 1, "same": True, "key": SECRET}, {"size": 2, "same": True, "key": SECRET}),
        remediate("other", {"size": 1}, {"size": 1}),
        violate("node", "mandatory", severity="high"),
        begin("create", "node"),
        end("create", "node"),
        *ended({"create": 1}),
    ]
    out, _ = show(events, diff=True)
    lines = out.splitlines()
    start = lines.index("    course@v1.0.0 [remediate]  close  (openstack:compute:Instance: node) [size]")
    assert lines[start + 1 : start + 4] == [
        "    course@v1.0.0 [mandatory] [severity: high]  no-open-ssh  (openstack:compute:Instance: node)",
        "        SSH is open to known ranges only.",
        "        Port 22 is open.",
    ]
    assert lines[start + 4].endswith("openstack:compute/instance:Instance: (create)")
    table = out.partition("Policy Packs run:\n")[2].splitlines()[:3]
    assert [line.split() for line in table] == [
        ["Name", "Version"],
        ["course|local|policies/course", "1.0.0"],
        ["team", "2.1.0"],
    ]


def test_programs_get_them_without_colour_and_secrets() -> None:
    events = [violate("node", "mandatory"), remediate("node", {"key": SECRET}, {"key": SECRET})]
    violation, remediation = map(json.loads, show(events, json=True)[0].splitlines())
    assert violation["policyEvent"]["message"] == "SSH is open to known ranges only.\nPort 22 is open.\n"
    assert violation["policyEvent"]["color"] == "never"
    assert remediation["policyRemediationEvent"]["after"]["key"]["ciphertext"] == "[secret]"


def test_the_digest_of_a_preview_says_why_it_failed() -> None:
    events = [begin_stack(), violate("node", "mandatory"), violate("", "advisory"), *ended({"create": 1}, preview=True)]
    digest = json.loads(show(events, json=True, dry_run=True)[0])
    result = "course@v1.0.0 no-open-ssh: SSH is open to known ranges only.\nPort 22 is open.\n"
    assert digest["diagnostics"] == [
        {"urn": urn("node"), "message": result, "severity": "error"},
        {"message": result, "severity": "warning"},
    ]
