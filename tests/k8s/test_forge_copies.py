"""The forge's files in the nightly copies: the program beside the forge, before repositories that git writes into.

With Gitea and PostgreSQL: tests/forge/test_copies.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.k8s.test_nights import Nights
from tests.providers.kubernetes.control_plane import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = TREE / "platform" / "forge" / "server" / "copies.py"
TOKEN = "planted-token-of-copies"  # noqa: S105
REPOSITORY = Path("repositories", "lab", "cluster.git")
WHO = {f"GIT_{who}_{what}": "ada@lab.internal" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *words: str, text: str = "") -> str:
    done = subprocess.run(
        ["git", "-C", folder, *words],
        input=text,
        env={**os.environ, **WHO},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass
class Files:
    """The forge's folder, and the program that hands it out."""

    folder: Path
    url: str
    rows: Path

    @property
    def repository(self) -> Path:
        return self.folder / REPOSITORY

    def commit(self, text: str, branch: str = "main") -> str:
        """A new commit of a branch, as a push adds one."""
        blob = git(self.repository, "hash-object", "-w", "--stdin", text=text)
        tree = git(self.repository, "mktree", text=f"100644 blob {blob}\tsettings\n")
        heads = git(self.repository, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
        parents = [word for head in heads.split() for word in ("-p", head)]
        made = git(self.repository, "commit-tree", tree, *parents, "-m", text)
        git(self.repository, "update-ref", f"refs/heads/{branch}", made)
        return made

    def ask(self, method: str, path: str, body: bytes | None = None, token: str = TOKEN) -> int:
        request = urllib.request.Request(f"{self.url}{path}", body, method=method)  # noqa: S310 - loopback
        request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    @property
    def restored(self) -> Path:
        """The files that the next start takes."""
        assert (self.folder / "restore/ready").exists()
        return self.folder / "restore/files"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    port, folder = free_port(), tmp_path / "forge"
    made = Files(folder, f"http://127.0.0.1:{port}", tmp_path / "forge.dump")
    made.repository.mkdir(parents=True)
    git(made.repository, "init", "--quiet", "--bare", "--initial-branch=main", ".")
    made.rows.write_bytes(b"rows of the forge")
    (folder / "attachments").mkdir()
    (folder / "attachments/a b?#%.png").write_bytes(b"picture")
    (folder / "queues").mkdir()
    (folder / "queues/work").write_bytes(b"of no use later")
    (tmp_path / "token").write_text(TOKEN)
    environment = {"FOLDER": str(folder), "TOKEN": str(tmp_path / "token"), "PORT": str(port)}
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, PROGRAM], env=environment)
    wait_for(lambda: _answers(made), "the program")
    yield made
    process.terminate()
    process.wait()


def _answers(files: Files) -> bool:
    try:
        return files.ask("GET", "/healthz") == 200
    except OSError:
        return False


@pytest.fixture
def nights(s3: Any, tmp_path: Path, files: Files) -> Nights:
    folder = tmp_path / "backup"
    folder.mkdir()
    made = Nights(s3, folder, f"b-{time.time_ns()}")
    made.put(a=b"1")
    made.forge = {"FORGE_TOKEN": TOKEN, "FORGE_URL": files.url, "FORGE_ROWS": str(files.rows)}
    return made


def forge_of(nights: Nights, night: str) -> set[str]:
    """Files of the forge that a night has."""
    return set(json.loads((nights.folder / f"files/copies/{night}.json").read_text()).get("forge", {}))


def test_the_forge_of_a_night_is_whole_with_its_rows_and_branches(nights: Nights, files: Files) -> None:
    first = files.commit("three workers")
    git(files.repository, "pack-refs", "--all")
    side = files.commit("four workers", "side")
    nights.save("20260101")
    assert "queues/work" not in forge_of(nights, "20260101")
    assert not [name for name in forge_of(nights, "20260101") if "/hooks/" in name]
    files.commit("five workers")
    git(files.repository, "update-ref", "-d", "refs/heads/side")
    (files.folder / "attachments/a b?#%.png").unlink()
    files.rows.write_bytes(b"later rows")
    told = nights.restore("20260101", "before-1")
    assert '"forge":true' in told
    # Nothing of the running forge was touched.
    assert not git(files.repository, "for-each-ref", "refs/heads/side")
    restored = files.restored
    assert (restored / "rows.dump").read_bytes() == b"rows of the forge"
    assert (restored / "attachments/a b?#%.png").read_bytes() == b"picture"
    git(restored / REPOSITORY, "fsck", "--full", "--strict")
    heads = git(restored / REPOSITORY, "for-each-ref", "--format=%(refname:short) %(objectname)")
    assert dict(line.split() for line in heads.splitlines()) == {"main": first, "side": side}
    # How it was before can be restored like a night, after the start that took the other.
    assert files.ask("DELETE", "/restore") == 204
    nights.restore("before-1", "before-2")
    assert (files.restored / "rows.dump").read_bytes() == b"later rows"


def test_a_night_costs_what_has_changed_in_the_forge_too(nights: Nights, files: Files) -> None:
    files.commit("one")
    nights.save("20260101")
    before = len(nights.contents())
    told = nights.save("20260102")
    assert "forge: 0 objects fetched" in told
    assert len(nights.contents()) == before
    files.commit("two")
    nights.save("20260103")
    # A content, a tree, a commit, and where the branch is.
    assert len(nights.contents()) == before + 4


def test_what_is_copied_while_git_writes_and_packs_is_whole(nights: Nights, files: Files) -> None:
    files.commit("start")
    stop = threading.Event()

    def write() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            files.commit(f"{number}", f"branch-{number % 7}")
            if number % 10 == 9:
                git(files.repository, "gc", "--quiet", "--prune=now")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(8):
            nights.save(f"2026010{number}")
    finally:
        stop.set()
        writer.join()
    seen = set()
    for number in range(8):
        nights.restore(f"2026010{number}", f"before-{number}")
        git(files.restored / REPOSITORY, "fsck", "--full")
        seen.add(git(files.restored / REPOSITORY, "for-each-ref"))
        assert files.ask("DELETE", "/restore") == 204
    assert len(seen) > 1


def test_a_forge_that_does_not_answer_keeps_nothing_else_from_being_copied(nights: Nights, files: Files) -> None:
    files.commit("one")
    nights.save("20260101")
    working = dict(nights.forge)
    faults = {
        "Connection refused": {"FORGE_URL": "http://127.0.0.1:1"},
        "403 the token is wrong": {"FORGE_TOKEN": "wrong"},
        "the forge's rows could not be read": {"FORGE_ROWS": "/nowhere"},
    }
    for number, (said, change) in enumerate(faults.items(), 2):
        nights.forge = working | change
        nights.put(a=f"{number}".encode())
        told = nights.save(f"2026010{number}", status=1)
        assert said in told
        assert TOKEN not in told
        assert forge_of(nights, f"2026010{number}") == set()
    # Nor is the copy of another night taken for that night's.
    nights.forge = working
    told = nights.restore("20260102", "before-1")
    assert "forge: not restored: 20260102 does not have it, and it is unchanged" in told
    assert nights.content() == {"a": b"2"}
    assert not (files.folder / "restore/ready").exists()


def test_a_forge_is_restored_whole_or_not_at_all(nights: Nights, files: Files) -> None:
    files.commit("one")
    nights.save("20260101")
    damaged = next(path for path in nights.contents() if path.read_bytes() == b"picture")
    damaged.write_bytes(b"wrong")
    nights.put(a=b"2")
    (files.folder / "attachments/a b?#%.png").unlink()
    told = nights.restore("20260101", "before-1", status=1)
    assert "is damaged" in told
    assert "forge: not restored, and unchanged" in told
    assert nights.content() == {"a": b"1"}
    assert not (files.folder / "restore/ready").exists()


def test_without_a_forge_its_copies_are_kept_as_long_as_their_nights(nights: Nights, files: Files) -> None:
    files.commit("one")
    nights.save("20260101")
    nights.forge = {}
    nights.save("20260102")
    assert forge_of(nights, "20260101")
    assert forge_of(nights, "20260102") == set()
    assert "forge: not restored: there is none" in nights.restore("20260101", "before-1")


def test_the_forges_files_are_for_the_backup_alone(files: Files) -> None:
    files.commit("one")
    for method, path in (("POST", "/snapshot"), ("GET", "/snapshot/attachments"), ("PUT", "/restore/rows.dump"),
                         ("POST", "/restore"), ("DELETE", "/restore"), ("DELETE", "/snapshot")):  # fmt: skip
        assert files.ask(method, path, b"x" if method == "PUT" else None, token="") == 403
    assert not (files.folder / "restore").exists()
    assert files.ask("POST", "/snapshot") == 200
    for path in ("../token", "%2e%2e/%2e%2e/token", "/etc/passwd", "queues/work", "attachments/../../token", ""):
        assert files.ask("GET", f"/snapshot/{path}") == 404, path
        assert files.ask("PUT", f"/restore/{path}", b"x") == 400, path
    assert files.ask("DELETE", "/snapshot") == 204
    # What waits for the next start is not mixed with another.
    assert files.ask("PUT", "/restore/rows.dump", b"x") == 204
    assert files.ask("POST", "/restore") == 204
    assert files.ask("PUT", "/restore/rows.dump", b"y") == 400
    assert (files.restored / "rows.dump").read_bytes() == b"x"
