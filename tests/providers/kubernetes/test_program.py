"""Programs on the unmodified SDK, under the engine, on a real API server."""

from __future__ import annotations

import signal
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.engine.harness import Stack, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.providers.kubernetes.control_plane import ControlPlane

pytestmark = pytest.mark.slow_cluster

PROGRAM = """
    import pulumi
    import pulumi_kubernetes as k8s

    image = pulumi.Config().get("image") or "registry/web:1"
    provider = k8s.Provider("cluster", kubeconfig=open(KUBECONFIG).read())
    options = pulumi.ResourceOptions(provider=provider)
    lab = k8s.core.v1.Namespace("lab", opts=options)
    within = {"namespace": lab.metadata["name"]}
    settings = k8s.core.v1.ConfigMap("settings", metadata=within, data={"image": image}, opts=options)
    login = k8s.core.v1.Secret("login", metadata=within, string_data={"password": "planted"}, opts=options)
    labels = {"app": "web"}
    web = k8s.apps.v1.Deployment(
        "web",
        metadata={**within, "annotations": {"pulumi.com/skipAwait": "true"}},
        spec={
            "selector": {"match_labels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {
                            "name": "web",
                            "image": image,
                            "env_from": [{"config_map_ref": {"name": settings.metadata["name"]}}],
                        }
                    ]
                },
            },
        },
        opts=options,
    )
    definition = k8s.apiextensions.v1.CustomResourceDefinition(
        "definition",
        metadata={"name": "gadgets.lab.example"},
        spec={
            "group": "lab.example",
            "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "open_apiv3_schema": {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
                    },
                }
            ],
        },
        opts=options,
    )
    gadget = k8s.apiextensions.CustomResource(
        "gadget",
        api_version="lab.example/v1",
        kind="Gadget",
        metadata=within,
        spec={"image": image},
        opts=pulumi.ResourceOptions(provider=provider, depends_on=[definition]),
    )
    patch = k8s.core.v1.NamespacePatch(
        "patch", metadata={"name": lab.metadata["name"], "labels": {"patched": "yes"}}, opts=options
    )
    k8s.yaml.ConfigGroup(
        "group",
        yaml=[MANIFESTS],
        opts=pulumi.ResourceOptions(providers={"kubernetes": provider}),
    )
    pulumi.export("namespace", lab.metadata["name"])
    pulumi.export("settings", settings.metadata["name"])
    root = k8s.core.v1.ConfigMap.get("root", "kube-public/kube-root-ca.crt", opts=options)
    pulumi.export("root", root.metadata["name"])
"""
MANIFESTS = """
apiVersion: v1
kind: ConfigMap
metadata: {name: from-yaml, namespace: default}
data: {mode: "0644"}
---
apiVersion: v1
kind: Service
metadata: {name: from-yaml, namespace: default}
spec: {ports: [{port: 80}], clusterIP: None}
"""


WAITING = """
    import pulumi
    import pulumi_kubernetes as k8s

    provider = k8s.Provider("cluster", kubeconfig=KUBECONFIG)
    labels = {"app": "slow"}
    spec = {"containers": [{"name": "slow", "image": "registry/slow:1"}]}
    k8s.apps.v1.Deployment(
        "slow",
        metadata={"name": "slow", "namespace": "kube-public"},
        spec={"selector": {"match_labels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
        opts=pulumi.ResourceOptions(provider=provider),
    )
"""


@pytest.fixture
def stack(tmp_path: Path, control_plane: ControlPlane) -> Stack:
    made = Stack(tmp_path)
    made.project_file()
    made.init()
    write(made, PROGRAM, control_plane)
    return made


def write(stack: Stack, program: str, control_plane: ControlPlane) -> None:
    values = f"KUBECONFIG = {str(control_plane.kubeconfig)!r}\nMANIFESTS = {MANIFESTS!r}\n"
    (stack.folder / "__main__.py").write_text(values + textwrap.dedent(program))


def test_a_program_from_up_to_destroy(stack: Stack, control_plane: ControlPlane) -> None:
    preview = stack.preview()
    assert ("create", "gadget") in preview.planned
    stack.up()
    outputs = stack.outputs()
    lab = outputs["namespace"]
    assert outputs["root"] == "kube-root-ca.crt"
    assert (control_plane.get("Namespace", lab) or {})["metadata"]["labels"]["patched"] == "yes"
    deployed = control_plane.cluster.items("apps/v1", "Deployment", lab)[0]
    assert deployed["metadata"]["name"].startswith("web-")
    assert (control_plane.get("Service", "default/from-yaml") or {})["spec"]["clusterIP"] == "None"
    assert "planted" not in stack.checkpoint_path.read_text()

    assert not stack.up("--expect-no-changes").changes.keys() - {"same", "read"}
    assert not stack.refresh("--expect-no-changes").changes.keys() - {"same", "read"}

    stack.config("image", "registry/web:2")
    changed = stack.up()
    assert ("replace", "settings") in changed.planned
    assert ("update", "web") in changed.done
    assert ("update", "gadget") in changed.done
    settings = stack.outputs()["settings"]
    assert settings != outputs["settings"], "what uses a ConfigMap notices that it changed"
    assert control_plane.get("ConfigMap", f"{lab}/{outputs['settings']}") is None
    assert (control_plane.get("ConfigMap", f"{lab}/{settings}") or {})["data"] == {"image": "registry/web:2"}

    stack.destroy()
    assert control_plane.get("Namespace", lab) is None
    assert control_plane.get("ConfigMap", "default/from-yaml") is None


@pytest.mark.parametrize("interruption", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_up_goes_on(stack: Stack, control_plane: ControlPlane, interruption: signal.Signals) -> None:
    """Killed, or cancelled by Ctrl-C twice, while a Deployment waits for its pods."""
    write(stack, WAITING, control_plane)
    running = stack.start(*stack.operation("up"))
    wait_for(lambda: control_plane.pods("kube-public"), "the pods")
    before = len(running.output)
    running.signal(interruption)
    if interruption is signal.SIGINT:
        wait_for(lambda: len(running.output) > before, "the answer to the first Ctrl-C")
        running.signal(interruption)
    running.process.wait(timeout=60)
    made = control_plane.get("Deployment", "kube-public/slow", "apps/v1") or {}
    again = stack.start(*stack.operation("up"))

    def done() -> bool:
        control_plane.run_pods("kube-public")
        return again.process.poll() is not None

    wait_for(done, "the second up", 120)
    outcome = stack.finish(again)
    assert outcome.exit_code == 0, outcome.text
    assert stack.state()["slow"]["outputs"]["metadata"]["uid"] == made["metadata"]["uid"]
    assert stack.up("--expect-no-changes")
    stack.destroy()
    assert control_plane.get("Deployment", "kube-public/slow", "apps/v1") is None
