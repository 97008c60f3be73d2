"""What `lab up` gets together before a stack with a cluster: the bundle that its nodes are made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra.naming import PROJECT

if TYPE_CHECKING:
    from typing import Any

    from cli.session import Session


def provide_bundle(session: Session, stack: str) -> None:
    """Build the bundle if the stack has a cluster and the bundle lacks its version of Kubernetes or its platform.

    Raises:
        BundleError: something could not be had; the same command goes on from there.
    """
    if session.project.name != PROJECT or (wanted := _section(session, stack, "cluster")) is None:
        return
    from bundle.cli import DEFAULT_CACHE, build
    from bundle.manifest import load
    from bundle.store import INVENTORY, Inventory, Store
    from infra.settings import Cluster

    cluster = Cluster.model_validate(wanted)
    folder, version = Path(cluster.bundle).expanduser(), cluster.kubernetes_version
    manifest, platform = load(), _section(session, stack, "platform") is not None
    families = [
        name
        for name, family in manifest.families.items()
        if (family.version == version if "kubeadm" in family.programs else not family.optional)
        and (platform or family.group != "platform")
    ]
    store = Store(folder)
    inventory = store.inventory() if (folder / INVENTORY).exists() else Inventory(architecture=manifest.architecture)
    if not inventory.lacks(manifest, families):
        return
    print(f"Not all of the cluster's programs and images are in {folder}; getting them, once.", file=sys.stderr)
    build(folder, families, None, True, DEFAULT_CACHE, False)


def has_platform(session: Session, stack: str) -> bool:
    """Whether a platform of the stack, or a part of one, is in its state."""
    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    return any(resource["type"] == f"{PROJECT}:infra:Platform" for resource in deployment.get("resources") or ())


def _section(session: Session, stack: str, name: str) -> dict[str, Any] | None:
    """A section of the stack's settings; nothing where it is left out, or `none`."""
    value = session.config(stack).get(f"{PROJECT}:{name}")
    return json.loads(value.value) if value is not None and value.is_object else None
