"""What a GitOps controller renders of a profile, and what the stack keeps of it, are the whole of it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

import kubeyaml
from infra import gitops
from infra.manifests import pins, profiles, qualified_name, write_tree
from infra.settings import Platform as Wanted
from infra.settings import Settings
from tests.k8s.conftest import rendered
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from pathlib import Path

    from infra.manifests import Manifest

pytestmark = pytest.mark.slow_cluster


def names(manifests: list[Manifest]) -> list[str]:
    return sorted(f"{one['kind']} {qualified_name(one)}" for one in manifests)


@pytest.mark.parametrize("forge", [None, {}], ids=["elsewhere", "forge"])
@pytest.mark.parametrize("profile", profiles())
def test_nothing_is_applied_by_both_or_by_nobody(profile: str, forge: dict[str, str] | None, tmp_path: Path) -> None:
    wanted = Wanted.model_validate({"profile": profile, "apply": "gitops", "forge": forge})
    manifests = rendered(f"clusters/{profile}")
    division = gitops.Division(manifests, Settings.model_construct(platform=wanted))
    write_tree(tmp_path, {})
    folder = tmp_path / "stack"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(json.dumps(division.kustomization(pins(), None)))
    kubectl = program("kubernetes", "kubectl")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    applied = [one for one in kubeyaml.read_documents(done.stdout) if one]
    assert names([*applied, *division.kept]) == names(manifests)
    assert {one["metadata"]["namespace"] for one in applied} <= set(division.applied)
    # No merge opens a namespace, and the forge finds its database before anything is applied from Git.
    closed = {one["metadata"]["namespace"] for one in division.kept if one["metadata"]["name"] == gitops.CLOSED}
    assert closed >= {"platform", "training", "serving"}
    kinds = {kind for of_group in gitops.APPLIED.values() for kind in of_group}
    assert {one["kind"] for one in applied} <= kinds
    stores = [one for one in applied if one["metadata"].get("labels", {}).get(gitops.CAPABILITY) == gitops.FORGE_NEEDS]
    assert bool(stores) is (forge is None)
