"""What a stack reads of a bundle of programs and images. Free of Pulumi: the command looks before it builds one."""

import json
from pathlib import Path
from typing import Any


def kubernetes_versions(folder: str) -> set[str]:
    """Versions of Kubernetes in the bundle in `folder`; none without a bundle."""
    return {artifact["version"] for artifact in _artifacts(folder) if artifact["name"] == "kubeadm"}


def image_digests(folder: str) -> dict[str, str]:
    """Digest of each image of the platform, and of those with one version, in the bundle in `folder`, by name."""
    return {artifact["name"]: artifact["digest"] for artifact in _artifacts(folder) if artifact["kind"] == "image"}


def _artifacts(folder: str) -> list[dict[str, Any]]:
    inventory = Path(folder).expanduser() / "bundle.json"
    artifacts: list[dict[str, Any]] = json.loads(inventory.read_text())["artifacts"] if inventory.exists() else []
    return artifacts
