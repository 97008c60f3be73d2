"""Jobs' pods of the forge, on a real API server; what runs in them is in tests/forge."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.k8s.conftest import apply, kubectl, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster
NAMESPACE, KEEPER = "forge-jobs", "system:serviceaccount:forge-jobs:forge-job-keeper"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The jobs' namespace, and the keeper with its own account."""
    apply(control_plane, "infrastructure/base", "platform/forge/jobs")
    account: Path = tmp_path_factory.mktemp("account")
    token = kubectl(control_plane, "create", "token", "forge-job-keeper", f"--namespace={NAMESPACE}").stdout
    (account / "token").write_text(token)
    (account / "namespace").write_text(NAMESPACE)
    (account / "ca.crt").write_bytes((control_plane.folder / "certificates/apiserver.crt").read_bytes())
    environment = {
        "JOBS": "2",
        "ACCOUNT": str(account),
        "API": f"https://127.0.0.1:{control_plane.port}",
        "ALIVE": str(account / "alive"),
    }
    command = [sys.executable, TREE / "platform/forge/jobs/keeper.py"]
    process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *map(str, command)], env=environment)
    yield control_plane
    process.terminate()
    process.wait()


def pods(plane: ControlPlane) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(
        kubectl(plane, "get", "pods", f"--namespace={NAMESPACE}", "--selector=app=forge-job", "--output=json").stdout
    )["items"]
    return listed


def names(plane: ControlPlane) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods(plane) if "deletionTimestamp" not in pod["metadata"]}


def test_a_pod_that_has_ended_is_followed_by_a_new_one(plane: ControlPlane) -> None:
    wait_for(lambda: len(names(plane)) == 2, "two pods")
    before = names(plane)
    ended = min(before)
    done = kubectl(
        plane, "patch", "pod", ended, f"--namespace={NAMESPACE}", "--subresource=status", "--type=merge",
        '--patch={"status": {"phase": "Succeeded"}}',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(names(plane)) == 2 and ended not in names(plane), "a new pod")
    assert len(names(plane) & before) == 1


def test_a_job_has_no_account_and_not_the_token_that_makes_runners_known(plane: ControlPlane) -> None:
    wait_for(lambda: pods(plane), "pods")
    spec = pods(plane)[0]["spec"]
    assert spec["automountServiceAccountToken"] is False
    (job,) = spec["containers"]
    token = {volume["name"] for volume in spec["volumes"] if "secret" in volume}
    assert token
    assert not [mount for mount in job["volumeMounts"] if mount["name"] in token]
    for container in (*spec["initContainers"], job):
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert "memory" in container["resources"]["limits"]


def test_the_keeper_may_make_pods_of_jobs_and_nothing_else(plane: ControlPlane) -> None:
    def may(verb: str, what: str, namespace: str = NAMESPACE, part: str = "") -> bool:
        asked = ("auth", "can-i", verb, what, f"--subresource={part}", f"--namespace={namespace}", f"--as={KEEPER}")
        return kubectl(plane, *asked).returncode == 0

    assert all(may(verb, "pods") for verb in ("list", "create", "delete"))
    assert may("get", "podtemplates/forge-job")
    assert not [
        (verb, what)
        for verb in ("get", "list", "create", "patch", "delete")
        for what in ("secrets", "configmaps", "serviceaccounts", "deployments", "podtemplates/other")
        if may(verb, what)
    ]
    assert not [part for part in ("exec", "attach", "portforward") if may("create", "pods", part=part)]
    assert not any(may(verb, "pods", "platform") for verb in ("list", "create", "delete"))


def test_no_profile_has_a_forge() -> None:
    for profile in ("ci", "lab", "production"):
        assert not [one for one in rendered(f"clusters/{profile}") if "forge" in json.dumps(one["metadata"])]
