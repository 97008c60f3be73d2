"""Pipelines on a real cluster: what they cost, a run to staging, a canary under load, a pod that is lost.

Costs about 40 minutes on idle cores beside the platform itself (conftest.py), a quarter of an hour of it the canary's.
"""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from urllib3.util import make_headers

from tests.devcloud.support import wait
from tests.e2e.load import MODEL, Load

if TYPE_CHECKING:
    from tests.e2e.platform_stack import PlatformStack, Tracking

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(7200)]
MOST_AT_REST_KIB = 400 << 10
MOST_OVERHEAD = 10.0
RUN, STEP = (f"ml-cluster.dev/pipeline-{word}" for word in ("run", "step"))
PSS = "cat /proc/[0-9]*/smaps_rollup 2>/dev/null | awk '/^Pss:/ {sum += $2} END {print sum}'"


@pytest.fixture(scope="module")
def tracking(platform: PlatformStack) -> Tracking:
    return platform.tracking()


def start(platform: PlatformStack, *options: str) -> str:
    """Start a run of digits; its id."""
    said = platform.lab.run("pipeline", "run", MODEL, "--no-wait", *options).stdout
    found = re.search(r"^Run ([0-9a-f-]{36})", said, re.MULTILINE)
    assert found, said
    return found[1]


def status(platform: PlatformStack, run: str) -> dict[str, Any]:
    """What `lab pipeline status` says of a run."""
    found: dict[str, Any] = platform.lab.run("pipeline", "status", run, "--json").json
    return found


def ended(platform: PlatformStack, run: str) -> bool:
    return status(platform, run)["status"] in {"done", "failed", "ended by hand"}


def jobs(platform: PlatformStack, run: str) -> list[dict[str, Any]]:
    """The Jobs of training of a run."""
    text = platform.kubectl("get", "jobs", "--namespace=training", f"--selector={RUN}={run}", "--output=json").stdout
    found: list[dict[str, Any]] = json.loads(text)["items"]
    return found


@pytest.fixture(scope="module")
def first(platform: PlatformStack) -> str:
    """A run with a seed that nobody has trained with, to staging."""
    run = start(platform, "--seed=11", "--to=staging")
    wait(partial(ended, platform, run), 1800, "the run's end")
    return run


def test_the_page_is_behind_its_login(platform: PlatformStack) -> None:
    pool, login = platform.pool("pipelines"), platform.platform.credentials["pipelines"]
    assert pool.request("GET", "/server_info", headers=pool.headers).status == 401
    basic = make_headers(basic_auth=f"{login['username']}:{login['password']}")
    answer = pool.request("GET", "/server_info", headers={**(pool.headers or {}), **basic})
    assert answer.status == 200
    assert json.loads(answer.data)["dagster_version"].startswith("1.13.")


def test_at_rest_it_takes_little(platform: PlatformStack) -> None:
    said = platform.kubectl("exec", "--namespace=pipelines", "deploy/pipelines", "--", "sh", "-c", PSS).stdout
    print(f"\nat rest: {int(said) / 1024:.0f} MiB (PSS)")
    assert int(said) < MOST_AT_REST_KIB


def test_a_run_goes_to_staging(platform: PlatformStack, tracking: Tracking, first: str) -> None:
    found = status(platform, first)
    assert found["status"] == "done", found
    versions = tracking.versions(MODEL)
    served = tracking.aliases(MODEL)["staging"]
    assert versions[served]["tags"]["pipeline_run"] == first
    assert versions[served]["tags"]["seed"] == "11"
    assert {one["step"]: one["status"] for one in found["steps"]}["staging"] == "done"
    listed = platform.lab.run("pipeline", "ls", "--json").json
    assert {"name": MODEL, "starts": ["data", "drift"]} in listed["pipelines"]
    assert first in {one["run"] for one in listed["runs"]}


def test_a_step_costs_little_beside_its_work(platform: PlatformStack, first: str) -> None:
    """From its Job's making to its end, without what its slowest pod's container took."""
    over: dict[str, float] = {}
    for job in jobs(platform, first):
        name, step = job["metadata"]["name"], job["metadata"]["labels"][STEP]
        selector = f"--selector=batch.kubernetes.io/job-name={name}"
        pods = json.loads(platform.kubectl("get", "pods", "--namespace=training", selector, "--output=json").stdout)[
            "items"
        ]
        ends = [pod["status"]["containerStatuses"][0]["state"]["terminated"] for pod in pods]
        work = max(_seconds(one["finishedAt"]) - _seconds(one["startedAt"]) for one in ends)
        (timed,) = [one for one in status(platform, first)["steps"] if one["step"] == step]
        over[step] = float(timed["seconds"]) - work
    print("\nseconds over a step's own work: " + json.dumps({step: round(one) for step, one in over.items()}))
    assert over
    assert max(over.values()) < MOST_OVERHEAD


def _seconds(written: str) -> float:
    return time.mktime(time.strptime(written, "%Y-%m-%dT%H:%M:%SZ"))


def test_the_same_again_trains_nothing(platform: PlatformStack, first: str) -> None:
    run = start(platform, "--seed=11", "--to=registry")
    wait(partial(ended, platform, run), 1200, "the run's end")
    assert status(platform, run)["status"] == "done"
    assert [job for job in jobs(platform, run) if "train" in job["metadata"]["labels"][STEP]] == []
    assert first != run


def test_a_run_whose_pod_is_lost_is_taken_up(platform: PlatformStack) -> None:
    """Its training goes on, and is not started again."""
    run = start(platform, "--seed=12", "--to=registry")
    wait(lambda: [job for job in jobs(platform, run) if "train" in job["metadata"]["labels"][STEP]], 600, "training")
    platform.kubectl(
        "delete", "pod", "--namespace=pipelines", f"--selector={RUN}={run}", "--grace-period=0", "--force"
    )  # fmt: skip
    wait(partial(ended, platform, run), 600, "the end of the run that lost its pod")

    def repeated() -> str:
        last = status(platform, MODEL)
        return str(last["run"]) if last["run"] != run else ""

    wait(repeated, 600, "the run that takes it up")
    wait(partial(ended, platform, repeated()), 1200, "its end")
    assert status(platform, repeated())["status"] == "done"
    trained = [job["metadata"]["labels"][STEP] for job in jobs(platform, run)]
    assert trained.count("train_default") == 1


def test_a_canary_under_load_becomes_production(platform: PlatformStack, tracking: Tracking) -> None:
    """Ten minutes of a share of requests; none fails."""
    before = tracking.aliases(MODEL)["production"]
    with Load(platform, clients=2) as load:
        run = start(platform, "--seed=13", "--to=production")
        wait(partial(ended, platform, run), 3600, "the run's end")
    print(f"\n{load}")
    assert status(platform, run)["status"] == "done", status(platform, run)
    after = tracking.aliases(MODEL)["production"]
    assert after != before
    assert {before, after} <= {answer.version for answer in load.answers}
    assert load.faults == []
    assert platform.kubectl("get", "httproute", f"{MODEL}-canary", "--namespace=serving", check=False).returncode != 0
