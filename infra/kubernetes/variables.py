"""Variables of the playbooks that are derived from a stack's settings."""

from typing import Any

import pulumi

from infra.kubernetes.inventory import VERSION
from infra.settings import Settings


def playbook_variables(settings: Settings) -> dict[str, Any]:
    """The variables; ansible/inventory/sample.yml describes each."""
    assert settings.cluster is not None
    return {
        "cluster_name": pulumi.get_stack(),
        "cluster_bundle": settings.cluster.bundle,
        VERSION: settings.cluster.kubernetes_version,
        # Without keys there is no variable, and no change for a cluster that is there already.
        **({"cluster_image_keys": settings.cluster.image_keys} if settings.cluster.image_keys else {}),
        "cluster_platform": settings.platform is not None,
        "cluster_pod_subnet": str(settings.network.pod_cidr),
        "cluster_service_subnet": str(settings.network.service_cidr),
        "cluster_stores_on_volumes": any(one.holds == "stores" for one in settings.storage.volumes.values()),
        **settings.cluster.variables,
    }
