"""`lab backup` on a real cluster: a night is made, listed and put back, from either of its places.

Costs about 6 minutes on idle cores beside the platform itself (conftest.py).
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.harness import wait
from tests.e2e.load import MODEL, Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.platform_stack import PlatformStack, Tracking

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
BEFORE = "before-restore-"


@pytest.fixture(scope="module")
def tracking(platform: PlatformStack) -> Tracking:
    return platform.tracking()


def nights(platform: PlatformStack) -> dict[str, dict[str, Any]]:
    """What `lab backup ls` says of each night."""
    return {one["night"]: one for one in platform.lab.run("backup", "ls", "--json").json}


def night(platform: PlatformStack) -> str:
    """Make a night; its name."""
    told = platform.lab.run("backup", "now").stdout
    return told.partition("Saved as ")[2].partition(",")[0]


def runs(tracking: Tracking) -> set[str]:
    """Names of the experiments."""
    return {one["name"] for one in tracking.ask("experiments/search", {"max_results": 1000})["experiments"]}


def test_rows_and_files_of_one_night_come_back_together(
    platform: PlatformStack, tracking: Tracking, record_property: Callable[[str, object], None]
) -> None:
    tracking.ask("experiments/create", {"name": "first"})
    version = max(tracking.versions(MODEL), key=int)
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/test/{version}.txt"
    tracking.send("PUT", artifact, b"first")
    began = time.monotonic()
    first = night(platform)
    seconds = time.monotonic() - began
    there = nights(platform)
    assert there[first]["where"] == ["cluster", "second place"]
    assert there[first]["files"] > 0
    assert there[first]["filesMissing"] == 0
    assert first in platform.lab.run("backup", "ls").stdout

    tracking.ask("experiments/create", {"name": "second"})
    tracking.send("PUT", artifact, b"second")
    with Load(platform) as load:
        began = time.monotonic()
        told = platform.lab.run("backup", "restore", "--yes", first).stdout
        restored = time.monotonic() - began
    assert f"Rows and files are as of {first}." in told
    assert load.faults == []
    assert {"first", "second"} & runs(tracking) == {"first"}
    assert tracking.send("GET", artifact) == b"first"
    # What was there before is kept, rows and files.
    before = told.partition("lab backup restore ")[2].partition("`")[0]
    assert before.startswith(BEFORE)
    platform.lab.run("backup", "restore", "--yes", before)
    assert {"first", "second"} & runs(tracking) == {"first", "second"}
    assert tracking.send("GET", artifact) == b"second"
    record_property(
        "figures", f"lab backup now: {seconds:.0f} s; lab backup restore: {restored:.0f} s, models meanwhile: {load}"
    )
    # Nobody but the stack says how many servers there are.
    live = json.loads(platform.kubectl("get", "deployment/tracking", "--namespace=platform", "--output=json").stdout)
    assert live["spec"]["replicas"] == 1
    wait(lambda: "lab" not in managers(platform), "the command manages no field of it")


def managers(platform: PlatformStack) -> set[str]:
    """Who manages fields of the tracking server."""
    shown = ("get", "deployment/tracking", "--namespace=platform", "--output=json", "--show-managed-fields")
    live = json.loads(platform.kubectl(*shown).stdout)
    return {one["manager"] for one in live["metadata"]["managedFields"]}


def test_all_comes_back_from_the_second_place_alone(platform: PlatformStack, tracking: Tracking) -> None:
    """The backup's volume is emptied: the copies on the other node's volume are all there is."""
    artifact = "/api/2.0/mlflow-artifacts/artifacts/test/elsewhere.txt"
    tracking.send("PUT", artifact, b"kept elsewhere")
    made = night(platform)
    tracking.send("DELETE", artifact)
    empty_volume(platform)
    assert {one["night"]: one["where"] for one in nights(platform).values()}[made] == ["second place"]
    told = platform.lab.run("backup", "restore", "--yes").stdout
    assert f"Rows and files are as of {made}." in told
    assert tracking.send("GET", artifact) == b"kept elsewhere"


def empty_volume(platform: PlatformStack) -> None:
    """Lose what is in the backup's volume, by a Job like those that write it."""
    nightly = json.loads(platform.kubectl("get", "cronjob/backup", "--namespace=platform", "--output=json").stdout)[
        "spec"
    ]["jobTemplate"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "lose-"}, "spec": nightly["spec"]}
    pod = job["spec"]["template"]["spec"]
    pod["initContainers"] = []
    pod["containers"][0]["args"] = ["rm -rf /backup/files /backup/rows-*"]
    made = platform.kubectl(
        "create", "--namespace=platform", "--output=name", "--filename=-", text=json.dumps(job)
    ).stdout.strip()
    platform.kubectl("wait", "--namespace=platform", "--for=condition=Complete", made, "--timeout=300s")


def test_a_night_that_is_not_there_is_refused_with_those_that_are_and_nothing_is_stopped(
    platform: PlatformStack, tracking: Tracking
) -> None:
    newest = night(platform)
    told = platform.lab.run("backup", "restore", "--yes", "20200101T000000Z", status=2).stderr
    assert "there is no backup '20200101T000000Z'" in told
    assert newest in told
    told = platform.lab.run("backup", "restore", newest, status=2).stderr
    assert f"Rows and files become what they were in {newest}" in told
    assert "--yes must be passed" in told
    assert runs(tracking)
