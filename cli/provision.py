"""What `lab up` gets together before a stack with a cluster: the bundle that its nodes are made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import LabError
from infra.bundle import image_digests, kubernetes_versions
from infra.manifests import pins
from infra.naming import PROJECT

if TYPE_CHECKING:
    from typing import Any

    from cli.session import Session


def provide_bundle(session: Session, stack: str) -> None:
    """Build the bundle if the stack has a cluster and the bundle lacks its version of Kubernetes or its platform.

    Raises:
        BundleError: something could not be had; the same command goes on from there.
        LabError: the manifests name other images of the platform than those that were built.
    """
    if session.project.name != PROJECT or (wanted := _section(session, stack, "cluster")) is None:
        return
    from bundle.cli import DEFAULT_CACHE, build
    from infra.settings import Cluster

    cluster = Cluster.model_validate(wanted)
    folder = Path(cluster.bundle).expanduser()
    needed = pins() if _section(session, stack, "platform") is not None else {}
    if cluster.kubernetes_version in kubernetes_versions(cluster.bundle) and not _lacking(needed, cluster.bundle):
        return
    print(f"Not all of the cluster's programs and images are in {folder}; getting them, once.", file=sys.stderr)
    build(folder, None, None, True, DEFAULT_CACHE, False)
    if lacking := _lacking(needed, cluster.bundle):
        raise LabError(
            f"k8s/images/kustomization.yaml names other images than those in {folder}: {', '.join(lacking)}",
            remedy="run `lab bundle build --update-lock`, then `.venv/bin/python -m infra.manifests`",
        )


def _section(session: Session, stack: str, name: str) -> dict[str, Any] | None:
    """A section of the stack's settings; nothing where it is left out, or `none`."""
    value = session.config(stack).get(f"{PROJECT}:{name}")
    return json.loads(value.value) if value is not None and value.is_object else None


def _lacking(needed: dict[str, str], bundle: str) -> list[str]:
    held = image_digests(bundle)
    return [name for name, digest in needed.items() if digest not in held]
