"""Pull requests of the tests: what people do with them, and pods for their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.forge.box import REPOSITORY

if TYPE_CHECKING:
    from tests.forge.box import Box

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
SECONDS = 180.0


def propose(box: Box, clone: Path, branch: str, files: dict[str, str], user: str = "ada") -> int:
    """Push a branch with other files, and open a pull request; its number."""
    for words in (["fetch", "--quiet", "origin"], ["switch", "--quiet", "--create", branch, "origin/main"]):
        done = box.git(clone, *words, user=user)
        assert done.returncode == 0, done.stderr
    commit(box, clone, branch, files, user)
    made = box.ask("POST", f"/repos/{REPOSITORY}/pulls", {"title": branch, "head": branch, "base": "main"}, user=user)
    assert made.status == 201, made.body
    return int(made.body["number"])


def commit(box: Box, clone: Path, branch: str, files: dict[str, str], user: str = "ada") -> None:
    for path, text in files.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(text)
    for words in (["add", "."], ["commit", "--quiet", f"--message={branch}"], ["push", "--quiet", "origin", branch]):
        done = box.git(clone, *words, user=user)
        assert done.returncode == 0, done.stderr


def states(box: Box, number: int) -> dict[str, str]:
    """The checks of a pull request's last commit."""
    head = box.ask("GET", f"/repos/{REPOSITORY}/pulls/{number}").body["head"]["sha"]
    statuses = box.ask("GET", f"/repos/{REPOSITORY}/commits/{head}/status").body["statuses"] or []
    return {one["context"]: one["status"] for one in statuses}


def checked(box: Box, number: int, **wanted: str) -> bool:
    found = states(box, number)
    return all(found.get(f"{name} / {name} (pull_request)") == state for name, state in wanted.items())


def merge(box: Box, number: int, user: str = "ada") -> int:
    return box.ask("POST", f"/repos/{REPOSITORY}/pulls/{number}/merge", {"Do": "squash"}, user=user).status


def comments(box: Box, number: int) -> list[str]:
    return [one["body"] for one in box.ask("GET", f"/repos/{REPOSITORY}/issues/{number}/comments").body]


def approve(box: Box, number: int, user: str = "grace") -> None:
    done = box.ask("POST", f"/repos/{REPOSITORY}/pulls/{number}/reviews", {"event": "APPROVED"}, user=user)
    assert done.status == 200, done.body
