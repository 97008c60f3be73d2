"""Access to a stack's platform: through the gateway, by address, and through the cluster's API."""

from __future__ import annotations

import functools
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec

from cli.errors import LabError
from cli.stack import stack_outputs
from cli.text import table

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import urllib3

    from cli.session import Session
    from providers.kubernetes.client import Cluster

Object = dict[str, Any]
SERVING, TRAINING, PLATFORM = "serving", "training", "platform"
NAMESPACES = ("gateway", PLATFORM, TRAINING, SERVING, "pipelines", "monitoring", "forge-jobs", "gitops")
MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))
SHARE, REGISTRY = "ml-cluster.dev/share", "ml-cluster.dev/registry"
WARM, WARM_UNTIL, ANSWERED = (f"ml-cluster.dev/{word}" for word in ("warm", "warm-until", "answered"))
CAPABILITY = "app.kubernetes.io/name"
ASK_SECONDS = 30
"""Timeout for an answer of a service."""


class Stage(StrEnum):
    """Where a version of a model can serve."""

    staging = "staging"
    canary = "canary"
    production = "production"


@dataclass(frozen=True)
class Platform:
    """The platform's outputs of a stack."""

    profile: str
    domain: str
    address: str
    port: int
    authority: str
    """Certificate of the gateway's CA, in PEM."""
    credentials: Mapping[str, Mapping[str, str]]
    kubeconfig: str

    @classmethod
    def of(cls, session: Session, stack: str | None = None) -> Platform:
        """The platform of the selected stack.

        Raises:
            LabError: it has none.
        """
        stack = stack or session.stack()
        outputs = stack_outputs(session, stack, show_secrets=True)
        platform = outputs.get("platform")
        if not platform:
            remedy = "add a section `ml-cluster:platform` to its settings, then run `lab up`"
            raise LabError(f"stack '{stack}' has no platform", remedy=remedy)
        credentials, kubeconfig = outputs["credentials"], outputs["kubeconfig"]
        fields = ("profile", "domain", "address", "port", "authority")
        values = {**{name: platform[name] for name in fields}, "port": int(platform["port"])}
        return cls(credentials=credentials, kubeconfig=kubeconfig, **values)

    def url(self, service: str = "") -> str:
        """URL of a service; without one, of the overview."""
        return f"https://{f'{service}.' if service else ''}{self.domain}:{self.port}"

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster's API."""
        from providers.kubernetes.client import Cluster

        return Cluster({"kubeconfig": self.kubeconfig})

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        import ssl

        return ssl.create_default_context(cadata=self.authority)

    def connect(self, service: str, connections: int = 1) -> urllib3.HTTPSConnectionPool:
        """Connections to a service through the gateway, by address, so that its name need not be resolved."""
        import urllib3

        name = f"{service}.{self.domain}" if service else self.domain
        return urllib3.HTTPSConnectionPool(
            self.address,
            self.port,
            maxsize=connections,
            ssl_context=self._trust,
            server_hostname=name,
            headers={"Host": f"{name}:{self.port}"},
            timeout=ASK_SECONDS,
            retries=False,
        )

    def login_headers(self, service: str) -> dict[str, str]:
        """Headers that log in to a service as its administrator; none where it has no login."""
        import urllib3

        login = self.credentials.get(service, {})
        if not login.keys() >= {"username", "password"}:
            return {}
        return urllib3.make_headers(basic_auth=f"{login['username']}:{login['password']}")

    def ask(self, service: str, method: str, path: str, body: object = None, *, login: str = "") -> Any:
        """Send a request to a service, as its administrator or as that of `login`, and return its JSON, if any.

        Raises:
            LabError: it does not answer, or refuses.
        """
        import urllib3

        pool = self.connect(service)
        try:
            sent = {**(pool.headers or {}), "Content-Type": "application/json", **self.login_headers(login or service)}
            answer = pool.request(method, path, body=json.dumps(body) if body is not None else None, headers=sent)
        except urllib3.exceptions.HTTPError as error:
            remedy = "check `lab status`; access.apiFrom must include this machine's address"
            raise LabError(f"{self.url(service)} does not answer: {error}", remedy=remedy) from None
        text = answer.data.decode(errors="replace")
        if answer.status >= 400:
            raise _refusal(text) or LabError(f"{self.url(service)}{path} answers {answer.status}: {text.strip()[:500]}")
        return json.loads(text) if text.strip() else None

    # Workloads

    def deployments(self, model: str) -> dict[str, Object]:
        """A model's Deployments, by stage."""
        items = self.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=f"{MODEL}={model},{ALIAS}")
        return {item["metadata"]["labels"][ALIAS]: item for item in items}

    def kept_warm(self, model: str) -> dict[str, Object]:
        """The versions of a model that are kept warm for a rollback, by stage: `version`, `until`, `ready`."""
        items = self.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=f"{MODEL}={model},{WARM}")
        return {item["metadata"]["labels"][WARM]: warm for item in items if (warm := _warm(item))}

    def workloads(self) -> Iterator[Object]:
        """All Deployments and StatefulSets."""
        for namespace in NAMESPACES:
            for kind in ("Deployment", "StatefulSet"):
                yield from self.cluster.items("apps/v1", kind, namespace)

    def health(self) -> str:
        """A table with the pods of each capability, without models."""
        rows: dict[str, list[int]] = {}
        for one in self.workloads():
            labels = one["metadata"].get("labels", {})
            if MODEL not in labels:
                counts = rows.setdefault(labels.get(CAPABILITY, one["metadata"]["name"]), [0, 0])
                counts[0] += one["status"].get("readyReplicas", 0)
                counts[1] += one["spec"].get("replicas", 1)
        cells = [
            (name, f"{ready} of {replicas} ready", "" if ready >= replicas else "  <- see `lab logs`")
            for name, (ready, replicas) in sorted(rows.items())
        ]
        return table(("CAPABILITY", "PODS", ""), cells, prefix="    ")

    def models(self) -> str:
        """A table with the version of each stage of each model, and notes on differences from the registry."""
        rows, notes = [], []
        for one in self.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=MODEL):
            labels, status = one["metadata"]["labels"], one["status"]
            version = served_version(one)
            pods = f"{status.get('readyReplicas', 0)} of {one['spec'].get('replicas', 1)} ready"
            if WARM in labels:
                if warm := _warm(one):
                    told = f"{pods}, warm until {warm['until']}"
                    rows.append((len(Stage), (labels[MODEL], f"{labels[WARM]} before", warm["version"], told)))
                continue
            row = (labels[MODEL], labels[ALIAS], version or "none", pods if version else "")
            rows.append((list(Stage).index(Stage(labels[ALIAS])), row))
            if version and (note := registry_note(one)):
                notes.append(f"    {note}")
        models = table(("MODEL", "STAGE", "VERSION", "PODS"), [row for _, row in sorted(rows)], prefix="    ")
        return "\n".join([models, *sorted(notes)])

    def table(self) -> str:
        """A table with the address of each service, and where to find its credentials."""
        from infra.manifests import capabilities, models

        logging = "monitoring" in self.credentials and "logging" in capabilities(self.profile)
        rows = [
            ("overview", self.url(), "none"),
            ("experiments, models", self.url("tracking"), "user admin, `lab stack output credentials --show-secrets`"),
            ("files (S3)", self.url("artifacts"), "access key admin, as above"),
            *(
                [("metrics, alerts", f"{self.url('monitoring')}/vmui/", "user admin, the same")]
                if "monitoring" in self.credentials
                else []
            ),
            *([("logs", f"{self.url('monitoring')}/select/vmui/", "user admin, the same")] if logging else []),
            *(
                [("pipelines", self.url("pipelines"), "user admin, the same")]
                if "pipelines" in self.credentials
                else []
            ),
            *([("pull requests", self.url("forge"), "user admin, the same")] if "forge" in self.credentials else []),
            *((f"model {name}", f"{self.url(name)}/v2/models/{name}/infer", "none") for name in models()),
            ("Kubernetes", f"https://{self.address}:6443", '`eval "$(lab kubeconfig)"`'),
            ("certificate authority", "", "`lab open --authority FILE` writes its certificate"),
        ]
        return table(("SERVICE", "ADDRESS", "CREDENTIALS"), rows)


def _refusal(text: str) -> LabError | None:
    """A refusal that a service of the platform explains with a remedy."""
    with suppress(ValueError, TypeError, KeyError):
        told = json.loads(text)
        return LabError(told["error"], remedy=told["remedy"])
    return None


Parameters = ParamSpec("Parameters")


def report_cluster_errors(verb: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Convert errors of the Kubernetes provider in a verb into LabErrors."""

    @functools.wraps(verb)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from providers.framework import ProviderError

        try:
            verb(*args, **kwargs)
        except ProviderError as error:
            raise LabError(error.args[0], remedy=error.remedy) from None

    return wrapped


def capability_of(pod: Object, workloads: Iterable[Object]) -> str | None:
    """Name of the capability or model that a pod belongs to."""
    metadata = pod["metadata"]
    for one in workloads:
        same = one["metadata"]["namespace"] == metadata["namespace"]
        if same and one["spec"]["selector"]["matchLabels"].items() <= metadata.get("labels", {}).items():
            name: str = one["metadata"].get("labels", {}).get(CAPABILITY, one["metadata"]["name"])
            return name
    return None


def served_version(deployment: Object) -> str | None:
    """The version that a Deployment serves, or is to serve."""
    version = deployment["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
    return None if version is None or deployment["spec"].get("replicas") == 0 else str(version)


def _warm(deployment: Object) -> Object | None:
    """What a Deployment keeps warm; None where it has no pods."""
    version, metadata = served_version(deployment), deployment["metadata"]
    if version is None:
        return None
    ready = deployment["status"].get("availableReplicas", 0) >= deployment["spec"].get("replicas", 1)
    return {"version": version, "until": metadata.get("annotations", {}).get(WARM_UNTIL, ""), "ready": ready}


def answers_early(deployment: Object, version: str) -> bool:
    """Whether pods that were kept warm answer with a version in the place of a stage's own."""
    answered = json.loads(deployment["metadata"].get("annotations", {}).get(ANSWERED, "[]"))
    return bool(answered) and answered[-1]["version"] == version and not answered[-1]["revision"]


def registry_note(deployment: Object) -> str:
    """The rollout controller's note about a stage whose version the registry does not confirm, and what to do."""
    state, _, reason = deployment["metadata"].get("annotations", {}).get(REGISTRY, "").partition(": ")
    model, stage = (deployment["metadata"]["labels"][key] for key in (MODEL, ALIAS))
    serves = f"{stage} of {model} continues to serve version {served_version(deployment)}"
    if state == "forgotten":
        return (
            f"{serves}, which is no longer in the registry ({reason}).\n"
            f"    -> `lab promote {model} --to {stage}` sets its version; `lab withdraw {model} --stage {stage}`"
            " takes the stage down"
        )
    if state == "unanswered":
        return f"{serves}; the registry does not answer with a version ({reason}).\n    -> see `lab logs tracking`"
    return f"{stage} of {model} is being taken down" if state == "withdrawn" else ""


def rolled_out(deployment: Object) -> bool:
    """Whether all pods are updated and available, as in `kubectl rollout status`."""
    replicas, status = deployment["spec"].get("replicas", 1), deployment["status"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and counts == [replicas] * 3


def wait(condition: Callable[[], bool], seconds: float, describe: Callable[[], str]) -> None:
    """Wait for a condition; print progress when it changes, and every 30 s.

    Raises:
        LabError: timeout.
    """
    start, printed, last = time.monotonic(), "", 0.0
    while not condition():
        waited = time.monotonic() - start
        text = describe()
        if waited > seconds:
            raise LabError(f"timeout after {seconds:.0f} s: {text}", remedy="see `lab logs` and `lab status`")
        if text != printed or waited - last > 30:
            print(f"  … {text} ({waited:.0f} s)", flush=True)
            printed, last = text, waited
        time.sleep(1)
