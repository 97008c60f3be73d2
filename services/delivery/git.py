"""Events of a Git repository: its commits, and which of them a model's code is of."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from typing import TYPE_CHECKING

from services.delivery.events import CODE, COMMIT, Event, moment, of_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

INCIDENT = "Incident"
"""The trailer of a commit that mends what an incident showed; its value names the incident."""
FORMAT = f"%x1e%H%x1f%P%x1f%ct%x1f%(trailers:key={INCIDENT},valueonly,separator=%x2C)%x1f%B%x1f"
REVERTS = re.compile(r"^This reverts commit ([0-9a-f]{7,40})", re.MULTILINE)
COMMIT_ID = re.compile(r"[0-9a-f]{40}")


class GitError(Exception):
    """There is no Git, or no repository."""


class Repository:
    """A repository and its history, as `git` tells it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def head(self) -> tuple[str, bool]:
        """The commit that is checked out, and whether files of Git were changed since.

        Raises:
            GitError: there is no commit.
        """
        head = self._run("rev-parse", "HEAD").strip()
        return head, bool(self._run("status", "--porcelain", "--untracked-files=no").strip())

    def events(self, heads: Iterable[str] = ()) -> Iterator[Event]:
        """The commits that HEAD and `heads` have, as far as they are here.

        Raises:
            GitError: there is no repository.
        """
        told = self._run(
            "-c", "core.quotePath=false", "log", "--name-only", f"--format={FORMAT}", "HEAD", *self._here(heads)
        )
        for record in told.split("\x1e")[1:]:
            sha, parents, seconds, incidents, text, names = record.split("\x1f")
            data = {
                "parents": parents.split(),
                "touches": sorted({name.strip('"').partition("/")[0] for name in names.splitlines() if name}),
                "incidents": [one.strip() for one in incidents.split(",") if one.strip()],
                "reverts": REVERTS.findall(text),
            }
            yield Event(COMMIT, "", sha, moment(int(seconds)), data)

    def code(self, model: str, wanted: Iterable[str]) -> Iterator[Event]:
        """Of digests of a model's code (`code_version`), the first commit with that code; those that are found.

        A digest is over names and contents of the folder's Python files, as `lab train` writes it for code that was not
        committed. A commit's own name stands for itself.

        Raises:
            GitError: there is no repository.
        """
        wanted = set(wanted)
        found = self._commits_of_code(f"models/{model}", wanted)
        # Where models of an image of their own had their code.
        found |= self._commits_of_code(f"models/{model}/{model}", wanted - found.keys())
        for digest, commit in found.items():
            at = moment(int(self._run("log", "-1", "--format=%ct", commit)))
            yield Event(CODE, of_model(model), digest, at, {"commit": commit})

    def _commits_of_code(self, folder: str, wanted: Iterable[str]) -> dict[str, str]:
        missing = set(wanted)
        found = {one: one for one in self._here(missing)}
        missing -= found.keys()
        if not missing:
            return found
        # The oldest first: code that comes back is still of the commit that brought it first.
        for commit in self._run("log", "--reverse", "--format=%H", "--", folder).split():
            if (digest := self._digest(commit, folder)) in missing:
                found[digest] = commit
                missing.remove(digest)
                if not missing:
                    break
        return found

    def _here(self, names: Iterable[str]) -> list[str]:
        """Those that are commits of this repository."""
        wanted = sorted(name for name in set(names) if COMMIT_ID.fullmatch(name))
        told = self._run("cat-file", "--batch-check=%(objectname) %(objecttype)", given="\n".join(wanted))
        return [line.split()[0] for line in told.splitlines() if line.endswith(" commit")]

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
        # A hook's variables name the repository that it runs for.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-C", str(self._folder), *arguments],
                input=given.encode(), capture_output=True, check=False, env=environment,
            )  # fmt: skip
        except FileNotFoundError:
            raise GitError("there is no git on PATH") from None
        if done.returncode:
            raise GitError(done.stderr.decode(errors="replace").strip().removeprefix("fatal: "))
        return done.stdout
