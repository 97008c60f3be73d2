"""Add-ons of a cluster and units of its nodes: what their publishers have, and what the playbooks make of it."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bundle.cli import DEFAULT_CACHE
from bundle.manifest import load
from bundle.modules import extract
from infra.bundle import manifests
from infra.manifests import ADDONS, addon, addon_images, kubectl, qualified_name, required, write_addons
from tests.ansible.harness import ANSIBLE, inventory, play
from tests.ansible.test_content import NODE, OLD_NODE, render
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Objects = dict[tuple[str, str], dict[str, Any]]
PLACEHOLDER = {"name": "kubeadm", "version": "v1.37.2", "kind": "program", "path": "kubeadm", "sha256": "0"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every manifest and unit, from its own module, and of images that are but names."""
    folder = tmp_path_factory.mktemp("bundle")
    artifacts: list[dict[str, Any]] = [PLACEHOLDER]
    for name, family in load().families.items():
        for kind, called, files in family.texts:
            path = folder / load().text_path(name, kind, called)
            path.parent.mkdir(parents=True, exist_ok=True)
            extract(files, kind, family.version, path, cache=DEFAULT_CACHE.expanduser() / "go/mod", say=print)
            about = {"name": called, "version": family.version, "kind": kind, "path": str(path.relative_to(folder))}
            artifacts.append(about | {"sha256": sha256(path.read_bytes()).hexdigest()})
        artifacts += [
            {"name": image, "version": family.version, "kind": "image", "path": image, "sha256": "0"}
            for image in family.images
        ]
    (folder / "bundle.json").write_text(json.dumps({"architecture": "amd64", "artifacts": artifacts}))
    return folder


def program() -> str:
    found = kubectl(str(DEFAULT_CACHE / "bundle"), "v1.37.2")
    assert found, "kubectl: `./lab bundle build --only kubernetes`"
    return found


def built(folder: Path) -> Objects:
    text = subprocess.run([program(), "kustomize", folder], check=True, capture_output=True, text=True).stdout
    return {(one["kind"], qualified_name(one)): one for one in yaml.safe_load_all(text)}


@pytest.fixture
def applied(tmp_path: Path, bundle: Path) -> Callable[..., Objects]:
    """What a role applies, with these variables: its tasks run here, and kubectl says what it would do."""

    def run(role: str, tasks: str = "main", **variables: Any) -> Objects:
        result = tmp_path / "kubectl"
        rendered = f'{program()} kustomize "${{2#--kustomize=}}" >{tmp_path}/said.yaml'
        result.write_text(f'#!/bin/sh\ncase "$1" in apply) {rendered};; esac\n')
        result.chmod(0o755)
        roles = ANSIBLE / "roles"
        asked = {"name": role, "tasks_from": tasks}
        tried = [{"hosts": "control_plane", "connection": "local", "gather_facts": False,
                  "tasks": [{"name": "Try", "ansible.builtin.include_role": asked}]}]  # fmt: skip
        playbook = tmp_path / "try.yml"
        playbook.write_text(json.dumps(tried))
        assert (roles / role).exists()
        hosts = inventory({"c": {"node_address": "10.0.0.1", "ansible_python_interpreter": sys.executable}}, {})
        hosts["all"]["children"]["gpu"] = {"hosts": {"c": {}}}
        done = play(
            playbook, hosts, tmp_path, cluster_bundle=str(bundle), cluster_kubectl=str(result),
            cluster_addons=str(tmp_path / "addons"), **variables,
        )  # fmt: skip
        assert done.status == 0, done.output
        return {
            (one["kind"], qualified_name(one)): one for one in yaml.safe_load_all((tmp_path / "said.yaml").read_text())
        }

    return run


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (one,) = workload["spec"]["template"]["spec"]["containers"]
    return dict(one)


@pytest.mark.parametrize(("role", "workload"), [
    ("storage", ("Deployment", "local-path-storage/local-path-provisioner")),
    ("metrics_server", ("Deployment", "kube-system/metrics-server")),
    ("network_policy", ("DaemonSet", "kube-system/network-policy")),
])  # fmt: skip
def test_what_runs_is_the_bundles_image_and_is_confined(
    applied: Callable[..., Objects], role: str, workload: tuple[str, str]
) -> None:
    objects = applied(role)
    made = container(objects[workload])
    image, _, version = made["image"].partition(":")
    assert (image, version) in {
        (f"localhost/{name}", family.version) for family in load().families.values() for name in family.images
    }
    assert made["resources"]["requests"].keys() == {"cpu", "memory"}
    confined = made["securityContext"]
    assert confined["readOnlyRootFilesystem"]
    assert not confined["allowPrivilegeEscalation"]
    assert confined["capabilities"]["drop"] == ["ALL"]
    assert confined["seccompProfile"] == {"type": "RuntimeDefault"}
    assert confined["runAsUser"] == (0 if role == "network_policy" else 65532)
    assert objects[workload]["spec"]["template"]["spec"]["priorityClassName"].startswith("system-")


def test_metrics_server_answers_soon_and_takes_kubeadms_kubelets(applied: Callable[..., Objects]) -> None:
    made = container(applied("metrics_server")["Deployment", "kube-system/metrics-server"])
    assert "--kubelet-insecure-tls" in made["args"]
    assert made["readinessProbe"]["initialDelaySeconds"] == 5
    assert made["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_volumes_are_folders_of_any_node_or_of_those_with_a_volume(applied: Callable[..., Objects]) -> None:
    for on_volumes in (False, True):
        objects = applied("storage", cluster_stores_on_volumes=on_volumes)
        kept = objects["StorageClass", "local-path"]
        assert kept["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
        assert ("allowedTopologies" in kept) is on_volumes
        settings = objects["ConfigMap", "local-path-storage/local-path-config"]["data"]
        assert json.loads(settings["config.json"])["nodePathMap"][0]["paths"] == ["/var/lib/local-path"]
        helper = yaml.safe_load(settings["helperPod.yaml"])["spec"]
        assert helper["tolerations"] == [{"operator": "Exists"}]
        made = objects["Deployment", "local-path-storage/local-path-provisioner"]
        assert helper["containers"][0]["image"] == container(made)["image"]


def plugin(objects: Objects) -> tuple[dict[str, Any], str, str]:
    """Settings of the device plugin, the image it is, and the name of the settings that it reads."""
    made = objects["DaemonSet", "kube-system/nvidia-device-plugin"]
    volumes = {one["name"]: one for one in made["spec"]["template"]["spec"]["volumes"]}
    name = volumes["config"]["configMap"]["name"]
    settings = objects["ConfigMap", f"kube-system/{name}"]["data"]["config.yaml"]
    return yaml.safe_load(settings), container(made)["image"], name


def test_gpus_are_shared_and_cut_as_the_variables_say(applied: Callable[..., Objects]) -> None:
    plain, image, name = plugin(applied("nvidia", "device_plugin"))
    assert plain == {"version": "v1", "flags": {"migStrategy": "none"}}
    assert image == f"nvcr.io/nvidia/k8s-device-plugin:{load().families['nvidia-device-plugin'].version}"
    settings, image, other = plugin(
        applied("nvidia", "device_plugin", nvidia_time_slices=4, nvidia_mig_strategy="mixed",
                nvidia_device_plugin_image="registry.example/plugin:v1")
    )  # fmt: skip
    assert settings["sharing"]["timeSlicing"]["resources"] == [{"name": "nvidia.com/gpu", "replicas": 4}]
    assert settings["flags"]["migStrategy"] == "mixed"
    assert image == "registry.example/plugin:v1"
    assert name != other, "the plugin would not see its new settings"


def test_the_bundle_renders_them_without_the_playbooks(tmp_path: Path, bundle: Path) -> None:
    versions = {name: family.version for family in load().families.values() for name in family.images}
    write_addons(tmp_path, manifests(str(bundle)), versions)
    assert {path.name for path in tmp_path.iterdir()} == ADDONS.keys()
    for name in ADDONS:
        text = json.dumps(list(built(tmp_path / name).values()))
        for image in addon_images(name):
            assert f"localhost/{image}:{versions[image]}" in text


@pytest.mark.slow_cluster
def test_what_is_applied_again_stays_as_it_is(tmp_path: Path, bundle: Path) -> None:
    versions = {name: family.version for family in load().families.values() for name in family.images}
    write_addons(tmp_path / "addons", manifests(str(bundle)), versions)
    with ControlPlane(tmp_path) as plane:
        for printed in ("created", "unchanged"):
            for name in ADDONS:
                done = subprocess.run(
                    [program(), "--kubeconfig", str(plane.kubeconfig), "apply", "-k", str(tmp_path / "addons" / name)],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                assert {line.rpartition(" ")[2] for line in done.stdout.splitlines()} == {printed}, done.stdout


def test_no_text_of_others_is_kept_here() -> None:
    """Each add-on that others publish is of the bundle, and names what it is patched of."""
    patched = required()[1]
    assert patched == {"gateway-api", "local-path", "metrics-server", "nvidia-device-plugin"}
    for name in ADDONS:
        files = {path.name for path in addon(name).iterdir()}
        assert "upstream.yaml" not in files
        resources = yaml.safe_load((addon(name) / "kustomization.yaml").read_text())["resources"]
        assert resources == (["upstream.yaml"] if name in patched else ["network-policy.yaml"])


def unit(*paths: Path) -> dict[str, list[str]]:
    """Settings of a unit and of what adds to it, values in order. As for systemd, an empty one forgets those before."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            key, is_setting, value = line.partition("=")
            if not is_setting or line.startswith("#"):
                continue
            found[key] = [*found.get(key, []), value] if value else []
    return found


def written(bundle: Path, name: str) -> Path:
    (found,) = bundle.glob(f"units/*/{name}")
    return found


def test_the_kubelets_unit_is_kubernetes_own_with_our_paths(tmp_path: Path, bundle: Path) -> None:
    for volumes in ([], [{"holds": "stores", "device": "/dev/vdb", "mount": "/var/lib/local-path"}]):
        ours = tmp_path / "20-cluster.conf"
        ours.write_text(render(tmp_path, "kubelet.conf.j2", "kubernetes_node", NODE, cluster_volumes=volumes))
        made = unit(written(bundle, "kubelet.service"), written(bundle, "10-kubeadm.conf"), ours)
        (command,) = made["ExecStart"]
        assert command.startswith("/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS ")
        assert "-/var/lib/kubelet/kubeadm-flags.env" in made["EnvironmentFile"]
        assert made["ConditionPathExists"] == ["/var/lib/kubelet/config.yaml"]
        assert (made["Slice"][-1], made["KillMode"][-1], made["Restart"][-1]) == (
            "system.slice",
            "control-group",
            "always",
        )
        assert made.get("Requires", []) == (["cluster-volumes.service"] if volumes else [])
        assert "network-online.target containerd.service" in made["After"]


def test_containerds_unit_is_its_own_where_the_machine_allows_it(tmp_path: Path, bundle: Path) -> None:
    for node, adjusted in ((NODE, ["-999"]), (OLD_NODE, [])):
        ours = tmp_path / "20-cluster.conf"
        ours.write_text(render(tmp_path, "containerd.conf.j2", "containerd", node))
        made = unit(written(bundle, "containerd.service"), ours)
        assert made["OOMScoreAdjust"] == adjusted
        assert made["ExecStart"] == ["/usr/local/bin/containerd"]
        assert (made["Type"], made["Delegate"], made["KillMode"]) == (["notify"], ["yes"], ["process"])
