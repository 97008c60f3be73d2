"""The client of the API server: connections, requests, and errors for users.

Every request sent is safe to repeat (a read, a server-side apply, a delete), so lost connections are retried.
"""

from __future__ import annotations

import io
import json
import os
import ssl
import tempfile
from dataclasses import dataclass, replace
from http.client import responses
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import urllib3
from kubernetes import client as api
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.incluster_config import SERVICE_HOST_ENV_NAME
from kubernetes.config.kube_config import (
    KUBE_CONFIG_DEFAULT_LOCATION,
    ConfigNode,
    KubeConfigLoader,
    KubeConfigMerger,
)
from yaml import YAMLError

from protocol.recovery import GRACE_SECONDS
from providers import schema
from providers.framework import Operation, ProviderError
from providers.kubernetes.objects import Identity
from providers.schema import BOOLEAN, Difference, Field, Map
from providers.values import Unknown, contains, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from providers.kubernetes.objects import Object
    from providers.values import Properties

TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)
RETRIES: Final = urllib3.Retry(
    total=4, connect=2, read=2, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504), allowed_methods=None,
    raise_on_status=False,
)  # fmt: skip
POOL_SIZE: Final = 64
APPLY: Final = "application/apply-patch+yaml"
FIELD_CONFLICT: Final = "FieldManagerConflict"
JSON_PATCH: Final = "application/json-patch+json"


def _unsupported(name: str, remedy: str) -> Field:
    """An option that only the official plugin has; false is accepted."""
    message = f"is not supported by this provider: {remedy}"
    return Field(name, schema.ANY, validate=lambda value: message if value not in (False, "false", "") else None)


def _flag(name: str, description: str) -> Field:
    return Field(name, BOOLEAN, f"{description} Default: the environment's {_variable(name)}, or false.")


def _variable(name: str) -> str:
    words = "".join(f"_{letter}" if letter.isupper() else letter for letter in name).upper()
    return f"PULUMI_K8S_{words.replace('CONFIG_MAP', 'CONFIGMAP')}"


CONFIG: Final = (
    Field("kubeconfig", description="A kubeconfig's path or text. Default: as kubectl finds it.", secret=True),
    Field("context", description="The kubeconfig's context to use. Default: its current one."),
    Field("cluster", description="The kubeconfig's cluster to use. Default: the context's."),
    Field("namespace", description="Namespace of what names none. Default: the context's, or `default`."),
    Field("clusterIdentifier", description="When given, only its change replaces what is in the cluster."),
    Field(
        "enableServerSideApply",
        BOOLEAN,
        "Must be true, if given.",
        validate=lambda value: None if value else "must be true: this provider knows server-side apply only",
    ),
    _flag("enablePatchForce", "Take fields over from other field managers, always."),
    _flag("enableConfigMapMutable", "Change a ConfigMap's data in place."),
    _flag("enableSecretMutable", "Change a Secret's data in place."),
    _flag("upsertExistingObjects", "Creating an object that exists adopts it."),
    _flag("deleteUnreachable", "Remove from the state the objects of a cluster that cannot be reached."),
    _flag("suppressDeprecationWarnings", "Do not show the API server's warnings."),
    _flag("suppressHelmHookWarnings", "Accepted; hooks are not looked for."),
    Field("kubeClientSettings", Map(schema.ANY), "Accepted; the client paces itself."),
    Field("helmReleaseSettings", Map(schema.ANY), "Accepted; there are no Helm releases."),
    _unsupported("renderYamlToDirectory", "`kubectl kustomize` or the official plugin render manifests"),
    _unsupported("alwaysRender", "manifests are not rendered"),
    _unsupported("skipUpdateUnreachable", "leave resources out of an update with --target"),
)


class ClusterError(ProviderError):
    """An error of the API server: ``code`` is the HTTP status, ``reason`` its name, ``causes`` its details."""

    def __init__(self, what: str, code: int, status: Mapping[str, Any], audit: str | None) -> None:
        self.code = code
        self.reason: str = status.get("reason") or responses.get(code, "error")
        self.said: str = status.get("message") or "no reason given"
        self.causes: list[dict[str, str]] = (status.get("details") or {}).get("causes") or []
        trace = f" ({audit})" if audit and code >= 500 else ""
        super().__init__(f"{what}: {self._status_message()}{trace}", remedy=_REMEDIES.get(self._cause()))
        self.transient = code >= 500 and not self.malformed
        self.uncertain_for = 0 if self.transient else None

    def _cause(self) -> str:
        return FIELD_CONFLICT if self.conflict else self.reason

    def _status_message(self) -> str:
        if self.conflict:
            owned = "".join(f"\n  {cause['field']}: {cause['message']}" for cause in self.causes)
            return f"other field managers own {len(self.causes)} of the fields:{owned}"
        return f"the API server answered {self.code} {self.reason}: {self.said}"

    @property
    def malformed(self) -> bool:
        """Whether the object does not fit the schema, for which the server answers 500."""
        return "typed patch object" in self.said

    @property
    def conflict(self) -> bool:
        """Whether other managers own applied fields."""
        return any(cause.get("reason") == FIELD_CONFLICT for cause in self.causes)


_REMEDIES: Final = {
    FIELD_CONFLICT: "Leave those fields out, or take them over with the annotation pulumi.com/patchForce: \"true\".",
    "Forbidden": "Ask the cluster's administrator for permission, or check with `kubectl auth can-i`.",
    "Unauthorized": "Get new credentials into the kubeconfig.",
    "AlreadyExists": (
        "Import it (option import_, with the id above), alias the resource if it was renamed, change single fields of "
        "it with a Patch resource, or set upsertExistingObjects on the provider to take such objects over."
    ),
}  # fmt: skip


class UnreachableError(ProviderError):
    """No answer from the API server."""

    transient = True


class UnknownKindError(ProviderError):
    """The cluster does not serve the kind."""


@dataclass(frozen=True, slots=True)
class ServedKind:
    """How the cluster serves a kind: its name in URLs, and whether its objects are namespaced."""

    plural: str
    namespaced: bool


class Cluster:
    """A connection that threads share. ``config`` is the provider's; bad configuration raises ProviderError."""

    def __init__(self, config: Properties) -> None:
        def flag(name: str) -> bool:
            given = config.get(name)
            return os.environ.get(_variable(name), "").lower() in {"1", "true"} if given is None else bool(given)

        self.patch_force = flag("enablePatchForce")
        self.mutable_maps = flag("enableConfigMapMutable")
        self.mutable_secrets = flag("enableSecretMutable")
        self.upsert = flag("upsertExistingObjects")
        self.delete_unreachable = flag("deleteUnreachable")
        self._quiet = flag("suppressDeprecationWarnings")
        self._kinds: dict[str, dict[str, ServedKind]] = {}
        self._configuration = api.Configuration()
        # Keys of the kubeconfig are in files only until the TLS context has them.
        with tempfile.TemporaryDirectory() as keys:
            default = _load(config, self._configuration, keys)
            self.namespace: str = config.get("namespace") or default
            self._pool = _pool(self._configuration)

    def request(self, what: str, method: str, path: str, body: Any = None, **options: str) -> Any:
        """The JSON of a response, or its text. Raises ClusterError, UnreachableError, whose messages name ``what``."""
        headers = {"Accept": "application/json", "Content-Type": options.pop("content_type", "application/json")}
        headers |= {item["key"]: item["value"] for item in self._credentials()}
        url = f"{self._configuration.host}{path}{'?' if options else ''}{urlencode(options)}"
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, url, body=data, headers=headers, timeout=TIMEOUT, retries=RETRIES)
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise UnreachableError(
                f"{what}: no answer from the Kubernetes API server {self._configuration.host}: {cause}",
                remedy="Check whether the cluster runs, and whether the kubeconfig is for it.",
                uncertain_for=None if method == "GET" else GRACE_SECONDS,
            ) from error
        self._warn(answer.headers)
        if "json" in answer.headers.get("Content-Type", ""):
            found = json.loads(answer.data)
        else:
            found = answer.data.decode(errors="replace")
        if answer.status >= 400:
            status = found if isinstance(found, dict) else {"message": found.strip()}
            raise ClusterError(what, answer.status, status, answer.headers.get("Audit-Id"))
        return found

    def _credentials(self) -> list[dict[str, str]]:
        return list(self._configuration.auth_settings().values())  # type: ignore[arg-type]

    def _warn(self, headers: urllib3.HTTPHeaderDict) -> None:
        operation = Operation.current()
        if operation and not self._quiet:
            for warning in headers.getlist("Warning"):
                # 299 - "text"
                operation.log("warning", warning.partition('"')[2].rstrip('"').replace('\\"', '"'))

    def served(self, api_version: str, kind: str) -> ServedKind:
        """How the kind is served. Raises UnknownKindError; not cached, as the kind may be served at any moment."""
        if kind not in self._kinds.get(api_version, {}):
            prefix = "apis" if "/" in api_version else "api"
            try:
                found = self.request(f"kinds of {api_version}", "GET", f"/{prefix}/{api_version}")
            except ClusterError as error:
                if error.code != 404:
                    raise
                found = {"resources": []}
            self._kinds[api_version] = {
                item["kind"]: ServedKind(item["name"], item["namespaced"])
                for item in found["resources"]
                if "/" not in item["name"]
            }
        if kind not in self._kinds[api_version]:
            raise UnknownKindError(
                f"the cluster has no kind {kind} in {api_version}",
                remedy="Create its CustomResourceDefinition first: name it in depends_on.",
            )
        return self._kinds[api_version][kind]

    def identify(self, api_version: str, kind: str, namespace: str | None, name: str) -> Identity:
        """The object's identity, with the default namespace where none is given. Raises UnknownKindError."""
        namespaced = self.served(api_version, kind).namespaced
        return Identity(api_version, kind, (namespace or self.namespace) if namespaced else "", name)

    def path(self, target: Identity) -> str:
        """Its URL's path; of the collection where the name is empty."""
        start = f"/{'apis' if target.group else 'api'}/{target.api_version}"
        within = f"/namespaces/{target.namespace}" if target.namespace else ""
        plural = self.served(target.api_version, target.kind).plural
        return f"{start}{within}/{plural}{'/' if target.name else ''}{target.name}"

    def find(self, target: Identity) -> Object | None:
        """The object; None where there is none."""
        try:
            return dict(self.request(f"reading {target}", "GET", self.path(target)))
        except ClusterError as error:
            if error.code == 404:
                return None
            raise

    def items(self, api_version: str, kind: str, namespace: str, **selectors: str) -> list[Object]:
        """Objects of a kind (``labelSelector``, ``fieldSelector``)."""
        target = Identity(api_version, kind, namespace, "")
        found = self.request(f"listing {kind}", "GET", self.path(target), **selectors)
        return [{"apiVersion": api_version, "kind": kind, **item} for item in found["items"]]

    def apply(
        self, target: Identity, manifest: Object, manager: str, *, force: bool = False, dry_run: bool = False
    ) -> Object:
        """Server-side apply; returns the object. All unknown fields are refused in one error."""
        metadata = {**manifest.get("metadata", {}), "name": target.name}
        if target.namespace:
            metadata["namespace"] = target.namespace
        body = {**manifest, "apiVersion": target.api_version, "kind": target.kind, "metadata": metadata}
        options = {"fieldManager": manager, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            options["dryRun"] = "All"
        doing = f"{'dry run of ' if dry_run else ''}applying {target}"
        try:
            return dict(self.request(doing, "PATCH", self.path(target), body, content_type=APPLY, **options))
        except ClusterError as error:
            if error.malformed:
                # It names only the first error; the dry run of a create names all.
                every = self.path(replace(target, name=""))
                self.request(doing, "POST", every, body, dryRun="All", fieldValidation="Strict")
            raise

    def release(self, target: Identity, manager: str, uid: str) -> None:
        """Release the fields that the manager has applied: those without another manager get their defaults."""
        self.apply(target, {"metadata": {"uid": uid}}, manager)

    def replace_managed_fields(self, target: Identity, entries: list[Object], version: str) -> Object:
        """Replace ``managedFields``; raises a 409 where the object has changed since ``version``."""
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        ]
        path = self.path(target)
        return dict(self.request(f"managing {target}", "PATCH", path, patch, content_type=JSON_PATCH))

    def delete(self, target: Identity, propagation: str) -> bool:
        """Delete the object; False where it does not exist."""
        try:
            self.request(f"deleting {target}", "DELETE", self.path(target), {"propagationPolicy": propagation})
        except ClusterError as error:
            if error.code != 404:
                raise
            return False
        return True

    def log_tail(self, pod: Identity, container: str, *, previous: bool, lines: int) -> list[str]:
        """The last lines of a container's log; empty where they cannot be read."""
        options = {"container": container, "tailLines": str(lines), "previous": str(previous).lower()}
        try:
            text = self.request(f"log of {pod}", "GET", f"{self.path(pod)}/log", **options)
        except ProviderError:
            return []
        return str(text).splitlines()[-lines:]


def _load(config: Properties, target: api.Configuration, keys: str) -> str:
    """Fill ``target``; returns the context's namespace."""
    try:
        kubeconfig = _kubeconfig(config)
        if kubeconfig is None:
            load_incluster_config(client_configuration=target)
            return "default"
        loader = KubeConfigLoader(
            kubeconfig, active_context=config.get("context"), config_base_path=None, temp_file_path=keys
        )
        loader.load_and_set(target)
        return str(loader.current_context["context"].get("namespace") or "default")
    except (ConfigException, YAMLError, OSError, LookupError, TypeError, ValueError) as error:
        raise ProviderError(
            f"the kubeconfig is not usable: {error}",
            remedy="Set its path or text as kubernetes:kubeconfig, and one of its contexts as kubernetes:context.",
        ) from error


def _kubeconfig(config: Properties) -> ConfigNode | None:
    """The kubeconfig, with ``cluster`` in its context; None in a pod that has none."""
    given = config.get("kubeconfig") or ""
    is_text = "\n" in given or given.lstrip().startswith("{")
    merged = KubeConfigMerger(io.StringIO(given) if is_text else given or KUBE_CONFIG_DEFAULT_LOCATION).config
    if merged is None:
        if not given and SERVICE_HOST_ENV_NAME in os.environ:
            return None
        raise ConfigException(f"there is no file {given or KUBE_CONFIG_DEFAULT_LOCATION}")
    kubeconfig = merged if isinstance(merged, ConfigNode) else ConfigNode("kubeconfig", merged)
    if cluster := config.get("cluster"):
        _context(kubeconfig, config)["cluster"] = cluster
    return kubeconfig


def _context(kubeconfig: ConfigNode, config: Properties) -> dict[str, str]:
    name = config.get("context") or kubeconfig["current-context"]
    return dict.__getitem__(kubeconfig["contexts"].get_with_name(name).value, "context")


def _pool(configuration: api.Configuration) -> urllib3.PoolManager:
    """Connections with the configuration's TLS settings, which no longer need its files."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    options: dict[str, Any] = {"maxsize": POOL_SIZE, "ssl_context": context}
    if configuration.tls_server_name:
        options |= {"server_hostname": configuration.tls_server_name, "assert_hostname": configuration.tls_server_name}
    # As kubectl does, never through a proxy to this machine.
    direct = f"localhost,127.0.0.1,{configuration.no_proxy or ''}"
    if configuration.proxy and not should_bypass_proxies(configuration.host, direct):
        return urllib3.ProxyManager(configuration.proxy, **options)
    return urllib3.PoolManager(**options)


def config_differences(olds: Properties, news: Properties) -> Iterator[Difference]:
    """How a change of the configuration is diffed: another cluster replaces all resources.

    A kubeconfig does not identify its cluster, so another address or authority counts as another cluster, unless
    ``clusterIdentifier`` stays the same. An unknown kubeconfig may be of another cluster.
    """
    olds, news = plain(olds), plain(news)
    identified = olds.get("clusterIdentifier") is not None and news.get("clusterIdentifier") is not None
    places = {"kubeconfig", "context", "cluster"}
    moved = not identified and _active_cluster(olds) != _active_cluster(news)
    for difference in schema.diff(CONFIG, olds, news):
        forces = (difference.path in places and moved) or (difference.path == "clusterIdentifier" and identified)
        yield Difference(difference.path, difference.kind, forces)


def _active_cluster(config: Properties) -> Any:
    """The kubeconfig's cluster; the configuration itself where it cannot be read."""
    try:
        if not contains(config, Unknown) and (kubeconfig := _kubeconfig(config)):
            return kubeconfig["clusters"].get_with_name(_context(kubeconfig, config)["cluster"]).value["cluster"]
    except (ConfigException, YAMLError, OSError, LookupError, TypeError, ValueError):
        pass
    return {key: config.get(key) for key in ("kubeconfig", "context", "cluster")}
