"""`python -m model_rollout`: the controller. images/README.md lists what it reads and writes, and its rights."""

from __future__ import annotations

import logging
import os
import signal
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from mlflow import MlflowClient
from prometheus_client import Counter, Gauge, start_http_server
from urllib3.exceptions import HTTPError

from model_rollout import stages
from model_rollout.decisions import Decisions, Service
from model_rollout.registry import Answer, Registry, RegistryError
from model_rollout.routes import SECONDS_TO_ANSWER, Routes
from model_rollout.stages import FORGOTTEN, MODEL, SELECTOR, UNANSWERED, Stage
from model_rollout.warm import Warm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANAGER = "model-rollout"
API_ERRORS = (ApiException, HTTPError)
SECONDS_TO_CONNECT = 5
log = logging.getLogger(MANAGER)
rollouts = Counter("model_rollouts_total", "Changes of a Deployment's model.", ["deployment"])
last_pass = Gauge("model_rollout_last_pass_timestamp_seconds", "When all Deployments were last reconciled.")
registry_states = Gauge("model_rollout_registry", "1 if a stage is in this state.", ["deployment", "state"])


class Rollout:
    """Updates Deployments from the registry, and routes and warm versions from Deployments."""

    def __init__(self, namespace: str, interval: float, decisions: Decisions, warm_hours: float) -> None:
        self._namespace, self._interval, self._decisions = namespace, interval, decisions
        self._deployments = client.AppsV1Api()
        self._routes = Routes(client.CustomObjectsApi(), namespace)
        self._registry = Registry(MlflowClient())
        self._warm = Warm(client.CoreV1Api(), namespace, self._registry, warm_hours)
        self._pod_labels = threading.Lock()
        """Held while pods are labelled and their Deployment is patched accordingly."""
        self._stopping = threading.Event()

    def run(self) -> None:
        """Run until `stop`. Routes are updated in a thread of their own: they do not wait for the registry."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        watching = False
        while not self._stopping.is_set():
            self._decisions.changed.clear()
            try:
                self._reconcile()
            except API_ERRORS as error:
                _log_retry(error)
            if not watching:  # the first pass has set the stages to watch
                watching = True
                self._decisions.start()
            if not self._stopping.is_set():
                self._decisions.changed.wait(self._interval)

    def stop(self) -> None:
        """Stop after the current pass."""
        self._stopping.set()
        self._decisions.stop()

    def _reconcile(self) -> None:
        former = self._decisions.former()  # read before the registry, so that the registry's answer is never older
        listed = self._deployments.list_namespaced_deployment(
            self._namespace, label_selector=SELECTOR, _request_timeout=SECONDS_TO_ANSWER
        )
        known = stages.found(listed.items)
        warm = {(one.model, one.alias): one for one in known if one.keeps_warm}
        self._decisions.watch(warm)
        # First the stages for which warm pods can answer at once.
        known.sort(key=lambda stage: (stage.model, stage.alias) not in warm)
        answered = [
            self._reconcile_stage(stage, warm.get((stage.model, stage.alias)), former)
            for stage in known
            if not stage.keeps_warm
        ]
        if all(answered):
            last_pass.set_to_current_time()

    def _reconcile_stage(self, stage: Stage, warm: Stage | None, former: Mapping[tuple[str, str], str | None]) -> bool:
        """Update a stage; returns whether the registry answered."""
        answered = True
        try:
            answer = self._registry.look_up(stage.model, stage.alias)
            routed = answer.withdrawn is not None and self._routes.routed(stage)
            change = stage.change(answer, routed=routed)
        except RegistryError as error:
            answered, answer = False, Answer()
            log.warning("%s: retrying the registry: %s", stage.name, error)
            change = stage.unanswered(str(error))
        if change is not None:
            stage = self._change(stage, warm, answer, change)
        elif (record := stage.record_rollout(datetime.now(UTC))) is not None:
            stage = self._patch(stage, record)
        for state in (FORGOTTEN, UNANSWERED):
            registry_states.labels(stage.name, state).set(stage.state == state)
        if warm is not None:
            self._keep_warm(stage, warm, former)
        return answered

    def _change(self, stage: Stage, warm: Stage | None, answer: Answer, change: dict[str, Any]) -> Stage:
        """Patch a stage; if its new version is kept warm, let the warm pods answer first."""
        if warm is None or answer.version is None or stage.serves(answer.version, answer.source):
            return self._patch(stage, change)
        with self._pod_labels:
            try:
                if self._warm.label_pods(stage, warm, answer.version, answer.source):
                    change = stages.merged(change, stage.record_takeover(answer.version, datetime.now(UTC)))
                    log.info("%s: warm pods answer with version %s", stage.name, answer.version)
            except API_ERRORS as error:  # then it is a rollout without warm pods
                _log_retry(error)
            return self._patch(stage, change)

    def _keep_warm(self, stage: Stage, warm: Stage, former: Mapping[tuple[str, str], str | None]) -> None:
        try:
            change = self._warm.patch(stage, warm, former)
        except RegistryError as error:
            log.warning("%s: retrying the registry: %s", warm.name, error)
            return
        if change is not None:
            self._patch(warm, change)

    def _patch(self, stage: Stage, change: dict[str, Any]) -> Stage:
        patched = Stage(
            self._deployments.patch_namespaced_deployment(
                stage.name, self._namespace, change, field_manager=MANAGER, _request_timeout=SECONDS_TO_ANSWER
            )
        )
        if "spec" in change:
            rollouts.labels(stage.name).inc()
        log.info(
            "%s: %s@%s: %s%s", stage.name, stage.model, stage.alias,
            "no pods" if patched.down else f"version {patched.version}", f"; {patched.state}" if patched.state else "",
        )  # fmt: skip
        return patched

    def _watch(self) -> None:
        """Watch Deployments: set the weights of routes, and label pods."""
        try:
            while not self._stopping.is_set():
                try:
                    for stage in self._events():
                        if not stage.keeps_warm and (weight := self._routes.update_weight(stage)) is not None:
                            log.info("%s: weight %s %%", stage.name, weight)
                        self._label_pods(stage)
                except API_ERRORS as error:
                    _log_retry(error)
                    self._stopping.wait(1)
        finally:
            self.stop()  # without this thread the controller must not go on: Kubernetes restarts it

    def _label_pods(self, changed: Stage) -> None:
        """Label the pods of a stage and of its warm version after a change of either."""
        with self._pod_labels:
            # Read again, so that changes by the other thread are not undone.
            listed = self._deployments.list_namespaced_deployment(
                self._namespace, label_selector=f"{MODEL}={changed.model}", _request_timeout=SECONDS_TO_ANSWER
            )
            both = {one.keeps_warm: one for one in stages.found(listed.items) if one.alias == changed.alias}
            stage, warm = both.get(False), both.get(True)
            if stage is not None and warm is not None and stage.version is not None:
                self._warm.label_pods(stage, warm, stage.version, stage.source or "")

    def _events(self) -> Iterator[Stage]:
        """Each stage and warm version, then their changes, for the length of the interval."""
        seconds = max(1, round(self._interval))
        for event in watch.Watch().stream(
            self._deployments.list_namespaced_deployment, self._namespace, label_selector=SELECTOR,
            timeout_seconds=seconds, _request_timeout=(SECONDS_TO_CONNECT, seconds + SECONDS_TO_CONNECT),
        ):  # fmt: skip
            if event["type"] in {"ADDED", "MODIFIED"}:
                yield from stages.found([event["object"]])


def _log_retry(error: Exception) -> None:
    log.warning("retrying: %s", " ".join(str(error).split()))


def main() -> None:
    """Entry point; settings are environment variables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config.load_config()
    interval = float(os.environ.get("POLL_SECONDS", "5"))
    address = os.environ.get("PROMOTION_URL", "")
    login = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD")]
    decisions = Decisions(Service(address, *login) if address else None)
    rollout = Rollout(os.environ["NAMESPACE"], interval, decisions, float(os.environ.get("WARM_HOURS", "24")))
    start_http_server(int(os.environ.get("PORT", "8080")))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: rollout.stop())
    rollout.run()


if __name__ == "__main__":
    main()
