"""`lab alerts`: firing alerts and silences of a stack's platform."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import ExitCode, LabError
from cli.stack import Json  # noqa: TC001 - Typer reads it
from cli.text import ago, as_json, span_seconds, table
from cli.workloads import Platform, report_cluster_errors

if TYPE_CHECKING:
    from cli.session import Session

app = typer.Typer(
    name="alerts",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show firing alerts. `silence` mutes an alert for a while.",
)
SERVICE = "monitoring"
ALERTS, SILENCES = "/api/v2/alerts", "/api/v2/silences"
ORDER = ("critical", "warning")
LONGEST_DAYS = 30
HEARTBEAT = "Watchdog"
"""An alert that always fires."""


@app.callback(invoke_without_command=True)
@report_cluster_errors
def alerts(context: typer.Context, json: Json = False) -> None:
    """Show firing alerts, the most severe first, and silences."""
    if context.invoked_subcommand:
        return
    platform = _platform(context)
    found = [one for one in platform.ask(SERVICE, "GET", ALERTS) if one["labels"]["alertname"] != HEARTBEAT]
    silences = [one for one in platform.ask(SERVICE, "GET", SILENCES) if one["status"]["state"] != "expired"]
    found.sort(key=lambda one: (_rank(one), one["startsAt"]))
    if json:
        print(as_json({"alerts": [_alert(one) for one in found], "silences": [_silence(one) for one in silences]}))
        return
    if not found:
        print("No alert fires.")
    for one in found:
        shown = _alert(one)
        state = "" if shown["state"] == "active" else f" ({shown['state']})"
        print(f"{shown['severity']}: {shown['summary']}{state}")
        print(f"    {shown['alert']}, since {ago(datetime.fromisoformat(shown['since']))}. {shown['description']}")
    if silences:
        rows = [(one["id"][:8], one["matchers"], one["until"], one["by"]) for one in map(_silence, silences)]
        print("\n" + table(("SILENCE", "OF", "UNTIL", "BY"), rows))


@app.command()
@report_cluster_errors
def silence(
    context: typer.Context,
    alert: Annotated[
        str | None, typer.Argument(help="Name of the alert, as shown by `lab alerts`.", metavar="[ALERT]")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Argument(help="Only alerts with this label: model=digits.", metavar="[LABEL=VALUE]...")
    ] = None,
    length: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d.")] = "2h",
    reason: Annotated[str, typer.Option("--reason", help="Reason, shown with the silence.")] = "",
    end: Annotated[str | None, typer.Option("--end", metavar="ID", help="End this silence instead.")] = None,
) -> None:
    """Mute notifications of an alert for a while; `lab alerts` still shows it."""
    platform = _platform(context)
    if end is not None:
        if alert or labels:
            raise LabError("--end takes no alert", code=ExitCode.CONFIGURATION)
        _end(platform, end)
        return
    if alert is None:
        raise LabError("no alert was given", remedy="`lab alerts` lists firing alerts", code=ExitCode.CONFIGURATION)
    lasts = _length(length)
    wanted = {"alertname": alert, **dict(map(_label, labels or []))}
    known = {str(one["labels"]["alertname"]) for one in platform.ask(SERVICE, "GET", ALERTS)}
    known |= {rule["name"] for rule in _rules(platform)}
    if alert not in known:
        remedy = f"choose one of: {', '.join(sorted(known - {HEARTBEAT}))}"
        raise LabError(f"there is no alert '{alert}'", remedy=remedy, code=ExitCode.CONFIGURATION)
    now = datetime.now(UTC)
    made = platform.ask(
        SERVICE,
        "POST",
        SILENCES,
        {
            "matchers": [
                {"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in wanted.items()
            ],
            "startsAt": now.isoformat(),
            "endsAt": (now + lasts).isoformat(),
            "createdBy": getpass.getuser(),
            "comment": reason or "lab alerts silence",
        },
    )
    until = (now + lasts).astimezone()
    print(f"Silenced until {until:%Y-%m-%d %H:%M %z}; `lab alerts silence --end {made['silenceID'][:8]}` ends it.")


def _end(platform: Platform, beginning: str) -> None:
    found = [
        one["id"]
        for one in platform.ask(SERVICE, "GET", SILENCES)
        if one["status"]["state"] != "expired" and one["id"].startswith(beginning)
    ]
    if len(found) != 1:
        message = f"{len(found)} silences begin with '{beginning}'" if found else f"there is no silence '{beginning}'"
        raise LabError(message, remedy="`lab alerts` lists silences", code=ExitCode.CONFIGURATION)
    platform.ask(SERVICE, "DELETE", f"/api/v2/silence/{found[0]}")
    print("Ended.")


def _platform(context: typer.Context) -> Platform:
    session: Session = context.obj
    platform = Platform.of(session)
    if SERVICE not in platform.credentials:
        remedy = "profiles lab and production have it: `lab config set --path ml-cluster:platform.profile lab`"
        raise LabError(f"the platform's profile, {platform.profile}, has no monitoring", remedy=remedy)
    return platform


def _rules(platform: Platform) -> list[dict[str, Any]]:
    groups = platform.ask(SERVICE, "GET", "/vmalert/api/v1/rules")["data"]["groups"]
    return [rule for group in groups for rule in group["rules"] if rule["type"] == "alerting"]


def _rank(alert: dict[str, Any]) -> int:
    severity = alert["labels"].get("severity", "")
    return ORDER.index(severity) if severity in ORDER else len(ORDER)


def _alert(one: dict[str, Any]) -> dict[str, Any]:
    labels, texts, status = one["labels"], one["annotations"], one["status"]
    muted = "silenced" if status["silencedBy"] else "follows from another" if status["inhibitedBy"] else ""
    return {
        "alert": labels["alertname"],
        "severity": labels.get("severity", ""),
        "state": muted or str(status["state"]),
        "since": one["startsAt"],
        "summary": texts.get("summary", ""),
        "description": texts.get("description", ""),
        "labels": {name: value for name, value in labels.items() if name not in {"alertname", "severity"}},
    }


def _silence(one: dict[str, Any]) -> dict[str, Any]:
    matchers = ", ".join(
        f"{each['name']}{'=' if each.get('isEqual', True) else '!='}{each['value']}" for each in one["matchers"]
    )
    fields = {"id": one["id"], "matchers": matchers, "until": one["endsAt"], "by": one["createdBy"]}
    return {**fields, "reason": one["comment"]}


def _length(text: str) -> timedelta:
    length = timedelta(seconds=span_seconds(text, "mhd") or 0)
    if not timedelta() < length <= timedelta(days=LONGEST_DAYS):
        remedy = f"use for example 30m, 2h or 1d; at most {LONGEST_DAYS}d"
        raise LabError(f"--for: '{text}' is not a duration", remedy=remedy, code=ExitCode.CONFIGURATION)
    return length


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        remedy = "use for example model=digits"
        raise LabError(f"'{text}' is not a label with a value", remedy=remedy, code=ExitCode.CONFIGURATION)
    return name, value
