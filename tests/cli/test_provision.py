"""When `lab up` gets a bundle first: for a stack whose programs or images are not all there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.provision import provide_bundle
from cli.session import Session
from infra.manifests import pins

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.harness import Lab

VERSION = "v1.37.2"


class Stack:
    """This repository's program with a bundle of its own."""

    def __init__(self, lab: Lab, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lab.write_program()
        self.bundle, self.project, self.builds = bundle, lab.project, 0
        self.built: list[str] = []
        self.families: list[str] = []
        monkeypatch.setattr("bundle.cli.build", self._build)

    def _build(self, folder: Path, families: list[str], *_: object) -> None:
        assert folder == self.bundle
        self.families = families
        self.builds += 1
        self.hold(self.built)

    def hold(self, digests: list[str]) -> None:
        """Let the bundle have Kubernetes, and the platform's images, or the first of them, with these digests."""
        images = [
            {"name": name, "kind": "image", "digest": digest} for name, digest in zip(pins(), digests, strict=False)
        ]
        programs = [{"name": "kubeadm", "kind": "program", "version": VERSION}]
        self.bundle.mkdir(exist_ok=True)
        (self.bundle / "bundle.json").write_text(json.dumps({"artifacts": [*programs, *images]}))

    def provide(self, platform: str, version: str = VERSION) -> None:
        """What `lab up` does, for a stack with this setting of its platform."""
        cluster = json.dumps({"kubernetesVersion": version, "bundle": str(self.bundle)})
        (self.project / "Pulumi.one.yaml").write_text(
            f"config:\n  ml-cluster:cluster: {cluster}\n  ml-cluster:platform: {platform}\n"
        )
        session = Session(self.project, "one", engine="embedded", interactive=False, color="never", verbose=False)
        provide_bundle(session, "one")


@pytest.fixture
def stack(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose bundle is not there."""
    return Stack(lab, tmp_path / "bundle", monkeypatch)


@pytest.mark.parametrize("platform", ["{}", "none"])
def test_a_bundle_that_has_all_stays_as_it_is(stack: Stack, platform: str) -> None:
    stack.hold(list(pins().values()))
    stack.provide(platform)
    assert stack.builds == 0


def test_a_stack_without_a_platform_takes_a_bundle_without_its_images(stack: Stack) -> None:
    stack.hold([])
    stack.provide("none")
    assert stack.builds == 0


def test_images_of_the_platform_that_are_not_there_are_got(stack: Stack) -> None:
    stack.hold([])
    stack.built = list(pins().values())
    stack.provide("{}")
    assert stack.builds == 1


def test_images_made_of_newer_packages_are_taken_as_they_are(stack: Stack) -> None:
    """The build makes anew what is old; what differs still is not for this verb to refuse."""
    stack.built = [f"sha256:{number:064x}" for number, _ in enumerate(pins())]
    stack.provide("{}")
    assert stack.builds == 1


def test_a_minor_release_that_is_only_had_by_name_is_asked_for(stack: Stack) -> None:
    stack.provide("none", version="v1.36.3")
    assert {"kubernetes", "kubernetes-previous", "mlflow"} <= set(stack.families)
    assert "conformance" not in stack.families
