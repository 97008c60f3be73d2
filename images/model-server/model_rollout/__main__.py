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

from model_rollout import stages
from model_rollout.heard import Heard, Service
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
seen = Gauge("model_rollout_last_pass_timestamp_seconds", "When all Deployments were last looked at.")
notes = Gauge("model_rollout_registry", "1 where the registry is in this state about a stage.", ["deployment", "state"])


class Rollout:
    """Follows the registry with Deployments, and Deployments with routes and with what is kept warm."""

    def __init__(self, namespace: str, interval: float, heard: Heard, warm_hours: float) -> None:
        self._namespace, self._interval, self._heard = namespace, interval, heard
        self._deployments = client.AppsV1Api()
        self._routes = Routes(client.CustomObjectsApi(), namespace)
        self._registry = Registry(MlflowClient())
        self._warm = Warm(client.CoreV1Api(), namespace, self._registry, warm_hours)
        self._of_pods = threading.Lock()
        """Which pods answer is decided by one thread at a time, with what the Deployment is told then."""
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until told to stop. The registry may take its time to answer; routes do not wait for it."""
        follower = threading.Thread(target=self._follow, daemon=True)
        follower.start()
        listening = False
        while not self._stopping.is_set():
            self._heard.news.clear()
            try:
                self._pass()
            except API_ERRORS as error:
                _later(error)
            if not listening:  # by now it is known what to ask about
                listening = True
                self._heard.start()
            if not self._stopping.is_set():
                self._heard.news.wait(self._interval)

    def stop(self) -> None:
        """End soon."""
        self._stopping.set()
        self._heard.stop()

    def _pass(self) -> None:
        former = self._heard.former()  # before the registry is asked: what it names is never older
        listed = self._deployments.list_namespaced_deployment(
            self._namespace, label_selector=SELECTOR, _request_timeout=SECONDS_TO_ANSWER
        )
        known = stages.found(listed.items)
        warm = {(one.model, one.alias): one for one in known if one.keeps_warm}
        self._heard.ask_about(warm)
        # Those first in whose place others can answer at once.
        known.sort(key=lambda stage: (stage.model, stage.alias) not in warm)
        answered = [
            self._see(stage, warm.get((stage.model, stage.alias)), former) for stage in known if not stage.keeps_warm
        ]
        if all(answered):
            seen.set_to_current_time()

    def _see(self, stage: Stage, warm: Stage | None, former: Mapping[tuple[str, str], str | None]) -> bool:
        """Look at a stage; whether the registry has told what it is to serve."""
        answered = True
        try:
            answer = self._registry.look_up(stage.model, stage.alias)
            asked = answer.withdrawn is not None and self._routes.ask(stage)
            change = stage.change(answer, asked=asked)
        except RegistryError as error:
            answered, answer = False, Answer()
            log.warning("%s: will ask the registry again: %s", stage.name, error)
            change = stage.unanswered(str(error))
        if change is not None:
            stage = self._change(stage, warm, answer, change)
        elif (noted := stage.noted(datetime.now(UTC))) is not None:
            stage = self._patch(stage, noted)
        for state in (FORGOTTEN, UNANSWERED):
            notes.labels(stage.name, state).set(stage.state == state)
        if warm is not None:
            self._keep(stage, warm, former)
        return answered

    def _change(self, stage: Stage, warm: Stage | None, answer: Answer, change: dict[str, Any]) -> Stage:
        """Have a stage serve what it is to; by what is kept warm at first, where that is the version."""
        if warm is None or answer.version is None or stage.serves(answer.version, answer.source):
            return self._patch(stage, change)
        with self._of_pods:
            try:
                if self._warm.settle(stage, warm, answer.version, answer.source):
                    change = stages.merged(change, stage.taken_over(answer.version, datetime.now(UTC)))
                    log.info("%s: version %s, which was kept warm, answers", stage.name, answer.version)
            except API_ERRORS as error:  # then it takes as long as any other rollout
                _later(error)
            return self._patch(stage, change)

    def _keep(self, stage: Stage, warm: Stage, former: Mapping[tuple[str, str], str | None]) -> None:
        try:
            change = self._warm.keep(stage, warm, former)
        except RegistryError as error:
            log.warning("%s: will ask the registry again: %s", warm.name, error)
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

    def _follow(self) -> None:
        """Give stages their share of requests while they have pods, as soon as that changes."""
        try:
            while not self._stopping.is_set():
                try:
                    for stage in self._changes():
                        if not stage.keeps_warm and (weight := self._routes.follow(stage)) is not None:
                            log.info("%s: gets %s %% of the requests that are shared", stage.name, weight)
                        self._settle(stage)
                except API_ERRORS as error:
                    _later(error)
                    self._stopping.wait(1)
        finally:
            self.stop()  # without it the controller is half of one: it ends, and is started again

    def _settle(self, changed: Stage) -> None:
        """Have those pods answer that are to, where a stage or what is kept warm for it has changed."""
        with self._of_pods:
            # As they are by now: what the other thread has done since is not undone.
            listed = self._deployments.list_namespaced_deployment(
                self._namespace, label_selector=f"{MODEL}={changed.model}", _request_timeout=SECONDS_TO_ANSWER
            )
            both = {one.keeps_warm: one for one in stages.found(listed.items) if one.alias == changed.alias}
            stage, warm = both.get(False), both.get(True)
            if stage is not None and warm is not None and stage.version is not None:
                self._warm.settle(stage, warm, stage.version, stage.source or "")

    def _changes(self) -> Iterator[Stage]:
        """Each stage, and what is kept warm, as it is, then as it changes, for as long as the interval."""
        seconds = max(1, round(self._interval))
        for event in watch.Watch().stream(
            self._deployments.list_namespaced_deployment, self._namespace, label_selector=SELECTOR,
            timeout_seconds=seconds, _request_timeout=(SECONDS_TO_CONNECT, seconds + SECONDS_TO_CONNECT),
        ):  # fmt: skip
            if event["type"] in {"ADDED", "MODIFIED"}:
                yield from stages.found([event["object"]])


def _later(error: Exception) -> None:
    log.warning("will try again: %s", " ".join(str(error).split()))


def main() -> None:
    """Entry point; settings are environment variables."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    config.load_config()
    interval = float(os.environ.get("POLL_SECONDS", "5"))
    address = os.environ.get("PROMOTION_URL", "")
    login = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("USERNAME", "PASSWORD")]
    heard = Heard(Service(address, *login) if address else None)
    rollout = Rollout(os.environ["NAMESPACE"], interval, heard, float(os.environ.get("WARM_HOURS", "24")))
    start_http_server(int(os.environ.get("PORT", "8080")))
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: rollout.stop())
    rollout.run()


if __name__ == "__main__":
    main()
