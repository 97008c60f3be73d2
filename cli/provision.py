"""Provides the bundle for a stack with a cluster, and checks its settings, before `lab up` deploys it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import LabError
from infra.naming import PROJECT

if TYPE_CHECKING:
    from typing import Any

    from bundle.manifest import Manifest
    from cli.session import Session
    from engine.project import StackConfig
    from infra.settings import Cluster, Settings


def provide_bundle(session: Session, stack: str) -> None:
    """Build the bundle if it lacks the stack's version of Kubernetes, or images of its platform.

    Raises:
        BundleError: something could not be fetched or built; the same command continues from there.
    """
    if session.project.name != PROJECT or (section := _section(session, stack, "cluster")) is None:
        return
    from bundle import signatures
    from bundle.cli import DEFAULT_CACHE, build
    from bundle.manifest import load
    from bundle.store import INVENTORY, Inventory, Store
    from infra.settings import Cluster

    folder = Path(Cluster.model_validate(section).bundle).expanduser()
    manifest = load()
    families = families_of(session, stack, manifest)
    store = Store(folder)
    inventory = store.inventory() if (folder / INVENTORY).exists() else Inventory(architecture=manifest.architecture)
    if not inventory.lacks(manifest, families) and not signatures.unattached(inventory):
        return
    print(
        f"The bundle in {folder} lacks programs, images or signatures of the cluster; building them, once.",
        file=sys.stderr,
    )
    build(folder, families, None, True, DEFAULT_CACHE, False)


def families_of(session: Session, stack: str, manifest: Manifest) -> list[str]:
    """The families of the bundle that a stack with a cluster needs."""
    from infra.manifests import capabilities
    from infra.settings import Platform

    cluster = cluster_of(session, stack)
    platform = _section(session, stack, "platform")
    groups = {"cluster", *(["signatures"] if cluster.image_keys else [])}
    if platform is not None:
        wanted = Platform.model_validate(platform)
        groups |= {"platform", *capabilities(wanted.profile), *(["forge"] if wanted.forge else [])}
        if wanted.apply == "gitops" and wanted.gitops.controller != "none":
            groups.add("gitops")
    return [
        name
        for name, family in manifest.families.items()
        if family.group in groups
        and (
            family.version == cluster.kubernetes_version
            if "kubeadm" in family.programs
            else not family.optional or family.group != "cluster"
        )
    ]


def load_checked(config: StackConfig, stack: str) -> Settings:
    """The settings of a stack of this program.

    Raises:
        SettingsError: lists all invalid settings.
    """
    from infra.settings import load_settings

    values = {key: value.value for key, value in config.items() if not value.secure}
    secret = [key for key, value in config.items() if value.secure]
    return load_settings(values, config.path, stack=stack, secret_keys=secret)


def check_settings(session: Session, stack: str) -> None:
    """Refuse invalid settings before devcloud is started for the stack.

    Raises:
        LabError: lists all invalid settings.
    """
    if session.project.name != PROJECT:
        return
    from infra.settings import SettingsError

    try:
        load_checked(session.config(stack), stack)
    except SettingsError as error:
        raise LabError(str(error)) from None


def describe_stack(session: Session, stack: str) -> str:
    """Describe what a stack consists of."""
    if session.project.name != PROJECT:
        return f"stack '{stack}'"
    nodes = load_checked(session.config(stack), stack).nodes.total
    cluster, platform = (_section(session, stack, name) is not None for name in ("cluster", "platform"))
    what = f"{nodes} nodes" + (", a Kubernetes cluster" if cluster else "") + (", the platform" if platform else "")
    return f"stack '{stack}': {what}"


def has_platform(session: Session, stack: str) -> bool:
    """Whether the stack's state has a platform, or a part of one."""
    deployment = session.backend.load(session.project.name, stack).get("deployment") or {}
    return any(resource["type"] == f"{PROJECT}:infra:Platform" for resource in deployment.get("resources") or ())


def applied_from_git(session: Session, stack: str) -> bool:
    """Whether a GitOps controller applies the platform."""
    return (_section(session, stack, "platform") or {}).get("apply") == "gitops"


def cluster_of(session: Session, stack: str) -> Cluster:
    """The settings of a stack's cluster; their defaults where it has none."""
    from infra.settings import Cluster

    return Cluster.model_validate(_section(session, stack, "cluster") or {})


def kubectl_of(session: Session, stack: str) -> str:
    """A kubectl for a stack's cluster.

    Raises:
        LabError: there is none.
    """
    from infra.manifests import kubectl

    cluster = cluster_of(session, stack)
    if (program := kubectl(cluster.bundle, cluster.kubernetes_version)) is None:
        raise LabError("there is no kubectl", remedy="`lab bundle build` makes one")
    return program


def _section(session: Session, stack: str, name: str) -> dict[str, Any] | None:
    """A section of the stack's settings; None if it is missing or `none`."""
    value = session.config(stack).get(f"{PROJECT}:{name}")
    return json.loads(value.value) if value is not None and value.is_object else None
