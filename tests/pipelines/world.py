"""A cluster that pipelines run on: a real API server, registry, promotion service, stores and metrics."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from infra.manifests import TREE
from providers.framework import ProviderError
from tests.engine.harness import wait_for
from tests.images.promotion import CALLERS
from tests.images.services import PASSWORD, answers, free_port
from tests.k8s.conftest import apply, kubectl
from tests.pipelines.kubelet import Kubelet
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.images.decided import Decided
    from tests.providers.kubernetes.control_plane import ControlPlane

FOLDERS = ("infrastructure/gateway-api", "infrastructure/base", "platform/training/base", "platform/monitoring/base")
STAGES = ("staging", "canary", "production")
LOGINS = {
    "pipelines/metadata-store": {"password": PASSWORD},
    "pipelines/tracking": {"username": "pipelines", "password": CALLERS["pipelines"]},
    "pipelines/artifacts": {"access-key": "tests", "secret-key": PASSWORD},
    "training/tracking": {"username": "trainer", "password": CALLERS["trainer"]},
    "training/artifacts": {"access-key": "tests", "secret-key": PASSWORD},
}
VERSION = "ml-cluster.dev/model-version"
RUN_LABEL, STEP_LABEL = "ml-cluster.dev/pipeline-run", "ml-cluster.dev/pipeline-step"
LAUNCH = """mutation($job: String!, $config: RunConfigData, $tags: [ExecutionTag!]) { launchRun(executionParams: {
 selector: {repositoryLocationName: "pipelines", repositoryName: "__repository__", jobName: $job},
 runConfigData: $config, executionMetadata: {tags: $tags}}) {
 __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUN = """query($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value }
 stepStats { stepKey status startTime endTime } } } }"""
TICKS = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
 ... on Sensor { sensorState { ticks { status } } } } }"""
TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
RUNS = """{ runsOrError(limit: 50) { ... on Runs { results {
 runId status rootRunId parentRunId tags { key value } } } } }"""
EVENTS = """query($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { __typename
 ... on MessageEvent { message stepKey timestamp }
 ... on ExecutionStepFailureEvent { failureMetadata { description } } } } } }"""


@dataclass
class World:
    """Everything, while it is entered."""

    plane: ControlPlane
    decided: Decided
    folder: Path
    counted: dict[str, list[float]] = field(default_factory=dict)
    """What the gateway has counted of each Deployment: requests, errors, slow answers."""
    _ended: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.web, self.metrics_port, self.alerts_port = (free_port() for _ in range(3))
        stack, runtime = self.decided.stack, self.decided.stack.runtime
        apply(self.plane, *FOLDERS)
        wait_for(lambda: self.plane.get("Namespace", "monitoring"), "the namespaces")
        self.put_models({"variants": ["default", "bad"], "to": "production"})
        self._database()
        self._metrics()
        apply(self.plane, "platform/pipelines")
        apply(self.plane, "platform/serving/base", "models/digits")
        for name, content in LOGINS.items():
            namespace, _, secret = name.partition("/")
            literals = [f"--from-literal={key}={value}" for key, value in content.items()]
            done = kubectl(self.plane, "create", "secret", "generic", secret, f"--namespace={namespace}", *literals)
            assert done.returncode == 0, done.stderr
        account = self.folder / "account"
        account.mkdir()
        token = kubectl(self.plane, "create", "token", "pipelines", "--namespace=pipelines", "--duration=24h").stdout
        (account / "token").write_text(token.strip())
        (account / "ca.crt").write_text((self.plane.folder / "certificates/apiserver.crt").read_text())
        for path in (account, *account.iterdir()):
            os.chown(path, 65532, 65532)
        port = stack.postgres.port
        self.kubelet = Kubelet(
            self.plane, runtime, stack.images, account,
            {
                **{key: value for key, value in stack.objects.environment.items() if key.startswith("AWS")},
                "MLFLOW_TRACKING_URI": stack.tracking.url, "PROMOTION_URL": stack.promotion,
                "DATABASE_URL": f"postgresql+psycopg2://pipelines:{PASSWORD}@127.0.0.1:{port}/pipelines",
                "METRICS_URL": f"http://127.0.0.1:{self.metrics_port}",
                "ALERTS_URL": f"http://127.0.0.1:{self.alerts_port}",
                "API_SERVER": f"https://127.0.0.1:{self.plane.port}", "HOST": "127.0.0.1", "PORT": str(self.web),
            },
        )  # fmt: skip
        self.kubelet.__enter__()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()
        wait_for(self.is_ready, "the pipelines' page", 300)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.kubelet.__exit__()
        self._store.terminate()
        self._store.wait()

    def is_ready(self) -> bool:
        """Whether the service knows its pipelines."""
        if not answers(f"http://127.0.0.1:{self.web}/server_info"):
            return False
        found = self.ask("{ workspaceOrError { ... on Workspace { locationEntries { loadStatus locationOrLoadError {"
                         " __typename ... on PythonError { message } } } } } }")  # fmt: skip
        entries = found["workspaceOrError"]["locationEntries"]
        return bool(entries) and all(
            one["loadStatus"] == "LOADED" and one["locationOrLoadError"]["__typename"] == "RepositoryLocation"
            for one in entries
        )

    def put_models(self, pipeline: dict[str, Any]) -> None:
        """Have the cluster's models be digits, with this pipeline."""
        from cli.model_code import pipeline_of  # noqa: PLC0415
        from services.pipelines.settings import Known, Pipeline  # noqa: PLC0415

        digits = pipeline_of(TREE.parent / "models/digits")
        takes = {one: digits.takes[one] for one in ("default", "bad")}
        known = Known(name="digits", pipeline=Pipeline.model_validate(pipeline), takes=takes)
        text = json.dumps([known.model_dump(mode="json")])
        manifest = {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pipelines-models", "namespace": "platform"},
            "data": {"pipelines.json": text},
        }  # fmt: skip
        done = kubectl(self.plane, "apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(manifest))
        assert done.returncode == 0, done.stderr

    def change_models(self, pipeline: dict[str, Any]) -> None:
        """The same, and wait until the service has noticed and started anew."""
        before = self.kubelet.restarts
        self.put_models(pipeline)
        wait_for(lambda: self.kubelet.restarts > before, "the service's end", 180)
        wait_for(self.is_ready, "the pipelines' page", 300)

    # The page's API

    def ask(self, query: str, **variables: Any) -> Any:
        """What the page's API answers."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.web}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def launch(self, config: dict[str, Any] | None = None) -> str:
        """Start a run of digits by hand; its id."""
        asked = {"ops": {"code": {"config": config or {}}}}
        made = self.ask(LAUNCH, job="digits", config=asked, tags=[])["launchRun"]
        assert made["__typename"] == "LaunchRunSuccess", made
        return str(made["run"]["runId"])

    def terminate(self, run: str) -> None:
        """End a run by hand."""
        made = self.ask(TERMINATE, id=run)["terminateRun"]
        assert made["__typename"] == "TerminateRunSuccess", made

    def status(self, run: str) -> str:
        """How a run is."""
        return str(self.ask(RUN, id=run)["runOrError"]["status"])

    def end(self, run: str, seconds: float = 900) -> str:
        """Wait for a run's end; how it ended."""
        wait_for(lambda: self.status(run) in {"SUCCESS", "FAILURE", "CANCELED"}, f"the end of run {run}", seconds)
        assert not self.failures, self.failures
        return self.status(run)

    def steps(self, run: str) -> dict[str, dict[str, Any]]:
        """Each step of a run: `status`, `startTime`, `endTime`."""
        return {one["stepKey"]: one for one in self.ask(RUN, id=run)["runOrError"]["stepStats"]}

    def work(self, run: str) -> dict[str, float]:
        """How long the container of each step of a run took that has one, in seconds."""
        found = {}
        for pod in self.plane.pods("training"):
            labels = pod["metadata"]["labels"]
            job = self.plane.get("Job", f"training/{labels['batch.kubernetes.io/job-name']}", "batch/v1")
            assert job
            if job["metadata"]["labels"][RUN_LABEL] == run:
                began, ended = self.kubelet.times[pod["metadata"]["name"]]
                found[job["metadata"]["labels"][STEP_LABEL]] = ended - began
        return found

    def told(self, run: str) -> str:
        """All that a run's events say."""
        events = self.ask(EVENTS, id=run)["logsForRun"]["events"]
        why = [(one.get("failureMetadata") or {}).get("description") or "" for one in events]
        told = [f"{one.get('stepKey') or ''}: {one.get('message')}" for one in events]
        return "\n".join(f"{one} {other}" for one, other in zip(told, why, strict=True))

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the newest first."""
        found: list[dict[str, Any]] = self.ask(RUNS)["runsOrError"]["results"]
        return found

    def jobs(self) -> list[str]:
        """Training's Jobs, in the order in which they were made."""
        found = self.plane.cluster.items("batch/v1", "Job", "training")
        found.sort(key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
        return [one["metadata"]["name"] for one in found]

    # What other parts of the platform do

    def _database(self) -> None:
        stack = self.decided.stack
        sql = TREE / "platform/pipelines/login/database.sql"
        done = stack.runtime.start(
            stack.images["postgres"], "pipelines-database", ["--set=ON_ERROR_STOP=1", "--file=/etc/database.sql"],
            entrypoint=["psql"],
            environment={
                "PGHOST": "127.0.0.1", "PGPORT": str(stack.postgres.port), "PGUSER": "mlflow", "PGPASSWORD": PASSWORD,
                "PGDATABASE": "postgres", "PIPELINES_PASSWORD": PASSWORD,
            },
            read_only={sql: "/etc/database.sql"},
        )  # fmt: skip
        assert done.wait() == 0, done.output

    def start_alerts(self) -> None:
        """Start Alertmanager, which nobody is told by."""
        stack = self.decided.stack
        configuration = stack.runtime.work / "alertmanager.yaml"
        configuration.write_text('{"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}')
        container = stack.runtime.start(
            stack.images["alertmanager"], "alerts",
            [
                "--config.file=/etc/alertmanager.yaml", "--storage.path=/tmp/alerts", "--cluster.listen-address=",
                f"--web.listen-address=127.0.0.1:{self.alerts_port}",
            ],
            read_only={configuration: "/etc/alertmanager.yaml"},
        )  # fmt: skip
        container.until(lambda: answers(f"http://127.0.0.1:{self.alerts_port}/-/ready"))

    def alert(self, **labels: str) -> None:
        """Have an alert fire."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.alerts_port}/api/v2/alerts", json.dumps([{"labels": labels}]).encode(),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        urllib.request.urlopen(request, timeout=10).close()

    def looks(self, sensor: str) -> int:
        """How often a sensor has looked."""
        selector = {"repositoryLocationName": "pipelines", "repositoryName": "__repository__", "sensorName": sensor}
        found = self.ask(TICKS, selector=selector)["sensorOrError"]["sensorState"]["ticks"]
        return sum(one["status"] in {"SKIPPED", "SUCCESS"} for one in found)

    def looked(self, sensor: str) -> bool:
        """Whether it has looked at all."""
        return self.looks(sensor) > 0

    def started_by(self, cause: str) -> list[dict[str, Any]]:
        """The runs that something started."""
        return [one for one in self.runs() if {"key": "ml-cluster/cause", "value": cause} in one["tags"]]

    def _metrics(self) -> None:
        store = program("metrics", "victoria-metrics")
        self._store = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", store, f"-storageDataPath={self.folder}/metrics",
             f"-httpListenAddr=127.0.0.1:{self.metrics_port}", "-search.latencyOffset=0s"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: answers(f"http://127.0.0.1:{self.metrics_port}/health"), "the metrics")

    def _follow(self) -> None:
        """Have Deployments serve what is decided, as the rollout controller and kubelets do; count as a gateway."""
        while not self._ended.wait(0.5):
            try:
                self._roll_out()
                self._count()
                self.failures.clear()  # on a busy machine something may answer late, once
            except (ProviderError, OSError, AssertionError) as error:
                self.failures.append(error)

    def _roll_out(self) -> None:
        decided = self.decided.world.read("stages")["stages"]
        for stage in STAGES:
            name = f"serving/digits-{stage}"
            live = self.plane.get("Deployment", name, "apps/v1")
            assert live
            version = decided.get(stage, {}).get("version")
            template = live["spec"]["template"]["metadata"].get("annotations", {})
            if template.get(VERSION) != version:
                change = {"spec": {"replicas": int(version is not None), "template": {"metadata": {"annotations": {
                    VERSION: version}}}}}  # fmt: skip
                self.plane.edit("Deployment", name, change, "apps/v1")
                continue
            if version is None or live["status"].get("observedGeneration", 0) < live["metadata"]["generation"]:
                continue
            for pod in self.plane.pods("serving"):
                if pod["metadata"]["labels"].get("app") == live["spec"]["selector"]["matchLabels"]["app"]:
                    self._run_pod(pod)

    def _run_pod(self, pod: dict[str, Any]) -> None:
        if pod["status"].get("phase") == "Running":
            return
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        name = pod["spec"]["containers"][0]["name"]
        state = {"name": name, "ready": True, "restartCount": 0, "image": "i", "imageID": "i", "state": {"running": {}}}
        self.plane.report(
            "Pod", f"serving/{pod['metadata']['name']}",
            {"phase": "Running", "conditions": [ready], "containerStatuses": [state]},
        )  # fmt: skip

    def _count(self) -> None:
        lines = []
        for deployment, (requests, errors, slow) in self.counted.items():
            service = f'service="httproute-serving-digits-canary-svc-serving-{deployment}-80@kubernetesgateway"'
            labels = f'{service},method="POST",protocol="http"'
            lines += [
                f'traefik_service_requests_total{{{labels},code="200"}} {requests - errors:g}',
                f'traefik_service_requests_total{{{labels},code="500"}} {errors:g}',
                f'traefik_service_request_duration_seconds_bucket{{{labels},code="200",le="0.25"}} {requests - slow:g}',
                f'traefik_service_request_duration_seconds_bucket{{{labels},code="200",le="+Inf"}} {requests:g}',
            ]
        if not lines:
            return
        text = "\n".join(lines).encode()
        urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics_port}/api/v1/import/prometheus", text, timeout=10
        ).close()

    def answer(self, seconds: float, **errors: float) -> None:
        """Have production and canary answer requests for a while: `canary=0.5` is a share of errors."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for stage, requests in (("production", 90), ("canary", 10)):
                counts = self.counted.setdefault(f"digits-{stage}", [0.0, 0.0, 0.0])
                counts[0] += requests
                counts[1] += requests * errors.get(stage, 0.0)
            time.sleep(0.5)
