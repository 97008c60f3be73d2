"""When `lab up` gets a bundle first: for a stack whose programs or images are not all there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cli.errors import LabError
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
        monkeypatch.setattr("bundle.cli.build", self._build)

    def _build(self, folder: Path, *_: object) -> None:
        assert folder == self.bundle
        self.builds += 1
        self.hold(self.built)

    def hold(self, digests: list[str]) -> None:
        """Let the bundle have Kubernetes, and images of these digests."""
        images = [{"name": digest, "kind": "image", "digest": digest} for digest in digests]
        programs = [{"name": "kubeadm", "kind": "program", "version": VERSION}]
        self.bundle.mkdir(exist_ok=True)
        (self.bundle / "bundle.json").write_text(json.dumps({"artifacts": [*programs, *images]}))

    def provide(self, platform: str) -> None:
        """What `lab up` does, for a stack with this setting of its platform."""
        cluster = json.dumps({"kubernetesVersion": VERSION, "bundle": str(self.bundle)})
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


def test_images_that_the_manifests_do_not_name_are_refused_before_a_node_looks_for_them(stack: Stack) -> None:
    first, *others = pins()
    stack.built = [pins()[name] for name in others]
    with pytest.raises(LabError, match=f"other images than those in .*: {first}$"):
        stack.provide("{}")
