"""The platform on a real cluster while parts of it fail: what it has acknowledged is kept, and it comes back by itself.

Meanwhile the example trains, answers and is written to. Costs about 25 minutes on idle cores beside the platform
itself (conftest.py): each pod is waited for.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cli.workloads import NAMESPACES, SERVING, TRAINING
from tests.e2e.harness import wait
from tests.e2e.ledger import WRITERS, Ledger
from tests.e2e.load import MODEL, Load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.workloads import Object
    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3600)]
NOTICED_SECONDS = 20
"""How long after a pod of it was killed the gateway may send requests there, or be missed itself."""
DRAIN_SECONDS = 300
PRODUCTION = f"app={MODEL},ml-cluster.dev/stage=production"


class Kill(NamedTuple):
    """A pod that was killed."""

    name: str
    answers: bool
    """Whether it is one of those that requests go through."""
    at: float


@pytest.fixture
def ledger(platform: PlatformStack) -> Iterator[Ledger]:
    made = Ledger(platform)
    yield made
    made.forget()


@pytest.fixture
def entries(platform: PlatformStack) -> Iterator[None]:
    """What the registry has of the example before a test it has afterwards."""
    tracking = platform.tracking()
    versions, aliases = tracking.versions(MODEL), tracking.aliases(MODEL)
    runs = {entry["run_id"]: tracking.run(entry["run_id"]) for entry in versions.values()}
    yield
    assert versions.items() <= tracking.versions(MODEL).items()
    assert tracking.aliases(MODEL) == aliases
    assert {run: tracking.run(run) for run in runs} == runs


@contextmanager
def training(platform: PlatformStack) -> Iterator[list[dict[str, Any]]]:
    """While it is entered the example trains, again and again, and each run must end well; gives what came of them."""
    ended = threading.Event()
    results: list[dict[str, Any]] = []

    def train() -> None:
        while not (results and ended.is_set()):
            results.append(platform.lab.run("train", MODEL, "--json").json)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(train)
        try:
            yield results
        finally:
            ended.set()
            running.result()


def is_whole(platform: PlatformStack) -> bool:
    """Whether everything is Ready."""
    return not platform.unready()


def comes_back(platform: PlatformStack) -> float:
    """Wait until everything is Ready, without a hand; the seconds that it took."""
    began = time.monotonic()
    try:
        wait(lambda: is_whole(platform), "everything is Ready again")
    except AssertionError as error:
        raise AssertionError(f"{error}: {platform.unready()}") from None
    return time.monotonic() - began


def node_of(pod: Object) -> str:
    """The node that a pod is on."""
    return str(pod["spec"]["nodeName"])


def everything(platform: PlatformStack) -> list[Object]:
    """All pods of the platform."""
    return [pod for namespace in NAMESPACES for pod in platform.pods(namespace)]


def pod_named(platform: PlatformStack, name: str) -> Object:
    """A pod of the platform's own."""
    found: Object = json.loads(platform.kubectl("get", "pod", name, "--namespace=platform", "--output=json").stdout)
    return found


def restarts(platform: PlatformStack, name: str) -> int:
    """How often the container of a pod was started again."""
    return sum(int(one["restartCount"]) for one in pod_named(platform, name)["status"]["containerStatuses"])


def kill_program(platform: PlatformStack, pod: str, program: str) -> None:
    """Kill all processes of a program on a pod's node, at once, and wait until its container is started again."""
    before = restarts(platform, pod)
    node = node_of(pod_named(platform, pod)).removeprefix(f"{platform.lab.stack}-")
    platform.lab.run("ssh", node, f"sudo pkill -KILL -x {program}")
    wait(lambda: restarts(platform, pod) > before, f"{pod} is started again")


@pytest.mark.usefixtures("entries")
def test_each_pod_is_killed_once(
    platform: PlatformStack, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    kills: list[Kill] = []
    slowest = 0.0
    with ledger.written(), Load(platform) as load, training(platform) as trained:
        for pod in everything(platform):
            name, namespace, labels = (pod["metadata"][key] for key in ("name", "namespace", "labels"))
            ledger.goes_on()
            answers = namespace == "gateway" or labels.get("ml-cluster.dev/stage") == "production"
            kills.append(Kill(name, answers, time.monotonic()))
            platform.kubectl("delete", "pod", name, "--namespace", namespace, "--now", "--ignore-not-found")
            slowest = max(slowest, comes_back(platform))
        ledger.goes_on()
    assert ledger.lost() == []
    assert len(kills) >= 9  # gateway, stores, tracking, landing page, rollout, production; most of them once
    unexplained = [
        answer
        for answer in load.faults
        if not any(kill.answers and 0 <= answer.began - kill.at < NOTICED_SECONDS for kill in kills)
    ]
    assert unexplained == []
    assert load.gap < NOTICED_SECONDS
    record_property("figures", f"faults: {len(kills)} pods killed, one after the other: Ready again after {slowest:.0f}"
                    f" s at most; {load}; {ledger}; {len(trained)} training runs, all went well")  # fmt: skip


@pytest.mark.usefixtures("entries")
def test_a_worker_is_drained_and_comes_back(
    platform: PlatformStack, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    """The one that the rows are on: its volume is there, so nothing can be written until it is back."""
    node = node_of(pod_named(platform, "metadata-store-0"))
    production = platform.platform.cluster.items("v1", "Pod", SERVING, labelSelector=PRODUCTION)
    assert len({node_of(pod) for pod in production}) > 1  # or there would be nothing left to answer
    with ledger.written(), Load(platform) as load, training(platform) as trained:
        ledger.goes_on()
        runs = "batch.kubernetes.io/job-name"
        wait(
            lambda: platform.platform.cluster.items(
                "v1", "Pod", TRAINING, labelSelector=runs, fieldSelector="status.phase=Running"
            ),
            "a run trains",
        )
        began = time.monotonic()
        try:
            platform.kubectl(
                "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s"
            )
            drained = time.monotonic() - began
            left = [pod["metadata"]["name"] for pod in everything(platform) if pod["spec"].get("nodeName") == node]
            assert left == []
        finally:
            platform.kubectl("uncordon", node)
        back = comes_back(platform)
        ledger.goes_on()
    assert ledger.lost() == []
    assert load.faults == []
    record_property("figures", f"faults: a worker drained in {drained:.0f} s, all Ready {back:.0f} s after that; "
                    f"{load}; {ledger}; {len(trained)} training runs, all went well")  # fmt: skip


@pytest.mark.usefixtures("entries")
def test_postgresql_is_killed_during_writes(
    platform: PlatformStack, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    slowest = 0.0
    with ledger.written(WRITERS, pause_seconds=0):
        for _ in range(2):
            ledger.goes_on(20)
            kill_program(platform, "metadata-store-0", "postgres")
            slowest = max(slowest, comes_back(platform))
        ledger.goes_on(20)
    assert ledger.lost() == []
    assert ledger.failed  # or nothing was written while it was away
    record_property("figures", f"faults: PostgreSQL killed twice: Ready {slowest:.0f} s at most after its restart; "
                    f"{ledger}")  # fmt: skip


@pytest.mark.usefixtures("entries")
def test_the_object_store_is_restarted_during_artifact_writes(
    platform: PlatformStack, ledger: Ledger, record_property: Callable[[str, object], None]
) -> None:
    with ledger.written(WRITERS, pause_seconds=0):
        ledger.goes_on(20)
        platform.kubectl("delete", "pod", "artifacts-0", "--namespace=platform")
        restarted = comes_back(platform)
        ledger.goes_on(20)
        kill_program(platform, "artifacts-0", "weed")
        killed = comes_back(platform)
        ledger.goes_on(20)
    assert ledger.lost() == []
    assert ledger.failed
    record_property("figures", f"faults: object store restarted, Ready {restarted:.0f} s after its end; killed, Ready "
                    f"{killed:.0f} s after its restart; {ledger}")  # fmt: skip
