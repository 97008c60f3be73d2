"""`python -m model_rollout`: the controller. images/README.md says what it reads and writes, and with which rights."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from prometheus_client import Counter, Gauge, start_http_server
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable

MANAGER = "model-rollout"
MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))
PARKED = "ml-cluster.dev/parked-replicas"
NO_SUCH = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model; no such alias
DENIED = "PERMISSION_DENIED"
log = logging.getLogger(MANAGER)
rollouts = Counter("model_rollouts_total", "Changes of a Deployment's model.", ["deployment"])
seen = Gauge("model_rollout_last_pass_timestamp_seconds", "When all Deployments were last looked at.")


def main() -> None:
    """Entry point; settings are environment variables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config.load_config()
    namespace = os.environ["NAMESPACE"]
    interval = float(os.environ.get("POLL_SECONDS", "5"))
    start_http_server(int(os.environ.get("PORT", "8080")))
    stopping = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stopping.set())
    deployments, registry = client.AppsV1Api(), MlflowClient()
    while not stopping.is_set():
        try:
            reconcile(deployments, namespace, lambda model, alias: version_of(registry, model, alias))
            seen.set_to_current_time()
        except (ApiException, MlflowException, HTTPError) as error:
            log.warning("will try again: %s", str(error).strip().replace("\n", " "))
        stopping.wait(interval)


def version_of(registry: MlflowClient, model: str, alias: str) -> str | None:
    """The version that an alias points to, if there is one.

    Raises:
        MlflowException: the registry does not answer.
    """
    try:
        return str(registry.get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code in NO_SUCH:
            return None
        raise


def reconcile(deployments: Any, namespace: str, resolve: Callable[[str, str], str | None]) -> None:
    """Look at each labelled Deployment once, and change those that serve another version than their alias says.

    Raises:
        kubernetes.client.exceptions.ApiException: the API server refused, or does not answer.
    """
    for deployment in deployments.list_namespaced_deployment(namespace, label_selector=f"{MODEL},{ALIAS}").items:
        labels = deployment.metadata.labels
        try:
            version = resolve(labels[MODEL], labels[ALIAS])
        except MlflowException as error:
            # A model that is not there yet is nobody's to read. Whatever serves already is left as it is.
            if error.error_code != DENIED or served(deployment) is not None:
                raise
            version = None
        if change := change_of(deployment, version):
            name = deployment.metadata.name
            deployments.patch_namespaced_deployment(name, namespace, change, field_manager=MANAGER)
            rollouts.labels(name).inc()
            log.info("%s: %s@%s is %s", name, labels[MODEL], labels[ALIAS], version or "nothing: no replicas")


def served(deployment: Any) -> str | None:
    """The version that a Deployment was last told to serve."""
    annotations: dict[str, str] = deployment.spec.template.metadata.annotations or {}
    return annotations.get(VERSION)


def change_of(deployment: Any, version: str | None) -> dict[str, Any] | None:
    """What to patch, so that a Deployment serves a version; with none it has no replicas until there is one."""
    parked = (deployment.metadata.annotations or {}).get(PARKED)
    if version is None:
        if parked is not None or deployment.spec.replicas == 0:
            return None
        annotations = {PARKED: str(deployment.spec.replicas)}
        return {"metadata": {"annotations": annotations}, "spec": {"replicas": 0}}
    if served(deployment) == version and parked is None:
        return None
    change: dict[str, Any] = {"spec": {"template": {"metadata": {"annotations": {VERSION: version}}}}}
    if parked is not None:
        change["metadata"] = {"annotations": {PARKED: None}}
        change["spec"]["replicas"] = int(parked)
    return change


if __name__ == "__main__":
    main()
