"""What every object of k8s/ must keep to, whatever profile it is in."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bundle.manifest import load
from infra.manifests import (
    FIRST,
    IMAGES,
    LOCK,
    THIRD_PARTY,
    TREE,
    WORKLOADS,
    Manifest,
    image_names,
    pinned,
    pins,
    qualified_name,
    rank,
    render,
    required,
    wave,
    write_tree,
)
from tests.k8s.conftest import FOLDERS, RUNS, rendered
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# kubectl renders: the bundle's.
rendering = pytest.mark.slow_cluster
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
GIB = 2**30
LATER = {"monitoring", "logging", "pipelines"}
"""Capabilities that nothing which serves waits for."""
EXAMPLE = "digits"
READ_THE_NODE = {"monitoring-nodes"}
"""Namespaces whose pods may have folders of the node; that they only read them is a test of its own."""


def pods(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each workload with the spec of its pods."""
    for manifest in rendered(folder):
        if manifest["kind"] in {*WORKLOADS, "CronJob"}:
            spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
            yield f"{manifest['kind']} {qualified_name(manifest)}", spec["template"]["spec"]


def containers(folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, spec in pods(folder):
        for container in [*spec.get("initContainers", ()), *spec["containers"]]:
            yield f"{name}, {container['name']}", container


@rendering
def test_another_night_is_named_to_the_restore_by_one_variable() -> None:
    """`kubectl set env` reaches the container that reads it; without it the newest night is meant."""
    kubectl = str(program("kubernetes", "kubectl"))
    (job,) = (one for one in rendered("platform/backup/restore") if one["kind"] == "Job")
    change = ["set", "env", "--local", "--filename", "-", "--output", "json", "NIGHT=20261128T031700Z"]
    done = subprocess.run([kubectl, *change], input=json.dumps(job), capture_output=True, text=True, check=True)

    def night(one: Manifest) -> object:
        _, prepare, _ = one["spec"]["template"]["spec"]["initContainers"]
        return next(entry.get("value", "") for entry in prepare["env"] if entry["name"] == "NIGHT")

    assert (night(job), night(json.loads(done.stdout))) == ("", "20261128T031700Z")


@rendering
@pytest.mark.parametrize("folder", [*FOLDERS, *RUNS])
def test_containers_have_no_rights_and_say_what_they_take(folder: str) -> None:
    seen = 0
    for name, spec in pods(folder):
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["serviceAccountName"] != "default", name
        assert spec["priorityClassName"], name
    for name, container in containers(folder):
        seen += 1
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"], name
        assert not context["allowPrivilegeEscalation"], name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
        assert "memory" in container["resources"]["limits"], name
    assert seen


@rendering
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_serves_says_whether_it_can(folder: str) -> None:
    for name, spec in pods(folder):
        if name.startswith(("Job", "CronJob", "Deployment serving/rollout")):
            continue
        for container in spec["containers"]:
            assert {"readinessProbe", "livenessProbe"} <= container.keys(), name


@rendering
@pytest.mark.parametrize("folder", [*FOLDERS, *RUNS])
def test_images_are_pinned_by_digest(folder: str) -> None:
    for name, container in containers(folder):
        assert re.fullmatch(r"localhost/[a-z0-9-]+@sha256:[0-9a-f]{64}", container["image"]), name


def test_digests_are_those_of_the_bundle() -> None:
    assert IMAGES.read_text() == pinned(json.loads(LOCK.read_text())), "run `python -m infra.manifests`"


def test_manifests_of_others_are_the_bundles(tmp_path: Path) -> None:
    held = {one["name"] for one in json.loads(LOCK.read_text())["amd64"] if one["kind"] == "manifest"}
    assert held == required()[1] | THIRD_PARTY.keys()
    given = tmp_path / "given.yaml"
    given.write_text("kind: CustomResourceDefinition\n")
    write_tree(tmp_path / "out", dict.fromkeys(THIRD_PARTY, given))
    for name in THIRD_PARTY.values():
        assert not (TREE / name).exists()
        assert (tmp_path / "out" / name).read_text() == given.read_text()
        resources = yaml.safe_load((TREE / name).with_name("kustomization.yaml").read_text())["resources"]
        assert name.name in resources


@rendering
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_namespace_is_closed_and_restricted(folder: str) -> None:
    manifests = rendered(folder)
    namespaces = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Namespace"}
    used = {one["metadata"]["namespace"] for one in manifests if "namespace" in one["metadata"]}
    assert used == set(namespaces)
    policies = [one for one in manifests if one["kind"] == "NetworkPolicy"]
    for name, namespace in namespaces.items():
        level = namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        assert level == ("privileged" if name in READ_THE_NODE else "restricted"), name
        closing = [
            one
            for one in policies
            if one["metadata"]["namespace"] == name
            and not one["spec"]["podSelector"]
            and set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            and "ingress" not in one["spec"]
        ]
        assert closing, f"{name} is open"
        for kind in ("ResourceQuota", "LimitRange"):
            assert any(one["kind"] == kind and one["metadata"]["namespace"] == name for one in manifests), (kind, name)


@rendering
def test_folders_of_the_node_are_read_alone() -> None:
    found = 0
    for manifest in rendered("clusters/lab"):
        if manifest["kind"] not in WORKLOADS:
            continue
        spec = manifest["spec"]["template"]["spec"]
        folders = {volume["name"] for volume in spec.get("volumes", ()) if "hostPath" in volume}
        assert not folders or manifest["metadata"]["namespace"] in READ_THE_NODE, qualified_name(manifest)
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            assert not spec.get(key), qualified_name(manifest)
        for container in spec["containers"]:
            for mount in container.get("volumeMounts", ()):
                if mount["name"] in folders:
                    found += 1
                    assert mount["readOnly"], (qualified_name(manifest), mount)
    assert found


@rendering
def test_the_first_prediction_waits_for_no_monitoring() -> None:
    manifests = rendered("clusters/lab")
    of_monitoring = [
        one for one in manifests
        if one["kind"] in WORKLOADS and one["metadata"]["labels"]["app.kubernetes.io/name"] in LATER
    ]  # fmt: skip
    others = [one for one in manifests if one["kind"] in WORKLOADS and one not in of_monitoring]
    assert len(of_monitoring) >= 6
    for one in of_monitoring:
        assert one["metadata"]["annotations"]["pulumi.com/skipAwait"] == "true", qualified_name(one)
        assert all(rank(one) > rank(other) for other in others), qualified_name(one)


@rendering
def test_the_least_profile_has_no_monitoring() -> None:
    assert not [one for one in rendered("clusters/ci") if "monitoring" in str(one["metadata"].get("namespace", ""))]


@rendering
def test_nobody_may_do_everything() -> None:
    for manifest in rendered("clusters/lab"):
        for rule in manifest.get("rules", ()) if manifest["kind"] in {"Role", "ClusterRole"} else ():
            granted = [*rule["verbs"], *rule.get("resources", ()), *rule.get("apiGroups", ())]
            assert "*" not in granted, qualified_name(manifest)
        if manifest["kind"] == "ServiceAccount":
            assert manifest["automountServiceAccountToken"] is False, qualified_name(manifest)


SECRET_NAMES = re.compile(r"password|secret|token|private|credential|access.?key", re.IGNORECASE)
SECRET_VALUES = re.compile(r"-----BEGIN|AKIA[0-9A-Z]{16}|://[^/@:\s]+:[^/@:\s]+@|eyJ[A-Za-z0-9_-]{20,}")


@rendering
def test_no_secret_is_in_the_tree() -> None:
    """No Secret, and no variable with a secret's name and a value of its own."""
    for folder in (*FOLDERS, *RUNS):
        assert not [qualified_name(one) for one in rendered(folder) if one["kind"] == "Secret"]
        for name, container in containers(folder):
            for variable in container.get("env", ()):
                if SECRET_NAMES.search(variable["name"]):
                    value = str(variable.get("value", ""))
                    assert not value or value.startswith("/"), (name, variable["name"])


def test_nothing_in_the_tree_looks_like_a_key() -> None:
    for path in TREE.rglob("*"):
        # Other tests import the programs in the tree, and Python compiles them there.
        if path.is_file() and path.suffix != ".pyc":
            text = re.sub(r"\$\([A-Z_]+\)", "", path.read_text())  # taken from a Secret
            assert not SECRET_VALUES.search(text), path


def test_a_secret_would_be_found() -> None:
    token = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"0123456789"}').decode()
    for planted in ("-----BEGIN EC PRIVATE KEY-----", "postgresql://mlflow:hunter2hunter2@store/db", token):
        assert SECRET_VALUES.search(planted)


def size(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


@rendering
def test_the_lab_profile_asks_for_four_gib_at_most() -> None:
    """Requests of all pods at rest, autoscaled ones at their least. Of models the example's: others have pods once
    they are promoted.
    """
    manifests = rendered("clusters/lab")
    least = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicas"]
        for one in manifests
        if one["kind"] == "HorizontalPodAutoscaler"
    }
    total = 0
    for one in manifests:
        model = one["metadata"].get("labels", {}).get("ml-cluster.dev/model", EXAMPLE)
        if one["kind"] in {"Deployment", "StatefulSet"} and model == EXAMPLE:
            spec = one["spec"]["template"]["spec"]
            asked = sum(size(c["resources"]["requests"]["memory"]) for c in spec["containers"])
            total += asked * least.get(one["metadata"]["name"], one["spec"].get("replicas", 1))
    assert GIB < total <= 4 * GIB


@rendering
def test_what_is_needed_comes_first() -> None:
    """Argo CD's waves, which Pulumi's order follows too."""
    order = {f"{one['kind']} {qualified_name(one)}": rank(one) for one in rendered("clusters/lab")}

    def before(one: str, other: str) -> None:
        assert order[one] < order[other]

    before("Namespace platform", "ServiceAccount platform/tracking")
    for name in (
        "StatefulSet platform/metadata-store",
        "StatefulSet platform/artifacts",
        "Deployment platform/tracking",
    ):
        before("NetworkPolicy platform/closed", name)
        before(name, "Deployment serving/digits-production")
    assert all(order[one] == (0, 0) for one in order if one.split()[0] in FIRST)


@rendering
@pytest.mark.parametrize("profile", ["ci", "lab", "production"])
def test_no_route_comes_before_what_it_leads_to(profile: str) -> None:
    """Argo CD waits until a route's Services exist before it goes on to the next wave."""
    manifests = rendered(f"clusters/{profile}")
    services = {qualified_name(one): wave(one) for one in manifests if one["kind"] == "Service"}
    routes = [one for one in manifests if one["kind"] == "HTTPRoute"]
    assert routes
    for route in routes:
        namespace = route["metadata"]["namespace"]
        backends = [backend for rule in route["spec"]["rules"] for backend in rule.get("backendRefs", ())]
        early = [
            f"{qualified_name(route)} before {backend['name']}"
            for backend in backends
            if services[f"{backend.get('namespace', namespace)}/{backend['name']}"] > wave(route)
        ]
        assert not early


def test_every_folder_says_what_it_is_for() -> None:
    for path in TREE.rglob("kustomization.yaml"):
        if "overlays" not in path.parts:
            assert path.read_text().startswith("#"), f"{path} begins without a word about it"


def test_every_image_is_one_that_the_bundle_can_have() -> None:
    assert {image for family in load().families.values() for image in family.images} >= set(image_names())


def test_a_manifest_without_its_digest_is_noticed() -> None:
    lock = {"amd64": [{"kind": "image", "name": "mlflow", "digest": f"sha256:{'0' * 64}"}]}
    assert f"name: localhost/mlflow, digest: sha256:{'0' * 64}" in pinned(lock)


def deployments(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == "Deployment"}


@rendering
def test_production_is_never_without_a_server_while_it_is_rolled() -> None:
    for stage in ("staging", "canary", "production"):
        server = deployments(rendered("clusters/lab"))[f"digits-{stage}"]
        assert server["metadata"]["labels"]["ml-cluster.dev/alias"] == stage
        spec = server["spec"]
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert "replicas" not in spec, "the autoscaler's to say"
        (container,) = spec["template"]["spec"]["containers"]
        assert {"name": "MODEL_ALIAS", "value": stage} in container["env"]


@rendering
def test_what_is_kept_warm_gets_no_requests_and_takes_nobodys_room() -> None:
    found = rendered("clusters/lab")
    warm = deployments(found)["digits-warm"]
    assert warm["metadata"]["labels"]["ml-cluster.dev/warm"] == "production"
    assert "ml-cluster.dev/alias" not in warm["metadata"]["labels"], "it is no stage"
    assert warm["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0, "one pod at a time"
    priorities = {one["metadata"]["name"]: one for one in found if one["kind"] == "PriorityClass"}
    of_warm = priorities[warm["spec"]["template"]["spec"]["priorityClassName"]]
    assert of_warm["value"] == min(one["value"] for one in priorities.values())
    assert of_warm["preemptionPolicy"] == "Never"
    labels = warm["spec"]["template"]["metadata"]["labels"]
    selectors = {one["metadata"]["name"]: one["spec"].get("selector") for one in found if one["kind"] == "Service"}
    assert not [name for name, selector in selectors.items() if selector and selector.items() <= labels.items()]
    # The label that the rollout controller gives it, which production's own pods have.
    own = deployments(found)["digits-production"]["spec"]["template"]["metadata"]["labels"]
    assert selectors["digits-production"].items() <= {**labels, "ml-cluster.dev/answers": "production"}.items()
    assert selectors["digits-production"].items() <= own.items()


@rendering
def test_the_smallest_profile_keeps_nothing_warm() -> None:
    for profile, hours in (("ci", "0"), ("lab", "24"), ("production", "24")):
        (container,) = deployments(rendered(f"clusters/{profile}"))["rollout"]["spec"]["template"]["spec"]["containers"]
        assert {"name": "WARM_HOURS", "value": hours} in container["env"]


@rendering
def test_images_that_the_bundle_holds_take_the_place_of_those_named() -> None:
    newer = "sha256:" + "0" * 64
    found = render("clusters/ci", str(program("kubernetes", "kubectl")), {"mlflow": newer})
    named_images = {image for manifest in found for image in re.findall(r"localhost/\S+@\S+?(?=')", str(manifest))}
    assert f"localhost/mlflow@{newer}" in named_images
    others = named_images - {f"localhost/mlflow@{newer}"}
    assert len(others) >= 4
    assert others <= {f"localhost/{name}@{digest}" for name, digest in pins().items() if name != "mlflow"}
