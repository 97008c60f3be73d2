"""What replaces an object: immutable fields, and changes of ConfigMaps and Secrets that pods would not notice.

The list is that of an API server of Kubernetes 1.37: tests/providers/kubernetes/kinds.yaml has a change of each field
of each built-in kind, and a test asks the server for all of them. Where a cluster can be reached, its dry run decides.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from protocol.paths import covers, parse_path
from providers.kubernetes.objects import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from protocol.paths import Path
    from providers.kubernetes.objects import Object
    from providers.schema import Difference

REFUSAL: Final = re.compile(
    r"immutable|(may|can) ?not (be )?(change|modified once set)|updates to .* forbidden|oldSelf",
    re.IGNORECASE | re.DOTALL,
)
"""How API servers say that a field is immutable."""


def _below(parent: str, names: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{name}" for name in names.split())


_CONTAINER: Final = (
    "args command env envFrom imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy resources "
    "restartPolicy securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty "
    "volumeDevices volumeMounts workingDir"
)
_POD: Final = (
    "affinity automountServiceAccountToken dnsConfig dnsPolicy enableServiceLinks hostAliases hostIPC hostNetwork "
    "hostPID hostUsers hostname hostnameOverride imagePullSecrets nodeName nodeSelector os overhead preemptionPolicy "
    "priority priorityClassName readinessGates resourceClaims resources restartPolicy runtimeClassName schedulerName "
    "securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds topologySpreadConstraints volumes"
)
_VOLUME: Final = (
    "awsElasticBlockStore azureDisk azureFile cephfs cinder csi fc flexVolume flocker gcePersistentDisk glusterfs "
    "hostPath iscsi local nfs nodeAffinity photonPersistentDisk portworxVolume quobyte rbd scaleIO storageos "
    "volumeMode vsphereVolume"
)
_CLAIM: Final = "accessModes dataSource dataSourceRef selector storageClassName volumeMode volumeName"
_JOB: Final = (
    "backoffLimitPerIndex completionMode completions managedBy podFailurePolicy selector successPolicy template"
)
_EVENT: Final = ("action", "eventTime", "note", "reason", "regarding", "related", "reportingController", "type")
_RBAC: Final = "rbac.authorization.k8s.io"
IMMUTABLE: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("", "Node"): _below("spec", "podCIDR providerID"),
    ("", "PersistentVolume"): _below("spec", _VOLUME),
    ("", "PersistentVolumeClaim"): _below("spec", _CLAIM),
    ("", "Pod"): (
        *_below("spec", _POD),
        *_below("spec.containers.*", _CONTAINER),
        *_below("spec.initContainers.*", _CONTAINER),
    ),
    ("", "ResourceQuota"): ("spec.scopes",),
    ("", "Secret"): ("type",),
    ("", "Service"): _below("spec", "clusterIP healthCheckNodePort loadBalancerClass"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _below("spec", "group names.kind names.plural scope"),
    ("apps", "ControllerRevision"): ("data",),
    ("apps", "DaemonSet"): ("spec.selector",),
    ("apps", "Deployment"): ("spec.selector",),
    ("apps", "ReplicaSet"): ("spec.selector",),
    ("apps", "StatefulSet"): _below("spec", "podManagementPolicy selector serviceName volumeClaimTemplates"),
    ("batch", "Job"): _below("spec", _JOB),
    ("certificates.k8s.io", "CertificateSigningRequest"): _below("spec", "expirationSeconds request signerName usages"),
    ("certificates.k8s.io", "ClusterTrustBundle"): ("spec.signerName",),
    ("discovery.k8s.io", "EndpointSlice"): ("addressType",),
    ("events.k8s.io", "Event"): (*_EVENT, "reportingInstance"),
    ("networking.k8s.io", "IPAddress"): ("spec.parentRef",),
    ("networking.k8s.io", "IngressClass"): ("spec.controller",),
    ("networking.k8s.io", "ServiceCIDR"): ("spec.cidrs",),
    ("node.k8s.io", "RuntimeClass"): ("handler",),
    (_RBAC, "ClusterRoleBinding"): ("roleRef",),
    (_RBAC, "RoleBinding"): ("roleRef",),
    ("resource.k8s.io", "ResourceClaim"): ("spec.devices",),
    ("resource.k8s.io", "ResourceClaimTemplate"): _below("spec", "metadata spec"),
    ("resource.k8s.io", "ResourceSlice"): _below("spec", "driver nodeName pool.name"),
    ("scheduling.k8s.io", "PriorityClass"): ("preemptionPolicy", "value"),
    ("storage.k8s.io", "CSIDriver"): _below("spec", "attachRequired volumeLifecycleModes"),
    ("storage.k8s.io", "CSINode"): ("spec.drivers",),
    ("storage.k8s.io", "CSIStorageCapacity"): ("nodeTopology", "storageClassName"),
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"),
    ("storage.k8s.io", "VolumeAttachment"): _below("spec", "attacher nodeName source"),
    ("storage.k8s.io", "VolumeAttributesClass"): ("driverName", "parameters"),
    ("storagemigration.k8s.io", "StorageVersionMigration"): ("spec.resource",),
}
"""By group and kind."""
SILENT: Final = frozenset({"CertificateSigningRequest"})
"""Kinds for which the server silently ignores a change of these fields."""
_FROZEN: Final = {"ConfigMap": ("immutable", "data", "binaryData"), "Secret": ("immutable", "data", "stringData")}


def immutable_fields(api_version: str, kind: str, old: Object) -> tuple[str, ...]:
    """Paths that are immutable in an object with the values ``old``."""
    group = api_version.rpartition("/")[0]
    frozen = _FROZEN.get(kind, ()) if not group and old.get("immutable") is True else ()
    return (*IMMUTABLE.get((group, kind), ()), *frozen)


def policy(api_version: str, kind: str, *, mutable_maps: bool, mutable_secrets: bool) -> tuple[str, ...]:
    """Mutable paths whose change replaces an object: its identity, and data that pods would not notice a change of."""
    if (api_version, kind) == ("v1", "ConfigMap") and not mutable_maps:
        return (*IDENTITY, "data", "binaryData")
    if (api_version, kind) == ("v1", "Secret") and not mutable_secrets:
        return (*IDENTITY, "data", "stringData")
    return IDENTITY


def from_refusal(found: list[Difference], causes: list[dict[str, str]]) -> list[Difference]:
    """The differences after the API server has refused an apply: fields that it calls immutable replace the object.

    Where it names only a parent of known immutable fields, it means those. Where it has other reasons too, a
    replacement would fail as well: the update will show them.
    """
    if not all(REFUSAL.search(cause.get("message", "")) for cause in causes):
        return found
    for cause in causes:
        try:
            place = parse_path(cause.get("field", ""))
        except ValueError:
            continue
        near = [item for item in found if covers(place, at := parse_path(item.path)) or covers(at, place)]
        if not any(item.replace for item in near):
            found = [replace(item, replace=item.replace or item in near) for item in found]
    return found


def ours(found: Iterable[Difference], owned: Object) -> list[Difference]:
    """The differences, where ``owned`` (FieldsV1) is what we have applied.

    A removed input that was never ours replaces nothing: the server has set it, as for an import, and keeps it."""
    return [
        replace(item, replace=item.replace and (item.kind != "DELETE" or _owns(owned, parse_path(item.path))))
        for item in found
    ]


def accepted(
    found: Iterable[Difference], policy: Iterable[str], live: Object, planned: Object, *, silent: bool
) -> list[Difference]:
    """The differences after the API server has accepted an apply: fields that it changes in place replace nothing.

    Fields that it leaves as they were do, where they were to be removed, or where the server ``silently`` ignores
    changes
    of immutable fields.
    """
    rules = [parse_path(rule) for rule in policy]
    settled = []
    for item in found:
        at = parse_path(item.path)
        own = any(covers(rule, at) or covers(at, rule) for rule in rules)
        left = (silent or item.kind == "DELETE") and _at(live, at) == _at(planned, at)
        settled.append(replace(item, replace=item.replace and (own or left)))
    return settled


def _at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, list) and isinstance(step, int):
            value = value[step] if step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _owns(fields: Object, path: Path) -> bool:
    """Whether FieldsV1 have the path; items of a list or an atomic map are assumed to be there."""
    for step in path:
        if isinstance(step, int):
            return True
        if f"f:{step}" not in fields:
            return False
        fields = fields[f"f:{step}"]
        if not fields:
            return True
    return True
