"""Logs from containers' files to `lab logs`: the store and the collector of the manifests, with a real API server.

The tests write what a container runtime would, and start the programs with the manifests' own arguments.
`pytest -m slow_cluster tests/k8s/test_logging.py`; needs the family `logs` in the bundle.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import urllib3
import yaml

from cli import logs as verb
from cli import logstore
from cli.errors import LabError
from cli.logstore import LogStore
from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.k8s import report
from tests.providers.kubernetes.control_plane import NODE, ControlPlane, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow_cluster, pytest.mark.timeout(900)]
FOLDER = TREE / "platform" / "logging"
PODS, LINES = 20, 5000
STEPS = 10
NAMESPACE = "training"
SECRET = "planted-secret-hunter2"  # noqa: S105
FORBIDDEN = "password"


def arguments(file: str, container: str) -> list[str]:
    """Of a container, as its manifest has them."""
    for one in yaml.safe_load_all((FOLDER / file).read_text()):
        for found in one.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ()):
            if found["name"] == container:
                return list(found["args"])
    raise AssertionError(container)


class Collected:
    """The store, the collector, and the files of a node's containers."""

    def __init__(self, folder: Path, plane: ControlPlane) -> None:
        self.folder, self.plane = folder, plane
        self.port, self.agent_port = free_port(), free_port()
        self.pool = urllib3.HTTPConnectionPool("127.0.0.1", self.port, retries=False)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("containers", "pods", "data", "positions"):
            (folder / name).mkdir()

    def start_store(self) -> None:
        self._start("victoria-logs", arguments("store.yaml", "victoria-logs"), {
            "-storageDataPath": str(self.folder / "data"), "-httpListenAddr": f"127.0.0.1:{self.port}",
            "-storage.minFreeDiskSpaceBytes": "1MiB",
        })  # fmt: skip

    def start_agent(self) -> None:
        self._start("vlagent", arguments("nodes.yaml", "vlagent"), {
            "-remoteWrite.url": f"http://127.0.0.1:{self.port}/insert/native",
            "-tmpDataPath": str(self.folder / "positions"),
            "-httpListenAddr": f"127.0.0.1:{self.agent_port}",
            "-kubernetesCollector.logsPath": str(self.folder / "containers"), "-remoteWrite.retryMaxTime": "1s",
        })  # fmt: skip

    def _start(self, name: str, given: list[str], own: dict[str, str]) -> None:
        kept = [one for one in given if one.partition("=")[0] not in own]
        environment = {"KUBECONFIG": str(self.plane.kubeconfig)}
        self.start(name, program("logs", name), [*kept, *map("=".join, own.items())], environment)

    def start(self, name: str, path: Path, options: list[str], environment: dict[str, str]) -> None:
        """Start a program; it does not outlive the tests."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", path, *options],
                env={**os.environ, **environment}, stdout=log, stderr=log,
            )  # fmt: skip

    @staticmethod
    def answers(pool: urllib3.HTTPConnectionPool) -> bool:
        """Whether somebody does, whatever it is."""
        try:
            pool.request("GET", "/")
        except urllib3.exceptions.HTTPError:
            return False
        return True

    def end(self, name: str, number: signal.Signals) -> None:
        """End a program by a signal."""
        self.processes[name].send_signal(number)
        self.processes[name].wait(60)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def file(self, pod: str) -> Path:
        """Where the runtime writes what a container says."""
        return self.folder / "pods" / f"{NAMESPACE}_{pod}_uid" / "main" / "0.log"

    def run(self, pod: str, labels: dict[str, str], annotations: dict[str, str]) -> None:
        """A pod on the node, with a file for its log."""
        path = self.file(pod)
        path.parent.mkdir(parents=True)
        path.touch()
        identity = f"{pod}-id"
        (self.folder / "containers" / f"{pod}_{NAMESPACE}_main-{identity}.log").symlink_to(path)
        container = {
            "name": "main",
            "image": f"localhost/a@sha256:{'0' * 64}",
            "env": [{"name": "KEY", "value": SECRET}],
        }
        metadata = {"name": pod, "namespace": NAMESPACE, "labels": labels, "annotations": annotations}
        manifest = {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {
                "nodeName": NODE, "containers": [container], "tolerations": [{"operator": "Exists"}],
                "automountServiceAccountToken": False, "enableServiceLinks": False,
            },
        }  # fmt: skip
        self.plane.post(manifest)
        self.plane.report("Pod", f"{NAMESPACE}/{pod}", running(manifest, containerID=f"containerd://{identity}"))

    def write(self, pod: str, numbers: range) -> None:
        """Lines as containerd writes them: every other is JSON."""
        now = datetime.now(UTC)
        with self.file(pod).open("a") as file:
            for number in numbers:
                said = f"{pod} line {number:06}"
                if number % 2:
                    said = json.dumps({"msg": said, "level": "info", "epoch": number, FORBIDDEN: SECRET})
                at = (now + timedelta(microseconds=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                file.write(f"{at} stderr F {said}\n")

    def stats(self, query: str) -> list[dict[str, Any]]:
        """What the store answers; nothing while it is away."""
        try:
            told = self.pool.request("GET", "/select/logsql/query", fields={"query": query}).data
        except urllib3.exceptions.HTTPError:
            return []
        return [json.loads(line) for line in told.splitlines() if line]

    def found(self) -> int:
        """How many lines there are, each counted once."""
        per_pod = self.stats(f'* | stats by ("{logstore.POD}") count_uniq(_msg) as n')
        return sum(int(one["n"]) for one in per_pod)

    def wait_for(self, lines: int) -> None:
        """Wait until so many are there."""
        deadline = time.monotonic() + 300
        while self.found() < lines:
            assert time.monotonic() < deadline, f"{self.found()} of {lines} lines"
            time.sleep(1)

    def text(self, path: str) -> str:
        """What the store answers to a question about its streams and fields."""
        return str(
            self.pool.request("GET", f"/select/logsql/{path}", fields={"query": "*", "start": "1d"}).data.decode()
        )


@pytest.fixture(scope="module")
def collected(
    tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane, pytestconfig: pytest.Config
) -> Iterator[Collected]:
    made = Collected(tmp_path_factory.mktemp("logs"), control_plane)
    control_plane.post({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    account = f"{NAMESPACE}/default"
    wait_for(lambda: control_plane.get("ServiceAccount", account), "the namespace's account")
    try:
        for number in range(PODS):
            labels = {"app": "digits", "ml-cluster.dev/model": "digits", "ml-cluster.dev/model-version": str(number)}
            made.run(f"digits-train-{number}", labels, {"token": SECRET})
        text = _write_while_programs_go_and_come(made)
        print(f"\n{text}", flush=True)
        if target := pytestconfig.getoption("--monitoring-report"):
            report.write(target, "Logs", text)
        yield made
    finally:
        made.close()


def _write_while_programs_go_and_come(world: Collected) -> str:
    """100,000 lines. The collector is killed and the store is restarted meanwhile; what came of it, for a report."""
    began = time.monotonic()
    world.start_store()
    world.start_agent()
    size = LINES // STEPS
    for step in range(STEPS):
        for number in range(PODS):
            world.write(f"digits-train-{number}", range(step * size, (step + 1) * size))
        if step == 0:
            world.wait_for(1)
        elif step == 2:
            world.end("vlagent", signal.SIGKILL)
        elif step == 3:
            world.end("victoria-logs", signal.SIGTERM)
        elif step == 5:
            world.start_agent()
        elif step == 7:
            world.start_store()
    world.wait_for(PODS * LINES)
    copies = sum(int(one["n"]) for one in world.stats("* | stats count() as n")) - world.found()
    lost = PODS * LINES - world.found()
    seconds = time.monotonic() - began
    rows = [("lines", f"{PODS * LINES:,}"), ("pods", PODS), ("lost", lost), ("there twice", copies)]
    told = report.table(("", "number"), [*rows, ("seconds until all were found", f"{seconds:.0f}")])
    return f"The collector was killed (SIGKILL) and the store restarted while they were written.\n\n{told}"


def test_no_line_is_lost(collected: Collected) -> None:
    assert collected.found() == PODS * LINES


def test_labels_say_where_a_line_is_from_and_json_is_read(collected: Collected) -> None:
    (line,) = collected.stats(f'"{logstore.POD}":="digits-train-7" _msg:="digits-train-7 line 004013" | limit 1')
    wanted = {
        "kubernetes.pod_namespace": NAMESPACE,
        "level": "info",
        "epoch": "4013",
        "kubernetes.container_name": "main",
    }
    labels = {"app": "digits", "ml-cluster.dev/model": "digits", "ml-cluster.dev/model-version": "7"}
    wanted |= {f"kubernetes.pod_labels.{name}": value for name, value in labels.items()}
    assert {key: line.get(key) for key in wanted} == wanted
    assert 'kubernetes.pod_labels.ml-cluster.dev/model-version="7"' in line["_stream"]


def test_a_planted_secret_is_in_no_label_and_no_field_of_its_kind(collected: Collected) -> None:
    """It is in an annotation and the environment of each pod, and in a field that is a secret by its name."""
    assert SECRET not in collected.text("streams")
    assert SECRET not in collected.text("field_names")
    assert f'"{FORBIDDEN}"' not in collected.text("field_names")
    assert collected.stats(f'*:~"{SECRET}" | stats count() as n') == [{"n": "0"}]


def test_lab_logs_finds_lines_of_a_pod_that_is_gone(collected: Collected) -> None:
    gone = "digits-train-3"
    collected.plane.cluster.request(
        "ending", "DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{gone}?gracePeriodSeconds=0"
    )
    shutil.rmtree(collected.file(gone).parents[1])
    store = LogStore(collected.pool)
    (line,) = store.lines(logstore.pods(gone, []), "1h", "line 004777", 10)
    assert (line.source, line.text) == (f"{gone}/main", f"{gone} line 004777 epoch=4777 level=info")
    assert len(store.lines(logstore.pods("digits", []), "1h", "line 004778")) == PODS
    with pytest.raises(logstore.StoreError, match="answers 400"):
        store.lines(logstore.pods("digits", []), "an hour")


def test_the_verb_reads_pods_that_are_gone_from_the_store_and_says_so(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = SimpleNamespace(
        cluster=collected.plane.cluster, workloads=list, connect=lambda _service: collected.pool,
        credentials={"monitoring": {"username": "admin", "password": "any"}}, profile="lab",
        login_headers=lambda _service: urllib3.make_headers(basic_auth="admin:any"),
    )  # fmt: skip
    monkeypatch.setattr(verb, "Platform", SimpleNamespace(of=lambda _session: platform))
    context = cast("Any", SimpleNamespace(obj=None))
    verb.logs(context, "digits-train-3", since="1h", grep="line 00477", tail=2)
    told = capsys.readouterr()
    last = "digits-train-3 line 004779 epoch=4779 level=info"
    assert told.out.splitlines()[-1] == f"digits-train-3/main | {last}"
    assert told.err == "From the log store, the last 2: --tail N shows more:\n"
    with pytest.raises(LabError, match="there are no pods for 'nothing-like-this'"):
        verb.logs(context, "nothing-like-this", since="1h")
    assert capsys.readouterr().err == "From the log store: no lines\n"


def test_the_page_and_the_lines_need_the_password(collected: Collected, tmp_path: Path) -> None:
    """Through the login of monitoring, as its manifest has it."""
    given = TREE / "platform" / "monitoring" / "base" / "login.yaml"
    (routes,) = (one for one in yaml.safe_load_all(given.read_text()) if one["kind"] == "ConfigMap")
    (tmp_path / "login.yaml").write_text(
        routes["data"]["login.yaml"].replace("http://logs.monitoring:9428", f"http://127.0.0.1:{collected.port}")
    )
    port = free_port()
    options = [f"-auth.config={tmp_path / 'login.yaml'}", f"-httpListenAddr=127.0.0.1:{port}"]
    collected.start("vmauth", program("metrics", "vmauth"), options, {"PASSWORD": "right"})
    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, retries=False)
    wait_for(lambda: collected.answers(pool), "the login")
    sources = logstore.pods("digits-train-4", [])
    right, wrong = (LogStore(pool, urllib3.make_headers(basic_auth=f"admin:{word}")) for word in ("right", "wrong"))
    assert [one.text for one in right.lines(sources, "1h", "line 004002")] == ["digits-train-4 line 004002"]
    for store in (wrong, LogStore(pool)):
        with pytest.raises(logstore.StoreError, match="answers 401"):
            store.lines(sources, "1h")
    assert pool.request("GET", "/select/vmui/").status == 401
    login = urllib3.make_headers(basic_auth="admin:right")
    assert b"<html" in pool.request("GET", "/select/vmui/", headers=login).data
    assert pool.request("POST", "/insert/jsonline", body="{}", headers=login).status in {400, 404}


def test_a_capability_is_found_by_its_workloads(collected: Collected) -> None:
    workload = {
        "metadata": {"name": "a", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": "training"}},
        "spec": {"selector": {"matchLabels": {"app": "digits"}}},
    }
    store = LogStore(collected.pool)
    assert len(store.lines(logstore.capability("training", [workload]), "1h", "line 004011")) == PODS


def test_a_nodes_journal_goes_the_same_way(collected: Collected) -> None:
    """As systemd-journal-upload sends it (systemd's Journal Export Format)."""
    moment = int(time.time() * 1e6)
    entry = {
        "__CURSOR": "s=1", "__REALTIME_TIMESTAMP": str(moment), "_HOSTNAME": NODE, "_SYSTEMD_UNIT": "kubelet.service",
        "PRIORITY": "6", "MESSAGE": "Started a container",
    }  # fmt: skip
    body = "".join(f"{key}={value}\n" for key, value in entry.items()) + "\n"
    agent = urllib3.HTTPConnectionPool("127.0.0.1", collected.agent_port)
    kind = {"Content-Type": "application/vnd.fdo.journal"}
    assert agent.request("POST", "/insert/journald/upload", body=body, headers=kind).status == 200
    store = LogStore(collected.pool)
    wait_for(lambda: store.lines(logstore.journal(NODE), "1h"), "the journal's line", seconds=60)
    (line,) = store.lines(logstore.journal(NODE), "1h")
    assert (line.source, line.text.partition(" level")[0]) == (f"{NODE}/kubelet.service", "Started a container")


def test_a_store_that_is_away_is_told() -> None:
    with pytest.raises(logstore.StoreError, match="does not answer"):
        LogStore(urllib3.HTTPConnectionPool("127.0.0.1", 9, retries=False)).lines(logstore.pods("a", []), "1h")
