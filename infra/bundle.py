"""Reads the inventory of a bundle of programs and images. Does not import Pulumi, because `lab` uses it too."""

import hashlib
import json
from pathlib import Path
from typing import Any

SIGNATURES = Path(__file__).resolve().parent.parent / "bundle" / "signatures.json"


class InventoryError(Exception):
    """The inventory of a bundle cannot be read; the text has the reason and what to do."""


def kubernetes_versions(folder: str) -> set[str]:
    """Versions of Kubernetes in the bundle in `folder`; empty without a bundle."""
    return {artifact["version"] for artifact in _artifacts(folder) if artifact["name"] == "kubeadm"}


def image_digests(folder: str) -> dict[str, str]:
    """Digest of each image in the bundle in `folder`, by name."""
    return {artifact["name"]: artifact["digest"] for artifact in _artifacts(folder) if artifact["kind"] == "image"}


def signed_images() -> set[str]:
    """Digests of the images that Git has a signature of."""
    return set(json.loads(SIGNATURES.read_text())) if SIGNATURES.exists() else set()


def manifests(folder: str) -> dict[str, Path]:
    """Files with third-party manifests in the bundle in `folder`, by name.

    Raises:
        InventoryError: a file does not have the checksum from the inventory.
    """
    files = {}
    for artifact in _artifacts(folder):
        path = Path(folder).expanduser() / artifact["path"] if artifact["kind"] == "manifest" else None
        if path is None or not path.exists():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != artifact["sha256"]:
            raise InventoryError(f"{path} differs from the bundle's inventory: run `lab bundle build`")
        files[artifact["name"]] = path
    return files


def _artifacts(folder: str) -> list[dict[str, Any]]:
    """Entries of the inventory; empty without one.

    Raises:
        InventoryError: it exists but cannot be read.
    """
    inventory = Path(folder).expanduser() / "bundle.json"
    try:
        artifacts: list[dict[str, Any]] = json.loads(inventory.read_text())["artifacts"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InventoryError(f"{inventory} cannot be read ({error}): delete it and run `lab bundle build`") from None
    return artifacts
