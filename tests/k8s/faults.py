"""For each alert, how it is made true and how that is mended: really, where a machine without nodes lets it be done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import urllib3

from services.delivery.events import COMMIT, PROMOTED, Event, model_subject
from services.delivery.store import Store
from tests.devcloud.supervised import is_running
from tests.k8s.chain import CONTAINER, ETCD, POD, certificate
from tests.k8s.monitors import MONITORING, options
from tests.k8s.receivers import LOOPBACK, Web
from tests.providers.kubernetes.control_plane import NODE, free_port, program, running
from tests.services.delivery.postgres import NOBODY, PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.k8s.chain import Chain

MIB = 1 << 20
DISK_MIB = 256


def nothing() -> None:
    """Nothing has to be done."""


@dataclass
class Fault:
    """`makes` and `mends` return when that is done. `after` are alerts whose faults are over before."""

    alert: str
    how: str
    makes: Callable[[], object]
    mends: Callable[[], object]
    labels: dict[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    prepares: Callable[[], object] = nothing
    """Before all faults."""
    slowly: bool = False
    """What is wrong is so once `makes` returns, not as it begins."""
    seconds: float = 600
    """For how long a message is waited for; as much as the rule waits itself, and some minutes."""


class Faults:
    """Makes and mends them."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.folder = chain.folder
        self.pool = urllib3.PoolManager()

    def all(self) -> list[Fault]:
        """One for each alert, but for `Watchdog`, which always comes."""
        return [
            *self.lease(), *self.machines(), *self.platform(), *self.models(), *self.monitoring(), *self.logs(),
            *self.cloud(),
        ]  # fmt: skip

    # The lease.

    def lease(self) -> list[Fault]:
        """It runs down, and is extended."""
        tell = self.chain.tell_stack

        def ends_in(minutes: float) -> None:
            tell(datetime.now(UTC) + timedelta(minutes=minutes, seconds=20))
            time.sleep(20)

        def extend() -> None:
            tell(datetime.now(UTC) + timedelta(hours=9))

        return [
            Fault(
                "LeaseEndsSoon", "the lease runs down to 60 minutes; it is extended", lambda: ends_in(60), extend,
                slowly=True,
            ),
            Fault(
                "LeaseEndsNow", "the lease runs down to 15 minutes; it is extended", lambda: ends_in(15), extend,
                after=("LeaseEndsSoon",), slowly=True,
            ),
        ]  # fmt: skip

    # Machines.

    def exporter(self, node: str, *, within: Path | None = None, port: int = 0) -> None:
        """Start a node's exporter, and make its pod unless its port says that there is one."""
        self.chain.node(node)
        own_port = port or free_port()
        own = {
            "path.procfs": "/proc", "path.sysfs": "/sys", "path.rootfs": "/", "path.udev.data": "/run/udev/data",
            "web.listen-address": f"{LOOPBACK}:{own_port}",
        }  # fmt: skip
        given = {**options(MONITORING / "metrics" / "nodes.yaml", "node-exporter"), **own}
        flags = [f"--{flag}" if value == "true" else f"--{flag}={value}" for flag, value in given.items()]
        command: list[str | Path] = [program("node-exporter", "node-exporter"), *flags]
        if within is not None:  # a kernel that says what this file has
            shown = 'mount --bind "$0" /proc/meminfo && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", shown, within, *command]
        self.chain.monitors.launch(f"nodes-{node}", command, own_port, probe="/")
        if not port:
            self.chain.pod("monitoring-nodes", f"nodes-{node}", own_port, node=node)

    def machines(self) -> list[Fault]:
        """Nodes."""
        chain = self.chain
        meminfo = self.folder / "meminfo"
        true = open("/proc/meminfo").read()  # noqa: PTH123, SIM115
        total = int(next(line for line in true.splitlines() if line.startswith("MemTotal")).split()[1])
        clock = Web()

        def available(share: float) -> None:
            kept = [line for line in true.splitlines() if not line.startswith("MemAvailable")]
            meminfo.write_text("\n".join([*kept, f"MemAvailable: {int(total * share)} kB", ""]))

        def full_of_memory() -> None:
            available(0.6)
            self.exporter("memory", within=meminfo)

        def turn(seconds: int) -> None:
            # A process of one's own has no clock of its own: between exporter and store somebody turns it.
            def relay() -> str:
                url = chain.monitors.url("nodes-clock") + "/metrics"
                text = self.pool.request("GET", url).data.decode()
                lines = (
                    f"node_time_seconds {float(line.split()[1]) + seconds}"
                    if line.startswith("node_time_seconds ")
                    else line
                    for line in text.splitlines()
                )
                return "\n".join(lines) + "\n"

            clock.relays = relay

        def turned_clock() -> None:
            self.exporter("clock", port=free_port())
            turn(0)
            clock.start()
            chain.pod("monitoring-nodes", "nodes-clock", clock.port, node="clock")

        def mount(node: str) -> None:
            where, file = self.folder / node, self.folder / f"{node}.img"
            where.mkdir()
            with file.open("wb") as made:
                made.truncate(DISK_MIB * MIB)
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", file], check=True)
            subprocess.run(["mount", "-o", "loop", file, where], check=True)
            chain.unmounts.append(where)
            self.exporter(node)

        def fill(node: str, to: float, seconds: int) -> None:
            """Write until so much of the disk is used, in so many seconds, unless it is emptied meanwhile."""
            stat = os.statvfs(self.folder / node)
            left = int(stat.f_blocks * to - (stat.f_blocks - stat.f_bavail)) * stat.f_frsize
            path = self.folder / node / f"{to}"
            with path.open("wb") as file:
                for _ in range(seconds):
                    if chain.ended.wait(1) or not path.exists():
                        return
                    file.write(bytes(left // seconds))
                    file.flush()
                    os.fsync(file.fileno())

        def fills() -> None:
            fill("filling", 0.55, 1)
            threading.Thread(target=fill, args=("filling", 0.9, 900), daemon=True).start()

        def empty(node: str) -> None:
            for file in (self.folder / node).glob("0.*"):
                file.unlink()

        def of(node: str) -> dict[str, str]:
            return {"node": node, "mountpoint": str(self.folder / node)}

        return [
            Fault(
                "NodeNotReady", "a node's kubelet says nothing more; it does again",
                lambda: chain.nodes.discard("lost"), lambda: chain.node("lost"), {"node": "lost"},
                prepares=lambda: chain.node("lost"),
            ),
            Fault(
                "DiskFills", "a disk of 256 MiB fills, six megabytes a minute; it is emptied", fills,
                lambda: empty("filling"), of("filling"), prepares=lambda: mount("filling"),
            ),
            Fault(
                "DiskNearlyFull", "a disk is filled to 95 %; it is emptied", lambda: fill("full", 0.95, 1),
                lambda: empty("full"), of("full"), prepares=lambda: mount("full"),
            ),
            Fault(
                "MemoryShort", "a node's kernel tells of 3 % of its memory (a file over /proc/meminfo)",
                lambda: available(0.03), lambda: available(0.6), {"node": "memory"},
                prepares=full_of_memory, seconds=900,
            ),
            Fault(
                "ClockOff", "a node's time is 5 s ahead, between exporter and store", lambda: turn(5), lambda: turn(0),
                {"node": "clock"}, prepares=turned_clock,
            ),
            Fault(
                "EtcdHasNoLeader", "one of two members of an etcd is killed; it is started", self.kill_member,
                self.start_member, {"node": "etcd"}, prepares=self.start_etcd,
            ),
        ]  # fmt: skip

    def start_etcd(self) -> None:
        """Two members, of which one is watched as a control plane's is."""
        self.peers = {name: f"http://{LOOPBACK}:{free_port()}" for name in ("watched", "other")}
        self.chain.node("etcd")
        for name in self.peers:
            self.start_member(name)
        self.chain.pod("kube-system", "etcd", address=ETCD, node="etcd", component="etcd")

    def start_member(self, name: str = "other") -> None:
        """Start a member, with the data that it has."""
        told = f"http://{ETCD}:2381" if name == "watched" else f"http://{LOOPBACK}:{free_port()}"
        client = f"http://{LOOPBACK}:{free_port()}"
        flags = {
            "name": name, "data-dir": self.folder / f"etcd-{name}", "listen-client-urls": client,
            "advertise-client-urls": client, "listen-peer-urls": self.peers[name],
            "initial-advertise-peer-urls": self.peers[name], "listen-metrics-urls": told, "unsafe-no-fsync": "true",
            "initial-cluster": ",".join(f"{one}={url}" for one, url in self.peers.items()),
        }  # fmt: skip
        command: list[str | Path] = [program("etcd", "etcd"), *(f"--{flag}={value}" for flag, value in flags.items())]
        host, _, port = told.removeprefix("http://").partition(":")
        # One alone is not ready.
        self.chain.monitors.launch(f"etcd-{name}", command, int(port), host=host, waits=False)

    def kill_member(self) -> None:
        """As a machine that loses its power."""
        self.chain.monitors.stop("etcd-other", signal.SIGKILL)

    # The platform.

    def platform(self) -> list[Fault]:
        """Certificate, backup, pods, stores, jobs."""
        chain = self.chain
        nights = "platform/backup"
        in_a_loop = {
            "containerStatuses": [{
                "name": "main", "ready": False, "restartCount": 7, "image": "i", "imageID": "i",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            }],
        }  # fmt: skip

        def cron_job() -> None:
            spec = {
                "schedule": "0 2 * * *",
                "jobTemplate": {"spec": {"template": {"spec": self.of_job()}}},
            }
            where = {"name": "backup", "namespace": "platform"}
            chain.put({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": where, "spec": spec})
            backed_up(1)

        def backed_up(hours: float) -> None:
            moment = (datetime.now(UTC) - timedelta(hours=hours)).isoformat(timespec="seconds")
            chain.report("CronJob", nights, {"lastSuccessfulTime": moment}, "batch/v1")

        def job(namespace: str, name: str) -> None:
            spec = {"backoffLimit": 0, "template": {"spec": self.of_job()}}
            where = {"name": name, "namespace": namespace}
            chain.states[name] = {"phase": "Failed", "containerStatuses": [], "conditions": []}
            chain.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": where, "spec": spec})

        def delete_job(namespace: str, name: str) -> None:
            chain.delete("Job", namespace, name, "batch/v1")

        def report_pod(name: str, **told: Any) -> None:
            chain.report("Pod", f"platform/{name}", {**running({"spec": {"containers": [CONTAINER]}}), **told})

        def pod(name: str) -> None:
            chain.states[name] = {}
            chain.pod("platform", name)

        waits = {"conditions": [{"type": "Ready", "status": "False"}]}
        return [
            Fault(
                "CertificateEnds", "the gateway's certificate is one that ends in 20 days; a new one",
                lambda: chain.secret("gateway", "certificate", certificate(timedelta(days=20)), "kubernetes.io/tls"),
                lambda: chain.secret("gateway", "certificate", certificate(timedelta(days=365)), "kubernetes.io/tls"),
            ),
            Fault(
                "BackupOld", "the last backup that succeeded was 27 hours ago; one succeeds", lambda: backed_up(27),
                lambda: backed_up(0), prepares=cron_job,
            ),
            Fault(
                "PodRestartsInALoop", "a pod's container ends again and again (its status)",
                lambda: chain.states.update(looping=in_a_loop), lambda: chain.states.update(looping={}),
                {"pod": "looping"}, after=("StoreDown",), prepares=lambda: pod("looping"),
            ),
            Fault(
                "PodNotReady", "a pod is not ready (its status)",
                lambda: chain.states.update(waiting=waits), lambda: chain.states.update(waiting={}),
                {"pod": "waiting"}, prepares=lambda: pod("waiting"), seconds=1500,
            ),
            Fault(
                "StoreDown", "PostgreSQL is stopped; it is started", lambda: self.pg("stop", "-m", "fast"),
                lambda: self.pg("start"), prepares=self.find_database,
            ),
            Fault(
                "RegistryDown", "the registry answers nobody; it does again", chain.registry.stop,
                chain.registry.start, after=("StoreDown",),
            ),
            Fault(
                "GatewayDown", "Traefik is stopped; it is started", lambda: chain.monitors.stop("gateway"),
                chain.start_gateway, after=(
                    "CertificateEnds", "GatewayErrors", "ModelErrorBudgetBurns", "ModelErrorBudgetBurnsFast",
                    "ModelSlow",
                ),
            ),
            Fault(
                "TrainingFailed", "a training's pod fails; its Job is deleted", lambda: job("training", "trained"),
                lambda: delete_job("training", "trained"), {"job_name": "trained"},
            ),
            Fault(
                "JobFailed", "another Job's pod fails; the Job is deleted", lambda: job("platform", "cleaning"),
                lambda: delete_job("platform", "cleaning"), {"job_name": "cleaning"},
            ),
        ]  # fmt: skip

    @staticmethod
    def of_job() -> dict[str, Any]:
        """A pod of a Job."""
        return {**POD, "nodeName": NODE, "restartPolicy": "Never", "containers": [CONTAINER]}

    def find_database(self) -> None:
        """Where PostgreSQL keeps what it has; and an event, so that there are figures of delivery."""
        with psycopg.connect(self.chain.database) as connection:
            row = connection.execute("show data_directory").fetchone()
        assert row
        self.data = str(row[0])
        with Store(self.chain.database) as store:
            store.add([Event(COMMIT, "", "1", datetime.now(UTC), {})])

    def pg(self, verb: str, *options: str) -> None:
        """Stop PostgreSQL, or start it as it was."""
        user = NOBODY if os.geteuid() == 0 else os.geteuid()
        port = self.chain.database.rpartition(":")[2].partition("/")[0]
        started = f"-c listen_addresses={LOOPBACK} -c port={port} -c unix_socket_directories= -c fsync=off"
        how = ("-o", started, "-l", f"{self.data}/again.log") if verb == "start" else options
        subprocess.run(
            [PROGRAMS / "pg_ctl", verb, "-w", f"--pgdata={self.data}", *how], user=user, cwd=self.data, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    # What models answer.

    def models(self) -> list[Fault]:
        """Stages of models, each with one fault."""
        chain = self.chain

        def stage(name: str, per_second: float = 1) -> None:
            chain.serve(name, per_second)

        def stages() -> None:
            # Most of what the gateway is asked for is well.
            stage("unwell", 10)
            stage("well", 15)

        def change(name: str, **told: Any) -> None:
            for attribute, value in told.items():
                setattr(chain.models[name].server, attribute, value)

        def served(name: str, *, up: bool) -> None:
            server = chain.models[name].server
            (server.start if up else server.stop)()

        def is_ready(name: str, *, ready: bool) -> None:
            chain.models[name].ready = ready

        def of(name: str) -> dict[str, str]:
            return {"model": name, "alias": "production", "version": "3"}

        tells = Web()

        def windows(differ: int) -> None:
            about = ",".join(f'{label}="{value}"' for label, value in of("drifting").items())
            tells.bodies["/metrics"] = f"ml_drift_detected{{{about}}} {differ}\n"

        def drifting() -> None:
            windows(0)
            tells.start()
            chain.pod("serving", "drifting", tells.port)

        asked = ("ModelAnswersErrors",)
        return [
            Fault(
                "ModelAnswersErrors", "a model's server ends: the gateway answers 502; it is started",
                lambda: served("digits", up=False), lambda: served("digits", up=True),
                of("digits"), prepares=lambda: stage("digits"),
            ),
            Fault(
                "ModelDown", "a stage loses its last ready pod", lambda: is_ready("gone", ready=False),
                lambda: is_ready("gone", ready=True), {"model": "gone"}, prepares=lambda: stage("gone", 0),
            ),
            Fault(
                "ModelErrorBudgetBurnsFast", "a model answers 30 of 100 requests with errors",
                lambda: change("flaky", wrong=30), lambda: change("flaky", wrong=0), of("flaky"), after=asked,
                prepares=lambda: stage("flaky"), seconds=900,
            ),
            Fault(
                "ModelErrorBudgetBurns", "a model answers 10 of 100 requests with errors",
                lambda: change("wearing", wrong=10), lambda: change("wearing", wrong=0), of("wearing"), after=asked,
                prepares=lambda: stage("wearing"), seconds=1500,
            ),
            Fault(
                "GatewayErrors", "of all that the gateway is asked, ten of 100 answers are errors",
                lambda: change("unwell", wrong=45), lambda: change("unwell", wrong=0), after=asked,
                prepares=stages, seconds=900,
            ),
            Fault(
                "ModelSlow", "a model's answers take 1.5 s", lambda: change("slow", seconds=1.5),
                lambda: change("slow", seconds=0), of("slow"), prepares=lambda: stage("slow"),
            ),
            Fault(
                "ModelInputDrift", "a model's server tells of two windows in a row that differ; of one that does not",
                lambda: windows(2), lambda: windows(0), of("drifting"), prepares=drifting,
            ),
            Fault(
                "ServedVersionDiffers", "the registry names another version than the one that serves",
                lambda: chain.name_version("moved", {"production": "4"}),
                lambda: chain.name_version("moved", {"production": "3"}), of("moved"),
                after=("RegistryDown",), prepares=lambda: stage("moved", 0), seconds=900,
            ),
            Fault(
                "AliasLost", "the registry's alias is deleted; it is set again",
                lambda: chain.name_version("lost", {}), lambda: chain.name_version("lost", {"production": "3"}),
                of("lost"), after=("RegistryDown",), prepares=lambda: stage("lost", 0),
            ),
        ]  # fmt: skip

    # Monitoring itself.

    def monitoring(self) -> list[Fault]:
        """What says that something is not known."""
        chain = self.chain
        many = Web()

        def event() -> None:
            data: dict[str, Any] = {"this": "is of another version"}
            with Store(chain.database) as store:
                store.add([Event(PROMOTED, model_subject("digits"), "2", datetime.now(UTC), data)])

        def no_event() -> None:
            with psycopg.connect(chain.database) as connection:
                connection.execute("delete from delivery.events where key = '2'")

        def second_store() -> None:
            port, folder = free_port(), self.folder / "second"
            folder.mkdir()
            target = [{"job_name": "many", "static_configs": [{"targets": [f"{LOOPBACK}:{many.port}"]}]}]
            (folder / "scrape.yaml").write_text(json.dumps({"scrape_configs": target}))
            own = {
                "httpListenAddr": f"{LOOPBACK}:{port}", "storageDataPath": str(folder / "data"),
                "promscrape.config": str(folder / "scrape.yaml"), "vmui.customDashboardsPath": "",
                "promscrape.maxScrapeSize": "64MiB",
            }  # fmt: skip
            given = options(MONITORING / "metrics" / "store.yaml", "victoria-metrics")
            many.bodies["/metrics"] = "one 1\n"
            many.start()
            chain.monitors.start("second", [program("metrics", "victoria-metrics")], port, {**given, **own})
            chain.pod("monitoring", "second", port)

        def series(count: int) -> None:
            many.bodies["/metrics"] = "".join(f'many{{number="{number}"}} 1\n' for number in range(count))

        return [
            Fault(
                "SourceOfMetricsDown", "an event that the exporter cannot read; it is deleted",
                event, no_event, {"source": "delivery"}, after=("RegistryDown",),
                seconds=900,
            ),
            Fault(
                "TargetDown", "a node's exporter is killed; it is started",
                lambda: chain.monitors.stop("nodes-unseen", signal.SIGKILL),
                lambda: self.exporter("unseen", port=int(chain.monitors.ports["nodes-unseen"])),
                {"instance": "nodes-unseen"}, after=("RegistryDown",), prepares=lambda: self.exporter("unseen"),
                seconds=900,
            ),
            Fault(
                "TooManySeries", "60,000 series, to a store with the platform's limits; none", lambda: series(60_000),
                lambda: series(0), prepares=second_store, seconds=1200,
            ),
            Fault(
                "MessagesNotTaken", "a receiver answers 500; it takes them again",
                lambda: chain.heard.refused.add("slack"), chain.heard.refused.clear, {"integration": "slack"},
                seconds=900,
            ),
        ]  # fmt: skip

    # Logs.

    def logs(self) -> list[Fault]:
        """Lines that are there, and lines that are not taken."""
        chain = self.chain

        def kernel() -> None:
            entry = {
                "__CURSOR": "s=1", "__REALTIME_TIMESTAMP": str(int(time.time() * 1e6)), "_HOSTNAME": "node",
                "SYSLOG_IDENTIFIER": "kernel", "_TRANSPORT": "kernel", "PRIORITY": "3",
                "MESSAGE": "Out of memory: Killed process 4711 (python3) total-vm:9000000kB",
            }  # fmt: skip
            body = "".join(f"{key}={value}\n" for key, value in entry.items()) + "\n"
            kind = {"Content-Type": "application/vnd.fdo.journal"}
            url = f"{chain.monitors.url('agent')}/insert/journald/upload"
            assert self.pool.request("POST", url, body=body, headers=kind).status == 200

        def write(agent: str, pod: str, lines: int, text: str) -> None:
            chain.say(agent, pod, [f"{text} {number}" for number in range(lines)])

        def misled_agent() -> None:
            chain.pod("monitoring-nodes", "node-logs-misled", chain.port("misled"), node="misled")
            chain.speaking_pod("misled", "speaking")

        return [
            Fault("KernelEndedAProcess", "a line of a kernel in a node's journal", kernel, nothing),
            Fault(
                "ModelLogsErrors", "a model's server writes 20 lines of errors",
                lambda: write("agent", "stumbling", 20, "Traceback (most recent call last)"), nothing,
                {"app": "stumbling"},
                prepares=lambda: chain.speaking_pod("agent", "stumbling"),
            ),
            Fault(
                "LogsLost", "a collector's lines are refused; no more lines",
                lambda: write("misled", "speaking", 100, "a line"), nothing, {"node": "misled"}, prepares=misled_agent,
                seconds=1200,
            ),
        ]  # fmt: skip

    # The cloud.

    def cloud(self) -> list[Fault]:
        """Services of the cloud, under its own supervisor."""
        chain = self.chain
        ready = {name: self.folder / f"{name}.ready" for name in ("stuck", "looping")}

        def start() -> None:
            for path in ready.values():
                path.touch()
            self.services = chain.cloud(**ready)
            chain.wait_for_figures("sum(devcloud_service_up) == 3")

        def kill(name: str) -> None:
            os.kill(self.services.wait(name, is_running)["pid"], signal.SIGKILL)
            self.services.wait(name, lambda service: not is_running(service))

        def get_stuck() -> None:
            ready["stuck"].unlink()
            kill("stuck")

        def loop() -> None:
            for _ in range(3):
                kill("looping")

        return [
            Fault(
                "CloudServiceDown", "a service of the cloud is killed and does not get ready; it does", get_stuck,
                ready["stuck"].touch, {"service": "stuck"}, prepares=start,
            ),
            Fault(
                "CloudServiceRestarts", "a service of the cloud is killed three times", loop, nothing,
                {"service": "looping"},
            ),
        ]  # fmt: skip
