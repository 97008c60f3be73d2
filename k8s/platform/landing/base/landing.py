"""Serves the landing page: services of services.json and of added capabilities, the cluster's nodes, and applications
from Git. Threads poll their state, so that no request waits for them.
"""

import base64
import hashlib
import html
import json
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

FOLDER = Path(__file__).parent
DOMAIN, PUBLIC_PORT = os.environ["DOMAIN"], os.environ.get("PUBLIC_PORT", "30443")
LISTEN_PORT = int(os.environ.get("PORT", "8080"))
SERVICES = json.loads(Path(os.environ.get("SERVICES") or FOLDER / "services.json").read_text(encoding="utf-8"))
OTHERS = Path(os.environ.get("OTHERS", "/etc/landing"))
"""Models, and services of capabilities that were added to a profile: files with one service or a list."""
PAGE = (FOLDER / "page.html").read_text(encoding="utf-8")
POLL_SECONDS = 5
READY, IDLE, DOWN, UNKNOWN = "ready", "idle", "down", "unknown"
WORDS = {READY: "Ready", IDLE: "Idle", DOWN: "Not ready", UNKNOWN: "Not checked yet"}
GOOD = ("Synced", "Healthy")
SYMBOLS = {
    READY: "M4 10.5l4 4 8-9",
    IDLE: "M4 10h12",
    DOWN: "M5 5l10 10M15 5L5 15",
    UNKNOWN: "M4 10h.1M10 10h.1M16 10h.1",
}
ALERTS = os.environ.get("ALERTS", "")
"""Address of the firing alerts; empty without monitoring."""
SHOWN_ALERTS = 10
MONITORING = f"https://monitoring.{html.escape(DOMAIN)}:{html.escape(PUBLIC_PORT)}"
ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
API = os.environ.get("API", "https://kubernetes.default.svc")
APPLICATIONS = f"{API}/apis/argoproj.io/v1alpha1/namespaces/gitops/applications"
"""The GitOps controller's applications; absent without one."""
NODES = f"{API}/api/v1/nodes?resourceVersion=0"
"""From the API server's cache: many pages may be open."""
ROLE = "node-role.kubernetes.io/"
API_SECONDS = float(os.environ.get("API_SECONDS", "5"))
health: dict[str, tuple[str, str]] = {}
"""State and detail by health address."""


def list_services() -> list[dict[str, str]]:
    """The current services."""
    found = list(SERVICES)
    for path in sorted(OTHERS.glob("*.json")):
        with suppress(FileNotFoundError):  # it was deleted in between
            more = json.loads(path.read_text(encoding="utf-8"))
            found += more if isinstance(more, list) else [more]
    return found


def check(service: dict[str, str]) -> tuple[str, str]:
    """The state of a service, and a detail."""
    url = service["health"]
    parts = urlsplit(url)
    try:
        if parts.scheme == "tcp":
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=POLL_SECONDS).close()
        else:
            urllib.request.urlopen(url, timeout=POLL_SECONDS).close()  # noqa: S310 - addresses of services.json
    except urllib.error.HTTPError as error:
        return DOWN, f"Answers {error.code}"
    except OSError as error:
        reason = getattr(error, "reason", error)
        # A stage without a version has no pods: its Service refuses or, behind a policy, drops the connection.
        # A pod that hangs accepts the connection: then the error is a plain TimeoutError.
        refused = isinstance(reason, ConnectionRefusedError)
        if "idle" in service and (refused or (reason is not error and isinstance(reason, TimeoutError))):
            return IDLE, service["idle"]
        if refused:
            return DOWN, "Refuses connections"
        if isinstance(reason, TimeoutError):
            return DOWN, f"No answer within {POLL_SECONDS} s"
        return DOWN, str(reason) or type(reason).__name__
    return READY, ""


firing: list[list[str] | None] = [None]
"""Summaries of the firing alerts, critical ones first; None if monitoring does not answer."""


def get_alerts() -> list[str]:
    """Summaries of the firing alerts, without the one that always fires."""
    with urllib.request.urlopen(ALERTS, timeout=POLL_SECONDS) as answer:  # noqa: S310 - an address from the manifest
        found = json.load(answer)["data"]["alerts"]
    alerts = [
        (one["labels"].get("severity") != "critical", one["annotations"].get("summary", one["name"]))
        for one in found
        if one["state"] == "firing" and one["labels"].get("severity") != "none"
    ]
    texts = [text for _, text in sorted(alerts)]
    more = [f"and {len(texts) - SHOWN_ALERTS} more"] if len(texts) > SHOWN_ALERTS else []
    return texts[:SHOWN_ALERTS] + more


def watch_alerts() -> None:
    """Keep the firing alerts up to date."""
    while True:
        try:
            firing[0] = get_alerts()
        except (OSError, ValueError, KeyError):
            firing[0] = None
        time.sleep(POLL_SECONDS)


applications: list[list[dict[str, str]] | None] = [None]
"""The applications from Git with their states; None if no GitOps controller answers."""


nodes: list[list[dict[str, str]] | None] = [None]
"""The cluster's nodes with their states; None if the API does not answer."""


def list_api(url: str) -> list[dict[str, Any]]:
    """The objects of a list of the cluster's API, sorted by name."""
    # The token rotates.
    login = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text(encoding='utf-8').strip()}"}
    request = urllib.request.Request(url, headers=login)  # noqa: S310 - the cluster's API
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=POLL_SECONDS, context=context) as answer:  # noqa: S310
        found: list[dict[str, Any]] = json.load(answer)["items"]
    return sorted(found, key=lambda one: one["metadata"]["name"])


def node(one: dict[str, Any]) -> dict[str, str]:
    """A node's state, role, version, age and problems."""
    metadata, status = one["metadata"], one.get("status", {})
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    ready = conditions.pop("Ready", {"message": "It has not reported yet"})
    problems = [each.get("message") or kind for kind, each in conditions.items() if each["status"] == "True"]
    state, word = READY, WORDS[READY]
    if ready.get("status") != "True":
        state, word = DOWN, WORDS[DOWN]
        problems.insert(0, ready.get("message") or ready.get("reason", ""))
    elif one.get("spec", {}).get("unschedulable"):
        state, word = IDLE, "Takes no new pods"
    roles = sorted(label.removeprefix(ROLE) for label in metadata.get("labels", {}) if label.startswith(ROLE))
    version = status.get("nodeInfo", {}).get("kubeletVersion", "")
    return {
        "name": metadata["name"],
        "state": state,
        "word": word,
        "role": " and ".join(roles) or "worker",
        "version": version,
        "age": age(metadata),
        "detail": "; ".join(problems),
    }


def age(metadata: dict[str, Any]) -> str:
    """An object's age, in one unit."""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(metadata["creationTimestamp"])).total_seconds())
    for unit, length in {"days": 86400, "hours": 3600, "minutes": 60}.items():
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} old"
    return f"{max(seconds, 0)} seconds old"


def application(one: dict[str, Any]) -> dict[str, str]:
    """An application's state: sync, health and problems."""
    status = one.get("status", {})
    sync, health = (status.get(key, {}).get("status", "Unknown") for key in ("sync", "health"))
    operation = status.get("operationState", {})
    conditions = status.get("conditions", ())
    errors, warnings = (
        [each["message"] for each in conditions if each["type"].endswith(kind)] for kind in ("Error", "Warning")
    )
    if operation.get("phase") in {"Failed", "Error"} and sync != "Synced":
        errors.append(operation.get("message", ""))
    state = DOWN if errors or health in {"Degraded", "Missing"} else READY if (sync, health) == GOOD else UNKNOWN
    revision = status.get("sync", {}).get("revision", "")[:12]
    name = one["metadata"]["name"]
    return {
        "name": name,
        "state": state,
        "word": f"{sync}, {health}",
        "revision": revision,
        "detail": "; ".join([*errors, *warnings]),
    }


def watch_api(url: str, cell: list[list[dict[str, str]] | None], row_of: Callable[[Any], dict[str, str]]) -> None:
    """Keep the rows of a list of the cluster's API up to date in `cell`."""
    while True:
        try:
            cell[0] = [row_of(one) for one in list_api(url)]
        except (OSError, ValueError, KeyError):
            cell[0] = None
        time.sleep(API_SECONDS)


def watch(service: dict[str, str]) -> None:
    """Keep the health of a service up to date while it is listed."""
    while service in list_services():
        health[service["health"]] = check(service)
        time.sleep(POLL_SECONDS)


def watch_all() -> None:
    """Keep the health of all services up to date."""
    watching: dict[str, threading.Thread] = {}
    while True:
        for service in list_services():
            url = service["health"]
            if url not in watching or not watching[url].is_alive():
                health.pop(url, None)
                watching[url] = threading.Thread(target=watch, args=(service,), daemon=True)
                watching[url].start()
        time.sleep(POLL_SECONDS)


def overview() -> dict[str, Any]:
    """The page's data: the services with address and health, the lists, and a summary."""
    services = []
    for service in list_services():
        state, detail = health.get(service["health"], (UNKNOWN, ""))
        shown = {name: service[name] for name in ("name", "about", "login", "page")}
        url = f"https://{service['host']}.{DOMAIN}:{PUBLIC_PORT}" if service["host"] else ""
        services.append({**shown, "url": url, "state": state, "word": WORDS[state], "detail": detail})
    counts = Counter(one["state"] for one in services)
    from_git, machines = applications[0], nodes[0]
    if down := [one["name"] for one in [*services, *(machines or ()), *(from_git or ())] if one["state"] == DOWN]:
        state, summary = DOWN, f"Not ready: {', '.join(down)}"
    elif counts[UNKNOWN]:
        state, summary = UNKNOWN, "Checking the services"
    else:
        state = READY
        summary = f"{counts[READY]} ready, {counts[IDLE]} idle" if counts[IDLE] else f"All {counts[READY]} ready"
    now = f"{datetime.now(UTC):%H:%M:%S} UTC"
    lists: dict[str, Any] = {"services": services, "nodes": machines, "applications": from_git, "alerts": firing[0]}
    return {"state": state, "summary": summary, "time": now, **lists}


def card(service: dict[str, str]) -> str:
    """A service on the page."""
    name, about, login, page, url, state, word, detail = (
        html.escape(service[key]) for key in ("name", "about", "login", "page", "url", "state", "word", "detail")
    )
    title = f'<a href="{url}{page}">{name}</a>' if page else name
    return (
        f'<li class="{state}"><div class="top"><h3>{title}</h3><span class="state">{symbol(state)}'
        f'<span class="word">{word}</span></span></div><p>{about}</p><p class="detail">{detail}</p>'
        + (f"<code>{url.removeprefix('https://')}</code>" if url else "")
        + (f'<p class="login">Sign in: {login}</p>' if login else "")
        + "</li>"
    )


LISTS = {"nodes": "Nodes", "applications": "From Git"}
ABOUT = {"nodes": ("role", "version", "age"), "applications": ("revision",)}
"""The fields below the detail in a row of a list."""


def row(one: dict[str, str], about: tuple[str, ...]) -> str:
    """A node or an application on the page."""
    name, state, word, detail = (html.escape(one[key]) for key in ("name", "state", "word", "detail"))
    return (
        f'<li class="{state}"><div class="top"><h3>{name}</h3><span class="state">{symbol(state)}'
        f'<span class="word">{word}</span></span></div><p class="detail">{detail}</p>'
        f'<code class="about">{html.escape(", ".join(one[key] for key in about if one[key]))}</code></li>'
    )


def rows(kind: str, title: str, found: Sequence[dict[str, str]]) -> str:
    """A list on the page, hidden if it is empty."""
    text = "".join(row(one, ABOUT[kind]) for one in found)
    return f'<section id="{kind}"{"" if found else " hidden"}><h2>{title}</h2><ul>{text}</ul></section>'


def symbol(state: str) -> str:
    """A state's symbol; hidden from screen readers, which read the word."""
    return f'<svg viewBox="0 0 20 20" aria-hidden="true"><path d="{SYMBOLS[state]}"/></svg>'


def page() -> str:
    """The page with the current state; its script updates it."""
    now = overview()
    return Template(PAGE).substitute(
        domain=html.escape(DOMAIN),
        port=html.escape(PUBLIC_PORT),
        state=now["state"],
        symbol=symbol(now["state"]),
        summary=html.escape(now["summary"]),
        time=now["time"],
        services="\n".join(map(card, now["services"])),
        symbols=json.dumps(SYMBOLS),
        lists="\n".join(rows(kind, title, now[kind] or ()) for kind, title in LISTS.items()),
        about=json.dumps(ABOUT),
        alerts="".join(f"<li>{html.escape(text)}</li>" for text in now["alerts"] or ()),
        alerts_hidden="hidden" if now["alerts"] is None else "",
        quiet_hidden="hidden" if now["alerts"] else "",
        monitoring=f"{MONITORING}/vmui/",
        logs=f"{MONITORING}/select/vmui/",
    )


def digest(element: str) -> str:
    """The hash of an element of the page for the Content-Security-Policy."""
    found = re.search(f"<{element}>(.*?)</{element}>", page(), re.DOTALL)
    assert found
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()}'"


HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src {digest('style')}; script-src {digest('script')}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Handler(BaseHTTPRequestHandler):
    """Serves `/`, its data at /health.json, and /healthz for probes."""

    def do_GET(self) -> None:
        """Answer a request."""
        status, kind, text = 200, "text/html; charset=utf-8", ""
        match urlsplit(self.path).path:
            case "/":
                text = page()
            case "/health.json":
                kind, text = "application/json", json.dumps(overview(), indent=1)
            case "/healthz":
                kind, text = "text/plain", "ok\n"
            case _:
                status, kind, text = 404, "text/plain", "not here\n"
        body = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no requests: there are probes every few seconds."""


if __name__ == "__main__":
    threading.Thread(target=watch_all, daemon=True).start()
    for arguments in ((NODES, nodes, node), (APPLICATIONS, applications, application)):
        threading.Thread(target=watch_api, args=arguments, daemon=True).start()
    if ALERTS:
        threading.Thread(target=watch_alerts, daemon=True).start()
    ThreadingHTTPServer(("", LISTEN_PORT), Handler).serve_forever()
