"""`lab bundle sign`: statements of images and their bills of materials, in Git, in the bundle, and in a registry."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bundle.signatures import ENVELOPE, MATERIALS
from tests.ansible.harness import inventory, play
from tests.bundle.conftest import make_key, public_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bundle.conftest import Copy


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path / "images.pem")


def sign(copy: Copy, key: Path) -> str:
    done = copy.run("sign", "--key", key)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept(copy: Copy) -> dict[str, Any]:
    """What Git would have."""
    found: dict[str, Any] = json.loads((copy.tree / "bundle/signatures.json").read_text())
    return found


def attached(copy: Copy) -> dict[str, bytes]:
    """The documents of the bundle's one signature, by media type."""
    (one,) = (artifact for artifact in copy.inventory.artifacts if artifact.kind == "signature")
    archive = copy.bundle / one.path

    def blob(digest: str) -> bytes:
        name = f"blobs/{digest.replace(':', '/')}"
        return subprocess.run(
            ["tar", "--extract", "--to-stdout", "-f", archive, name], check=True, capture_output=True
        ).stdout

    assert one.digest
    return {layer["mediaType"]: blob(layer["digest"]) for layer in json.loads(blob(one.digest))["layers"]}


def test_an_image_is_signed_once_with_its_own_bill_of_materials(built: Copy, key: Path) -> None:
    assert "Signed hello." in (told := sign(built, key))
    assert f"cluster.imageKeys: [{public_key(key)}]" in told
    image = next(one for one in built.inventory.artifacts if one.kind == "image")
    (digest,) = kept(built)
    assert digest == image.digest
    documents = attached(built)
    assert json.loads(documents[ENVELOPE]) == kept(built)[digest]
    names = {one["name"] for one in json.loads(documents[MATERIALS])["components"]}
    assert names == {"hello", "golang.org/x/sys"}
    assert built.run("verify").returncode == 0
    before = kept(built), built.inventory
    assert "All images are signed already." in sign(built, key)
    assert (kept(built), built.inventory) == before


def test_a_signature_of_git_comes_into_every_bundle_with_the_same_image(built: Copy, key: Path, tmp_path: Path) -> None:
    """Whoever builds needs no key: the runner that deploys has none."""
    sign(built, key)
    documents = attached(built)
    built.bundle = tmp_path / "another"
    built.build()
    assert attached(built) == documents
    # And it goes with what it is of.
    (built.tree / "bundle/signatures.json").unlink()
    built.build()
    assert not [one for one in built.inventory.artifacts if one.kind == "signature"]
    assert built.run("verify").returncode == 0


def test_a_signature_of_other_materials_is_not_taken(built: Copy, key: Path) -> None:
    sign(built, key)
    signatures = kept(built)
    (digest,) = signatures
    told = json.loads(base64.b64decode(signatures[digest]["payload"]))
    told["predicate"]["sha256"] = "0" * 64
    signatures[digest]["payload"] = base64.b64encode(json.dumps(told).encode()).decode()
    (built.tree / "bundle/signatures.json").write_text(json.dumps(signatures))
    assert "image hello: not of what its signature says" in built.build()
    assert not [one for one in built.inventory.artifacts if one.kind == "signature"]
    assert "Signed hello." in sign(built, key)


@pytest.mark.parametrize("text", ["", "-----BEGIN PRIVATE KEY-----\nplanted\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused_and_not_repeated(built: Copy, text: str) -> None:
    refused = built.run("sign", env={"LAB_IMAGE_KEY": text})
    assert refused.returncode == 1
    assert "remedy: " in refused.stderr
    assert "planted" not in refused.stdout + refused.stderr


def test_a_key_of_another_kind_is_refused(built: Copy, tmp_path: Path) -> None:
    refused = built.run("sign", "--key", make_key(tmp_path / "rsa.pem", "rsa"))
    assert refused.returncode == 1
    assert "openssl genpkey -algorithm ed25519" in refused.stderr


def test_a_registry_has_the_signature_beside_the_image(built: Copy, key: Path, registry: str) -> None:
    sign(built, key)
    for _ in range(2):
        done = built.run("push", registry, "--no-tls")
        assert done.returncode == 0, done.stderr
    one = next(artifact for artifact in built.inventory.artifacts if artifact.kind == "signature")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/hello:{one.tags[0]}"]
    manifest = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert {layer["mediaType"] for layer in manifest["layers"]} == {ENVELOPE, MATERIALS}


def test_the_playbook_brings_the_clusters_registry_images_and_signatures(
    built: Copy,
    key: Path,
    registry: str,
    tmp_path: Path,
) -> None:
    sign(built, key)
    # It writes to the port after the one that nodes read at.
    port = int(registry.rpartition(":")[2]) - 1
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    given = {"cluster_bundle": str(built.bundle), "cluster_registry_port": port}
    hosts = inventory({"c": host}, {"w": host})
    first = play("images", hosts, tmp_path, **given)
    assert first.status == 0, first.output
    assert first.changes
    one = next(artifact for artifact in built.inventory.artifacts if artifact.kind == "signature")
    for tag in ("v1.2.3", one.tags[0]):
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry}/hello:{tag}"]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0, tag
    again = play("images", hosts, tmp_path, **given)
    assert (again.status, again.changes) == (0, []), again.output
