"""The exporter's sources: the API server, the registry and the gateway's certificate."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.x509 import load_der_x509_certificate

from state_exporter.exposition import Sample
from state_exporter.objects import KINDS, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS_TO_ANSWER = 10
MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))
OBJECTIVES = {"availability": "0.99", "latency_seconds": "1"}
"""Default objectives: the share of a model's answers without error, and the 99th percentile of their latency."""
NO_SUCH_MODEL = 404


class SourceError(Exception):
    """A source does not answer, or its answer is not valid."""


@dataclass(frozen=True)
class Api:
    """The Kubernetes API, with the token of the pod's account, which is read for each request because it rotates."""

    address: str
    token: Path
    authority: Path
    namespace: str

    def get(self, path: str) -> Any:
        """An object, or a list of them.

        Raises:
            SourceError: the API server refused, or does not answer.
        """
        request = urllib.request.Request(f"{self.address}{path}")  # noqa: S310
        request.add_header("Authorization", f"Bearer {self.token.read_text().strip()}")
        return _get_json(request, ssl.create_default_context(cafile=str(self.authority)))

    def samples(self) -> Iterator[Sample]:
        """Metrics of the objects, and of the stages of models.

        Raises:
            SourceError: the API server refused, or does not answer.
        """
        # Version 0 is served from the API server's cache, without load on etcd.
        found = {path: self.get(f"{path}?resourceVersion=0")["items"] for path in KINDS}
        for path, items in found.items():
            yield from KINDS[path](items)
        yield from stages(found["/apis/apps/v1/deployments"], found["/api/v1/pods"])
        yield from self._stack()

    def _stack(self) -> Iterator[Sample]:
        """The lease's end and the objectives, from the ConfigMap `stack`."""
        path = f"/api/v1/namespaces/{self.namespace}/configmaps?fieldSelector=metadata.name=stack"
        data = {key: value for one in self.get(path)["items"] for key, value in one.get("data", {}).items()}
        if end := data.get("lease-end"):
            yield Sample("ml_cluster_lease_end_seconds", seconds(end))
        for objective, default in OBJECTIVES.items():
            value = float(data.get(objective.replace("_", "-"), default))
            yield Sample("ml_cluster_objective", value, {"objective": objective})


def stages(deployments: list[Any], pods: list[Any]) -> Iterator[Sample]:
    """The version that each stage of a model is to serve, and its ready pods by version."""
    for one in deployments:
        metadata, template = one["metadata"], one["spec"]["template"]["metadata"]
        labels = metadata.get("labels", {})
        if MODEL not in labels or ALIAS not in labels:
            continue
        about = {"model": labels[MODEL], "alias": labels[ALIAS], "deployment": metadata["name"]}
        if version := (template.get("annotations") or {}).get(VERSION):
            yield Sample("ml_cluster_stage_info", 1, about | {"version": version})
        selector = one["spec"]["selector"].get("matchLabels", {})
        served: dict[str, int] = {}
        for pod in pods:
            mine = pod["metadata"].get("labels", {})
            if pod["metadata"]["namespace"] != metadata["namespace"] or not selector.items() <= mine.items():
                continue
            version = pod["metadata"].get("annotations", {}).get(VERSION)
            conditions = pod.get("status", {}).get("conditions", ())
            if version and {"Ready": "True"}.items() <= {each["type"]: each["status"] for each in conditions}.items():
                served[version] = served.get(version, 0) + 1
        for version, count in served.items():
            yield Sample("ml_cluster_stage_served", count, about | {"version": version})


@dataclass(frozen=True)
class Registry:
    """MLflow's model registry: the version of each alias."""

    address: str
    username: str
    password: str

    def samples(self, models: set[str]) -> Iterator[Sample]:
        """The aliases of `models`; none of a model that is not registered.

        Raises:
            SourceError: the registry refused, or does not answer.
        """
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        for model in sorted(models):
            query = urllib.parse.urlencode({"name": model})
            address = f"{self.address}/api/2.0/mlflow/registered-models/get?{query}"
            request = urllib.request.Request(address, headers={"Authorization": f"Basic {login}"})  # noqa: S310
            try:
                found = _get_json(request)
            except SourceError as error:
                cause = error.__cause__
                if isinstance(cause, urllib.error.HTTPError) and cause.code == NO_SUCH_MODEL:
                    continue
                raise
            for alias in found["registered_model"].get("aliases", ()):
                about = {"model": model, "alias": alias["alias"], "version": str(alias["version"])}
                yield Sample("ml_cluster_alias_info", 1, about)


@dataclass(frozen=True)
class Gateway:
    """The gateway's certificate, from a TLS handshake instead of the Secret."""

    host: str
    port: int
    domain: str

    def samples(self) -> Iterator[Sample]:
        """When the certificate expires.

        Raises:
            SourceError: the gateway does not answer, or has no certificate.
        """
        # Without verification: the certificate may have expired, or be of an unknown authority.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((self.host, self.port), SECONDS_TO_ANSWER) as connection,
                context.wrap_socket(connection, server_hostname=self.domain) as secured,
            ):
                given = secured.getpeercert(binary_form=True)
            if given is None:
                raise SourceError(f"{self.host}:{self.port} has no certificate")
            end = load_der_x509_certificate(given).not_valid_after_utc
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.host}:{self.port}: {error}") from error
        yield Sample("ml_cluster_certificate_not_after_seconds", end.timestamp(), {"host": self.domain})


def _get_json(request: urllib.request.Request, context: ssl.SSLContext | None = None) -> Any:
    where = request.full_url.partition("?")[0]
    try:
        with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER, context=context) as answer:  # noqa: S310
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise SourceError(f"{where}: {error}") from error
