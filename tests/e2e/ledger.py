"""Writes to the tracking server, each noted once it is acknowledged, to be looked for afterwards."""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from tests.e2e.harness import wait
from tests.e2e.platform_stack import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.platform_stack import PlatformStack

ARTIFACT_BYTES = 50_000
METRICS = 5
WRITERS = 4
PAUSE_SECONDS = 0.2
"""After writes that failed."""
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


class Ledger:
    """An experiment and a registered model of its own, and what was acknowledged of what was written to them."""

    def __init__(self, stack: PlatformStack) -> None:
        self.name = f"ledger-{secrets.token_hex(4)}"
        self.runs: list[str] = []
        self.metrics: dict[tuple[str, str], float] = {}
        self.artifacts: dict[str, str] = {}
        """Digest of each content, by path."""
        self.versions: list[str] = []
        self.failed: list[str] = []
        self._tracking = stack.tracking(WRITERS)
        self._numbers = itertools.count()
        self._experiment = str(self._tracking.ask("experiments/create", {"name": self.name})["experiment_id"])
        self._tracking.ask("registered-models/create", {"name": self.name})

    @contextmanager
    def written(self, writers: int = 1, pause_seconds: float = 1.0) -> Iterator[None]:
        """While it is entered, some writers write runs, metrics, artifacts and registry entries without end."""
        ended = threading.Event()

        def write() -> None:
            while not ended.is_set():
                try:
                    self._write(next(self._numbers))
                except (Refused, HTTPError) as error:
                    self.failed.append(str(error))
                    ended.wait(PAUSE_SECONDS)
                ended.wait(pause_seconds)

        threads = [threading.Thread(target=write) for _ in range(writers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()

    def _write(self, number: int) -> None:
        now = int(time.time() * 1000)
        wanted = {"experiment_id": self._experiment, "start_time": now, "run_name": str(number)}
        info = self._tracking.ask("runs/create", wanted)["run"]["info"]
        run = str(info["run_id"])
        self.runs.append(run)
        metrics = {f"metric-{one}": float(number * METRICS + one) for one in range(METRICS)}
        rows = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in metrics.items()]
        self._tracking.ask("runs/log-batch", {"run_id": run, "metrics": rows})
        self.metrics |= {(run, key): value for key, value in metrics.items()}
        content = os.urandom(ARTIFACT_BYTES)
        path = f"{str(info['artifact_uri']).partition(':/')[2].lstrip('/')}/content"
        self._tracking.send("PUT", ARTIFACTS + path, content)
        self.artifacts[path] = hashlib.sha256(content).hexdigest()
        entry = {"name": self.name, "source": info["artifact_uri"], "run_id": run}
        version = self._tracking.ask("model-versions/create", entry)["model_version"]["version"]
        self.versions.append(str(version))

    def goes_on(self, more: int = 3) -> None:
        """Wait until more entries are acknowledged, each the last of the writes of its run."""
        wanted = len(self.versions) + more
        try:
            wait(lambda: len(self.versions) >= wanted, f"{more} more writes are acknowledged")
        except AssertionError as error:
            raise AssertionError(f"{error}; the last that failed: {self.failed[-1:]}") from None

    def lost(self) -> list[str]:
        """What was acknowledged, and is not there as it was written."""
        runs: dict[str, dict[str, float]] = {}
        page = ""
        while True:
            asked = {"experiment_ids": [self._experiment], "max_results": 500, "page_token": page}
            result = self._tracking.ask("runs/search", asked)
            for run in result.get("runs", ()):
                metrics = {one["key"]: one["value"] for one in run["data"].get("metrics", ())}
                runs[run["info"]["run_id"]] = metrics
            if not (page := result.get("next_page_token", "")):
                break
        lost = [f"run {run}" for run in self.runs if run not in runs]
        for (run, key), value in self.metrics.items():
            if (found := runs.get(run, {}).get(key)) != value:
                lost.append(f"{key} of run {run}: {found}, not {value}")
        for path, digest in self.artifacts.items():
            try:
                content = self._tracking.send("GET", ARTIFACTS + path)
            except Refused as error:
                lost.append(f"artifact {path}: {error}")
            else:
                if hashlib.sha256(content).hexdigest() != digest:
                    lost.append(f"artifact {path}: other content, {len(content)} bytes")
        versions = self._tracking.versions(self.name)
        return lost + [f"version {version}" for version in self.versions if version not in versions]

    def forget(self) -> None:
        """Delete the experiment and the model."""
        self._tracking.ask("registered-models/delete", {"name": self.name}, method="DELETE")
        self._tracking.ask("experiments/delete", {"experiment_id": self._experiment})

    def __str__(self) -> str:
        """How much of each was acknowledged."""
        return (
            f"{len(self.runs)} runs, {len(self.metrics)} metrics, {len(self.artifacts)} artifacts and "
            f"{len(self.versions)} registry entries acknowledged, {len(self.failed)} writes failed"
        )
