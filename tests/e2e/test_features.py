"""The feature store on a cluster: its rows train `delivery-times`, the model is asked by keys, an update by hand finds
no skew; docs/how-to/features.md as it stands. On the platform of the other tests, whose example must not notice.

Costs some five minutes on idle cores beside the platform itself (conftest.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import wait
from tests.e2e.load import MODEL as EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.platform_stack import PlatformStack

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(2400)]
MODEL = "delivery-times"
PLATFORM = "--namespace=platform"
ORDER = {"restaurant": 3, "courier": 7, "distance_km": 2.5, "items": 2}


@pytest.fixture(scope="module")
def ready(platform: PlatformStack) -> PlatformStack:
    """The platform, once the first update is done."""
    platform.kubectl("rollout", "status", PLATFORM, "deploy/features", "--timeout=900s")
    return platform


@pytest.fixture(scope="module")
def version(ready: PlatformStack) -> Iterator[str]:
    """A version in production, which is taken down at the end."""
    tracking = ready.tracking()
    example = tracking.aliases(EXAMPLE)
    number = ready.lab.run("train", MODEL, "--yes", "--json").json["version"]
    ready.lab.run("promote", MODEL, "--to", "production", "--version", number)
    assert tracking.aliases(EXAMPLE) == example
    yield str(number)
    ready.lab.run("withdraw", MODEL, "--stage", "production", "--yes")


def requested(platform: PlatformStack, *orders: dict[str, float]) -> str:
    """The request that the service of the features makes of orders."""
    ask = (
        "exec",
        "-i",
        PLATFORM,
        "deploy/features",
        "-c",
        "features",
        "--",
        "python3",
        "-m",
        "services.features",
        "ask",
    )
    return platform.kubectl(*ask, text=json.dumps({"orders": orders})).stdout


def test_an_order_gets_a_prediction_by_its_keys(ready: PlatformStack, version: str, tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    minutes = []
    for distance in (1.0, 8.0):
        file.write_text(requested(ready, {**ORDER, "distance_km": distance}))
        wait(lambda: ready.lab.run("predict", MODEL, str(file), status=None).status == 0, "the model answers")
        answer = ready.lab.run("predict", MODEL, str(file)).json
        assert answer["model_version"] == version
        minutes.append(answer["outputs"][0]["data"][0])
    assert 5 < minutes[0] < minutes[1] < 120


def test_an_update_by_hand_finds_no_skew(ready: PlatformStack) -> None:
    ready.kubectl("create", "job", PLATFORM, "--from=cronjob/features", "update-now")
    try:
        ready.kubectl("wait", PLATFORM, "--for=condition=complete", "--timeout=600s", "job/update-now")
        counts = json.loads(ready.kubectl("logs", PLATFORM, "job/update-now").stdout.strip().splitlines()[-1])
    finally:
        ready.kubectl("delete", "job", PLATFORM, "update-now", "--wait=true")
    print(f"\nskew: {counts['skew']} of {counts['compared']} rows")
    assert counts["compared"] > 500
    assert counts["skew"] == 0
    assert 0 < counts["new_rows"] <= 50


def test_the_overview_knows_it(ready: PlatformStack) -> None:
    def state() -> str:
        shown = json.loads(ready.pool("").request("GET", "/health.json").data)["services"]
        return str({one["name"]: one["state"] for one in shown}["Features"])

    wait(lambda: state() == "ready", "the overview shows the features as ready")


def test_nobody_else_reaches_it(ready: PlatformStack) -> None:
    """Not a model server, and not the platform's own tracking server."""
    program = "import urllib.request; urllib.request.urlopen('http://features.platform/healthz', timeout=5)"
    command = ["exec", PLATFORM, "deploy/tracking", "-c", "mlflow", "--", "python3", "-c", program]
    refused = ready.kubectl(*command, check=False)
    assert refused.returncode != 0
    assert "timed out" in refused.stderr or "refused" in refused.stderr
    assert requested(ready, ORDER)
