"""The rules about who hears of alerts."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from infra.naming import PROJECT
from infra.settings.rules import Context, Violation, rule

ADDRESSES = {"alertsWebhook": "alerts_webhook", "alertsSlack": "alerts_slack", "alertsHeartbeat": "alerts_heartbeat"}
"""Settings that are addresses on the web, and secrets, with their fields."""
PASSWORD = "alertsEmailPassword"  # noqa: S105 - a setting's name


@rule
def receivers_are_addresses(context: Context) -> Iterator[Violation]:
    """`alertsWebhook`, `alertsSlack` and `alertsHeartbeat` are addresses on the web, and set with --secret."""
    for key, field in ADDRESSES.items():
        secret = getattr(context.settings, field)
        if secret is None:
            continue
        yield from _encrypted(context, key)
        value = secret.get_secret_value()
        try:
            parts = urlsplit(value)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or value != "".join(value.split()):
            yield Violation((key,), "is not an address on the web", "Give all of it, such as https://example.org/hook.")


@rule
def mail_has_its_password(context: Context) -> Iterator[Violation]:
    """`monitoring.email.username` needs the secret `alertsEmailPassword`, and the other way round."""
    email, password = context.settings.monitoring.email, context.settings.alerts_email_password
    username = email.username if email else None
    also = (("monitoring", "email", "username"),)
    command = f"`lab config set --secret {PASSWORD}`"
    if password is not None:
        yield from _encrypted(context, PASSWORD)
        if username is None:
            problem = "has no monitoring.email.username that it belongs to"
            yield Violation((PASSWORD,), problem, "Set monitoring.email.username, or remove it.", also)
    elif username and f"{PROJECT}:{PASSWORD}" not in (context.secret_keys or ()):
        yield Violation((PASSWORD,), "is a secret that monitoring.email needs", f"Set it with {command}.", also)


def _encrypted(context: Context, key: str) -> Iterator[Violation]:
    if context.secret_keys is not None and f"{PROJECT}:{key}" not in context.secret_keys:
        yield Violation(
            (key,),
            "is stored in plain text in the stack's file",
            f"Get a new one (this one may have been seen) and set it with `lab config set --secret {key}`.",
        )
