"""A platform that the controller applies from Git, on a real API server."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from cli.errors import LabError
from cli.gitops import API, NAMESPACE, describe, wait_until_applied
from infra import gitops
from infra.bundle import image_digests
from infra.manifests import DOMAIN as PLACEHOLDER
from infra.manifests import qualified_name
from providers.kubernetes.client import ClusterError, UnknownKindError
from tests.engine.harness import wait_for
from tests.gitops.controller import DOMAIN, PROFILE
from tests.k8s.conftest import kubectl, rendered
from tests.providers.kubernetes.control_plane import BUNDLE, STATUS, running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from infra.manifests import Manifest
    from tests.gitops.controller import Controller

pytestmark = pytest.mark.slow_gitops
PATIENCE_SECONDS = 300
LIMIT_MIB = 500
"""For all of it: what issue and documentation promise."""
LANDING = "platform/landing"
LONG_AGO = "2026-01-01T00:00:00Z"
ROUTES = "gateway.networking.k8s.io/v1"


def run(controller: Controller, *, pods: bool = True) -> None:
    """What the gateway and kubelets report, for all that is there now."""
    plane = controller.plane
    for namespace in controller.division.applied:
        for pod in plane.pods(namespace) if pods else ():
            status = running(pod)
            # Long enough ago for what waits a while before it counts as available.
            status["conditions"] = [{**one, "lastTransitionTime": LONG_AGO} for one in status["conditions"]]
            with contextlib.suppress(ClusterError):
                plane.report("Pod", f"{namespace}/{pod['metadata']['name']}", status)
        with contextlib.suppress(UnknownKindError):  # in the first moments
            for route in plane.cluster.items(ROUTES, "HTTPRoute", namespace):
                _accept(controller, route)


def _accept(controller: Controller, route: dict[str, Any]) -> None:
    common = {"status": "True", "message": "", "lastTransitionTime": LONG_AGO}
    conditions = [
        {"type": name, "reason": name, "observedGeneration": route["metadata"]["generation"], **common}
        for name in ("Accepted", "ResolvedRefs")
    ]
    parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "example.org/gateway"}
    path = f"/apis/{ROUTES}/namespaces/{route['metadata']['namespace']}/httproutes/{route['metadata']['name']}/status"
    status = {"status": {"parents": [{**parent, "conditions": conditions}]}}
    with contextlib.suppress(ClusterError):
        controller.plane.cluster.request("reporting", "PATCH", path, status, **STATUS)


def until(controller: Controller, condition: Callable[[], bool], what: str) -> None:
    """Wait while pods run as a kubelet would run them."""

    def done() -> bool:
        run(controller)
        return condition()

    try:
        wait_for(done, what, PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}; {describe([controller.application()])}") from None


def settled(controller: Controller, revision: str | None = None) -> None:
    """Wait until all is as in Git, and healthy."""
    wanted = revision or controller.remote.head
    refresh(controller)

    def done() -> bool:
        found = controller.application()
        return found.is_done and found.revision == wanted

    until(controller, done, f"the application at {wanted}")


def refresh(controller: Controller) -> None:
    """Have the controller look into Git now, as `lab up` does."""
    arguments = ("--overwrite", "--namespace=gitops", "application/platform", "argocd.argoproj.io/refresh=normal")
    done = kubectl(controller.plane, "annotate", *arguments)
    assert done.returncode == 0, done.stderr


def of_controller(controller: Controller) -> list[Manifest]:
    """What of the profile the controller applies."""
    kept = {(one["kind"], qualified_name(one)) for one in controller.division.kept}
    return [one for one in rendered(f"clusters/{PROFILE}") if (one["kind"], qualified_name(one)) not in kept]


def live(controller: Controller, manifest: Manifest) -> dict[str, Any] | None:
    found: dict[str, Any] | None = controller.plane.get(
        manifest["kind"], qualified_name(manifest), manifest["apiVersion"]
    )
    return found


def landing(controller: Controller) -> dict[str, Any]:
    return controller.plane.get("Deployment", LANDING, "apps/v1") or {}


@pytest.fixture(scope="module")
def first_wave(controller: Controller) -> set[str]:
    """Workloads that there are while no pod of the first wave is ready yet."""

    def waits() -> bool:
        run(controller, pods=False)
        (found,) = controller.plane.cluster.items(API, "Application", NAMESPACE)
        message = str((found.get("status", {}).get("operationState") or {}).get("message"))
        return "waiting for healthy state of apps/" in message

    wait_for(waits, "the first wave", PATIENCE_SECONDS)
    kinds = ("Deployment", "StatefulSet")
    cluster = controller.plane.cluster
    return {one["metadata"]["name"] for kind in kinds for one in cluster.items("apps/v1", kind, "platform")}


@pytest.fixture(scope="module")
def applied(controller: Controller, first_wave: set[str]) -> Controller:
    assert first_wave
    settled(controller)
    return controller


def edited(path: str, old: str, new: str) -> Callable[[Path], None]:
    """An edit of a file of the repository."""

    def edit(work: Path) -> None:
        file = work / "k8s" / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def test_the_profile_in_git_becomes_the_platform(applied: Controller) -> None:
    """With the stack's domain and the bundle's images, and all of it."""
    manifests = of_controller(applied)
    missing = [qualified_name(one) for one in manifests if live(applied, one) is None]
    assert len(manifests) > 20
    assert not missing
    digest = image_digests(str(BUNDLE))["model-server"]
    spec = json.dumps(landing(applied)["spec"])
    assert f"localhost/model-server@{digest}" in spec
    assert DOMAIN in spec
    assert PLACEHOLDER not in spec


def test_waves_are_kept(applied: Controller, first_wave: set[str]) -> None:
    """A workload is made once those of earlier waves are ready."""
    assert first_wave == {"artifacts", "metadata-store", "tracking"}
    assert landing(applied)


def test_what_the_stack_keeps_is_not_the_controllers(applied: Controller) -> None:
    for manifest in applied.division.kept:
        found = live(applied, manifest) or {}
        assert "argocd.argoproj.io/tracking-id" not in found["metadata"].get("annotations", {}), manifest


def test_a_change_by_hand_is_undone(applied: Controller) -> None:
    misdirect(applied)
    until(applied, lambda: directed(applied) == "landing", "the Service as it is in Git")
    deleted = "/apis/apps/v1/namespaces/platform/deployments/landing"
    applied.plane.cluster.request("deleting", "DELETE", deleted)
    until(applied, lambda: bool(landing(applied).get("spec")), "the deleted Deployment")
    settled(applied)


def misdirect(controller: Controller) -> None:
    """A change by hand: the overview's Service is sent to pods that are not there."""
    controller.plane.edit("Service", LANDING, {"spec": {"selector": {"app": "elsewhere"}}})


def directed(controller: Controller) -> str:
    """Where the overview's Service is sent to."""
    return str((controller.plane.get("Service", LANDING) or {})["spec"]["selector"]["app"])


def test_a_commit_is_applied_and_its_revert_too(applied: Controller) -> None:
    memory = ("memory: 128Mi", "memory: 129Mi")
    settled(applied, applied.remote.change(edited("platform/landing/base/server.yaml", *memory)))
    assert "129Mi" in json.dumps(landing(applied)["spec"])
    settled(applied, applied.remote.revert())
    assert "129Mi" not in json.dumps(landing(applied)["spec"])


def test_what_leaves_git_is_deleted_but_for_what_holds_data(applied: Controller) -> None:
    menu = f"clusters/{PROFILE}/kustomization.yaml"
    backup = "  - ../../platform/backup/base"

    def take_out(work: Path) -> None:
        file = work / "k8s" / menu
        lines = file.read_text().splitlines()
        assert [line for line in lines if line.startswith(backup)]
        file.write_text("\n".join(line for line in lines if not line.startswith(backup)) + "\n")

    applied.remote.change(take_out)
    refresh(applied)
    gone = "platform/backup"
    until(applied, lambda: applied.plane.get("CronJob", gone, "batch/v1") is None, "the end of the CronJob")
    claim = applied.plane.get("PersistentVolumeClaim", gone) or {}
    assert "deletionTimestamp" not in claim["metadata"]
    assert "PersistentVolumeClaim platform/backup: out of sync with Git" in describe([applied.application()])
    settled(applied, applied.remote.revert())


def test_what_cannot_be_rendered_changes_nothing_and_is_told(
    applied: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = landing(applied)["metadata"]["resourceVersion"]
    applied.remote.change(edited(f"clusters/{PROFILE}/kustomization.yaml", "platform/landing/base", "platform/nothing"))
    refresh(applied)
    until(applied, lambda: bool(applied.application().errors), "the error")
    assert "platform/nothing" in describe([applied.application()])
    monkeypatch.setattr("cli.gitops.ERROR_SECONDS", 2)
    with pytest.raises(LabError, match=r"application platform is not applied: .*platform/nothing"):
        wait_until_applied(SimpleNamespace(cluster=applied.plane.cluster))  # type: ignore[arg-type]
    assert landing(applied)["metadata"]["resourceVersion"] == before
    settled(applied, applied.remote.revert())


PLANTED = (
    "apiVersion: v1\nkind: Secret\nmetadata: {name: planted}\n",
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: planted}\nspec: {template: {spec: {containers: []}}}\n",
)
ELSEWHERE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: planted, namespace: kube-system}\n"


def planted(controller: Controller, folder: str, text: str) -> None:
    """Add a file to a kustomization in Git."""

    def plant(work: Path) -> None:
        (work / f"k8s/{folder}/planted.yaml").write_text(text)
        edited(f"{folder}/kustomization.yaml", "resources:\n", "resources:\n  - planted.yaml\n")(work)

    controller.remote.change(plant)
    refresh(controller)


@pytest.mark.parametrize("text", PLANTED)
def test_a_kind_that_the_controller_does_not_apply_is_named(applied: Controller, text: str) -> None:
    kind = text.partition("kind: ")[2].partition("\n")[0]
    planted(applied, f"clusters/{PROFILE}", text.replace("planted}", "planted, namespace: platform}"))
    until(applied, lambda: f"{kind} planted" in str(applied.application().warnings), "the warning")
    assert kind in describe([applied.application()])
    settled(applied, applied.remote.revert())


def test_a_namespace_that_the_controller_does_not_apply_to_is_named(applied: Controller) -> None:
    planted(applied, f"clusters/{PROFILE}", ELSEWHERE)
    until(applied, lambda: "kube-system" in str(applied.application().errors), "the refusal")
    assert applied.plane.get("ConfigMap", "kube-system/planted") is None
    settled(applied, applied.remote.revert())


def test_it_goes_on_when_its_parts_and_git_were_away(applied: Controller) -> None:
    before = {qualified_name(one): (live(applied, one) or {})["metadata"]["uid"] for one in of_controller(applied)}
    applied.remote.answers, applied.remote.refused = False, 0
    for name in ("controller", "cache", "repository", "renderer"):
        applied.containers[name].kill()
    misdirect(applied)
    applied.start_again()
    until(applied, lambda: applied.remote.refused > 1, "that Git is away")
    applied.remote.answers = True
    settled(applied)
    assert directed(applied) == "landing"
    assert before == {
        qualified_name(one): (live(applied, one) or {})["metadata"]["uid"] for one in of_controller(applied)
    }


def may(controller: Controller, account: str, verb: str, what: str, namespace: str = "") -> bool:
    """Whether an account may do something, as the API server judges it. `what` is [group/]resource[:subresource]."""
    name, _, part = what.partition(":")
    group, _, resource = name.rpartition("/")
    asked = {"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": namespace}
    where, _ = account.split("/")
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{where}"]
    spec = {"user": f"system:serviceaccount:{account.replace('/', ':')}", "groups": groups, "resourceAttributes": asked}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(controller.plane.cluster.request("asking", "POST", path, review)["status"]["allowed"])


RBAC = "rbac.authorization.k8s.io"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate", "bind")


def test_it_reads_no_secret_of_others_and_gives_no_right(applied: Controller) -> None:
    account = "gitops/controller"
    everywhere = [*applied.division.applied, "gateway", "kube-system", "default"]
    never = ["secrets", "pods", "pods:exec", "serviceaccounts:token", "resourcequotas", "limitranges"]
    never += [f"{RBAC}/roles", f"{RBAC}/rolebindings"]
    asked = [(verb, what, where) for verb in VERBS for what in never for where in everywhere]
    cluster = ["namespaces", "nodes", "persistentvolumes", f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"]
    cluster += [
        "apiextensions.k8s.io/customresourcedefinitions",
        "admissionregistration.k8s.io/validatingadmissionpolicies",
    ]
    asked += [(verb, what, "") for verb in VERBS for what in cluster]
    asked += [("impersonate", what, "") for what in ("users", "groups", "serviceaccounts")]
    asked += [(verb, "secrets", gitops.GITOPS) for verb in VERBS[3:]]
    asked += [("delete", "persistentvolumeclaims", where) for where in everywhere]
    asked += [(verb, "apps/deployments", where) for verb in VERBS for where in ("gateway", "kube-system", "default")]
    assert not [one for one in asked if may(applied, account, *one)]
    assert may(applied, account, "get", "secrets", gitops.GITOPS)
    assert may(applied, account, "delete", "apps/deployments", "platform")


def test_the_overview_reads_applications_and_nothing_else(applied: Controller) -> None:
    account = "platform/landing"
    applications = "argoproj.io/applications"
    assert [verb for verb in VERBS if may(applied, account, verb, applications, gitops.GITOPS)] == ["list"]
    for what in ("secrets", "configmaps", "argoproj.io/appprojects"):
        assert not [verb for verb in VERBS if may(applied, account, verb, what, gitops.GITOPS)]
    assert not may(applied, account, "list", applications, "platform")


def test_all_of_it_at_rest_takes_less_than_it_may(
    applied: Controller, record_property: Callable[[str, str], None]
) -> None:
    settled(applied)
    memory = applied.memory()
    total = sum(memory.values())
    parts = ", ".join(f"{name} {size:.0f}" for name, size in memory.items())
    record_property("figures", f"GitOps controller at rest: {total:.0f} MiB (PSS; {parts})")
    assert total < LIMIT_MIB
