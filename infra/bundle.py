"""What a stack reads of a bundle of programs and images. Free of Pulumi: the command looks before it builds one."""

import json
from pathlib import Path


def kubernetes_versions(folder: str) -> set[str]:
    """Versions of Kubernetes in the bundle in `folder`; none without a bundle."""
    inventory = Path(folder).expanduser() / "bundle.json"
    artifacts = json.loads(inventory.read_text())["artifacts"] if inventory.exists() else []
    return {artifact["version"] for artifact in artifacts if artifact["name"] == "kubeadm"}
