"""Policy packs and their results, in the Pulumi CLI's layout (`pkg/backend/display/{progress,diff}.go`)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.text import Text

from cli.display.model import Urn, decode_object
from cli.display.values import diff_objects
from terminal.text import HEADLINE, clean, plain, plural

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cli.display.model import Event, Model

LEVELS = ("mandatory", "remediate", "advisory")
SEVERITIES = ("critical", "high", "medium", "low")
INDENT = " " * 8


def is_forbidden(model: Model) -> bool:
    """Whether a mandatory policy was violated."""
    return any(event["enforcementLevel"] == "mandatory" for event in model.violations)


def policies(model: Model) -> list[Text]:
    """Each policy pack that ran, with its remediations, and its violations with the worst first."""
    packs = _packs(model.summary or {})
    if not packs:
        return []
    lines = [Text("Policies:", HEADLINE)]
    for name, paths in sorted(packs.items()):
        remediations = [event for event in model.remediations if _name(event) == name]
        violations = sorted((event for event in model.violations if _name(event) == name), key=_order)
        levels = {event["enforcementLevel"] for event in violations}
        mark = "❌" if "mandatory" in levels else "⚠️" if levels else "✅"
        local = f" (local: {'; '.join(sorted(paths))})" if paths else ""
        lines.append(Text.assemble(f"    {mark} ", (clean(name), "magenta"), clean(local)))
        counts = Counter(event["policyName"] for event in remediations)
        for policy, count in sorted(counts.items()):
            policy = clean(policy)  # noqa: PLW2901 - a pack chose it
            lines.append(
                Text.assemble(f"{INDENT}- ", (f"[remediate]  {policy}", "magenta"), f"  ({plural(count, 'resource')})")
            )
        for event in violations:
            lines.append(Text.assemble(f"{INDENT}- ", heading(event)))
            lines += [Text(f"{INDENT}  {line}".rstrip()) for line in _message(event)]
    return [*lines, Text()]


def violation_lines(event: Event) -> list[Text]:
    """A violation, as the diff view shows it below the resource."""
    head = Text.assemble("    ", (clean(_name(event)), "magenta"), " ", heading(event))
    return [head, *(Text(f"        {line}".rstrip()) for line in _message(event))]


def remediation_lines(event: Event) -> list[Text]:
    """A remediation and the properties it changed, as the diff view shows it. None if it changed nothing."""
    diff = diff_objects(decode_object(event.get("before")), decode_object(event.get("after")))
    if diff is None:
        return []
    changed = ", ".join(sorted(str(key) for key, item in diff.items() if item.kind != "same"))
    what = f"{clean(_name(event))} [remediate]  {clean(event['policyName'])}"
    return [Text.assemble("    ", (what, "magenta"), f"{_resource(event)} [{clean(changed)}]")]


def pack_table(summary: Event) -> list[Text]:
    """The table of packs at the end of the diff view."""
    packs: Mapping[str, str] = summary.get("PolicyPacks") or {}
    if not packs:
        return []
    width = max(map(len, ["Name", *packs]))
    lines = [f"    {'Name':<{width}}  Version", *(f"    {name:<{width}}  {packs[name]}" for name in sorted(packs))]
    return [Text(), Text("Policy Packs run:", HEADLINE), *(Text(clean(line)) for line in lines)]


def heading(event: Event) -> Text:
    """`[mandatory]  no-open-ssh  (openstack:networking:SecGroupRule: ssh)`."""
    style = "red" if event["enforcementLevel"] == "mandatory" else "yellow"
    severity = f" [severity: {event['severity']}]" if event.get("severity") else ""
    what = f"[{event['enforcementLevel']}]{severity}  {clean(event['policyName'])}"
    return Text.assemble((what, style), _resource(event))


def _resource(event: Event) -> str:
    urn = Urn.parse(event.get("resourceUrn", ""))
    return f"  ({clean(urn.display_type)}: {clean(urn.name)})" if urn.type else ""


def _message(event: Event) -> Sequence[str]:
    return plain(event["message"]).rstrip().splitlines()


def _name(event: Event) -> str:
    return f"{event['policyPackName']}@v{event['policyPackVersion']}"


def _packs(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name and version of each pack, and its folder: events name a local pack `name|local|path`."""
    packs: dict[str, list[str]] = {}
    for key, version in (summary.get("PolicyPacks") or {}).items():
        name, _, path = key.partition("|local|")
        packs.setdefault(f"{name}@v{version}", []).extend([path] if path else [])
    return packs


def _order(event: Event) -> tuple[int, int, str, str]:
    level, severity = event["enforcementLevel"], event.get("severity")
    return (
        LEVELS.index(level) if level in LEVELS else len(LEVELS),
        SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES),
        event["policyName"],
        event.get("resourceUrn", ""),
    )
