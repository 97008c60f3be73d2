"""The month of docs/how-to/delivery-figures.md: a repository, a stack's history, a registry, a cluster."""

from __future__ import annotations

import hashlib
import json
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SINCE, UNTIL = "2026-03-01", "2026-03-29"
STACK, MODEL = "dev", "digits"
FORMER_CODE, CODE = "models/digits/digits/training.py", "models/digits/digits.py"
"""Where a model has its code, and had it when it had an image of its own."""


def at(text: str) -> datetime:
    """A time of March 2026, `3 09:00`; of February with `-`."""
    day, clock = text.split()
    month = "02" if day.startswith("-") else "03"
    return datetime.fromisoformat(f"2026-{month}-{int(day.lstrip('-')):02}T{clock}:00").replace(tzinfo=UTC)


def seconds(text: str) -> int:
    """The same, in seconds since 1970."""
    return int(at(text).timestamp())


def written(text: str) -> str:
    """The same, as keys have it."""
    return at(text).strftime("%Y-%m-%dT%H:%M:%SZ")


class Month:
    """Plays it in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commits: dict[str, str] = {}
        """Names of commits by what the page calls them."""
        self.codes: dict[str, str] = {}
        """Digests of the model's code by the commit that brought it."""
        self._git("init", "--quiet", "--initial-branch=main")
        self._play()

    def _git(self, *arguments: str, when: str = "1 00:00") -> str:
        who = {
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
        }
        clock = {"GIT_AUTHOR_DATE": written(when), "GIT_COMMITTER_DATE": written(when)}
        return subprocess.run(
            ["git", "-C", str(self.folder), *arguments],
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **who, **clock},
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    def commit(self, name: str, when: str, *paths: str, message: str = "") -> None:
        """A commit that changes files."""
        for path in paths:
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"# {name}\n")
        self._git("add", "--", *paths)
        self._git("commit", "--quiet", "-m", f"{name}\n\n{message}", when=when)
        self.commits[name] = self._git("rev-parse", "HEAD")
        for path in {FORMER_CODE, CODE} & {*paths}:
            file = self.folder / path
            content = file.name.encode() + bytes(1) + file.read_bytes()
            self.codes[name] = f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _play(self) -> None:
        infra = "infra/nodes.py"
        self.commit("c0", "-20 10:00", infra, FORMER_CODE)
        self.commit("c1", "2 09:00", infra)
        self.commit("c2", "2 13:00", infra, CODE)
        self.commit("c3", "9 08:00", infra)
        self.commit("c4", "12 10:00", infra)
        self.commit("c5", "12 18:00", infra, message="Incident: network-down")
        self.commit("c6", "16 09:00", infra)
        self.commit("c7", "17 08:00", infra, message=f"This reverts commit {self.commits['c6']}.")
        self.commit("c8", "18 08:00", CODE, message="Incident: wrong-digits")
        self._git("checkout", "--quiet", "-b", "feature")
        self.commit("c9", "23 09:00", infra)
        self._git("checkout", "--quiet", "main")
        self._git("merge", "--quiet", "--no-ff", "-m", "Merge feature", "feature", when="23 12:00")
        self.commits["merge"] = self._git("rev-parse", "HEAD")

    def history(self) -> list[dict[str, Any]]:
        """The stack's updates, latest first, as its backend has them."""
        ups = (
            ("c0", "-20 12:00", "succeeded", 40),
            ("c2", "3 09:00", "succeeded", 3),
            ("c3", "9 10:00", "failed", 1),
            ("c3", "9 10:30", "succeeded", 2),
            ("c4", "12 16:00", "succeeded", 1),
            ("c5", "12 19:00", "succeeded", 1),
            ("c6", "16 21:00", "succeeded", 1),
            ("c7", "17 09:00", "succeeded", 1),
            ("c8", "20 09:00", "succeeded", 0),
            ("merge", "24 09:00", "succeeded", 2),
        )
        updates = [
            {
                "kind": "update",
                "startTime": seconds(ended) - 300,
                "endTime": seconds(ended),
                "message": "",
                "result": result,
                "environment": {"git.head": self.commits[name], "git.dirty": "false"},
                "resourceChanges": {"same": 30, **({"update": changes} if changes else {})},
            }
            for name, ended, result, changes in ups
        ]
        other = {"startTime": seconds("4 09:00"), "endTime": seconds("4 09:01"), "result": "failed", "environment": {}}
        return [*reversed(updates), {"kind": "refresh", **other}, {"kind": "destroy", **other}]

    # Version, code, when training began, when it was registered.
    VERSIONS = (
        ("1", "c0", "-20 13:00", "-20 14:00"),
        ("2", "c2", "4 10:00", "4 11:00"),
        ("3", "c2", "10 09:00", "10 10:00"),
        ("4", "c2", "17 10:00", "17 11:00"),
        ("5", "c8", "18 08:30", "18 09:00"),
        ("6", "c8", "25 08:00", "25 09:00"),
    )
    # What was done to production, and when; when it answered.
    MOVES = (
        ("promoted", "1", "-21 10:00", "-21 10:01"),
        ("promoted", "2", "4 12:58", "4 13:00"),
        ("promoted", "3", "10 11:59", "10 12:00"),
        ("rolled back", "2", "10 14:04", "10 14:05"),
        ("promoted", "4", "17 17:58", "17 18:00"),
        ("promoted", "5", "18 09:58", "18 10:00"),
        ("promoted", "6", "25 10:00", ""),
        ("rolled back", "5", "25 10:15", "25 10:16"),
    )

    def ask(self, _method: str, path: str, _body: dict[str, Any] | None) -> Any:
        """What MLflow answers."""
        if path == "experiments/search":
            return {"experiments": [{"experiment_id": "1", "name": MODEL}]}
        if path == "runs/search":
            runs = [(f"run-{version}", code, began, "passed") for version, code, began, _ in self.VERSIONS]
            runs.append(("run-bad", "c8", "20 09:00", "refused"))
            return {
                "runs": [
                    {
                        "info": {"run_id": run, "start_time": seconds(began) * 1000},
                        "data": {"tags": _pairs({"code_version": self.codes[code], "gate": gate})},
                    }
                    for run, code, began, gate in runs
                ]
            }
        if path == "registered-models/search":
            moves = {
                f"moved.production.{written(when)}": json.dumps({"did": did, "version": version})
                for did, version, when, _ in self.MOVES
            }
            tags = {"former.production": "1,2", "moved.production.yesterday": "x", **moves}
            tags["moved.staging.2026-03-04T11:30:00Z"] = '{"did": "promoted", "version": "2"}'
            tags["moved.production.2026-03-04T11:30:00Z"] = "not of ours"
            return {"registered_models": [{"name": MODEL, "tags": _pairs(tags)}]}
        assert path == "model-versions/search"
        return {
            "model_versions": [
                {
                    "name": MODEL, "version": version, "run_id": f"run-{version}",
                    "creation_timestamp": seconds(registered) * 1000 + 341,
                    "tags": _pairs({"code_version": self.codes[code]}),
                }
                for version, code, _, registered in self.VERSIONS
            ]
        }  # fmt: skip

    def deployments(self) -> list[dict[str, Any]]:
        """The Deployments of the model's stages."""
        answered = [{"version": version, "since": written(since)} for _, version, _, since in self.MOVES if since]
        labels = {"ml-cluster.dev/model": MODEL, "ml-cluster.dev/alias": "production"}
        annotations = {"ml-cluster.dev/answered": json.dumps(answered)}
        bare = {"metadata": {"labels": {**labels, "ml-cluster.dev/alias": "staging"}}}
        return [{"metadata": {"labels": labels, "annotations": annotations}}, bare]


def _pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]
