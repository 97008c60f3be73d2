"""What a stack reads of a bundle of programs and images. Free of Pulumi: the command looks before it builds one."""

import hashlib
import json
from pathlib import Path
from typing import Any


class InventoryError(Exception):
    """The inventory of a bundle cannot be read; the text says why, and what to do."""


def kubernetes_versions(folder: str) -> set[str]:
    """Versions of Kubernetes in the bundle in `folder`; none without a bundle."""
    return {artifact["version"] for artifact in _artifacts(folder) if artifact["name"] == "kubeadm"}


def image_digests(folder: str) -> dict[str, str]:
    """Digest of each image of the platform, and of those with one version, in the bundle in `folder`, by name."""
    return {artifact["name"]: artifact["digest"] for artifact in _artifacts(folder) if artifact["kind"] == "image"}


def manifests(folder: str) -> dict[str, Path]:
    """File of each third party's manifests in the bundle in `folder`, by name.

    Raises:
        InventoryError: a file is not the one that the inventory names.
    """
    found = {}
    for artifact in _artifacts(folder):
        path = Path(folder).expanduser() / artifact["path"] if artifact["kind"] == "manifest" else None
        if path is None or not path.exists():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != artifact["sha256"]:
            raise InventoryError(f"{path} is not what the bundle's inventory says: `lab bundle build` makes it good")
        found[artifact["name"]] = path
    return found


def _artifacts(folder: str) -> list[dict[str, Any]]:
    """What the inventory lists; nothing without one.

    Raises:
        InventoryError: it is there, and cannot be read.
    """
    inventory = Path(folder).expanduser() / "bundle.json"
    try:
        artifacts: list[dict[str, Any]] = json.loads(inventory.read_text())["artifacts"]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InventoryError(f"{inventory} cannot be read ({error}): remove it, and `lab bundle build`") from None
    return artifacts
