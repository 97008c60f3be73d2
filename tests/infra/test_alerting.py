"""Who hears of alerts, out of a stack's settings; which settings are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from infra import alerting
from infra.settings import Monitoring, Settings, SettingsError, load_settings
from tests.infra.wrong import configuration

SECRET = "https://hooks.example.org/s3cret"  # noqa: S105
EMAIL = {"to": ["you@example.org", "me@example.org"], "from": "lab@example.org", "server": "mail.example.org:587"}


def settings(email: dict[str, Any] | None = None, **secrets: str) -> Settings:
    names = ("alerts_webhook", "alerts_slack", "alerts_heartbeat", "alerts_email_password")
    given: Any = {name: SecretStr(secrets[name]) if name in secrets else None for name in names}
    monitoring = Monitoring.model_validate({"email": email} if email else {})
    return Settings.model_construct(monitoring=monitoring, **given)


def receivers(chosen: Settings) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in alerting.configuration(chosen)["receivers"]}


def test_without_a_receiver_nothing_is_sent() -> None:
    assert receivers(settings()) == {"team": {"name": "team"}, "heartbeat": {"name": "heartbeat"}}


def test_each_receiver_gets_what_it_takes() -> None:
    found = receivers(
        settings({**EMAIL, "username": "lab"}, alerts_webhook=SECRET, alerts_slack=f"{SECRET}/slack",
                 alerts_heartbeat=f"{SECRET}/beat", alerts_email_password="pw")  # noqa: S106
    )  # fmt: skip
    team = found["team"]
    assert [one["url"] for one in team["webhook_configs"]] == [SECRET]
    assert [one["api_url"] for one in team["slack_configs"]] == [f"{SECRET}/slack"]
    assert [one["to"] for one in team["email_configs"]] == EMAIL["to"]
    assert {one["auth_password"] for one in team["email_configs"]} == {"pw"}
    assert [one["url"] for one in found["heartbeat"]["webhook_configs"]] == [f"{SECRET}/beat"]


def test_the_heartbeat_goes_to_nobody_else() -> None:
    route = alerting.configuration(settings(alerts_webhook=SECRET))["route"]
    (beat,) = route["routes"]
    assert (route["receiver"], beat["receiver"], beat["matchers"]) == ("team", "heartbeat", ['alertname="Watchdog"'])


WRONG = [
    ("{alertsWebhook: hooks.example.org/x}", "alertsWebhook", "is not an address on the web"),
    ("{alertsSlack: 'ftp://example.org/x'}", "alertsSlack", "is not an address on the web"),
    ("{alertsHeartbeat: 'https://exam ple.org/x'}", "alertsHeartbeat", "is not an address on the web"),
    ("{alertsWebhook: 'https://example.org:port/x'}", "alertsWebhook", "is not an address on the web"),
    ("{alertsEmailPassword: abc}", "alertsEmailPassword", "monitoring.email.username"),
    ("{monitoring: {availability: 100}}", "monitoring.availability", "is not allowed"),
    ("{monitoring: {cloud: 'cloud.example.org:9180'}}", "monitoring.cloud", "is not an IPv4 address with a port"),
    ("{monitoring: {cloud: 172.25.0.2}}", "monitoring.cloud", "is not an IPv4 address with a port"),
    ("{monitoring: {cloud: '127.0.0.1:9180'}}", "monitoring.cloud", "is the pod itself"),
    ("{monitoring: {latencyMs: 0}}", "monitoring.latencyMs", "is not allowed"),
    (
        "{monitoring: {email: {to: [], from: a@example.org, server: 'm.example.org:25'}}}",
        "monitoring.email.to",
        "empty",
    ),
    (
        "{monitoring: {email: {to: [me], from: a@example.org, server: 'm.example.org:25'}}}",
        "monitoring.email.to[0]",
        "mail",
    ),
    ("{monitoring: {email: {to: [a@example.org], from: a@example.org, server: m}}}", "monitoring.email.server", "host"),
    (
        "{monitoring: {email: {to: [a@example.org], from: a@example.org, server: 'm.example.org:25', username: lab}}}",
        "alertsEmailPassword",
        "is a secret that monitoring.email needs",
    ),
]


@pytest.mark.parametrize(("change", "key", "problem"), WRONG, ids=[f"{key}-{n}" for n, (_, key, _) in enumerate(WRONG)])
def test_wrong_settings_are_refused_by_name_and_no_secret_is_shown(change: str, key: str, problem: str) -> None:
    given = configuration(change)
    secret = [name for name in given if name.startswith("ml-cluster:alerts")]
    with pytest.raises(SettingsError) as told:
        load_settings(given, stack="test", secret_keys=secret)
    (setting,) = told.value.invalid
    assert setting.key == f"ml-cluster:{key}"
    assert problem in f"{setting.problem} {setting.remedy}"
    for name in secret:
        assert str(given[name]) not in str(told.value)


def test_a_secret_in_plain_text_is_refused() -> None:
    with pytest.raises(SettingsError, match="is stored in plain text") as told:
        load_settings(configuration(f"{{alertsWebhook: '{SECRET}'}}"), stack="test", secret_keys=[])
    assert SECRET not in str(told.value)
