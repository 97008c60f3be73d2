"""What `lab up` gets together before a stack with a cluster: the bundle that its nodes are made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra.bundle import kubernetes_versions
from infra.naming import PROJECT

if TYPE_CHECKING:
    from cli.session import Session


def provide_bundle(session: Session, stack: str) -> None:
    """Build the bundle if the stack has a cluster and the bundle is not there, or lacks its version of Kubernetes.

    Raises:
        BundleError: something could not be had; the same command goes on from there.
    """
    wanted = session.config(stack).get(f"{PROJECT}:cluster") if session.project.name == PROJECT else None
    if wanted is None or not wanted.is_object:
        return
    from bundle.cli import DEFAULT_CACHE, build
    from infra.settings import Cluster

    cluster = Cluster.model_validate(json.loads(wanted.value))
    if cluster.kubernetes_version not in kubernetes_versions(cluster.bundle):
        folder = Path(cluster.bundle).expanduser()
        print(f"The cluster's programs and images are not in {folder} yet; getting them, once.", file=sys.stderr)
        build(folder, None, None, True, DEFAULT_CACHE, False)
