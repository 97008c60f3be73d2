"""Who hears of alerts, and which keep others quiet: Alertmanager's configuration, out of a stack's settings."""

from typing import Any

from pydantic import SecretStr

from infra.settings import Settings

GROUPED = ["alertname", "namespace", "node", "model", "alias"]
"""Alerts with the same of these are one message."""
SECONDS_TO_COLLECT = 5
"""How long the first message of a group waits for others of its kind."""
QUIETED: tuple[tuple[str, str, list[str]], ...] = (
    # (what fires, what is its consequence, what both have in common)
    ("NodeNotReady", "TargetDown|PodNotReady|MemoryShort|ClockOff", ["node"]),
    ("DiskNearlyFull", "DiskFills", ["node", "mountpoint"]),
    ("StoreDown", "RegistryDown|PodRestartsInALoop|PodNotReady|SourceOfMetricsDown", []),
    ("RegistryDown", "SourceOfMetricsDown|TargetDown", []),
    ("GatewayDown", "SourceOfMetricsDown", []),
    ("ModelAnswersErrors", "ModelErrorBudgetBurns|ModelErrorBudgetBurnsFast", ["model", "alias"]),
    ("ModelAnswersErrors", "GatewayErrors", []),
    ("ModelErrorBudgetBurnsFast", "ModelErrorBudgetBurns", ["model", "alias"]),
    ("PodRestartsInALoop", "PodNotReady|TargetDown", ["namespace", "pod"]),
    ("CloudServiceDown", "CloudServiceRestarts", ["service"]),
)
"""Whoever hears of the cause needs not hear of what follows from it."""


def configuration(settings: Settings) -> dict[str, Any]:
    """Alertmanager's configuration file, as JSON has it (YAML reads that too). It has secrets in it.

    Without a receiver in the settings alerts are on the pages, and go nowhere else.
    """
    team: dict[str, Any] = {"name": "team"}
    if webhook := _plain(settings.alerts_webhook):
        team["webhook_configs"] = [{"url": webhook, "send_resolved": True, "max_alerts": 50}]
    if slack := _plain(settings.alerts_slack):
        team["slack_configs"] = [{"api_url": slack, "send_resolved": True, "title": TITLE, "text": TEXT}]
    if email := settings.monitoring.email:
        login = {"auth_username": email.username, "auth_password": _plain(settings.alerts_email_password)}
        about = {"from": email.sender, "smarthost": email.server, "require_tls": True, "send_resolved": True}
        headers = {"Subject": TITLE}
        team["email_configs"] = [
            {"to": one, **about, "headers": headers, "text": TEXT, "html": "", **(login if email.username else {})}
            for one in email.to
        ]
    heartbeat: dict[str, Any] = {"name": "heartbeat"}
    if address := _plain(settings.alerts_heartbeat):
        heartbeat["webhook_configs"] = [{"url": address, "send_resolved": False}]
    # Every minute, and at once.
    beat = {"group_wait": "0s", "group_interval": "30s", "repeat_interval": "1m"}
    return {
        "route": {
            "receiver": "team",
            "group_by": GROUPED,
            "group_wait": f"{SECONDS_TO_COLLECT}s",
            "group_interval": "20s",
            "repeat_interval": "4h",
            "routes": [{"matchers": ['alertname="Watchdog"'], "receiver": "heartbeat", **beat}],
        },
        "inhibit_rules": [
            {
                "source_matchers": [f'alertname="{cause}"'],
                "target_matchers": [f'alertname=~"{effects}"'],
                **({"equal": common} if common else {}),
            }
            for cause, effects, common in QUIETED
        ],
        "receivers": [team, heartbeat],
    }


TITLE = (
    '{{ if eq .Status "firing" }}{{ .CommonLabels.severity | toUpper }}{{ else }}RESOLVED{{ end }}: '
    "{{ (index .Alerts 0).Annotations.summary }}"
)
TEXT = "{{ range .Alerts }}{{ .Annotations.summary }}\n{{ .Annotations.description }}\n{{ .GeneratorURL }}\n\n{{ end }}"


def _plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
