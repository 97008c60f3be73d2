"""Manifests and units that others publish: from their Go module, by its checksum, into the bundle and the tree."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import pytest

import kubeyaml
from bundle.manifest import load
from bundle.store import Inventory
from infra.bundle import InventoryError, manifests
from infra.manifests import ADDONS, LOCK, THIRD_PARTY, required
from tests.bundle.conftest import Copy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PATH = "manifests/kinds_v1.2.3.yaml"
# Of the archive below, as Go tells it: `go mod download -json` with GOPROXY=file://...
SUM = "h1:M21SuPN0egCAuKY6f1DePEQqFh4JGP2AJVzfBKj7W84="
FAMILIES = f"""
families:
  kinds:
    version: v1.2.3
    group: platform
    manifests:
      kinds: {{module: example.org/Kinds, sum: "{SUM}", files: [config/b.yaml, config/a.yaml]}}
"""
UNIT = (
    FAMILIES.replace("manifests:", "units:")
    .replace("kinds: {", "a.service: {")
    .replace("config/b.yaml, config/a.yaml", "a.service, a.conf")
)
CONTENT = {
    "go.mod": "module example.org/Kinds\n",
    "config/a.yaml": "---\nkind: A\n",
    "config/b.yaml": "kind: B\n",
    "config/c.yaml": "kind: C\n",
    "a.service": "[Service]\nExecStart=/usr/bin/a\n",
    "a.conf": "[Service]\nExecStart=\nExecStart=/usr/local/bin/a\n",
}


def published(folder: Path, content: dict[str, str]) -> dict[str, str]:
    """A module proxy with one module; what tells Go, and us, to ask it."""
    place = folder / "proxy" / "example.org" / "!kinds" / "@v"
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place / "v1.2.3.zip", "w") as archive:
        for name, text in content.items():
            archive.writestr(f"example.org/Kinds@v1.2.3/{name}", text)
    return {"GOPROXY": f"file://{folder}/proxy"}


def test_the_lock_is_of_what_programs_and_images_are_made_of_now() -> None:
    """Otherwise every bundle has other images than the pinned ones: a file of a layer may have changed in a copy."""
    manifest = load()
    locked = [one for one in json.loads(LOCK.read_text())["amd64"] if one["family"] in manifest.families]
    programs = {one["path"]: one for one in locked if one["kind"] == "program"}
    assert programs
    for one in programs.values():
        assert one["key"] == manifest.key(one["family"]), one["path"]
    for one in locked:
        if one["kind"] == "image":
            made_of = {programs[path]["name"]: programs[path]["sha256"] for path in one.get("programs", ())}
            assert one["key"] == manifest.image_key(one["family"], one["name"], made_of), one["path"]


def test_manifests_come_from_their_module_and_stay(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(FAMILIES)
    copy.build(env=published(tmp_path, CONTENT))
    text = (copy.bundle / PATH).read_text()
    assert text.partition("\n")[2] == "kind: B\n---\nkind: A\n"
    assert "example.org/Kinds@v1.2.3" in text
    (artifact,) = copy.inventory.artifacts
    assert (artifact.kind, artifact.path, artifact.source) == ("manifest", PATH, "example.org/Kinds@v1.2.3")
    bill = json.loads((copy.bundle / "sbom.cdx.json").read_text())
    assert "pkg:golang/example.org/Kinds@v1.2.3" in {one.get("purl") for one in bill["components"]}

    copy.build(env={"GOPROXY": "off"})
    assert manifests(str(copy.bundle)) == {"kinds": copy.bundle / PATH}
    other = Copy(copy.tree, tmp_path / "other")
    other.build("--from", copy.bundle, env={"GOPROXY": "off"})
    assert (other.bundle / PATH).read_text() == text
    assert not other.inventory.lacks(load(copy.tree / "bundle/manifest.yaml"), ["kinds"])


def test_units_come_from_their_module_too(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(UNIT)
    copy.build(env=published(tmp_path, CONTENT))
    path = copy.bundle / "units/v1.2.3/a.service"
    assert path.read_text().partition("\n")[2] == CONTENT["a.service"] + CONTENT["a.conf"]
    (artifact,) = copy.inventory.artifacts
    assert (artifact.kind, artifact.name, artifact.source) == ("unit", "a.service", "example.org/Kinds@v1.2.3")
    assert manifests(str(copy.bundle)) == {}
    copy.run("verify")
    path.write_text("[Service]\nExecStart=/usr/bin/evil\n")
    assert "units/v1.2.3/a.service" in copy.run("verify").stderr
    copy.build(env={"GOPROXY": "off", **published(tmp_path, CONTENT)})
    assert path.read_text().endswith(CONTENT["a.conf"])
    copy.manifest(FAMILIES)
    copy.build(env=published(tmp_path, CONTENT))
    assert not path.exists(), "what the manifest names no longer is dropped"


def test_another_module_than_the_pinned_one_is_refused(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(FAMILIES)
    refused = copy.run("build", env=published(tmp_path, {**CONTENT, "config/c.yaml": "kind: Evil\n"}))
    assert refused.returncode == 1
    assert "module example.org/Kinds@v1.2.3 has the checksum h1:" in refused.stderr
    assert not (copy.bundle / PATH).exists()


def test_an_unavailable_module_and_a_missing_file_are_reported(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(FAMILIES)
    away = copy.run("build", env={"GOPROXY": f"file://{tmp_path}/nowhere"})
    assert away.returncode == 1
    assert "module example.org/Kinds@v1.2.3 could not be fetched from file://" in away.stderr
    assert "remedy: set GOPROXY" in away.stderr
    copy.manifest(FAMILIES.replace("config/a.yaml", "config/d.yaml"))
    refused = copy.run("build", env=published(tmp_path, CONTENT))
    assert "has no example.org/Kinds@v1.2.3/config/d.yaml" in refused.stderr
    assert "Traceback" not in away.stderr + refused.stderr


def test_a_changed_file_is_neither_rendered_nor_kept(copy: Copy, tmp_path: Path) -> None:
    copy.manifest(FAMILIES)
    env = published(tmp_path, CONTENT)
    copy.build(env=env)
    before = (copy.bundle / PATH).read_text()
    (copy.bundle / PATH).write_text(before + "kind: Evil\n")
    with pytest.raises(InventoryError, match="lab bundle build"):
        manifests(str(copy.bundle))
    assert PATH in copy.run("verify").stderr
    copy.build(env=env)
    assert (copy.bundle / PATH).read_text() == before


def held(copy: Copy, names: Iterable[str]) -> None:
    """Let a bundle say that it has images, beside what it has."""
    inventory = copy.inventory
    one = {"family": "x", "version": "v1.0.0", "kind": "image", "sha256": "0", "size": 1, "key": "", "source": "built"}
    more = [{**one, "name": name, "path": name, "digest": f"sha256:{'7' * 64}"} for name in names]
    given = [artifact.model_dump() for artifact in inventory.artifacts]
    copy.store.write(Inventory.model_validate({"architecture": inventory.architecture, "artifacts": [*given, *more]}))


def test_the_tree_is_written_with_what_the_bundle_has(copy: Copy, tmp_path: Path) -> None:
    kinds = FAMILIES.splitlines()[-1]
    images, others = required()
    copy.manifest(FAMILIES.replace(kinds, "\n".join(kinds.replace("kinds:", f"{name}:") for name in sorted(others))))
    copy.build(env=published(tmp_path, CONTENT))
    out = tmp_path / "out"
    refused = copy.run("manifests", out)
    assert refused.returncode == 1
    assert "mlflow" in refused.stderr
    assert not out.exists()
    held(copy, images)
    for _ in range(2):
        done = copy.run("manifests", out)
        assert done.returncode == 0, done.stderr
    assert f"kubectl apply --server-side -k {out}/clusters/PROFILE" in done.stdout
    assert "kind: A" in (out / THIRD_PARTY["gateway-api"]).read_text()
    assert f"mlflow, digest: sha256:{'7' * 64}" in (out / "images/kustomization.yaml").read_text()
    assert {path.name for path in (out / "addons").iterdir()} == ADDONS.keys()
    assert "kind: A" in (out / "addons/metrics-server/base/upstream.yaml").read_text()
    (top,) = kubeyaml.read_documents((out / "addons/metrics-server/kustomization.yaml").read_text())
    assert top["images"] == [{"name": "localhost/metrics-server", "newTag": "v1.0.0"}]
    for place in (copy.tree, copy.tree / "k8s" / "new"):
        assert copy.run("manifests", place).returncode == 1
    assert not (copy.tree / "k8s" / "new").exists()
