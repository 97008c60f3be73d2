"""The platform of a stack as its verbs reach it: the gateway by its address, and the cluster's API."""

from __future__ import annotations

import functools
import json
import ssl
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec

from cli.errors import LabError
from cli.stack import stack_outputs
from cli.text import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import urllib3

    from cli.session import Session
    from providers.kubernetes.client import Cluster

Object = dict[str, Any]
SERVING, TRAINING, PLATFORM = "serving", "training", "platform"
NAMESPACES = ("gateway", PLATFORM, TRAINING, SERVING)
STAGES = ("staging", "canary", "production")
MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))
CAPABILITY = "app.kubernetes.io/name"
ASK_SECONDS = 30
"""How long an answer of a service may take."""


@dataclass(frozen=True)
class Platform:
    """The outputs of a stack that say where its platform is."""

    profile: str
    domain: str
    address: str
    port: int
    authority: str
    """Certificate of the authority that signed the gateway's, in PEM."""
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
        told = outputs.get("platform")
        if not told:
            remedy = "give it a section `ml-cluster:platform`, and `lab up`"
            raise LabError(f"stack '{stack}' has no platform", remedy=remedy)
        credentials, kubeconfig = outputs["credentials"], outputs["kubeconfig"]
        fields = ("profile", "domain", "address", "port", "authority")
        values = {**{name: told[name] for name in fields}, "port": int(told["port"])}
        return cls(credentials=credentials, kubeconfig=kubeconfig, **values)

    def url(self, service: str = "") -> str:
        """Address of a service, for people; of the landing page without one."""
        return f"https://{f'{service}.' if service else ''}{self.domain}:{self.port}"

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster's API."""
        from providers.kubernetes.client import Cluster

        return Cluster({"kubeconfig": self.kubeconfig})

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority)

    def connect(self, service: str, connections: int = 1) -> urllib3.HTTPSConnectionPool:
        """Connections to a service through the gateway, by address: its name need not be known to any name server."""
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

    def ask(self, service: str, method: str, path: str, body: object = None) -> Any:
        """The JSON that a service answers.

        Raises:
            LabError: it does not answer, or refuses.
        """
        import urllib3

        pool = self.connect(service)
        try:
            headers = {**(pool.headers or {}), "Content-Type": "application/json"}
            answer = pool.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            remedy = "`lab status` shows what runs; access.apiFrom must hold this machine's address"
            raise LabError(f"{self.url(service)} does not answer: {error}", remedy=remedy) from None
        text = answer.data.decode(errors="replace")
        if answer.status >= 400:
            raise LabError(f"{self.url(service)}{path} answers {answer.status}: {text.strip()[:500]}")
        return json.loads(text)

    # What the cluster runs

    def deployments(self, model: str) -> dict[str, Object]:
        """A model's Deployments, by stage."""
        found = self.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=f"{MODEL}={model}")
        return {one["metadata"]["labels"][ALIAS]: one for one in found}

    def workloads(self) -> Iterator[Object]:
        """All that runs for long."""
        for namespace in NAMESPACES:
            for kind in ("Deployment", "StatefulSet"):
                yield from self.cluster.items("apps/v1", kind, namespace)

    def health(self) -> str:
        """A table: the pods of each capability, those of models left out."""
        rows: dict[str, list[int]] = {}
        for one in self.workloads():
            labels = one["metadata"].get("labels", {})
            if MODEL not in labels:
                counts = rows.setdefault(labels.get(CAPABILITY, one["metadata"]["name"]), [0, 0])
                counts[0] += one["status"].get("readyReplicas", 0)
                counts[1] += one["spec"].get("replicas", 1)
        told = [
            (name, f"{ready} of {wanted} ready", "" if ready >= wanted else "  <- see `lab logs`")
            for name, (ready, wanted) in sorted(rows.items())
        ]
        return table(("CAPABILITY", "PODS", ""), told, prefix="    ")

    def models(self) -> str:
        """A table: what each stage of each model serves."""
        rows = []
        for one in self.cluster.items("apps/v1", "Deployment", SERVING, labelSelector=MODEL):
            labels, status = one["metadata"]["labels"], one["status"]
            version = served_version(one)
            pods = f"{status.get('readyReplicas', 0)} of {one['spec'].get('replicas', 1)} ready"
            row = (labels[MODEL], labels[ALIAS], version or "none", pods if version else "")
            rows.append((STAGES.index(labels[ALIAS]), row))
        return table(("MODEL", "STAGE", "VERSION", "PODS"), [row for _, row in sorted(rows)], prefix="    ")

    def table(self) -> str:
        """Where everything is, and where its credentials are."""
        rows = [
            ("overview", self.url(), "none"),
            ("experiments, models", self.url("tracking"), "user admin, `lab stack output credentials --show-secrets`"),
            ("files (S3)", self.url("artifacts"), "key admin, the same"),
            ("model digits", f"{self.url('digits')}/v2/models/digits/infer", "none"),
            ("Kubernetes", f"https://{self.address}:6443", '`eval "$(lab kubeconfig)"`'),
            ("certificate authority", "", "`lab open --authority FILE` writes it, for browsers and clients"),
        ]
        return table(("SERVICE", "ADDRESS", "CREDENTIALS"), rows)


Parameters = ParamSpec("Parameters")


def reported(verb: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """A verb whose troubles with the cluster are told as its own."""

    @functools.wraps(verb)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        from providers.framework import ProviderError

        try:
            verb(*args, **kwargs)
        except ProviderError as error:
            raise LabError(error.args[0], remedy=error.remedy) from None

    return wrapped


def capability_of(pod: Object, workloads: Iterable[Object]) -> str | None:
    """Name of the capability whose Deployment or StatefulSet a pod is of; of a model, its own."""
    metadata = pod["metadata"]
    for one in workloads:
        same = one["metadata"]["namespace"] == metadata["namespace"]
        if same and one["spec"]["selector"]["matchLabels"].items() <= metadata.get("labels", {}).items():
            name: str = one["metadata"].get("labels", {}).get(CAPABILITY, one["metadata"]["name"])
            return name
    return None


def served_version(deployment: Object) -> str | None:
    """The version of its model that a Deployment is told to serve."""
    version = deployment["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
    return None if version is None or deployment["spec"].get("replicas") == 0 else str(version)


def rolled_out(deployment: Object) -> bool:
    """Whether all pods are of the last change, and available (as `kubectl rollout status`)."""
    wanted, status = deployment["spec"].get("replicas", 1), deployment["status"]
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration", 0) >= deployment["metadata"]["generation"] and counts == [wanted] * 3


def wait(condition: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    """Ask until it is so, telling what is waited for whenever that changes and each half minute.

    Raises:
        LabError: it was not so in time.
    """
    began, told, last = time.monotonic(), "", 0.0
    while not condition():
        waited = time.monotonic() - began
        text = what()
        if waited > seconds:
            raise LabError(f"after {seconds:.0f} s: {text}", remedy="`lab logs` and `lab status` show more")
        if text != told or waited - last > 30:
            print(f"  … {text} ({waited:.0f} s)", flush=True)
            told, last = text, waited
        time.sleep(1)
