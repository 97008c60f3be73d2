"""The forge in the nightly backup: what a restore brings back, with the real programs."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.engine.harness import wait_for
from tests.forge.box import REPOSITORY, Box
from tests.k8s.object_store import running
from tests.k8s.test_nights import Nights
from tests.services.delivery.postgres import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow_forge
SECONDS = 120.0


class ForgeNights(Nights):
    """Nights of a forge: its rows are dumped first, as the Job does."""

    def __init__(self, s3: Any, folder: Path, box: Box) -> None:
        super().__init__(s3, folder, f"b-{time.time_ns()}")
        self.box = box
        self.dump = folder.parent / "forge.dump"
        token = (box.folder / "secrets/copies-token").read_text()
        self.forge = {"FORGE_TOKEN": token, "FORGE_URL": box.copies_url, "FORGE_ROWS": str(self.dump)}

    def rows(self) -> None:
        command = [str(PROGRAMS / "pg_dump"), "--format=custom", f"--file={self.dump}", "forge"]
        subprocess.run(command, env=self.box.rows, check=True)

    def night(self, name: str) -> None:
        self.rows()
        self.save(name)

    def bring_back(self, name: str, before: str) -> None:
        """What `lab backup restore` does, with the forge's new start."""
        self.rows()
        self.restore(name, before)
        self.box.restart()


@pytest.fixture
def nights(box: Box, tmp_path: Path) -> Iterator[ForgeNights]:
    for name in ("store", "backup"):
        (tmp_path / name).mkdir()
    with running(tmp_path / "store") as s3:
        yield ForgeNights(s3, tmp_path / "backup", box)


@pytest.fixture
def clone(box: Box) -> Iterator[Path]:
    """What `lab up` pushes; `main` is protected then."""
    with tempfile.TemporaryDirectory(prefix="clone-") as name:
        folder = Path(name)
        (folder / "settings").write_text("three workers")
        for words in (
            ["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message=Start"],
            ["remote", "add", "origin", f"{box.url}/{REPOSITORY}.git"], ["push", "--quiet", "origin", "main"],
        ):  # fmt: skip
            git(box, folder, *words)
        wait_for(
            lambda: box.ask("GET", f"/repos/{REPOSITORY}/branch_protections/main").status == 200, "protection", SECONDS
        )
        yield folder


def git(box: Box, folder: Path, *words: str, user: str = "admin") -> str:
    done = box.git(folder, *words, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def change(box: Box, folder: Path, branch: str, text: str) -> str:
    """Push a commit to a branch; the commit."""
    git(box, folder, "switch", "--quiet", "-C", branch)
    (folder / "settings").write_text(text)
    git(box, folder, "commit", "--quiet", "--all", f"--message={text}", user="ada")
    git(box, folder, "push", "--quiet", "--force", "origin", branch, user="ada")
    return git(box, folder, "rev-parse", "HEAD")


def seen(box: Box) -> dict[str, Any]:
    """What people see of the repository."""
    pulls = box.ask("GET", f"/repos/{REPOSITORY}/pulls?state=all").body
    branches = box.ask("GET", f"/repos/{REPOSITORY}/branches").body
    comments = box.ask("GET", f"/repos/{REPOSITORY}/issues/comments").body
    return {
        "pulls": {one["title"]: (one["state"], one["head"]["sha"]) for one in pulls},
        "branches": {one["name"]: one["commit"]["id"] for one in branches},
        "comments": sorted(one["body"] for one in comments),
    }


def test_repositories_and_pull_requests_are_what_they_were_that_night(
    box: Box, clone: Path, nights: ForgeNights
) -> None:
    proposed = change(box, clone, "more", "four workers")
    request = {"title": "More", "head": "more", "base": "main"}
    number = box.ask("POST", f"/repos/{REPOSITORY}/pulls", request, user="ada").body["number"]
    comment = f"/repos/{REPOSITORY}/issues/{number}/comments"
    assert box.ask("POST", comment, {"body": "of that night"}, user="grace").status == 201
    then = seen(box)
    assert then["branches"]["more"] == proposed
    nights.night("20260101")

    change(box, clone, "more", "five workers")
    change(box, clone, "later", "six workers")
    box.ask("POST", comment, {"body": "later"}, user="grace")
    box.ask("PATCH", f"/repos/{REPOSITORY}/pulls/{number}", {"state": "closed"})
    later = seen(box)
    assert later != then
    waiting = box.pod()
    assert box.is_alive(waiting)
    began = time.monotonic()
    nights.bring_back("20260101", "before-1")
    print(f"restored and started in {time.monotonic() - began:.0f} s")
    assert seen(box) == then
    git(box, clone, "fetch", "--quiet", "--prune", "origin", user="ada")
    assert git(box, clone, "rev-parse", "origin/more") == proposed
    git(box, box.folder / f"data/repositories/{REPOSITORY}.git", "-c", "safe.directory=*", "fsck", "--full", "--strict")

    # It is a forge that goes on: it takes what is pushed to a branch, and for main it does not.
    change(box, clone, "next", "seven workers")
    assert "protected branch" in box.git(clone, "push", "origin", "HEAD:main", user="ada").stderr
    assert not (box.folder / "data/restore").exists()
    # A pod that waited for a job is not known there any more, and is followed by one that is.
    assert not box.is_alive(waiting)
    assert box.is_alive(box.pod())
    # How it was before can be had again.
    nights.bring_back("before-1", "before-2")
    assert seen(box) == later


def test_a_start_that_was_cut_off_is_finished_by_the_next(box: Box, nights: ForgeNights) -> None:
    before = seen(box)
    nights.night("20260102")
    label = {"name": "later", "color": "#00aabb"}
    assert box.ask("POST", f"/repos/{REPOSITORY}/labels", label).status == 201
    nights.rows()
    nights.restore("20260102", "before-3")
    # Killed after the rows and the first folder.
    box.stop()
    restored = box.folder / "data/restore"
    box.prepare("database.sh")
    assert not (restored / "files/rows.dump").exists()
    (box.folder / "data/attachments").rename(box.folder / "data/gone")
    (restored / "files/attachments").rename(box.folder / "data/attachments")
    box.restart()
    assert seen(box) == before
    labels = box.ask("GET", f"/repos/{REPOSITORY}/labels?limit=50").body
    assert "later" not in {one["name"] for one in labels}
