"""All that a rollback goes through, each the real one: registry, decider, controller, API server, gateway, servers."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import urllib3

from cli.workloads import VERSION, rolled_out
from infra.manifests import DOMAIN, TREE
from providers.kubernetes.objects import Identity
from tests.engine.harness import wait_for
from tests.images.controlled import prepared, start_controller
from tests.images.pods import Kubelet
from tests.images.promotion import CALLERS, MODEL
from tests.images.services import answers, free_port
from tests.k8s.chain import certificate
from tests.k8s.conftest import apply
from tests.k8s.monitors import options
from tests.providers.kubernetes.control_plane import ControlPlane

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.images.containers import Container
    from tests.images.decided import Decided

APPS, ROUTES = "apps/v1", "gateway.networking.k8s.io/v1"
ANSWERS = "ml-cluster.dev/answers"
CLIENTS = 4
SECONDS_BETWEEN = 0.05
LOG = """
import sys, mlflow, numpy
from sklearn.dummy import DummyClassifier
rows = numpy.zeros((3, 64))
model = DummyClassifier(strategy="constant", constant=int(sys.argv[1])).fit(rows, [int(sys.argv[1]), 10, 11])
mlflow.set_experiment("constant")
with mlflow.start_run() as run:
    mlflow.sklearn.log_model(
        model, name="model", signature=mlflow.models.infer_signature(rows, model.predict(rows)),
        pip_requirements=["scikit-learn"],
    )
print("told: " + run.info.run_id)
"""
"""A model that always says the same."""


@dataclass(frozen=True)
class Asked:
    """A request: when it was sent and answered, in seconds of the monotonic clock, and what came of it."""

    sent: float
    answered: float
    version: str
    """Of the model that answered; empty where it failed."""
    told: str = ""


@dataclass
class Load:
    """Clients of production at the gateway while it is entered, each one request after the other."""

    port: int
    asked: list[Asked] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Asked]:
        """Requests that got no answer of a model."""
        return [one for one in self.asked if not one.version]

    def first(self, version: str, since: float) -> float:
        """Seconds from a time until a version answered first, of requests that were sent since."""
        return min(one.answered for one in self.asked if one.version == version and one.sent >= since) - since

    def last(self, version: str, since: float) -> float:
        """Seconds from a time until a version answered last."""
        return max((one.answered for one in self.asked if one.version == version), default=since) - since

    def has(self, version: str, since: float = 0) -> bool:
        """Whether a version has answered."""
        return any(one.version == version and one.sent >= since for one in self.asked)

    def _ask(self) -> None:
        host = f"{MODEL}.{DOMAIN}"
        pool = urllib3.HTTPSConnectionPool(
            "127.0.0.1", self.port, server_hostname=host, cert_reqs="CERT_NONE", assert_hostname=False,
            headers={"Host": host, "Content-Type": "application/json"}, timeout=10, retries=False,
        )  # fmt: skip
        body = json.dumps({"instances": [[0.0] * 64]})
        while not self._ended.wait(SECONDS_BETWEEN):
            sent = time.monotonic()
            try:
                answer = pool.request("POST", f"/v1/models/{MODEL}:predict", body=body)
                told = answer.data.decode(errors="replace")
                version = json.loads(told)["model_version"] if answer.status == 200 else ""
            except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
                version, told = "", str(error)
            self.asked.append(Asked(sent, time.monotonic(), version, "" if version else told[:300]))


@dataclass
class Cluster:
    """Use as a context manager."""

    decided: Decided
    folder: Path
    controller: Container = field(init=False)

    def __enter__(self) -> Self:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._stack = ExitStack()
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.plane = self._stack.enter_context(ControlPlane(self.folder))
        prepared(self.plane)
        apply(self.plane, "infrastructure/gateway/base")
        # One pod of each stage: there are two cores.
        self.plane.edit("HorizontalPodAutoscaler", f"serving/{MODEL}-production", {"spec": {"minReplicas": 1}},
                        "autoscaling/v2")  # fmt: skip
        for name in ("gateway", "model-server"):
            self.decided.stack.images[name]  # unpacked by one thread
        world = self.decided.world
        login = {"MLFLOW_TRACKING_USERNAME": "server", "MLFLOW_TRACKING_PASSWORD": CALLERS["server"]}
        self.environment = {"MLFLOW_TRACKING_URI": world.tracking, "PROMOTION_URL": world.promotion, **login}
        self.kubelet = self._stack.enter_context(
            Kubelet(self.plane, self.decided.stack.runtime, self.decided.stack.images, self.environment)
        )
        self.port = self._gateway()
        self.start_controller({})

    def start_controller(self, settings: Mapping[str, str], name: str = "rollout") -> None:
        """Start it as the manifest has it, but for `settings`."""
        runtime, images = self.decided.stack.runtime, self.decided.stack.images
        environment = {**self.environment, "POLL_SECONDS": "5", **settings}
        self.controller = start_controller(runtime, images, self.plane, environment, name)
        self._stack.callback(self.controller.stop)

    def _gateway(self) -> int:
        plane, runtime = self.plane, self.decided.stack.runtime
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificate", "namespace": "gateway"},
            "type": "kubernetes.io/tls", "stringData": certificate(timedelta(days=30)),
        }  # fmt: skip
        plane.post(secret)
        account = plane.cluster.path(Identity("v1", "ServiceAccount", "gateway", "gateway"))
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 14400}}
        token = plane.cluster.request("asking for a token", "POST", f"{account}/token", asked)["status"]["token"]
        ports = {name: free_port() for name in ("http", "https", "health", "metrics")}
        given = options(TREE / "infrastructure/gateway/base/controller.yaml", "traefik")
        own = {
            **{f"entrypoints.{name}.address": f"127.0.0.1:{port}" for name, port in ports.items()},
            "providers.kubernetesgateway.endpoint": f"https://127.0.0.1:{plane.port}",
            "providers.kubernetesgateway.token": token,
            "providers.kubernetesgateway.certauthfilepath": "/run/ca.crt",
        }
        container = runtime.start(
            self.decided.stack.images["gateway"], "gateway",
            [f"--{flag}={value}" for flag, value in {**given, **own}.items()],
            read_only={self.folder / "certificates/apiserver.crt": "/run/ca.crt"},
        )  # fmt: skip
        self._stack.callback(container.stop)
        container.until(lambda: answers(f"http://127.0.0.1:{ports['health']}/ping"))
        # The Gateway names the port that it has on a cluster.
        live = plane.get("Gateway", "gateway/gateway", ROUTES)
        assert live
        listener = {**live["spec"]["listeners"][0], "port": ports["https"]}
        plane.edit("Gateway", "gateway/gateway", {"spec": {"listeners": [listener]}}, ROUTES)
        return ports["https"]

    # What is decided

    def register(self, label: int) -> str:
        """A version of a model that always says `label`; its number."""
        stack, world = self.decided.stack, self.decided.world
        done = stack.runtime.start(
            stack.images["model-server"], f"log-{label}", ["-c", LOG, str(label)], entrypoint=["/usr/bin/python3"],
            environment={
                "MLFLOW_TRACKING_URI": world.tracking, "MLFLOW_TRACKING_USERNAME": "trainer",
                "MLFLOW_TRACKING_PASSWORD": CALLERS["trainer"], "GIT_PYTHON_REFRESH": "quiet", "HOME": "/tmp",  # noqa: S108
            },
        )  # fmt: skip
        assert done.wait(300) == 0, done.output
        run = done.output.split("told: ")[1].split()[0]
        assert world.evaluate(run)["passed"]
        status, answer = world.decide("versions", run=run)
        assert status == 200, answer
        return str(answer["version"])

    def promote(self, version: str) -> None:
        """Have production serve a version, and wait for it."""
        self.decided.world.promote("production", version)
        wait_for(lambda: self.serves("production", version), f"production serves {version}", 180)

    def rollback(self) -> str:
        """Decide to go back; the version."""
        status, answer = self.decided.world.decide("stages/production/rollback")
        assert status == 200, answer
        return str(answer["version"])

    # What has come of it

    def deployment(self, stage: str) -> dict[str, Any]:
        """As it is."""
        found = self.plane.get("Deployment", f"serving/{MODEL}-{stage}", APPS)
        assert found
        return found

    def version(self, stage: str) -> str | None:
        """Which version a Deployment was told to serve; none where it is to have no pods."""
        live = self.deployment(stage)
        version: str | None = live["spec"]["template"]["metadata"].get("annotations", {}).get(VERSION)
        return version if live["spec"]["replicas"] else None

    def serves(self, stage: str, version: str) -> bool:
        """Whether all pods of a Deployment serve a version."""
        return self.version(stage) == version and rolled_out(self.deployment(stage))

    def labels(self) -> dict[str, set[str | None]]:
        """For which stage the pods of each Deployment answer."""
        found: dict[str, set[str | None]] = {}
        for pod in self.plane.pods("serving"):
            labels = pod["metadata"]["labels"]
            if "ml-cluster.dev/stage" not in labels or "deletionTimestamp" in pod["metadata"]:
                continue
            found.setdefault(labels["ml-cluster.dev/stage"], set()).add(labels.get(ANSWERS))
        return found
