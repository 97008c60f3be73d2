"""`lab bundle push` to a real registry, the one that the bundle brings."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.bundle.conftest import Copy


def test_a_registry_has_the_images_under_the_inventorys_digests(built: Copy, registry: str) -> None:
    for _ in range(2):
        done = built.run("push", f"{registry}/lab", "--no-tls")
        assert done.returncode == 0, done.stderr
    image = next(artifact for artifact in built.inventory.artifacts if artifact.kind == "image")
    for tag in ("v1.2.3", "latest"):
        result = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/lab/hello:{tag}"],
            check=True, capture_output=True,
        )  # fmt: skip
        assert json.loads(result.stdout)["Digest"] == image.digest


def test_a_broken_bundle_is_not_pushed(built: Copy) -> None:
    (built.bundle / "images/hello_v1.2.3.tar").write_bytes(b"")
    refused = built.run("push", "127.0.0.1:9", "--no-tls")
    assert refused.returncode == 1
    assert "images/hello_v1.2.3.tar: its SHA-256 is" in refused.stderr


def test_a_registry_that_does_not_answer_is_named(built: Copy) -> None:
    refused = built.run("push", "127.0.0.1:9", "--no-tls")
    assert refused.returncode == 1
    assert "127.0.0.1:9" in refused.stderr
    assert "Traceback" not in refused.stderr
