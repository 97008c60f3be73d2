"""Events of a Git repository: its commits, and which of them has a model's code."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import TYPE_CHECKING

from services.delivery.events import CODE, COMMIT, Event, from_epoch, model_subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

INCIDENT = "Incident"
"""The trailer of a commit that fixes an incident; its value is the incident's name."""
FORMAT = f"%x1e%H%x1f%P%x1f%ct%x1f%(trailers:key={INCIDENT},valueonly,separator=%x2C)%x1f%B%x1f"
REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{7,40})", re.MULTILINE)
COMMIT_ID = re.compile(r"[0-9a-f]{40}")


class GitError(Exception):
    """Git or the repository is missing."""


class Repository:
    """A repository and its history, read with `git`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self) -> tuple[str, bool]:
        """The commit that is checked out, and whether tracked files differ from it.

        Raises:
            GitError: there is no commit.
        """
        head = self._run("rev-parse", "HEAD").strip()
        return head, bool(self._run("status", "--porcelain", "--untracked-files=no").strip())

    def events(self, heads: Iterable[str] = ()) -> Iterator[Event]:
        """The commits of HEAD and `heads`, as far as the repository has them.

        Raises:
            GitError: there is no repository.
        """
        output = self._run(
            "-c", "core.quotePath=false", "log", "--name-only", f"--format={FORMAT}", "HEAD", *self._commits(heads)
        )
        for record in output.split("\x1e")[1:]:
            sha, parents, seconds, incidents, text, names = record.split("\x1f")
            data = {
                "parents": parents.split(),
                "touches": sorted({name.strip('"').partition("/")[0] for name in names.splitlines() if name}),
                "incidents": [one.strip() for one in incidents.split(",") if one.strip()],
                "reverts": REVERTS.findall(text),
            }
            yield Event(COMMIT, "", sha, from_epoch(int(seconds)), data)

    def code(self, model: str, wanted: Iterable[str]) -> Iterator[Event]:
        """The first commit with the code of each of a model's `code_version`s, if it has one.

        A `code_version` is a commit or, for code that was not committed, the digest that `lab train` computes of names
        and contents of the folder's Python files.

        Raises:
            GitError: there is no repository.
        """
        wanted = set(wanted)
        found = self._commits_of_code(f"models/{model}", wanted)
        # The folder of models that had an image of their own.
        found |= self._commits_of_code(f"models/{model}/{model}", wanted - found.keys())
        for digest, commit in found.items():
            at = from_epoch(int(self._run("log", "-1", "--format=%ct", commit)))
            yield Event(CODE, model_subject(model), digest, at, {"commit": commit})

    def _commits_of_code(self, folder: str, wanted: Iterable[str]) -> dict[str, str]:
        missing = set(wanted)
        found = {one: one for one in self._commits(missing)}
        missing -= found.keys()
        if not missing:
            return found
        # The oldest first: code that returns still belongs to its first commit.
        for commit in self._run("log", "--reverse", "--format=%H", "--", folder).split():
            if (digest := self._digest(commit, folder)) in missing:
                found[digest] = commit
                missing.remove(digest)
                if not missing:
                    break
        return found

    def _commits(self, names: Iterable[str]) -> list[str]:
        """The names that are commits of this repository."""
        wanted = sorted(name for name in set(names) if COMMIT_ID.fullmatch(name))
        output = self._run("cat-file", "--batch-check=%(objectname) %(objecttype)", given="\n".join(wanted))
        return [line.split()[0] for line in output.splitlines() if line.endswith(" commit")]

    def _digest(self, commit: str, folder: str) -> str:
        digest = hashlib.sha256()
        paths = self._run("ls-tree", "--name-only", "-z", commit, f"{folder}/").split("\0")
        for path in sorted(path for path in paths if path.endswith(".py")):
            digest.update(
                path.rpartition("/")[2].encode() + b"\0" + self._bytes("cat-file", "blob", f"{commit}:{path}")
            )
        return f"sha256:{digest.hexdigest()}"

    def _run(self, *arguments: str, given: str = "") -> str:
        return self._bytes(*arguments, given=given).decode(errors="replace")

    def _bytes(self, *arguments: str, given: str = "") -> bytes:
        # In a hook, GIT_ variables name the hook's repository.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._folder), *arguments],
                input=given.encode(), capture_output=True, check=False, env=environment,
            )  # fmt: skip
        except FileNotFoundError:
            raise GitError("git is not on PATH") from None
        if done.returncode:
            raise GitError(done.stderr.decode(errors="replace").strip().removeprefix("fatal: "))
        return done.stdout
