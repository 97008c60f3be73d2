"""The stack's configuration: one strict model, checked as a whole before the first call to the cloud.

It does not import Pulumi, so the program, `lab doctor` and the tests can all read `Pulumi.<stack>.yaml` with
`load_settings`.
"""

from infra.settings.loading import NOTHING_SENT, REFERENCE, InvalidSetting, SettingsError, load_settings, public_key
from infra.settings.model import (
    Access,
    Cluster,
    GitOps,
    Lease,
    Monitoring,
    NodeGroup,
    Platform,
    Settings,
    daytime_hours,
)
from infra.settings.rules import RULES
from infra.settings.schema import kind, resolve, schema
from infra.settings.values import Network, PublicKey

__all__ = [
    "NOTHING_SENT",
    "REFERENCE",
    "RULES",
    "Access",
    "Cluster",
    "GitOps",
    "InvalidSetting",
    "Lease",
    "Monitoring",
    "Network",
    "NodeGroup",
    "Platform",
    "PublicKey",
    "Settings",
    "SettingsError",
    "daytime_hours",
    "kind",
    "load_settings",
    "public_key",
    "resolve",
    "schema",
]
