"""Secrets planted wherever the platform has one, and where they are looked for: in all that monitoring says."""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import urllib3

from infra.secret_layout import FORGE, MONITORED, OTHERS, PLATFORM
from tests.engine.harness import wait_for
from tests.k8s.receivers import LOOPBACK, Web

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.k8s.chain import Chain

PAGES = {
    "metrics": (
        "/metrics", "/targets", "/service-discovery", "/config", "/flags", "/api/v1/targets", "/api/v1/labels",
        "/api/v1/status/tsdb", "/api/v1/status/top_queries", "/api/v1/status/active_queries", "/api/v1/status/config",
        "/api/v1/status/metric_names_stats", "/api/v1/rules", "/api/v1/alerts", "/api/v1/notifiers",
        "/api/v1/metadata", "/vmui/custom-dashboards", '/api/v1/export?match={__name__!=""}',
        '/api/v1/series?match[]={__name__!=""}&start=-2h',
    ),
    "rules": ("/metrics", "/flags", "/api/v1/rules", "/api/v1/alerts", "/api/v1/notifiers", "/vmalert/groups"),
    "log-rules": ("/metrics", "/flags", "/api/v1/rules", "/api/v1/alerts", "/api/v1/notifiers", "/vmalert/groups"),
    "alerts": (
        "/metrics", "/api/v2/alerts", "/api/v2/alerts/groups", "/api/v2/silences", "/api/v2/receivers",
    ),
    "logs": (
        "/metrics", "/flags", "/select/logsql/query?query=*", "/select/logsql/streams?query=*&start=1d",
        "/select/logsql/stream_field_names?query=*&start=1d", "/select/logsql/field_names?query=*&start=1d",
    ),
    "agent": ("/metrics", "/flags"),
    "state": ("/metrics",),
    "gateway-figures": ("/metrics",),
    "login": ("/api/v2/alerts", "/api/v2/receivers", "/api/v2/status", "/", "/prometheus/api/v1/targets", "/flags"),
    "login-figures": ("/metrics",),
}  # fmt: skip
"""What is read of each program. Not Alertmanager's own `/api/v2/status`: it shows receivers, and the login hides it."""


@dataclass
class Planted:
    """By `<namespace>/<name>` and key: a text that nothing else has."""

    values: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layouts = {name: list(layout.keys) for name, layout in {**PLATFORM, **MONITORED, **FORGE}.items()}
        others = {name: re.findall(r"`([^`]+)`", keys) or ["ada"] for name, (keys, _) in OTHERS.items()}
        for name, keys in {**layouts, **others}.items():
            # With what URLs and Base64 write otherwise.
            self.values[name] = {key: f"planted/{secrets.token_hex(12)}+%" for key in keys}

    def one(self, name: str, key: str) -> str:
        """The text of a key."""
        return self.values[name][key]

    @property
    def all(self) -> dict[str, str]:
        """Each text, by where it is."""
        return {f"{name} {key}": text for name, keys in self.values.items() for key, text in keys.items()}

    def found(self, text: str) -> set[str]:
        """Whose texts are in another, as they are, in a URL, or in Base64 wherever that begins."""
        # The random part is in every form of it: where none is, nothing is.
        return {where for where, planted in self.all.items() if any(form in text for form in forms(planted))}


def forms(planted: str) -> set[str]:
    """How a text may be written."""
    random = planted.partition("/")[2].partition("+")[0]
    found = {random, quote(planted, safe=""), quote_plus(planted), json.dumps(planted)[1:-1]}
    for shift in range(3):
        # Without the first and last characters, which depend on what is around it.
        written = base64.b64encode(b"\0" * shift + random.encode()).decode()
        found.add(written[4:28])
    return found


def surfaces(chain: Chain) -> Iterator[tuple[str, str]]:
    """All that can be read: pages of each program, and what it has written itself; with their texts."""
    pool = urllib3.PoolManager()
    password = chain.planted.one("platform/monitoring", "password")
    login = urllib3.make_headers(basic_auth=f"admin:{password}")
    refused = list[tuple[str, str, int]]()
    for name, paths in PAGES.items():
        for path in paths:
            url = chain.monitors.url(name) + path
            told = pool.request("GET", url, headers=login if name == "login" else {}, timeout=60)
            # What the login refuses is read as well: what it says is for anybody.
            if told.status >= HTTPStatus.BAD_REQUEST and name != "login":
                refused.append((name, path, told.status))
            yield f"{name} {path.partition('?')[0]}", told.data.decode(errors="replace")
    assert not refused
    names = json.loads(pool.request("GET", f"{chain.monitors.url('metrics')}/api/v1/labels").data)["data"]
    for label in names:
        url = f"{chain.monitors.url('metrics')}/api/v1/label/{quote(label)}/values"
        yield f"metrics values of label {label}", pool.request("GET", url).data.decode()
    targets = json.loads(pool.request("GET", f"{chain.monitors.url('metrics')}/api/v1/targets").data)["data"]
    for target in targets["activeTargets"]:
        yield f"target {target['scrapePool']}", json.dumps(target)
    for log in sorted(chain.folder.glob("*.log")):
        yield f"log of {log.stem}", log.read_text(errors="replace")
    for receiver, body in chain.heard.bodies():
        yield f"message to {receiver}", body


def careless(chain: Chain, name: str) -> None:
    """A pod that does wrong with its secrets what can be done wrong; it is scraped, and its log is read."""
    planted = list(chain.planted.all.values())
    annotations = {f"a-tool.example.org/configuration-{number}": text for number, text in enumerate(planted)}
    environment = [{"name": f"KEY_{number}", "value": text} for number, text in enumerate(planted)]
    web = Web(bodies={"/metrics": "ready 1\n"})
    web.start()
    chain.speaking_pod("agent", name, web.port, annotations=annotations, container={"env": environment})
    chain.addresses[name] = LOOPBACK
    lines = []
    for number, text in enumerate(planted):
        login = base64.b64encode(f"monitor:{text}".encode()).decode()
        lines += [
            json.dumps({"msg": f"login {number}", "password": text, "token": text, "api_key": text}),
            json.dumps({"msg": f"asked {number}", "request": {"headers": {"Authorization": f"Basic {login}"}}}),
            json.dumps({"msg": f"began {number}", "env": {"KEY": text}, "credentials": login, "secret": text}),
        ]
    chain.say("agent", name, lines)

    def said() -> bool:
        query = f'"kubernetes.pod_name":={name} | stats count() as n'
        told = chain.monitors.get("logs", "/select/logsql/query", query=query)
        return int(told["n"]) >= len(lines)

    wait_for(said, "the careless pod's lines", 300)
    chain.wait_for_figures(f'up{{pod="{name}"}}')
