"""Serves the landing page: the services of services.json, asked for their health while nobody waits."""

import html
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

FOLDER = Path(__file__).parent
DOMAIN, PORT = os.environ["DOMAIN"], os.environ.get("PUBLIC_PORT", "30443")
SERVICES = json.loads((FOLDER / "services.json").read_text(encoding="utf-8"))
PAGE = Template((FOLDER / "page.html").read_text(encoding="utf-8"))
ASK_SECONDS = 5
health: dict[str, str] = {}


def ask(url: str) -> str:
    """`ready`, or what is wrong, in a few words."""
    parts = urlsplit(url)
    try:
        if parts.scheme == "tcp":
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=ASK_SECONDS).close()
        else:
            urllib.request.urlopen(url, timeout=ASK_SECONDS).close()  # noqa: S310 - addresses of services.json
    except urllib.error.HTTPError as error:
        return f"answers {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return "ready"


def watch() -> None:
    """Keep `health` up to date."""
    while True:
        for service in SERVICES:
            health[service["health"]] = ask(service["health"])
        time.sleep(ASK_SECONDS)


def told() -> list[dict[str, str]]:
    """Each service with its address and health."""
    return [
        {
            "name": service["name"],
            "about": service["about"],
            "url": f"https://{service['host']}.{DOMAIN}:{PORT}{service['path']}" if service["host"] else "",
            "health": health.get(service["health"], "not asked yet"),
        }
        for service in SERVICES
    ]


def row(service: dict[str, str]) -> str:
    """A service as a row of the page."""
    name, about, url, state = (html.escape(service[key]) for key in ("name", "about", "url", "health"))
    link = f'<a href="{url}">{name}</a>' if url else name
    return f'<li class="{"ready" if state == "ready" else "down"}"><h2>{link}</h2><p>{about}</p><b>{state}</b></li>'


class Handler(BaseHTTPRequestHandler):
    """`/`, the same as JSON at /health.json, and /healthz for probes."""

    def do_GET(self) -> None:
        """Answer."""
        status, kind, text = 200, "text/html; charset=utf-8", ""
        match urlsplit(self.path).path:
            case "/":
                text = PAGE.substitute(services="\n".join(map(row, told())), domain=html.escape(DOMAIN))
            case "/health.json":
                kind, text = "application/json", json.dumps(told(), indent=1)
            case "/healthz":
                kind, text = "text/plain", "ok\n"
            case _:
                status, kind, text = 404, "text/plain", "not here\n"
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: probes ask every few seconds."""


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    ThreadingHTTPServer(("", 8080), Handler).serve_forever()
