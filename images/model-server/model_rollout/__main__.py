"""`python -m model_rollout`: the controller. images/README.md says what it reads and writes, and with which rights."""

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

from model_rollout.registry import Registry, RegistryError
from model_rollout.routes import SECONDS_TO_ANSWER, Routes
from model_rollout.stages import FORGOTTEN, SELECTOR, UNANSWERED, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

MANAGER = "model-rollout"
API_ERRORS = (ApiException, HTTPError)
SECONDS_TO_CONNECT = 5
log = logging.getLogger(MANAGER)
rollouts = Counter("model_rollouts_total", "Changes of a Deployment's model.", ["deployment"])
seen = Gauge("model_rollout_last_pass_timestamp_seconds", "When all Deployments were last looked at.")
notes = Gauge("model_rollout_registry", "1 where the registry is in this state about a stage.", ["deployment", "state"])


class Rollout:
    """Follows the registry with Deployments, and Deployments with routes."""

    def __init__(self, namespace: str, interval: float) -> None:
        self._namespace, self._interval = namespace, interval
        self._deployments = client.AppsV1Api()
        self._routes = Routes(client.CustomObjectsApi(), namespace)
        self._registry = Registry(MlflowClient())
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until told to stop. The registry may take its time to answer; routes do not wait for it."""
        follower = threading.Thread(target=self._follow, daemon=True)
        follower.start()
        while not self.stopping.is_set():
            try:
                self._pass()
            except API_ERRORS as error:
                _later(error)
            self.stopping.wait(self._interval)

    def _pass(self) -> None:
        found = self._deployments.list_namespaced_deployment(
            self._namespace, label_selector=SELECTOR, _request_timeout=SECONDS_TO_ANSWER
        )
        all_answered = True
        for deployment in found.items:
            stage = Stage(deployment)
            try:
                answer = self._registry.look_up(stage.model, stage.alias)
                asked = answer.withdrawn is not None and self._routes.ask(stage)
                change = stage.change(answer, asked=asked)
            except RegistryError as error:
                all_answered = False
                log.warning("%s: will ask the registry again: %s", stage.name, error)
                change = stage.unanswered(str(error))
            if change is not None:
                stage = self._patch(stage, change)
            elif (answers := stage.noted(datetime.now(UTC))) is not None:
                stage = self._patch(stage, answers)
            for state in (FORGOTTEN, UNANSWERED):
                notes.labels(stage.name, state).set(stage.state == state)
        if all_answered:
            seen.set_to_current_time()

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

    def _follow(self) -> None:
        """Give stages their share of requests while they have pods, as soon as that changes."""
        try:
            while not self.stopping.is_set():
                try:
                    for stage in self._changes():
                        if (weight := self._routes.follow(stage)) is not None:
                            log.info("%s: gets %s %% of the requests that are shared", stage.name, weight)
                except API_ERRORS as error:
                    _later(error)
                    self.stopping.wait(1)
        finally:
            self.stopping.set()  # without it the controller is half of one: it ends, and is started again

    def _changes(self) -> Iterator[Stage]:
        """Each stage as it is, then as it changes, for as long as the interval."""
        seconds = max(1, round(self._interval))
        for event in watch.Watch().stream(
            self._deployments.list_namespaced_deployment, self._namespace, label_selector=SELECTOR,
            timeout_seconds=seconds, _request_timeout=(SECONDS_TO_CONNECT, seconds + SECONDS_TO_CONNECT),
        ):  # fmt: skip
            if event["type"] in {"ADDED", "MODIFIED"}:
                yield Stage(event["object"])


def _later(error: Exception) -> None:
    log.warning("will try again: %s", " ".join(str(error).split()))


def main() -> None:
    """Entry point; settings are environment variables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config.load_config()
    rollout = Rollout(os.environ["NAMESPACE"], float(os.environ.get("POLL_SECONDS", "5")))
    start_http_server(int(os.environ.get("PORT", "8080")))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: rollout.stopping.set())
    rollout.run()


if __name__ == "__main__":
    main()
