"""Without the bundle or kubectl on the machine, the platform is not changed, and a message says so."""

from __future__ import annotations

import hashlib
import json
import shutil
import textwrap
from typing import TYPE_CHECKING

import pytest

from infra.manifests import THIRD_PARTY, pins
from infra.settings import Cluster
from tests.engine.harness import REPOSITORY, Stack

if TYPE_CHECKING:
    from pathlib import Path

KEY = "MCowBQYDK2VwAyEAMuI/+Zn1MpNqAOVvmlVxHRFsD9namhtuRyuV0dARrh0="
VERSION = Cluster().kubernetes_version
# Objects are made here by a resource that takes no cluster.
PROGRAM = """
    import json
    import shutil
    from pathlib import Path
    from types import SimpleNamespace

    import pulumi
    from infra import bundle, manifests
    from infra.credentials import Password
    from infra.platform import Platform
    from infra.settings import Cluster, GitOps, Monitoring, Platform as Wanted

    images = {}

    def declare(self, manifest, opts):
        if manifest["kind"] == "Deployment":
            images.update(manifests.PINNED.findall(json.dumps(manifest)))
        name = f"{manifest['kind']} {manifests.qualified_name(manifest)}"
        self._resources[name] = Password(name, pulumi.ResourceOptions(parent=self))

    Platform._declare = declare
    on_path = pulumi.Config().get("kubectl")
    shutil.which = lambda program: on_path
    own = GitOps(controller="none")
    wanted = Wanted(profile="lab", apply=pulumi.Config().get("apply") or "pulumi", gitops=own)
    cluster = Cluster(bundle=pulumi.Config().require("bundle"), imageKeys=pulumi.Config().get_object("keys") or [])
    bundle.SIGNATURES = Path(pulumi.Config().require("bundle"), "signatures.json")
    settings = SimpleNamespace(platform=wanted, cluster=cluster, monitoring=Monitoring())
    server = Password("server")
    nodes = SimpleNamespace(entry=lambda: pulumi.Output.from_input("192.0.2.7"))
    Platform(settings, nodes, SimpleNamespace(kubeconfig=pulumi.Config().require("kubeconfig"), resource=server))
    pulumi.export("images", images)
"""
KUBECONFIG = {
    "clusters": [{"name": "none", "cluster": {"server": "https://192.0.2.7:6443"}}],
    "users": [{"name": "none", "user": {"token": "none"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "current-context": "none",
}
MANIFESTS = """
    apiVersion: v1
    kind: Namespace
    metadata: {name: platform}
    ---
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: tracking, namespace: platform}
    spec: {template: {spec: {containers: [{name: server, image: "localhost/mlflow@DIGEST"}]}}}
"""
REFUSED = "The platform cannot be planned on this machine, and is not changed"


class Machine:
    """A stack with a bundle of its own, and perhaps a kubectl on PATH."""

    def __init__(self, folder: Path) -> None:
        self.stack = Stack(folder)
        self.stack.project_file()
        self.stack.init()
        self.stack.env["PYTHONPATH"] += f":{REPOSITORY}"
        self.stack.env["XDG_CACHE_HOME"] = str(folder / "cache")
        (self.stack.folder / "__main__.py").write_text(textwrap.dedent(PROGRAM))
        self.bundle, self.elsewhere = folder / "bundle", folder / "kubectl"
        self.stack.config("bundle", str(self.bundle))
        self.stack.config("kubeconfig", json.dumps(KUBECONFIG))
        text = textwrap.dedent(MANIFESTS).replace("DIGEST", pins()["mlflow"])
        self.elsewhere.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
        self.elsewhere.chmod(0o755)

    def get_bundle(self, **images: str) -> None:
        """Put a bundle with these images on the machine."""
        program = self.bundle / "bin" / "kubernetes" / VERSION / "kubectl"
        program.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.elsewhere, program)
        artifacts = [{"name": name, "kind": "image", "digest": digest} for name, digest in images.items()]
        for name in THIRD_PARTY:
            (self.bundle / name).write_text("")
            empty = hashlib.sha256().hexdigest()
            artifacts.append({"name": name, "kind": "manifest", "path": name, "sha256": empty})
        (self.bundle / "bundle.json").write_text(json.dumps({"artifacts": artifacts}))

    def names(self) -> set[str]:
        """What the stack has."""
        return set(self.stack.state())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("apply", ["pulumi", "gitops"])
def test_without_the_bundle_no_deletion_is_planned(machine: Machine, apply: str) -> None:
    machine.stack.config("apply", apply)
    machine.get_bundle(mlflow="sha256:" + "1" * 64)
    machine.stack.up()
    made = machine.names()
    assert "Namespace platform" in made
    shutil.rmtree(machine.bundle)

    looked = machine.stack.preview(ok=False)
    assert looked.exit_code == 1
    assert REFUSED in looked.messages
    assert "kubectl is neither in the bundle" in looked.messages
    assert "`lab bundle build`" in looked.messages
    assert "Traceback" not in looked.text
    assert "is incomplete" not in looked.messages
    assert not [name for operation, name in looked.planned if operation == "delete"]

    done = machine.stack.up(ok=False)
    assert REFUSED in done.messages
    assert machine.names() == made


def test_a_kubectl_from_elsewhere_does_not_plan_other_images_than_the_bundle(machine: Machine) -> None:
    machine.get_bundle(mlflow="sha256:" + "1" * 64)
    machine.stack.up()
    machine.stack.config("kubectl", str(machine.elsewhere))
    shutil.rmtree(machine.bundle)
    looked = machine.stack.preview(ok=False)
    assert REFUSED in looked.messages
    assert "lacks gateway-api, mlflow" in looked.messages
    machine.get_bundle()
    assert "lacks mlflow" in machine.stack.up(ok=False).messages


def test_a_stack_with_a_controller_of_its_own_is_planned_by_any_kubectl(machine: Machine) -> None:
    machine.stack.config("apply", "gitops")
    machine.get_bundle(mlflow="sha256:" + "1" * 64)
    machine.stack.up()
    machine.stack.config("kubectl", str(machine.elsewhere))
    shutil.rmtree(machine.bundle)
    assert not machine.stack.preview().changes.keys() - {"same"}


def test_the_first_preview_takes_no_bundle_but_what_makes_the_platform_does(machine: Machine) -> None:
    looked = machine.stack.preview()
    assert "The preview of the platform is incomplete: kubectl is neither in the bundle" in looked.messages
    assert ("create", "tracking-admin") in looked.planned
    machine.stack.config("kubectl", str(machine.elsewhere))
    looked = machine.stack.preview()
    assert "lacks gateway-api, mlflow" in looked.messages
    assert ("create", "Deployment platform/tracking") in looked.planned
    assert REFUSED in machine.stack.up(ok=False).messages


def test_a_bundle_of_before_does_not_plan_the_end_of_the_kinds_that_it_lacks(machine: Machine) -> None:
    machine.get_bundle(mlflow="sha256:" + "1" * 64)
    machine.stack.up()
    (machine.bundle / "gateway-api").unlink()
    looked = machine.stack.preview(ok=False)
    assert REFUSED in looked.messages
    assert "lacks gateway-api" in looked.messages


def test_where_images_are_signed_those_that_git_names_are_run_and_only_if_they_are_signed(machine: Machine) -> None:
    built = "sha256:" + "1" * 64
    machine.get_bundle(mlflow=built)
    machine.stack.up()
    assert machine.stack.outputs()["images"] == {"mlflow": built}
    machine.stack.config("keys", json.dumps([KEY]))
    looked = machine.stack.preview(ok=False)
    assert "images that k8s/images names are not signed: mlflow" in looked.messages
    assert "`lab bundle sign`" in looked.messages
    (machine.bundle / "signatures.json").write_text(json.dumps({pins()["mlflow"]: {}}))
    done = machine.stack.up()
    assert machine.stack.outputs()["images"] == {"mlflow": pins()["mlflow"]}
    assert "The bundle has other images than Git: mlflow" in done.messages


@pytest.mark.parametrize("broken", ["bundle.json", "kubectl"])
def test_a_broken_bundle_is_reported_without_a_traceback(machine: Machine, broken: str) -> None:
    machine.get_bundle(mlflow="sha256:" + "1" * 64)
    if broken == "kubectl":
        (machine.bundle / "bin" / "kubernetes" / VERSION / "kubectl").chmod(0o644)
    else:
        (machine.bundle / broken).write_text("{")
    looked = machine.stack.preview(ok=False)
    assert broken in looked.messages
    assert "Traceback" not in looked.text
