"""What makes the cluster useful: the manifests of k8s/, applied in order, with the Secrets that they refer to."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi import Input, Output, ResourceOptions

from infra import bundle
from infra.bundle import InventoryError
from infra.credentials import Certificate, Password
from infra.kubernetes.cluster import Cluster
from infra.manifests import (
    DOMAIN,
    FIRST,
    PORT,
    THIRD_PARTY,
    WORKLOADS,
    Manifest,
    ManifestError,
    images,
    kubectl,
    named,
    pins,
    rank,
    render,
)
from infra.naming import PROJECT
from infra.nodes import Nodes
from infra.settings import Cluster as ClusterSettings
from infra.settings import Platform as PlatformSettings
from infra.settings import Settings

SERVICES = {"tracking": "tracking", "artifacts": "artifacts", "digits": "digits"}
"""Host names in front of the domain, by endpoint."""
PLATFORM_SECONDS = 900
"""How long one workload may take to be ready: the first pulls its image on a busy node."""


class Platform(pulumi.ComponentResource):
    """A profile of k8s/ on the cluster, or, with `apply: gitops`, what a GitOps controller finds it needs."""

    def __init__(self, settings: Settings, nodes: Nodes, cluster: Cluster, opts: ResourceOptions | None = None) -> None:
        super().__init__(f"{PROJECT}:infra:Platform", "platform", None, opts)
        assert settings.platform is not None
        assert settings.cluster is not None
        wanted = settings.platform
        provider = kubernetes.Provider(
            "kubernetes",
            kubeconfig=cluster.kubeconfig,
            # Which cluster it is, whatever its address: nothing is made again because the kubeconfig is.
            cluster_identifier=f"{PROJECT}/{pulumi.get_stack()}",
            opts=ResourceOptions(parent=self, deleted_with=cluster.resource),
        )
        # A cluster that goes takes its objects with it.
        self._own = ResourceOptions(parent=self, provider=provider, deleted_with=cluster.resource)
        self._made: dict[str, pulumi.Resource] = {}
        self._ranks: dict[str, tuple[int, int]] = {}
        self.address = nodes.entry()
        self.domain: Output[str] = (
            Output.from_input(wanted.domain)
            if wanted.domain
            else self.address.apply(lambda address: f"{address.replace('.', '-')}.sslip.io")
        )
        passwords = {
            name: Password(name, ResourceOptions(parent=self)).value
            for name in (
                "metadata-store",
                "artifacts-admin",
                "artifacts-platform",
                "artifacts-trainer",
                "tracking-admin",
                "tracking-trainer",
                "tracking-server",
                "tracking-session",
            )
        }
        authority = Certificate("authority", [f"{PROJECT} {pulumi.get_stack()}"], None, ResourceOptions(parent=self))
        names = self.domain.apply(lambda domain: [domain, f"*.{domain}"])
        certificate = Certificate("certificate", names, authority, ResourceOptions(parent=self))

        manifests = self._manifests(wanted, settings.cluster, passwords)
        self._apply([one for one in manifests if one["kind"] in FIRST])
        if manifests:
            self._secrets(passwords, certificate)
        self._apply([one for one in manifests if one["kind"] not in FIRST])

        self.told: dict[str, Input[Any]] = {
            "profile": wanted.profile,
            "domain": self.domain,
            "address": self.address,
            "port": PORT,
            "authority": authority.certificate,
        }
        self.endpoints: dict[str, Input[str]] = {
            "landing": Output.concat("https://", self.domain, f":{PORT}"),
            **{name: Output.concat(f"https://{host}.", self.domain, f":{PORT}") for name, host in SERVICES.items()},
        }
        self.credentials: Output[dict[str, Any]] = Output.secret(
            {
                "tracking": {"username": "admin", "password": passwords["tracking-admin"]},
                "artifacts": {"accessKey": "admin", "secretKey": passwords["artifacts-admin"]},
            }
        )
        self.register_outputs({"platform": self.told})

    def _manifests(
        self, wanted: PlatformSettings, cluster: ClusterSettings, passwords: Mapping[str, Output[str]]
    ) -> list[Manifest]:
        """What the platform is made of; all of it, or the run ends where anything of it exists.

        Raises:
            pulumi.RunError: the manifests cannot be rendered, or what they take is missing where it is needed.
        """
        program = kubectl(cluster.bundle, cluster.kubernetes_version)
        try:
            held, given = bundle.image_digests(cluster.bundle), bundle.manifests(cluster.bundle)
            manifests = render(f"clusters/{wanted.profile}", program, held, given) if program else []
        except (InventoryError, ManifestError) as error:
            raise pulumi.RunError(str(error)) from None
        if wanted.apply == "gitops":
            other = sorted(name for name, digest in pins().items() if held.get(name, digest) != digest)
            if other:
                pulumi.log.warn(
                    f"The bundle has other images than k8s/images/kustomization.yaml names: {', '.join(other)}. "
                    "`lab bundle manifests DIR` writes for Git what it has.",
                    self,
                )
            manifests = [one for one in manifests if one["kind"] == "Namespace"]
        if program is None:
            self._incomplete(f"there is no kubectl, neither in the bundle {cluster.bundle} nor on PATH", passwords)
        elif wanted.apply == "pulumi" and (
            missing := sorted([*(images(manifests) - held.keys()), *(THIRD_PARTY.keys() - given.keys())])
        ):
            self._incomplete(f"the bundle {cluster.bundle} lacks {', '.join(missing)}", passwords)
        return manifests

    def _incomplete(self, fault: str, passwords: Mapping[str, Output[str]]) -> None:
        """Say that the manifests are not what they should be. Only a preview of a platform that is yet to be may be."""
        told = f"{fault}. `lab bundle build` gets what is missing, and so does `lab up`."
        refusal = pulumi.RunError(f"The platform cannot be planned here, and nothing of it is changed: {told}")
        if not pulumi.runtime.is_dry_run():
            raise refusal

        async def look() -> str:
            # They are the first of a platform to be made. A preview knows them where they have been.
            if any([await password.is_known() for password in passwords.values()]):
                raise refusal
            pulumi.log.warn(f"The platform is not shown as it will be: {told}", self)
            return told

        looked: Input[str] = look()
        Output.from_input(looked)

    def _secrets(self, passwords: Mapping[str, Output[str]], certificate: Certificate) -> None:
        """The Secrets that the manifests name; k8s/README.md lists them."""
        every = ["Admin", "Read", "Write", "List", "Tagging"]
        datasets = [f"{action}:datasets" for action in every[1:]]
        keys = {"admin": every, "platform": every, "trainer": datasets}
        identities = Output.json_dumps(
            {
                "identities": [
                    {
                        "name": name,
                        "credentials": [{"accessKey": name, "secretKey": passwords[f"artifacts-{name}"]}],
                        "actions": actions,
                    }
                    for name, actions in keys.items()
                ]
            }
        )
        contents: dict[str, dict[str, Input[str]]] = {
            "platform/metadata-store": {"username": "mlflow", "password": passwords["metadata-store"]},
            "platform/artifacts": {
                "s3.json": identities,
                "access-key": "platform",
                "secret-key": passwords["artifacts-platform"],
            },
            "platform/tracking": {"session-key": passwords["tracking-session"]},
            "platform/tracking-users": {
                f"{user}-password": passwords[f"tracking-{user}"] for user in ("admin", "trainer", "server")
            },
            "training/tracking": {"username": "trainer", "password": passwords["tracking-trainer"]},
            "training/artifacts": {"access-key": "trainer", "secret-key": passwords["artifacts-trainer"]},
            "serving/tracking": {"username": "server", "password": passwords["tracking-server"]},
        }
        for name, content in contents.items():
            self._secret(name, content)
        self._secret(
            "gateway/certificate",
            {"tls.crt": certificate.certificate, "tls.key": certificate.key},
            type_="kubernetes.io/tls",
        )

    def _secret(self, name: str, content: Mapping[str, Input[str]], type_: str = "Opaque") -> None:
        namespace, _, called = name.partition("/")
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": called, "namespace": namespace},
            "stringData": content,
            "type": type_,
        }
        self._declare(manifest, ResourceOptions(depends_on=self._before(namespace)))

    def _declare(self, manifest: Manifest, opts: ResourceOptions) -> None:
        """Declare one object. A class of pulumi_kubernetes takes half a second to import, with all of its group."""
        kind, api, name = manifest["kind"], manifest["apiVersion"], named(manifest)
        self._made[f"{kind} {name}"] = pulumi.CustomResource(
            f"kubernetes:{api if '/' in api else f'core/{api}'}:{kind}",
            name,
            props=manifest,
            opts=ResourceOptions.merge(self._own, opts),
        )

    def _before(self, namespace: str | None) -> list[pulumi.Resource]:
        found = self._made.get(f"Namespace {namespace}")
        return [found] if found else []

    def _apply(self, manifests: list[Manifest]) -> None:
        """Declare the objects, each after what it needs: namespace, kind, configuration, and the waves before."""
        definitions = [made for name, made in self._made.items() if name.startswith("CustomResourceDefinition ")]
        for manifest in sorted(manifests, key=rank):
            kind, api = manifest["kind"], manifest["apiVersion"]
            before = self._before(manifest["metadata"].get("namespace"))
            if kind in WORKLOADS:
                before += self._earlier(manifest)
            elif api.startswith("gateway.networking.k8s.io/"):
                before += definitions
            timeouts = pulumi.CustomTimeouts(create=f"{PLATFORM_SECONDS}s")
            self._declare(
                self._with_domain(_prepared(manifest)), ResourceOptions(depends_on=before, custom_timeouts=timeouts)
            )
            self._ranks[f"{kind} {named(manifest)}"] = rank(manifest)

    def _earlier(self, manifest: Manifest) -> list[pulumi.Resource]:
        """What a workload waits for: of lower rank, FIRST and its own namespace; of lower waves, all workloads."""
        namespace, mine = manifest["metadata"].get("namespace"), rank(manifest)
        found = []
        for name, made in self._made.items():
            theirs = self._ranks.get(name, (0, 0))
            kind, _, where = name.partition(" ")
            own = (kind in FIRST or where.startswith(f"{namespace}/")) and theirs < mine
            waits = theirs[0] < mine[0] if kind in WORKLOADS else own
            if waits:
                found.append(made)
        return found

    def _with_domain(self, value: Any) -> Any:
        return replaced(value, lambda text: self.domain.apply(lambda domain: text.replace(DOMAIN, domain)))


def replaced(value: Any, change: Callable[[str], Any]) -> Any:
    """`value` with each text in it that has the manifests' domain changed."""
    if isinstance(value, dict):
        return {key: replaced(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, change) for inner in value]
    return change(value) if isinstance(value, str) and DOMAIN in value else value


def _prepared(manifest: Manifest) -> Manifest:
    """Services are not waited for: their pods come a moment later, and a model's perhaps days later."""
    if manifest["kind"] != "Service":
        return manifest
    prepared: Manifest = json.loads(json.dumps(manifest))
    prepared["metadata"].setdefault("annotations", {})["pulumi.com/skipAwait"] = "true"
    return prepared
