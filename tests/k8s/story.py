"""A day of a small cluster, as the series that the dashboards ask for.

Three nodes, of which one is lost for minutes; the model `digits`, whose version 8 is a canary from the morning on and
serves production in the afternoon, where for an hour what it is asked drifts; a bad quarter of an hour at noon;
trainings; a service of the cloud that restarts. No figure of it was measured.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Course = Callable[[float], float]
    """A value by the hour of the day."""

HOURS, STEP = 24, 60
MIB, GIB = 1 << 20, 1 << 30
NODES = {"control-0": 2, "worker-0": 4, "worker-1": 4}
"""With their memory, in GiB."""
# (namespace, pod, container, node, MiB, cores while nobody asks, cores while everybody does, MiB requested)
PODS = (
    ("gateway", "gateway-5c9f", "gateway", "worker-0", 92, 0.01, 0.09, 64),
    ("kube-system", "etcd-control-0", "etcd", "control-0", 88, 0.03, 0.05, 100),
    ("kube-system", "kube-apiserver-control-0", "kube-apiserver", "control-0", 412, 0.06, 0.11, 256),
    ("monitoring", "alerts-0", "alertmanager", "worker-1", 36, 0.002, 0.003, 40),
    ("monitoring", "logs-0", "victoria-logs", "worker-0", 61, 0.01, 0.03, 64),
    ("monitoring", "metrics-0", "victoria-metrics", "worker-1", 168, 0.02, 0.05, 160),
    ("platform", "artifacts-0", "seaweedfs", "worker-0", 141, 0.01, 0.06, 128),
    ("platform", "metadata-store-0", "postgres", "worker-0", 118, 0.01, 0.05, 128),
    ("platform", "promotion-7d4b", "promotion", "worker-1", 71, 0.002, 0.004, 64),
    ("platform", "tracking-6f5d", "mlflow", "worker-1", 428, 0.02, 0.12, 512),
    ("serving", "digits-canary-84c6", "model", "worker-1", 212, 0.01, 0.05, 256),
    ("serving", "digits-production-5b7d", "model", "worker-0", 224, 0.02, 0.34, 256),
    ("serving", "rollout-7c6d", "rollout", "worker-1", 48, 0.004, 0.006, 48),
)
TRAININGS = ((2.0, 0.32, True), (9.1, 0.38, True), (12.6, 0.2, False), (15.4, 0.41, True), (20.2, 0.35, True))
"""When each began and how long it took, in hours, and whether it was done."""
SERVED = {"production": (("7", 0.0, 14.0), ("8", 14.0, 24.0)), "canary": (("8", 9.6, 14.0),)}
"""Which version each stage served, from when to when."""
OF_CLOUD = {
    "nova": (128, 0.05), "neutron": (118, 0.06), "keystone": (152, 0.05), "cinder": (104, 0.01), "glance": (96, 0.01),
    "mariadb": (171, 0.03), "rabbitmq": (126, 0.02), "compute-lxc1": (84, 0.03), "compute-lxc2": (81, 0.02),
    "l3": (52, 0.01), "dhcp": (49, 0.01), "exporter": (14, 0.002),
}  # fmt: skip
"""Services of the cloud, with MiB and cores."""
APIS = {"keystone": 0.9, "neutron": 1.4, "nova": 0.7, "nova-metadata": 0.2, "cinder": 0.1, "glance": 0.05}
"""Requests a second while it is busy."""


def busy(hour: float) -> float:
    """How much there is to do, from nothing to one: most at four in the afternoon, little at night."""
    return float(0.12 + 0.88 * max(math.sin((hour - 6.5) / 15 * math.pi), 0) ** 1.5)


def level(idle: float, full: float) -> Course:
    """From what it is while nobody asks to what it is while everybody does."""
    return lambda hour: idle + (full - idle) * busy(hour)


def line(begin: float, an_hour: float) -> Course:
    """A straight one."""
    return lambda hour: begin + an_hour * hour


def during(start: float, end: float, then: float = 1, otherwise: float = 0) -> Course:
    """A value for some time, and another one before and after."""
    return lambda hour: then if start <= hour < end else otherwise


@dataclass
class Day:
    """Series of the day before `end`, in seconds since 1970: `lines` is what a store imports."""

    end: int
    lines: list[str] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(18))  # noqa: S311

    def _moments(self, start: float, end: float) -> Iterator[tuple[int, float]]:
        for number in range(HOURS * 3600 // STEP + 1):
            hour = number * STEP / 3600
            if start <= hour <= end:
                yield self.end - HOURS * 3600 + number * STEP, hour

    def _noise(self, share: float) -> float:
        return 1 + share * (self._random.random() - 0.5)

    def gauge(
        self, name: str, value: float | Course, *, noise: float = 0, span: tuple[float, float] = (0, HOURS),
        every: int = 1, labels: Mapping[str, str] | None = None, **more: str,
    ) -> None:  # fmt: skip
        """A value that is constant, or depends on the hour; its noise changes with every so many samples."""
        told, noisy = [], 1.0
        for number, (moment, hour) in enumerate(self._moments(*span)):
            noisy = noisy if number % every else self._noise(noise)
            told.append((moment, (value(hour) if callable(value) else value) * noisy))
        self._add(name, {**(labels or {}), **more}, told)

    def counter(
        self, name: str, rate: float | Course, *, noise: float = 0.3, span: tuple[float, float] = (0, HOURS),
        labels: Mapping[str, str] | None = None, **more: str,
    ) -> None:  # fmt: skip
        """What grows by a rate a second, which is constant, or depends on the hour."""
        total, told = 0.0, []
        for moment, hour in self._moments(*span):
            total += (rate(hour) if callable(rate) else rate) * STEP * self._noise(noise)
            told.append((moment, total))
        self._add(name, {**(labels or {}), **more}, told)

    def histogram(self, name: str, rate: float | Course, seconds: float | Course, **labels: str) -> None:
        """Times, of which 99 of 100 are shorter than `seconds`."""

        def below(limit: float) -> Course:
            def of(hour: float) -> float:
                most = seconds(hour) if callable(seconds) else seconds
                return (rate(hour) if callable(rate) else rate) * float(1 - 0.01 ** (limit / most))

            return of

        for limit in (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5):
            self.counter(f"{name}_bucket", below(limit), noise=0, labels={**labels, "le": f"{limit:g}"})
        self.counter(f"{name}_bucket", rate, noise=0, labels={**labels, "le": "+Inf"})

    def _add(self, name: str, labels: Mapping[str, str], told: list[tuple[int, float]]) -> None:
        values, stamps = ",".join(f"{value:.14g}" for _, value in told), ",".join(f"{moment}000" for moment, _ in told)
        metric = json.dumps({"__name__": name, **labels})
        self.lines.append(f'{{"metric":{metric},"values":[{values}],"timestamps":[{stamps}]}}')


def story(end: int) -> list[str]:
    """The day's series, a line each as VictoriaMetrics imports them."""
    day = Day(end)
    for part in (_cluster, _pods, _nodes, _gateway, _models, _training, _stores, _delivery, _monitoring, _cloud):
        part(day)
    return day.lines


def _cluster(day: Day) -> None:
    for node, memory in NODES.items():
        day.gauge("kube_node_info", 1, node=node)
        ready = {"condition": "Ready", "status": "true", "node": node}
        day.gauge("kube_node_status_condition", during(11, 11.1, 0, 1) if node == "worker-1" else 1, labels=ready)
        day.gauge("kube_node_status_allocatable", 2, resource="cpu", node=node)
        day.gauge("kube_node_status_allocatable", memory * GIB, resource="memory", node=node)
    day.gauge("ml_cluster_lease_end_seconds", day.end + 9 * 3600)
    for code, share in {"200": 8.0, "201": 0.7, "404": 0.2}.items():
        day.counter("apiserver_request_total", level(share / 2, share * 1.5), code=code)
    for verb, seconds in {"GET": 0.004, "LIST": 0.012, "PATCH": 0.018, "POST": 0.016}.items():
        day.counter("apiserver_request_duration_seconds_sum", seconds, noise=0.8, verb=verb)
        day.counter("apiserver_request_duration_seconds_count", 1, noise=0.1, verb=verb)
    day.gauge("etcd_mvcc_db_total_size_in_bytes", line(11 * MIB, MIB / 8), node="control-0")
    day.histogram("etcd_disk_wal_fsync_duration_seconds", 6, level(0.011, 0.031), node="control-0")
    for name, severity, start, stop in (
        ("NodeNotReady", "critical", 11.02, 11.1), ("ModelInputDrift", "warning", 16.3, 17.2),
        ("ModelErrorBudgetBurns", "warning", 12.2, 12.7), ("TrainingFailed", "warning", 12.8, 13.6),
    ):  # fmt: skip
        day.gauge("ALERTS", 1, span=(start, stop), alertstate="firing", alertname=name, severity=severity)


def _pods(day: Day) -> None:
    for namespace, pod, container, node, mib, idle, full, asked in PODS:
        about = {"namespace": namespace, "pod": pod, "container": container, "node": node}
        span = (9.6, 24.0) if "canary" in pod else (0.0, 24.0)
        day.gauge(
            "container_memory_working_set_bytes",
            level(mib * 0.9 * MIB, mib * 1.05 * MIB),
            noise=0.03,
            span=span,
            labels=about,
        )
        day.counter("container_cpu_usage_seconds_total", level(idle, full), span=span, labels=about)
        day.counter(
            "container_fs_writes_bytes_total",
            mib * 1500 * (6 if namespace == "platform" else 1),
            span=span,
            labels=about,
        )
        day.gauge("kube_pod_container_resource_requests", asked * MIB, span=span, resource="memory", labels=about)
        day.gauge("kube_pod_container_resource_requests", max(0.02, full / 3), span=span, resource="cpu", labels=about)
        day.gauge("kube_pod_status_phase", 1, span=span, phase="Running", namespace=namespace, pod=pod)
        once = during(11, 25) if container == "mlflow" else 0
        day.gauge("kube_pod_container_status_restarts_total", once, labels=about)
        day.gauge("container_oom_events_total", once, labels=about)


def _nodes(day: Day) -> None:
    for number, (node, memory) in enumerate(NODES.items()):
        for cpu in ("0", "1"):
            day.counter(
                "node_cpu_seconds_total", level(0.93, 0.73 - 0.1 * number), noise=0.06, mode="idle", cpu=cpu, node=node
            )
        day.gauge("node_load1", level(0.15, 0.85 + 0.3 * number), noise=0.5, node=node)
        day.gauge("node_memory_MemTotal_bytes", memory * GIB, node=node)
        day.gauge(
            "node_memory_MemAvailable_bytes", level(memory * GIB * 0.62, memory * GIB * 0.42), noise=0.02, node=node
        )
        for kind, share in {"cpu": 0.06, "memory": 0.001, "io": 0.02}.items():
            day.counter(f"node_pressure_{kind}_waiting_seconds_total", level(0, share), node=node)
        disks = {"/": (20, 0.63), **({"/var/lib/ml-cluster/stores": (8, 0.71)} if node == "worker-0" else {})}
        for mount, (size, free) in disks.items():
            about = {"node": node, "mountpoint": mount, "fstype": "ext4"}
            day.gauge("node_filesystem_size_bytes", size * GIB, labels=about)
            grows = 0.0042 if mount != "/" else 0.0006
            day.gauge("node_filesystem_avail_bytes", line(size * GIB * free, -size * GIB * grows), labels=about)
        for kind, rate in {"read": 0.1, "written": 0.6}.items():
            day.counter(f"node_disk_{kind}_bytes_total", level(0, rate * MIB), noise=0.8, node=node)
        for kind, rate in {"receive": 0.4, "transmit": 0.35}.items():
            day.counter(f"container_network_{kind}_bytes_total", level(0, rate * MIB), node=node)
        start = day.end - HOURS * 3600
        day.gauge("node_time_seconds", line(start - 0.05 - 0.04 * number, 3600), node=node)


def _gateway(day: Day) -> None:
    for code, share in {"200": 1.0, "401": 0.02, "404": 0.01}.items():
        day.counter("traefik_entrypoint_requests_total", level(0, 19 * share), entrypoint="https", code=code)
    day.counter("traefik_entrypoint_requests_total", during(12, 12.25, 0.9, 0.01), entrypoint="https", code="502")
    day.histogram("traefik_entrypoint_request_duration_seconds", level(0, 19), level(0.06, 0.15), entrypoint="https")
    day.gauge("traefik_open_connections", level(4, 22), noise=0.4, entrypoint="https")
    for name, rate, seconds in (
        ("serving-digits-production-0", 14.0, 0.05), ("platform-tracking-80", 3.1, 0.16),
        ("platform-artifacts-8333", 1.2, 0.07), ("platform-landing-80", 0.4, 0.02),
    ):  # fmt: skip
        service = f"httproute-platform-gw-gateway-ep-https-0-0123456789abcdef-svc-{name}@kubernetesgateway"
        day.counter("traefik_service_requests_total", level(0, rate), service=service, code="200")
        day.histogram("traefik_service_request_duration_seconds", level(0, rate), seconds, service=service)
        day.counter("traefik_service_responses_bytes_total", level(0, rate * 2100), service=service)
        if "production" in name:
            day.counter("traefik_service_requests_total", during(12, 12.25, 0.9, 0.001), service=service, code="502")
    day.gauge("ml_cluster_certificate_not_after_seconds", day.end + 88 * 86400, host="lab.internal")


def _models(day: Day) -> None:
    day.gauge("ml_cluster_objective", 0.99, objective="availability")
    day.gauge("ml_cluster_objective", 1, objective="latency_seconds")
    for alias, versions in SERVED.items():
        share = 14 if alias == "production" else 1.4
        for version, start, stop in versions:
            about = {"model": "digits", "alias": alias, "version": version}
            span = (start, stop)

            errors = during(12, 12.25, 0.064, 0.0004)
            day.gauge("model:requests:rate1m", level(0, share), noise=0.15, span=span, code="200", labels=about)
            day.gauge(
                "model:requests:rate1m",
                during(12, 12.25, share / 18, 0.001),
                noise=0.4,
                span=span,
                code="502",
                labels=about,
            )
            day.gauge("model:requests:rate1m", level(0, share * 0.004), noise=0.9, span=span, code="400", labels=about)
            day.gauge("model:errors:ratio5m", errors, noise=0.3, span=span, labels=about)
            day.gauge("model:errors:ratio1h", during(12.05, 13.2, 0.016, 0.0004), noise=0.1, span=span, labels=about)
            slow = 0.09 if version == "7" else 0.055
            day.gauge("model:latency_seconds:p99", level(slow, slow * 2.2), noise=0.2, span=span, labels=about)
            day.gauge("ml_cluster_stage_served", 1, span=span, labels=about)
            day.gauge("ml_cluster_alias_info", 1, span=span, labels=about)
            pod = f"digits-{alias}-{'5b7d' if version == '7' else '84c6'}"
            for test, usual in {"class": 0.5, "confidence": 0.55, "layer": 0.45}.items():
                drifts = version == "8" and alias == "production" and test != "class"
                likely = during(16, 17, 0.0004, usual) if drifts else usual
                day.gauge("ml_drift_p_value", likely, noise=1.2, every=40, span=span, test=test, pod=pod, labels=about)
            day.gauge(
                "ml_drift_detected", during(16.3, 17.2, 2) if version == "8" else 0, span=span, pod=pod, labels=about
            )
            day.gauge("ml_drift_window_answers", lambda hour: hour * 1700 % 300, span=span, pod=pod, labels=about)
            day.gauge("ml_drift_reference_rows", 360, span=span, pod=pod, labels=about)
            named = {"model_name": "digits", "version": version}
            day.counter("request_predict_seconds_count", level(0, share), span=span, pod=pod, labels=named)
            day.counter("request_predict_seconds_sum", level(0, share * 0.003), span=span, pod=pod, labels=named)


def _training(day: Day) -> None:
    done = failed = 0
    for start, hours, works in TRAININGS:
        name, span = f"digits-train-{len(f'{start}'):d}{start * 10:03.0f}", (start, start + hours)
        about = {"namespace": "training", "job_name": name}
        day.gauge("kube_job_status_active", 1, span=span, labels=about)
        after = (start + hours, 24.0)
        ended = "kube_job_complete" if works else "kube_job_failed"
        done, failed = done + works, failed + (not works)
        day.gauge(ended, 1, span=after, condition="true", labels=about)
        began = day.end - (HOURS - start) * 3600
        day.gauge("kube_job_status_start_time", began, span=(start, 24.0), labels=about)
        if works:
            day.gauge("kube_job_status_completion_time", began + hours * 3600, span=after, labels=about)
        pod = {"namespace": "training", "pod": f"{name}-x2x4z", "container": "main", "node": "worker-1"}
        day.gauge(
            "container_memory_working_set_bytes",
            during(start, start + 0.06, 420 * MIB, 1010 * MIB),
            noise=0.05,
            span=span,
            labels=pod,
        )
        day.counter("container_cpu_usage_seconds_total", 1.3, noise=0.2, span=span, labels=pod)
        day.gauge(
            "kube_pod_status_phase",
            1,
            span=(start - 0.05, start),
            phase="Pending",
            namespace="training",
            pod=pod["pod"],
        )
        day.gauge("kube_pod_status_phase", 1, span=span, phase="Running", namespace="training", pod=pod["pod"])
        day.gauge(
            "kube_pod_status_phase",
            1,
            span=after,
            phase="Succeeded" if works else "Failed",
            namespace="training",
            pod=pod["pod"],
        )
    for deployment in ("digits-production", "digits-canary"):
        about = {"namespace": "serving", "deployment": deployment}
        day.gauge("kube_deployment_spec_replicas", 1, labels=about)
        when = 14.0 if deployment.endswith("production") else 9.6
        day.gauge("kube_deployment_status_replicas_updated", during(when, when + 0.1, 0, 1), labels=about)
    day.gauge("model_rollout_registry", during(14, 14.2), deployment="digits-production", state="other")


def _stores(day: Day) -> None:
    day.gauge("pg_database_size_bytes", line(38 * MIB, MIB / 3), datname="mlflow")
    day.gauge("pg_stat_activity_count", level(1, 4), noise=0.6, datname="mlflow", state="active")
    day.gauge("pg_stat_activity_count", level(5, 9), noise=0.3, datname="mlflow", state="idle")
    day.gauge("pg_settings_max_connections", 60)
    day.counter("pg_stat_database_xact_commit", level(0, 16), datname="mlflow")
    day.counter("pg_stat_database_xact_rollback", level(0, 0.2), datname="mlflow")
    day.counter("pg_stat_database_blks_hit", level(0, 900), datname="mlflow")
    day.counter("pg_stat_database_blks_read", level(0, 4), datname="mlflow")
    for kind, rate, seconds in (("GET", 1.1, 0.07), ("PUT", 0.3, 0.12), ("LIST", 0.2, 0.04)):
        day.counter("SeaweedFS_s3_request_total", level(0, rate), type=kind, code="200")
        day.histogram("SeaweedFS_s3_request_seconds", level(0, rate), seconds, type=kind)
    for bucket, size in {"mlflow": 310, "datasets": 120, "code": 2}.items():
        day.gauge("SeaweedFS_volumeServer_total_disk_size", line(size * MIB, size * MIB / 90), collection=bucket)
    for namespace, name, size in (
        ("platform", "data-metadata-store-0", 2), ("platform", "data-artifacts-0", 4),
        ("monitoring", "data-metrics-0", 5), ("monitoring", "data-logs-0", 5),
    ):  # fmt: skip
        day.gauge(
            "kube_persistentvolumeclaim_resource_requests_storage_bytes",
            size * GIB,
            namespace=namespace,
            persistentvolumeclaim=name,
        )
    start = day.end - HOURS * 3600
    day.gauge(
        "kube_cronjob_status_last_successful_time",
        during(3.3, 25, start + 3.3 * 3600, start - 20.7 * 3600),
        cronjob="backup",
        namespace="platform",
    )


def _delivery(day: Day) -> None:
    for subject, week, lead, recovery, fails, count in (
        ("infrastructure", 1.75, 9.5, 1.6, 0.14, 7), ("model digits", 3.25, 4.2, 0.6, 0.23, 13),
    ):  # fmt: skip
        more = 14.0 if subject.startswith("model") else 19.0
        day.gauge("ml_cluster_delivery_per_week", during(more, 25, week + 0.25, week), subject=subject)
        day.gauge(
            "ml_cluster_delivery_lead_seconds", during(more, 25, (lead - 0.4) * 3600, lead * 3600), subject=subject
        )
        day.gauge("ml_cluster_delivery_recovery_seconds", recovery * 3600, subject=subject)
        day.gauge("ml_cluster_delivery_fail_ratio", fails, subject=subject)
        day.gauge("ml_cluster_delivery_rework_ratio", fails / 2, subject=subject)
        day.gauge("ml_cluster_delivery_deployments", during(more, 25, count + 1, count), subject=subject)
        day.gauge("ml_cluster_delivery_failed", round(fails * count), subject=subject)
        day.gauge("ml_cluster_delivery_rework", round(fails * count / 2), subject=subject)
    start = day.end - HOURS * 3600
    day.gauge("ml_cluster_delivery_last_event_seconds", during(14, 25, start + 14 * 3600, start - 6 * 3600))


def _monitoring(day: Day) -> None:
    day.gauge("vm_cache_entries", level(6200, 6500), noise=0.01, type="storage/hour_metric_ids")
    day.gauge("vm_rows", line(41000, 700), type="indexdb/file")
    day.gauge("vm_data_size_bytes", line(180 * MIB, 1.6 * MIB), type="storage/big")
    for job in ("gateway", "kubelet", "nodes", "cloud"):
        day.gauge("up", during(11, 11.1, 0, 1) if job in {"kubelet", "nodes"} else 1, job=job, instance=job)


def _cloud(day: Day) -> None:
    for service, (mib, cores) in OF_CLOUD.items():
        about = {"service": service, "job": "cloud", "instance": "cloud"}
        day.gauge("devcloud_service_up", during(15, 15.1, 0, 1) if service == "l3" else 1, labels=about)
        day.gauge("devcloud_service_restarts_total", during(15.05, 25, 3) if service == "l3" else 0, labels=about)
        day.gauge("devcloud_service_memory_bytes", line(mib * MIB, mib * MIB / 400), noise=0.01, labels=about)
        day.counter("devcloud_service_cpu_seconds_total", level(cores * 0.6, cores * 1.6), labels=about)
    for service, rate in APIS.items():
        about = {"service": service, "job": "cloud", "instance": "cloud"}
        day.counter("devcloud_api_requests_total", level(rate / 5, rate), method="GET", status="200", labels=about)
        day.histogram(
            "devcloud_api_request_duration_seconds",
            level(rate / 5, rate),
            level(0.2, 0.9) if service == "neutron" else level(0.1, 0.3),
            **about,
        )
    for service, status, rate in (("nova", "404", 0.02), ("keystone", "401", 0.01), ("neutron", "409", 0.004)):
        day.counter("devcloud_api_requests_total", rate, noise=1.5, method="GET", status=status, service=service)
    day.counter("devcloud_api_requests_total", during(15, 15.2, 0.05), method="POST", status="500", service="neutron")
