"""Pull requests of the tests: what people do with them, and pods for their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.forge.box import REPOSITORY

if TYPE_CHECKING:
    import subprocess

    from tests.forge.box import Answer

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
SECONDS = 180.0


class Forge(Protocol):
    """A forge as its users reach it: on loopback (box.py), or on a cluster (tests/e2e/delivery.py)."""

    def ask(self, method: str, path: str, body: Any = None, *, user: str = "admin") -> Answer:
        """Call the API as a user."""

    def git(self, clone: Path, *words: str, user: str = "admin") -> subprocess.CompletedProcess[str]:
        """Run git with a user's password."""


def propose(forge: Forge, clone: Path, branch: str, files: dict[str, str], user: str = "ada") -> int:
    """Push a branch with other files, and open a pull request; its number."""
    begin(forge, clone, branch, user)
    commit(forge, clone, branch, files, user)
    return open_pull(forge, branch, user)


def revert(forge: Forge, clone: Path, branch: str, user: str = "ada") -> int:
    """Push a branch that undoes the last commit of `main`, and open a pull request; its number."""
    begin(forge, clone, branch, user)
    for words in (["revert", "--no-edit", "HEAD"], ["push", "--quiet", "origin", branch]):
        done = forge.git(clone, *words, user=user)
        assert done.returncode == 0, done.stderr
    return open_pull(forge, branch, user)


def begin(forge: Forge, clone: Path, branch: str, user: str) -> None:
    """A new branch, from the forge's `main`."""
    for words in (["fetch", "--quiet", "origin"], ["switch", "--quiet", "--create", branch, "origin/main"]):
        done = forge.git(clone, *words, user=user)
        assert done.returncode == 0, done.stderr


def open_pull(forge: Forge, branch: str, user: str) -> int:
    """Open a pull request of a branch; its number."""
    made = forge.ask("POST", f"/repos/{REPOSITORY}/pulls", {"title": branch, "head": branch, "base": "main"}, user=user)
    assert made.status == 201, made.body
    return int(made.body["number"])


def commit(forge: Forge, clone: Path, branch: str, files: dict[str, str], user: str = "ada") -> None:
    for path, text in files.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(text)
    for words in (["add", "."], ["commit", "--quiet", f"--message={branch}"], ["push", "--quiet", "origin", branch]):
        done = forge.git(clone, *words, user=user)
        assert done.returncode == 0, done.stderr


def states(forge: Forge, number: int) -> dict[str, str]:
    """The checks of a pull request's last commit."""
    head = forge.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["head"]["sha"]
    statuses = forge.ask("GET", f"/repos/{REPOSITORY}/commits/{head}/status").body["statuses"] or []
    return {one["context"]: one["status"] for one in statuses}


def checked(forge: Forge, number: int, **wanted: str) -> bool:
    found = states(forge, number)
    return all(found.get(f"{name} / {name} (pull_request)") == state for name, state in wanted.items())


def merge(forge: Forge, number: int, user: str = "ada") -> int:
    return forge.ask("POST", f"/repos/{REPOSITORY}/pulls/{number}/merge", {"Do": "squash"}, user=user).status


def comments(forge: Forge, number: int) -> list[str]:
    return [one["body"] for one in forge.ask("GET", f"/repos/{REPOSITORY}/issues/{number}/comments").body]


def label(forge: Forge, number: int, user: str = "ada") -> None:
    """Allow what is destructive."""
    labels = {"labels": ["destructive"]}
    done = forge.ask("POST", f"/repos/{REPOSITORY}/issues/{number}/labels", labels, user=user)
    assert done.status == 200, done.body


def approve(forge: Forge, number: int, user: str = "grace") -> None:
    done = forge.ask("POST", f"/repos/{REPOSITORY}/pulls/{number}/reviews", {"event": "APPROVED"}, user=user)
    assert done.status == 200, done.body
