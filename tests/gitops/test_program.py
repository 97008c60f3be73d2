"""A stack that hands its platform to the controller and takes it back: nothing is deleted, made anew or restarted."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from infra import gitops
from tests.engine.harness import REPOSITORY, Outcome, Stack, wait_for
from tests.gitops.conftest import STORAGE
from tests.gitops.controller import PROFILE, Controller
from tests.gitops.remote import USER
from tests.gitops.test_controller import run, settled
from tests.on_cluster.test_program import program
from tests.providers.kubernetes.control_plane import BUNDLE, ControlPlane

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.gitops.remote import Remote

pytestmark = pytest.mark.slow_gitops
PROGRAM = """
    from types import SimpleNamespace

    import pulumi
    from infra.credentials import Password
    from infra.platform import Platform
    from infra.settings import Cluster, GitOps, Platform as Wanted, Settings
    from pydantic import SecretStr

    # Settings refuse an address on loopback.
    git = GitOps.model_construct(
        controller="argo-cd", repository=REPOSITORY, branch="main", path="k8s", username=USER
    )
    wanted = Wanted(profile=PROFILE, apply=pulumi.Config().get("apply") or "pulumi").model_copy(update={"gitops": git})
    password = SecretStr(PASSWORD)
    settings = Settings.model_construct(platform=wanted, cluster=Cluster(bundle=BUNDLE), gitops_password=password)
    server = Password("server")
    nodes = SimpleNamespace(entry=lambda: pulumi.Output.from_input("192.0.2.7"))
    cluster = SimpleNamespace(kubeconfig=pulumi.Output.secret(open(KUBECONFIG).read()), resource=server)
    Platform(settings, nodes, cluster)
"""
KINDS = {
    "v1": ("ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service"),
    "apps/v1": ("Deployment", "StatefulSet"),
    "batch/v1": ("CronJob",),
}


@pytest.fixture
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as started:
        started.post(STORAGE)
        yield started


@pytest.fixture
def controller(plane: ControlPlane, remote: Remote, tmp_path: Path) -> Iterator[Controller]:
    made = Controller(plane, remote, tmp_path / "controller")
    yield made
    made.stop()


@pytest.fixture
def stack(plane: ControlPlane, remote: Remote, tmp_path: Path) -> Stack:
    made = Stack(tmp_path / "stack")
    made.project_file()
    made.init()
    made.env["PYTHONPATH"] += f":{REPOSITORY}"
    values = {
        "KUBECONFIG": str(plane.kubeconfig),
        "BUNDLE": str(BUNDLE),
        "REPOSITORY": remote.url,
        "USER": USER,
        "PASSWORD": remote.password,
        "PROFILE": PROFILE,
    }
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    (made.folder / "__main__.py").write_text(constants + textwrap.dedent(PROGRAM))
    return made


def up(stack: Stack, controller: Controller, *arguments: str) -> Outcome:
    """`up`, while pods become ready as kubelets would have them."""
    running = stack.start(*stack.operation("up", *arguments))

    def done() -> bool:
        if controller.plane.get("Namespace", "platform"):
            run(controller)
            for namespace in ("gateway", gitops.GITOPS):
                controller.plane.run_pods(namespace)
            program(controller.plane)
        return running.process.poll() is not None

    wait_for(done, "the end of up", 600)
    outcome = stack.finish(running)
    assert outcome.exit_code == 0, outcome.messages
    return outcome


def objects(controller: Controller) -> dict[str, str]:
    """Identity of what the platform consists of, with its pods, by kind and name."""
    return {
        f"{kind} {namespace}/{found['metadata']['name']}": found["metadata"]["uid"]
        for api, kinds in KINDS.items()
        for kind in kinds
        for namespace in ("gateway", *controller.division.applied)
        for found in controller.plane.cluster.items(api, kind, namespace)
    }


def test_the_platform_is_handed_over_and_taken_back(stack: Stack, controller: Controller, remote: Remote) -> None:
    up(stack, controller)
    before = objects(controller)
    assert {"Deployment platform/landing", "PersistentVolumeClaim platform/backup"} <= before.keys()

    stack.config("apply", "gitops")
    planned = stack.preview().changes
    assert not planned.keys() - {"same", "read", "create"}, planned
    up(stack, controller)
    assert remote.password not in stack.checkpoint_path.read_text()
    controller.start()
    settled(controller)
    assert objects(controller) == before
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}

    stack.config("apply", "pulumi")
    deleted = [name for operation, name in stack.preview().planned if operation == "delete"]
    assert "gitops/platform" in deleted
    assert not [name for name in deleted if "gitops" not in name and "argoproj" not in name]
    up(stack, controller)
    assert objects(controller) == before
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}


def test_a_new_platform_comes_from_git(stack: Stack, controller: Controller) -> None:
    stack.config("apply", "gitops")
    up(stack, controller)
    assert not controller.plane.get("Deployment", "platform/landing", "apps/v1")
    controller.start()
    settled(controller)
    assert controller.plane.get("Deployment", "platform/landing", "apps/v1")
    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}
