"""The Kubernetes API, as a pod's account may ask it. Nothing but the standard library, as it is in every process."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.pipelines.errors import DecidedError, PipelineError

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SECONDS_TO_ANSWER = 20
JOBS, TEMPLATES, ROUTES, DEPLOYMENTS = (
    "apis/batch/v1/namespaces/{}/jobs", "apis/batch/v1/namespaces/{}/cronjobs",
    "apis/gateway.networking.k8s.io/v1/namespaces/{}/httproutes", "apis/apps/v1/namespaces/{}/deployments",
)  # fmt: skip
PODS, CONFIGMAPS = "api/v1/namespaces/{}/pods", "api/v1/namespaces/{}/configmaps"
Object = dict[str, Any]


class ThereAlreadyError(PipelineError):
    """An object of that name exists."""


@dataclass(frozen=True)
class Cluster:
    """An API server, and who asks it.

    Raises:
        PipelineError: it does not answer; of every method.
        DecidedError: it refuses.
    """

    address: str = field(default_factory=lambda: os.environ.get("API_SERVER", "https://kubernetes.default.svc"))
    account: Path = field(default_factory=lambda: Path(os.environ.get("ACCOUNT_FOLDER", ACCOUNT)))
    """Folder of the service account: `token`, `ca.crt`."""

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None where there is none. `kind` is a path such as JOBS."""
        found = self._ask("GET", f"{kind.format(namespace)}/{name}", missing=True)
        return json.loads(found) if found is not None else None

    def items(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        """The objects of a kind."""
        path = f"{kind.format(namespace)}?{urllib.parse.urlencode(selectors)}"
        found: list[Object] = json.loads(self._ask("GET", path) or "{}")["items"]
        return found

    def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        """Make an object.

        Raises:
            ThereAlreadyError: there is one of that name.
        """
        made: Object = json.loads(self._ask("POST", kind.format(namespace), manifest, fieldManager="pipelines") or "{}")
        return made

    def apply(self, kind: str, namespace: str, manifest: Object) -> None:
        """Make an object, or have it be as the manifest says, by server-side apply as `lab` does."""
        path = f"{kind.format(namespace)}/{manifest['metadata']['name']}"
        self._ask("PATCH", path, manifest, fieldManager="lab", force="true", type_="application/apply-patch+yaml")

    def delete(self, kind: str, namespace: str, name: str) -> bool:
        """Delete an object and what it owns; whether there was one."""
        path = f"{kind.format(namespace)}/{name}"
        return self._ask("DELETE", path, {"propagationPolicy": "Background"}, missing=True) is not None

    def log(self, namespace: str, pod: str, container: str) -> str:
        """What a container has printed so far; empty where nobody says so."""
        path = f"{PODS.format(namespace)}/{pod}/log"
        try:
            return self._ask("GET", path, missing=True, container=container) or ""
        except PipelineError:  # nor does a lost node say anything
            return ""

    def _ask(
        self, method: str, path: str, body: Object | None = None, *,
        missing: bool = False, type_: str = "application/json", **query: str,
    ) -> str | None:  # fmt: skip
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        content = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self.address}/{path}{asked}", content, method=method)  # noqa: S310
        request.add_header("Authorization", f"Bearer {(self.account / 'token').read_text().strip()}")
        request.add_header("Content-Type", type_)
        context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER, context=context) as answer:  # noqa: S310
                return str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing:
                return None
            told = _told(error.read()) or f"status {error.code}"
            failure = f"the Kubernetes API answers {method} {path}: {told}"
            if error.code == 409 and method == "POST":
                raise ThereAlreadyError(failure) from None
            if error.code in {400, 401, 403, 404, 405, 422} and "exceeded quota" not in told:
                raise DecidedError(failure) from None
            raise PipelineError(failure) from None
        except OSError as error:
            raise PipelineError(f"the Kubernetes API does not answer {method} {path}: {error}") from error


def _told(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, TypeError, KeyError):
        return ""
