"""The platform on the cluster: the manifests of k8s/, applied in order, with the Secrets that they refer to."""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi import Input, Output, ResourceOptions

from infra import alerting, bundle, cloud_monitoring, forge, gitops, handover, second_place, secret_layout
from infra.bundle import InventoryError
from infra.credentials import Certificate, Password
from infra.kubernetes.cluster import Cluster
from infra.manifests import (
    DOMAIN,
    FIRST,
    PORT,
    WORKLOADS,
    Manifest,
    ManifestError,
    capabilities,
    images,
    kubectl,
    pins,
    qualified_name,
    rank,
    render,
    third_party,
)
from infra.naming import PROJECT
from infra.nodes import Nodes
from infra.secret_layout import MONITORING, PIPELINES
from infra.settings import Settings

SERVICES = {"tracking": "tracking", "artifacts": "artifacts", "digits": "digits"}
"""Host name of each endpoint, without the domain."""
STAGES_IN_GIT = "platform/promotion/git"
"""What of k8s/ tells the promotion service that stages are set in Git."""
PLATFORM_SECONDS = 900
"""Time for a workload to become ready: the first one pulls its image on a busy node."""


class Platform(pulumi.ComponentResource):
    """A profile of k8s/ on the cluster or, with `apply: gitops`, a controller for it, and what that may not apply."""

    def __init__(
        self,
        settings: Settings,
        nodes: Nodes,
        cluster: Cluster,
        opts: ResourceOptions | None = None,
        *,
        lease_end: Output[str] | None = None,
    ) -> None:
        super().__init__(f"{PROJECT}:infra:Platform", "platform", None, opts)
        assert settings.platform is not None
        assert settings.cluster is not None
        platform = settings.platform
        provider = kubernetes.Provider(
            "kubernetes",
            kubeconfig=cluster.kubeconfig,
            # Identifies the cluster, so that a new kubeconfig does not replace its objects.
            cluster_identifier=f"{PROJECT}/{pulumi.get_stack()}",
            # What a GitOps controller made is adopted where `apply: pulumi` comes back.
            upsert_existing_objects=True,
            opts=ResourceOptions(parent=self, deleted_with=cluster.resource),
        )
        # When the cluster is deleted, its objects are too.
        self._own = ResourceOptions(parent=self, provider=provider, deleted_with=cluster.resource)
        self._resources: dict[str, pulumi.Resource] = {}
        self._ranks: dict[str, tuple[int, int]] = {}
        self._settings = settings
        self._division: gitops.Division | None = None
        self._receivers: Output[str] | None = None
        self._digests: dict[str, str] = {}
        self.address = nodes.entry()
        self.domain: Output[str] = (
            Output.from_input(platform.domain)
            if platform.domain
            else self.address.apply(lambda address: f"{address.replace('.', '-')}.sslip.io")
        )
        on_volume = platform.backup.copy_to is not None and platform.backup.copy_to.volume is not None
        monitored = MONITORING in capabilities(platform.profile)
        pipelined = PIPELINES in capabilities(platform.profile)
        names = secret_layout.passwords(monitored=monitored, pipelined=pipelined)
        passwords = {
            name: Password(name, ResourceOptions(parent=self)).value
            for name in (
                *((second_place.STORE,) if on_volume else ()),
                *names,
                *forge.passwords(settings),
                *gitops.passwords(settings),
            )
        }
        authority = Certificate("authority", [f"{PROJECT} {pulumi.get_stack()}"], None, ResourceOptions(parent=self))
        hosts = self.domain.apply(lambda domain: [domain, f"*.{domain}"])
        certificate = Certificate("certificate", hosts, authority, ResourceOptions(parent=self))

        manifests = self._manifests(passwords)
        self._apply([one for one in manifests if one["kind"] in FIRST])
        if manifests:
            self._secrets(passwords, certificate=certificate, authority=authority)
        if f"Namespace {MONITORING}" in self._resources:
            manifests = self._monitoring(settings, manifests, passwords, lease_end)
        if f"Namespace {PIPELINES}" in self._resources:
            self._layouts(secret_layout.PIPELINED, passwords, "")
        self._apply([one for one in manifests if one["kind"] not in FIRST])
        if self._division is not None:
            self._applied_from_git(self._division)
        if platform.apply == "gitops":
            self._hand_over()

        self.outputs: dict[str, Input[Any]] = {
            "profile": platform.profile,
            "domain": self.domain,
            "address": self.address,
            "port": PORT,
            "authority": authority.certificate,
        }
        self.endpoints: dict[str, Input[str]] = {
            "landing": Output.concat("https://", self.domain, f":{PORT}"),
            **{
                name: Output.concat(f"https://{host}.", self.domain, f":{PORT}")
                for name, host in {
                    **SERVICES,
                    **({MONITORING: MONITORING} if monitored else {}),
                    **({PIPELINES: PIPELINES} if pipelined else {}),
                    **({forge.FORGE: forge.FORGE} if forge.wanted(settings) else {}),
                }.items()
            },
        }
        credentials: dict[str, Any] = {
            "tracking": {"username": "admin", "password": passwords["tracking-admin"]},
            "artifacts": {"accessKey": "admin", "secretKey": passwords["artifacts-admin"]},
            "code": {"accessKey": "code", "secretKey": passwords["artifacts-code"]},
        }
        if monitored:
            credentials[MONITORING] = {"username": "admin", "password": passwords["monitoring-admin"]}
        if pipelined:
            credentials[PIPELINES] = {"username": "admin", "password": passwords["pipelines-admin"]}
        if forge.wanted(settings):
            credentials[forge.FORGE] = forge.credentials(settings, passwords)
        self.credentials: Output[dict[str, Any]] = Output.secret(credentials)
        self.register_outputs({"platform": self.outputs})

    def _manifests(self, passwords: Mapping[str, Output[str]]) -> list[Manifest]:
        """The manifests of k8s/ that the stack applies: the profile, the second place of backups, forge and controller.

        They are complete, unless this is a preview of a platform that does not exist yet.

        Raises:
            pulumi.RunError: the manifests cannot be rendered, or something that they need is missing.
        """
        platform, cluster = self._settings.platform, self._settings.cluster
        assert platform is not None
        assert cluster is not None
        program = kubectl(cluster.bundle, cluster.kubernetes_version)
        try:
            available_images, available_files = bundle.image_digests(cluster.bundle), bundle.manifests(cluster.bundle)
            # Where images are signed, those that Git names are run, whatever has been built here since.
            chosen_images = pins() if cluster.image_keys else available_images
            # Without kubectl there are none.
            rendered = {
                one: render(one, program, chosen_images, available_files) if program else [] for one in self._folders()
            }
        except (InventoryError, ManifestError) as error:
            raise pulumi.RunError(str(error)) from None
        profile, *others = self._folders()
        manifests, used = rendered[profile], images(rendered[profile])
        if gitops.wanted(self._settings) and manifests:
            self._division = gitops.Division(manifests, self._settings)
            self._digests = chosen_images
            manifests = self._division.kept
        for folder in others:
            objects = rendered[folder]
            if folder == second_place.folder(self._settings):
                objects = second_place.adapted(objects, self._settings, pulumi.get_stack())
            elif folder == forge.FOLDER and objects:
                objects = forge.adapted(objects, self._settings)
            elif folder == cloud_monitoring.FOLDER:
                objects = cloud_monitoring.adapted(objects, self._settings)
            elif folder == gitops.FOLDER and self._division is not None:
                objects = gitops.adapted(objects, self._settings, self._division.applied)
            manifests, used = [*manifests, *objects], used | images(objects)
        if cluster.image_keys:
            self._check_signatures(used, available_images)
        own_controller = platform.apply == "gitops" and not gitops.wanted(self._settings)
        if own_controller:
            other = sorted(name for name, digest in pins().items() if available_images.get(name, digest) != digest)
            if other:
                pulumi.log.warn(
                    f"The bundle has other images than k8s/images/kustomization.yaml: {', '.join(other)}. "
                    "`lab bundle manifests DIR` writes manifests with the bundle's images for Git.",
                    self,
                )
            manifests = [one for one in manifests if one["kind"] == "Namespace"]
        missing = sorted([*(used - available_images.keys()), *(third_party(self._folders()) - available_files.keys())])
        if program is None:
            self._incomplete(f"kubectl is neither in the bundle {cluster.bundle} nor on PATH", passwords)
        elif missing and not own_controller:
            self._incomplete(f"the bundle {cluster.bundle} lacks {', '.join(missing)}", passwords)
        return manifests

    def _check_signatures(self, used: set[str], available_images: Mapping[str, str]) -> None:
        """Nodes refuse images that are not signed: say so before anything is changed.

        Raises:
            pulumi.RunError: Git names an image that it has no signature of.
        """
        signed, named = bundle.signed_images(), pins()
        if unsigned := sorted(name for name in used if named.get(name) not in signed):
            raise pulumi.RunError(
                f"cluster.imageKeys is set, and images that k8s/images names are not signed: {', '.join(unsigned)}. "
                "Sign the bundle's with `lab bundle sign`, have k8s/images name them with `python -m infra.manifests`, "
                "and commit both: docs/how-to/images.md."
            )
        if other := sorted(name for name in used if available_images.get(name, named[name]) != named[name]):
            pulumi.log.warn(
                f"The bundle has other images than Git: {', '.join(other)}. Git's are run; the cluster's registry has "
                "them once `lab ci images` has run on a machine that built them.",
                self,
            )

    def _folders(self) -> list[str]:
        """The kustomizations of k8s/ that the stack takes."""
        assert self._settings.platform
        second = second_place.folder(self._settings)
        return [
            f"clusters/{self._settings.platform.profile}",
            *([second] if second else []),
            *([cloud_monitoring.FOLDER] if cloud_monitoring.wanted(self._settings) else []),
            *([forge.FOLDER] if forge.wanted(self._settings) else []),
            *([gitops.FOLDER] if gitops.wanted(self._settings) else []),
            *([STAGES_IN_GIT] if self._settings.platform.promotion == "git" else []),
        ]

    def _incomplete(self, reason: str, passwords: Mapping[str, Output[str]]) -> None:
        """Refuse incomplete manifests; in a preview of a platform that does not exist yet, warn instead."""
        problem = f"{reason}. `lab bundle build` or `lab up` gets what is missing."
        error = pulumi.RunError(f"The platform cannot be planned on this machine, and is not changed: {problem}")
        if not pulumi.runtime.is_dry_run():
            raise error

        async def check() -> str:
            # The passwords are the first of the platform's resources, and known in a preview once they exist.
            if any([await password.is_known() for password in passwords.values()]):
                raise error
            pulumi.log.warn(f"The preview of the platform is incomplete: {problem}", self)
            return problem

        pending: Input[str] = check()
        Output.from_input(pending)

    def _secrets(
        self, passwords: Mapping[str, Output[str]], *, certificate: Certificate, authority: Certificate
    ) -> None:
        """The Secrets that the manifests name; k8s/README.md lists them."""
        self._layouts(secret_layout.PLATFORM, passwords, "")
        stack = pulumi.get_stack()
        second = second_place.secrets(self._settings, stack, passwords.get(second_place.STORE))
        of_forge = forge.secrets(self._settings, passwords, monitored="monitoring-admin" in passwords)
        for name, content in {**second, **of_forge}.items():
            self._secret(name, content)
        if self._division is not None:
            of_gitops = gitops.secrets(self._settings, passwords, self._division.applied)
            for name, (content, labels) in of_gitops.items():
                self._secret(name, content, labels=labels)
        # The authority too: a job in the gateway's namespace renews the certificate if nobody runs `lab up` for a year.
        for name, pair in {"gateway/certificate": certificate, "gateway/authority": authority}.items():
            self._secret(name, {"tls.crt": pair.certificate, "tls.key": pair.key}, type_="kubernetes.io/tls")

    def _layouts(
        self, layouts: Mapping[str, secret_layout.Layout], passwords: Mapping[str, Output[str]], receivers: str
    ) -> None:
        """Declare Secrets of the layout; `receivers` is Alertmanager's configuration."""
        identities = [
            {
                "name": user,
                "credentials": [{"accessKey": user, "secretKey": passwords[f"artifacts-{user}"]}],
                "actions": list(actions),
            }
            for user, actions in secret_layout.S3_ACTIONS.items()
            if f"artifacts-{user}" in passwords
        ]
        given: dict[secret_layout.Given, Input[str]] = {
            secret_layout.IDENTITIES: Output.json_dumps({"identities": identities}),
            secret_layout.RECEIVERS: Output.secret(receivers),
        }
        for name, layout in layouts.items():
            content: dict[str, Input[str]] = {}
            for key, source in layout.keys.items():
                if isinstance(source, secret_layout.Text):
                    content[key] = source.text
                elif isinstance(source, secret_layout.Given):
                    content[key] = given[source]
                elif source.password in passwords:  # those of monitoring and pipelines are not there without them
                    content[key] = passwords[source.password]
            self._secret(name, content)

    def _monitoring(
        self,
        settings: Settings,
        manifests: list[Manifest],
        passwords: Mapping[str, Output[str]],
        lease_end: Output[str] | None,
    ) -> list[Manifest]:
        """Make what monitoring takes of the stack; the manifests with what has to start anew where that changes."""
        receivers = json.dumps(alerting.configuration(settings), indent=1)
        self._layouts(secret_layout.MONITORED, passwords, receivers)
        objectives = settings.monitoring
        told: dict[str, Input[str]] = {
            "availability": f"{objectives.availability / 100:g}",
            "latency-seconds": f"{objectives.latency_ms / 1000:g}",
            **({"lease-end": lease_end} if lease_end is not None else {}),
        }
        metadata = {"name": "stack", "namespace": MONITORING}
        stack: Manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": told}
        self._declare(stack, ResourceOptions(depends_on=self._namespace(MONITORING)))
        # Alertmanager reads its file as it starts. A digest with a key tells nobody what is in it.
        digest = passwords["monitoring-admin"].apply(
            lambda key: hmac.new(key.encode(), receivers.encode(), hashlib.sha256).hexdigest()[:16]
        )
        self._receivers = Output.unsecret(digest)
        return [_annotated(one, "ml-cluster.dev/receivers", self._receivers) for one in manifests]

    def _applied_from_git(self, division: gitops.Division) -> None:
        """Tell the controller what to apply, once all that it applies to is there."""
        digests, receivers = self._digests, Output.from_input(self._receivers)
        kustomization = receivers.apply(lambda told: json.dumps(division.kustomization(digests, told)))
        before = list(self._resources.values())
        for one in gitops.objects(self._settings, self.domain, kustomization, division.applied):
            self._declare(one, ResourceOptions(depends_on=before))

    def _secret(
        self,
        name: str,
        content: Mapping[str, Input[str]],
        type_: str = "Opaque",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        namespace, _, object_name = name.partition("/")
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": object_name, "namespace": namespace, **({"labels": labels} if labels else {})},
            "stringData": content,
            "type": type_,
        }
        self._declare(manifest, ResourceOptions(depends_on=self._namespace(namespace)))

    def _declare(self, manifest: Manifest, opts: ResourceOptions) -> None:
        """Declare one object. Importing its class from pulumi_kubernetes would take half a second for each group."""
        kind, api, name = manifest["kind"], manifest["apiVersion"], qualified_name(manifest)
        self._resources[f"{kind} {name}"] = pulumi.CustomResource(
            f"kubernetes:{api if '/' in api else f'core/{api}'}:{kind}",
            name,
            props=manifest,
            opts=ResourceOptions.merge(self._own, opts),
        )

    def _hand_over(self) -> None:
        """Keep what `apply: pulumi` made: only the controller changes or deletes it now."""
        declared = {(one.pulumi_resource_type, one.pulumi_resource_name) for one in self._resources.values()}
        for one in handover.read_objects():
            if (one.type, one.name) not in declared:
                pulumi.CustomResource(
                    one.type, one.name, props={}, opts=ResourceOptions.merge(self._own, one.options())
                )

    def _namespace(self, namespace: str | None) -> list[pulumi.Resource]:
        """The namespace's resource, if the stack creates it."""
        resource = self._resources.get(f"Namespace {namespace}")
        return [resource] if resource else []

    def _apply(self, manifests: list[Manifest]) -> None:
        """Declare the objects, each after its dependencies: namespace, CRD, configuration, and earlier waves."""
        definitions = [one for name, one in self._resources.items() if name.startswith("CustomResourceDefinition ")]
        for manifest in sorted(manifests, key=rank):
            kind, api = manifest["kind"], manifest["apiVersion"]
            before = self._namespace(manifest["metadata"].get("namespace"))
            if kind in WORKLOADS:
                before += self._earlier(manifest)
            elif api.startswith("gateway.networking.k8s.io/"):
                before += definitions
            timeouts = pulumi.CustomTimeouts(create=f"{PLATFORM_SECONDS}s")
            self._declare(
                self._with_domain(_prepared(manifest)), ResourceOptions(depends_on=before, custom_timeouts=timeouts)
            )
            self._ranks[f"{kind} {qualified_name(manifest)}"] = rank(manifest)

    def _earlier(self, manifest: Manifest) -> list[pulumi.Resource]:
        """Dependencies of a workload: objects of lower rank in FIRST or its namespace, and workloads of lower waves."""
        namespace, own_rank = manifest["metadata"].get("namespace"), rank(manifest)
        earlier = []
        for name, resource in self._resources.items():
            other_rank = self._ranks.get(name, (0, 0))
            kind, _, path = name.partition(" ")
            related = kind in FIRST or path.startswith(f"{namespace}/")
            if other_rank[0] < own_rank[0] if kind in WORKLOADS else related and other_rank < own_rank:
                earlier.append(resource)
        return earlier

    def _with_domain(self, value: Any) -> Any:
        return replaced(value, lambda text: self.domain.apply(lambda domain: text.replace(DOMAIN, domain)))


def replaced(value: Any, change: Callable[[str], Any]) -> Any:
    """`value` with `change` applied to each text that contains the manifests' domain."""
    if isinstance(value, dict):
        return {key: replaced(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, change) for inner in value]
    return change(value) if isinstance(value, str) and DOMAIN in value else value


def _annotated(manifest: Manifest, annotation: str, value: Input[str]) -> Manifest:
    """The manifest; of Alertmanager's StatefulSet, with an annotation of its pods."""
    if (manifest["kind"], qualified_name(manifest)) != ("StatefulSet", f"{MONITORING}/alerts"):
        return manifest
    changed: Manifest = json.loads(json.dumps(manifest))
    changed["spec"]["template"]["metadata"].setdefault("annotations", {})[annotation] = value
    return changed


def _prepared(manifest: Manifest) -> Manifest:
    """Do not wait for endpoints of Services: their pods come later, a model's perhaps days later."""
    if manifest["kind"] != "Service":
        return manifest
    prepared: Manifest = json.loads(json.dumps(manifest))
    prepared["metadata"].setdefault("annotations", {})["pulumi.com/skipAwait"] = "true"
    return prepared
