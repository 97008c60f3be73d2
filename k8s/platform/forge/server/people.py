"""Sidecar of the forge: sets up users with the Secret's passwords, the repository, labels and protection of `main`.

It reads the Secret's files every few seconds, and applies changes.
"""

import base64
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ADDRESS = f"{os.environ['FORGE']}/api/v1"
TOKEN = Path(os.environ["TOKEN"])
# A file with the password for each user: `admin` may do everything, others but READERS write to branches.
USERS = Path(os.environ["USERS"])
ALIVE = Path(os.environ["ALIVE"])
ADMIN = "admin"
# The GitOps controller, which reads the repository and reviews nothing.
READERS = {"gitops"}
OWNER, REPOSITORY = "lab", "cluster"
PATH = f"/repos/{OWNER}/{REPOSITORY}"
CHECKS = ("check / check (pull_request)", "preview / preview (pull_request)")
LABELS = {
    "destructive": ("d73a4a", "What is lost by this change may be lost"),
    "environment": ("0e8a16", "Gets a stack to itself"),
}
TIMEOUT_SECONDS = 300
PAUSE_SECONDS = 5
# The passwords that are set in the forge.
known: dict[str, str] = {}


class RefusedError(Exception):
    """The forge refused a request."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(f"{method} {path}: {status} {text}")
        self.status = status


def request_api(method: str, path: str, body: Mapping[str, Any] | None = None, *, login: str | None = None) -> Any:
    """Send a request to the forge; returns its JSON. `login`: the Authorization header, by default `admin`'s."""
    request = urllib.request.Request(  # noqa: S310 - the address is the pod's own
        ADDRESS + path, None if body is None else json.dumps(body).encode(), method=method
    )
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", login or basic(ADMIN, known[ADMIN]))
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise RefusedError(method, path, error.code, error.read().decode(errors="replace")[:300]) from None
    return json.loads(content) if content else None


def find(path: str) -> Any:
    """The object at a path, or None."""
    try:
        return request_api("GET", path)
    except RefusedError as refusal:
        if refusal.status == 404:
            return None
        raise


def basic(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def passwords() -> dict[str, str]:
    """Each user's password."""
    return {path.name: path.read_text() for path in USERS.iterdir() if path.is_file() and path.name[0] != "."}


def administrator(password: str) -> None:
    """Set the administrator's password from the Secret with the token of this start, and delete the token."""
    if TOKEN.exists():
        change = {"login_name": ADMIN, "source_id": 0, "password": password, "must_change_password": False}
        request_api("PATCH", f"/admin/users/{ADMIN}", change, login=f"token {TOKEN.read_text().strip()}")
        TOKEN.unlink()
    known[ADMIN] = password
    for token in request_api("GET", f"/users/{ADMIN}/tokens?limit=50"):
        if token["name"].startswith("setup-"):
            request_api("DELETE", f"/users/{ADMIN}/tokens/{token['id']}")


def users(wanted: Mapping[str, str]) -> None:
    """Create users, update their passwords from the Secret, and lock users that it no longer has."""
    existing = {user["login"] for user in request_api("GET", "/admin/users?limit=50")}
    for name, password in wanted.items():
        if name not in existing:
            user = {"username": name, "email": f"{name}@lab.internal", "password": password}
            request_api("POST", "/admin/users", {**user, "must_change_password": False})
        if known.get(name) != password:
            state = {"login_name": name, "source_id": 0, "password": password, "must_change_password": False}
            request_api("PATCH", f"/admin/users/{name}", {**state, "prohibit_login": False, "active": True})
            known[name] = password
    for name in existing - wanted.keys():
        request_api("PATCH", f"/admin/users/{name}", {"login_name": name, "source_id": 0, "prohibit_login": True})
        known.pop(name, None)


def repository(wanted: Mapping[str, str]) -> None:
    """Create the repository, empty and without jobs until `main` is protected, with labels and collaborators."""
    if not find(f"/orgs/{OWNER}"):
        request_api("POST", "/orgs", {"username": OWNER, "visibility": "private"})
    if not find(PATH):
        request_api("POST", f"/orgs/{OWNER}/repos", {"name": REPOSITORY, "private": True, "default_branch": "main"})
        request_api("PATCH", PATH, {"has_actions": False, "default_delete_branch_after_merge": True})
    labels = {label["name"] for label in request_api("GET", f"{PATH}/labels?limit=50")}
    for name, (color, description) in LABELS.items():
        if name not in labels:
            request_api("POST", f"{PATH}/labels", {"name": name, "color": color, "description": description})
    members = {user["login"] for user in request_api("GET", f"{PATH}/collaborators?limit=50")}
    for name in wanted:
        if name != ADMIN:
            request_api("PUT", f"{PATH}/collaborators/{name}", {"permission": "read" if name in READERS else "write"})
    for name in members - wanted.keys():
        request_api("DELETE", f"{PATH}/collaborators/{name}")


def protection(wanted: Mapping[str, str]) -> bool:
    """Protect `main` and allow jobs, once it has been pushed; returns whether it has."""
    if not find(f"{PATH}/branches/main"):
        return False
    rule = {
        "rule_name": "main",
        "enable_push": False,
        "enable_force_push": False,
        "enable_status_check": True,
        "status_check_contexts": list(CHECKS),
        # By another user, if there is one.
        "required_approvals": 1 if len(wanted.keys() - READERS) > 1 else 0,
        "dismiss_stale_approvals": True,
        "block_on_rejected_reviews": True,
        "block_on_outdated_branch": True,
        "block_admin_merge_override": True,
    }
    if find(f"{PATH}/branch_protections/main"):
        request_api("PATCH", f"{PATH}/branch_protections/main", rule)
    else:
        request_api("POST", f"{PATH}/branch_protections", rule)
    request_api("PATCH", PATH, {"has_actions": True})
    return True


def wait() -> None:
    """Wait until the forge answers."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{os.environ['FORGE']}/api/healthz", timeout=5):  # noqa: S310
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def main() -> None:
    """Apply the Secret, and its changes."""
    wait()
    administrator(passwords()[ADMIN])
    applied: dict[str, str] = {}
    protected = False
    while True:
        wanted = passwords()
        if wanted != applied:
            users(wanted)
            repository(wanted)
            applied, protected = wanted, False
            print(f"{len(wanted)} users, and {OWNER}/{REPOSITORY}", flush=True)
        if not protected and (protected := protection(wanted)):
            print("main is protected", flush=True)
        ALIVE.touch()
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    # SIGTERM has no default action for the first process of a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    main()
