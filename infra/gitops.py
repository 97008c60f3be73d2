"""The GitOps controller on the cluster: what it takes of k8s/, and who applies what of a profile.

The stack keeps what gives rights or limits, what Git itself needs, and namespaces whose pods or Secrets are the whole
cluster's. The controller applies the rest from Git, and so needs few rights.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pulumi import Input, Output

from infra.manifests import Manifest, images
from infra.settings import Settings

GITOPS = "gitops"
"""The capability, its namespace, and its user of the forge."""
FOLDER = "platform/gitops"
APPLICATION = "platform"
"""The application that is a profile, its project, and the plugin that renders it."""
FORGE_REPOSITORY = "http://forge.platform:3000/lab/cluster"
APPLIED = {
    "": ("ConfigMap", "PersistentVolumeClaim", "Service", "ServiceAccount"),
    "apps": ("DaemonSet", "Deployment", "StatefulSet"),
    "autoscaling": ("HorizontalPodAutoscaler",),
    "batch": ("CronJob",),
    "gateway.networking.k8s.io": ("HTTPRoute",),
    "networking.k8s.io": ("NetworkPolicy",),
    "policy": ("PodDisruptionBudget",),
}
"""Kinds that the controller applies, by group; it has rights for no others (k8s/platform/gitops/rights.yaml)."""
KEPT = (
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Gateway",
    "GatewayClass",
    "LimitRange",
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
"""Kinds that the stack applies, wherever they are."""
KEPT_NAMESPACES = ("gateway",)
"""Namespaces that the stack applies: the gateway's has the key that signs certificates."""
CLOSED = "closed"
"""The network policy that closes a namespace to all but DNS. The stack applies it: no merge opens a namespace, and the
forge, which is there before Git is, finds its database by name."""
LEVEL = "pod-security.kubernetes.io/enforce"
CAPABILITY = "app.kubernetes.io/name"
SECRET_TYPE = "argocd.argoproj.io/secret-type"  # noqa: S105 - a label
FORGE_NEEDS = "metadata-store"
"""The capability that the forge needs: it is there before Git is."""
_CACHE_PASSWORD, _FORGE_PASSWORD = "gitops-cache", "gitops-forge"
_CLUSTER = "https://kubernetes.default.svc"
_DELETE = json.dumps({"$patch": "delete", "kind": "any", "metadata": {"name": "any"}})


class Division:
    """Who applies what of a profile."""

    def __init__(self, profile: Sequence[Manifest], settings: Settings) -> None:
        assert settings.platform
        namespaces = [one for one in profile if one["kind"] == "Namespace"]
        # A pod of a namespace that is not restricted can do as root what it likes on its node.
        restricted = {
            one["metadata"]["name"]
            for one in namespaces
            if one["metadata"].get("labels", {}).get(LEVEL) == "restricted"
        }
        self.applied = sorted(restricted - set(KEPT_NAMESPACES))
        """The namespaces that the controller applies to."""
        self._others = sorted({one["metadata"]["name"] for one in namespaces} - set(self.applied))
        self._settings = settings
        self._forge = _of_forge(settings)
        self.kept = [one for one in profile if self._keeps(one)]
        """What the stack applies."""
        self.images = images(one for one in profile if not self._keeps(one))
        """The images of what the controller applies."""

    def _keeps(self, manifest: Manifest) -> bool:
        metadata = manifest["metadata"]
        return (
            manifest["kind"] in KEPT
            or (manifest["kind"], metadata["name"]) == ("NetworkPolicy", CLOSED)
            or metadata.get("namespace") not in self.applied
            or (self._forge and metadata.get("labels", {}).get(CAPABILITY) == FORGE_NEEDS)
        )

    def kustomization(self, digests: Mapping[str, str], receivers: str | None) -> dict[str, Any]:
        """The kustomization that renders the rest, beside the folder `clusters` in Git.

        `digests`: the bundle's images. `receivers`: what `infra/platform.py` annotates Alertmanager's pods with.
        """
        assert self._settings.platform
        patches = [
            {"target": {"kind": "|".join(KEPT)}, "patch": _DELETE},
            {"target": {"kind": "NetworkPolicy", "name": CLOSED}, "patch": _DELETE},
            {"target": {"namespace": "|".join(self._others)}, "patch": _DELETE},
            # What holds data is not deleted because it is no longer in Git.
            {
                "target": {"kind": "PersistentVolumeClaim"},
                "patch": _annotation("PersistentVolumeClaim", "argocd.argoproj.io/sync-options", "Prune=false"),
            },
        ]
        if self._forge:
            patches.append({"target": {"labelSelector": f"{CAPABILITY}={FORGE_NEEDS}"}, "patch": _DELETE})
        if receivers is not None:
            patches.append(
                {
                    "target": {"kind": "StatefulSet", "namespace": "monitoring", "name": "alerts"},
                    "patch": json.dumps(
                        {
                            "apiVersion": "apps/v1",
                            "kind": "StatefulSet",
                            "metadata": {"name": "any"},
                            "spec": {
                                "template": {"metadata": {"annotations": {"ml-cluster.dev/receivers": receivers}}}
                            },
                        }
                    ),
                }
            )
        return {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../clusters/{self._settings.platform.profile}"],
            "images": [
                {"name": f"localhost/{name}", "digest": digests[name]} for name in sorted(self.images & digests.keys())
            ],
            "patches": patches,
        }


def wanted(settings: Settings) -> bool:
    """Whether the stack has a controller."""
    platform = settings.platform
    return platform is not None and platform.apply == "gitops" and platform.gitops.controller != "none"


def passwords(settings: Settings) -> list[str]:
    """Names of the passwords that the controller takes."""
    return [_CACHE_PASSWORD, *([_FORGE_PASSWORD] if _of_forge(settings) else [])] if wanted(settings) else []


def forge_users(settings: Settings, made: Mapping[str, Output[str]]) -> dict[str, Input[str]]:
    """The forge's user that reads the repository, with its password."""
    return {GITOPS: made[_FORGE_PASSWORD]} if wanted(settings) and _of_forge(settings) else {}


def adapted(manifests: list[Manifest], settings: Settings, namespaces: Sequence[str]) -> list[Manifest]:
    """The kustomization's objects, for the stack's repository and the namespaces that are applied to."""
    made: list[Manifest] = []
    for one in copy.deepcopy(manifests):
        kind, name = one["kind"], one["metadata"]["name"]
        if (kind, name) == ("RoleBinding", GITOPS):
            made += [{**one, "metadata": {**one["metadata"], "namespace": namespace}} for namespace in namespaces]
            continue
        if (kind, name) == ("NetworkPolicy", "repository"):
            cache, forge, elsewhere = one["spec"]["egress"]
            url = urlsplit(_repository(settings))
            elsewhere["ports"][0]["port"] = url.port or (443 if url.scheme == "https" else 80)
            one["spec"]["egress"] = [cache, forge if _of_forge(settings) else elsewhere]
        made.append(one)
    return made


def secrets(
    settings: Settings, made: Mapping[str, Output[str]], namespaces: Sequence[str]
) -> dict[str, tuple[dict[str, Input[str]], dict[str, str]]]:
    """The Secrets, by `<namespace>/<name>`, of the passwords that were made, with their labels."""
    assert settings.platform
    login: dict[str, Input[str]] = {}
    if _of_forge(settings):
        login = {"username": GITOPS, "password": made[_FORGE_PASSWORD]}
    elif settings.platform.gitops.username:
        assert settings.gitops_password
        password = settings.gitops_password.get_secret_value().strip()
        login = {"username": settings.platform.gitops.username, "password": Output.secret(password)}
    return {
        f"{GITOPS}/cache": (
            {
                "password": made[_CACHE_PASSWORD],
                "redis.conf": made[_CACHE_PASSWORD].apply(lambda password: f"requirepass {password}\n"),
            },
            {},
        ),
        f"{GITOPS}/repository": (
            {"type": "git", "url": _repository(settings), **login},
            {SECRET_TYPE: "repository"},
        ),
        f"{GITOPS}/cluster": (dict(cluster(namespaces)), {SECRET_TYPE: "cluster"}),
    }


def cluster(namespaces: Sequence[str]) -> dict[str, str]:
    """What tells the controller that it has rights in these namespaces alone."""
    return {
        "name": "in-cluster",
        "server": _CLUSTER,
        "config": "{}",
        "namespaces": ",".join(namespaces),
        "clusterResources": "false",
    }


def objects(
    settings: Settings, domain: Output[str], kustomization: Output[str], namespaces: Sequence[str]
) -> list[dict[str, Any]]:
    """The application that is the profile, and the project that says what it may have."""
    assert settings.platform
    where = settings.platform.gitops
    repository = _repository(settings)
    parameters = [{"name": "kustomization", "string": kustomization}, {"name": "domain", "string": domain}]
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": APPLICATION, "namespace": GITOPS},
        "spec": {
            "sourceRepos": [repository],
            "destinations": [{"server": _CLUSTER, "namespace": namespace} for namespace in namespaces],
            "namespaceResourceWhitelist": [
                {"group": group, "kind": kind} for group, kinds in APPLIED.items() for kind in kinds
            ],
        },
    }
    application = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        # Without a finalizer: what it has applied stays when it goes.
        "metadata": {
            "name": APPLICATION,
            "namespace": GITOPS,
            "annotations": {"argocd.argoproj.io/manifest-generate-paths": "."},
        },
        "spec": {
            "project": APPLICATION,
            "source": {
                "repoURL": repository,
                "targetRevision": where.branch,
                "path": where.path,
                "plugin": {"name": APPLICATION, "parameters": parameters},
            },
            # Each object names its own; this one is asked for.
            "destination": {"server": _CLUSTER, "namespace": APPLICATION},
            "syncPolicy": {
                "automated": {"prune": True, "selfHeal": True},
                "syncOptions": ["ServerSideApply=true"],
                "retry": {
                    "limit": -1,
                    "refresh": True,
                    "backoff": {"duration": "5s", "factor": 2, "maxDuration": "1m"},
                },
            },
        },
    }
    return [project, application]


def _of_forge(settings: Settings) -> bool:
    """Whether the repository is the forge's."""
    platform = settings.platform
    return platform is not None and platform.gitops.repository is None and platform.forge is not None


def _repository(settings: Settings) -> str:
    assert settings.platform
    return settings.platform.gitops.repository or FORGE_REPOSITORY


def _annotation(kind: str, name: str, value: str) -> str:
    metadata = {"name": "any", "annotations": {name: value}}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata})
