"""When `lab up` gets a bundle first: for a stack whose programs or images are not all there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bundle.manifest import load
from bundle.store import Artifact, Inventory, Store
from cli.operations import operate
from cli.provision import provide_bundle
from cli.session import Session
from engine.operations import UpdateResult
from infra.naming import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.harness import Lab

MANIFEST = load()
VERSION = MANIFEST.families["kubernetes"].version
BEFORE = MANIFEST.families["kubernetes-previous"].version
CLUSTER = [name for name, one in MANIFEST.families.items() if one.group == "cluster" and not one.optional]
PLATFORM = [name for name, one in MANIFEST.families.items() if one.group == "platform"]
GROUPS = {"features", "logging", "monitoring", "pipelines"}
BEYOND_CI = [name for name, one in MANIFEST.families.items() if one.group in GROUPS]
"""Of profiles `lab`, which is a platform's by default, and `production`."""


class Stack:
    """This repository's program with a bundle of its own."""

    def __init__(self, lab: Lab, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        lab.write_program()
        self.bundle, self.project = bundle, lab.project
        self.builds: list[list[str]] = []
        monkeypatch.setattr("bundle.cli.build", self._build)
        for name in ("HOME", "PULUMI_BACKEND_URL"):
            monkeypatch.setenv(name, lab.env[name])

    def _build(self, folder: Path, families: list[str], *_: object) -> None:
        assert folder == self.bundle
        self.builds.append(families)
        self.hold(families)

    def hold(self, families: list[str], *, outdated: str | None = None) -> None:
        """Let the bundle have these families; one image of them is of other sources than today's."""
        inventory = Inventory(architecture=MANIFEST.architecture)
        for name in families:
            family = MANIFEST.families[name]
            common: dict[str, Any] = {
                "family": name,
                "version": family.version,
                "sha256": "0" * 64,
                "size": 1,
                "source": "built",
            }
            inventory.put(
                [
                    Artifact(name=program, kind="program", path=MANIFEST.program_path(name, program),
                             key=MANIFEST.key(name), **common)
                    for program in family.all_programs
                ]
            )  # fmt: skip
            inventory.put(
                [
                    Artifact(name=image, kind="image", path=MANIFEST.image_path(name, image),
                             key="old" if image == outdated else inventory.image_key(MANIFEST, name, image), **common)
                    for image in family.images
                ]
            )  # fmt: skip
            inventory.put(
                [
                    Artifact(name=one, kind=kind, path=MANIFEST.text_path(name, kind, one),
                             key="old" if one == outdated else MANIFEST.text_key(name, one, files), **common)
                    for kind, one, files in family.texts
                ]
            )  # fmt: skip
        self.bundle.mkdir(exist_ok=True)
        Store(self.bundle).write(inventory)

    def provide(self, platform: str, version: str = VERSION) -> None:
        """What `lab up` does, for a stack with this setting of its platform."""
        cluster = json.dumps({"kubernetesVersion": version, "bundle": str(self.bundle)})
        (self.project / "Pulumi.one.yaml").write_text(
            f"config:\n  ml-cluster:cluster: {cluster}\n  ml-cluster:platform: {platform}\n"
        )
        provide_bundle(self.session(), "one")

    def session(self) -> Session:
        return Session(self.project, "one", engine="embedded", interactive=False, color="never", verbose=False)


@pytest.fixture
def stack(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A stack whose bundle is not there."""
    return Stack(lab, tmp_path / "bundle", monkeypatch)


@pytest.mark.parametrize("platform", ["{}", "none"])
def test_a_bundle_that_has_all_stays_as_it_is(stack: Stack, platform: str) -> None:
    stack.hold([*CLUSTER, *PLATFORM, *BEYOND_CI])
    stack.provide(platform)
    assert stack.builds == []


def test_a_stack_without_a_platform_takes_a_bundle_without_its_images(stack: Stack) -> None:
    stack.hold(CLUSTER)
    stack.provide("none")
    assert stack.builds == []


def test_without_a_bundle_the_stack_gets_what_it_takes_and_no_more(stack: Stack) -> None:
    stack.provide("none")
    assert stack.builds == [CLUSTER]
    stack.provide("{}")
    assert sorted(stack.builds[1]) == sorted([*CLUSTER, *PLATFORM, *BEYOND_CI])
    stack.provide("{}")
    assert len(stack.builds) == 2


def test_a_gitops_controller_is_had_where_the_stack_installs_one(stack: Stack) -> None:
    stack.hold([*CLUSTER, *PLATFORM, *BEYOND_CI])
    stack.provide("{apply: gitops, gitops: {controller: none}}")
    assert stack.builds == []
    stack.provide("{apply: gitops}")
    (families,) = stack.builds
    assert {"gitops", "redis"} <= set(families)


@pytest.mark.parametrize("outdated", ["mlflow", "gateway-api"])
def test_outdated_images_and_manifests_are_built_again(stack: Stack, outdated: str) -> None:
    stack.hold([*CLUSTER, *PLATFORM, *BEYOND_CI], outdated=outdated)
    stack.provide("{}")
    assert len(stack.builds) == 1


def test_a_minor_release_that_is_only_had_by_name_is_asked_for(stack: Stack) -> None:
    stack.hold(CLUSTER)
    stack.provide("none", version=BEFORE)
    (families,) = stack.builds
    assert "kubernetes-previous" in families
    assert not {"kubernetes", "conformance"} & set(families)


@pytest.mark.parametrize(
    ("resources", "verb", "order"),
    [
        ([], {"yes": True}, ["preview", "bundle", "update"]),
        ([f"{PROJECT}:infra:Platform"], {"yes": True}, ["bundle", "preview", "update"]),
        ([f"{PROJECT}:infra:Platform"], {"yes": True, "skip_preview": True}, ["bundle", "update"]),
        ([f"{PROJECT}:infra:Platform"], {"preview_only": True}, ["preview"]),
    ],
)
def test_an_existing_platform_is_previewed_with_its_bundle(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, resources: list[str], verb: dict[str, Any], order: list[str]
) -> None:
    session = stack.session()
    session.backend.create_stack(PROJECT, "one")
    made = [{"urn": f"urn:pulumi:one::{PROJECT}::{type_}::it", "type": type_} for type_ in resources]
    session.backend.save(PROJECT, "one", {"version": 3, "deployment": {"manifest": {}, "resources": made}})
    seen: list[str] = []

    def run(*, dry_run: bool, emit: object, previewed: object = None) -> UpdateResult:
        del emit, previewed
        seen.append("preview" if dry_run else "update")
        return UpdateResult("succeeded", {}, {}, 0.0, [])

    monkeypatch.setattr("cli.operations.prepare", lambda *_, **__: None)
    monkeypatch.setattr("cli.operations.embedded_runner", lambda *_: run)
    monkeypatch.setattr("cli.operations.provide_bundle", lambda *_: seen.append("bundle"))
    monkeypatch.setattr("cli.services.finish_up", lambda *_: False)
    operate(session, "update", verb)
    assert seen == order
