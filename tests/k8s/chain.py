"""All of monitoring as programs on this machine: API server, gateway, exporters, stores, rules, receivers.

What there is no node for the tests write into the API: pods' addresses and states, as kubelets do. A pod's address is
one of this machine's; its port is the one that its annotation names. The rest is the manifests' own: options, what is
scraped, rules, who is told, accounts and their rights.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import urllib3
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from bundle.store import Store
from infra import alerting
from infra.manifests import DOMAIN, TREE
from infra.settings import Monitoring, Settings
from providers.framework import ProviderError
from providers.kubernetes.objects import Identity
from tests.devcloud.supervised import SLEEPER, entry, exporter, supervised
from tests.engine.harness import wait_for
from tests.images.containers import image
from tests.k8s.conftest import apply
from tests.k8s.monitors import LOGGING, MONITORING, Monitors, arguments, options
from tests.k8s.planted import Planted
from tests.k8s.receivers import LOOPBACK, Heard, Web
from tests.providers.kubernetes.control_plane import BUNDLE, NODE, free_port, program, running
from tests.services.delivery.postgres import postgres

if TYPE_CHECKING:
    from tests.devcloud.supervised import Client
    from tests.providers.kubernetes.control_plane import ControlPlane

STATE, ETCD, GATEWAY = (f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.{number}" for number in (8, 5, 9))
"""Where there are an exporter of objects' state, an etcd and the gateway, on the ports that they have on a cluster: at
addresses of this process alone."""
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MODEL, ALIAS, VERSION = (f"ml-cluster.dev/{word}" for word in ("model", "alias", "model-version"))
SERVICES = Path(TREE).parent / "services"
TREES = ("infrastructure/gateway-api", "infrastructure/base", "platform/monitoring", "infrastructure/gateway/base")
PROGRAMS = (
    ("Deployment", "monitoring"), ("StatefulSet", "monitoring"), ("Deployment", "gateway"),
    ("Deployment", "platform"), ("DaemonSet", "monitoring-nodes"),
)  # fmt: skip
"""Kinds and namespaces of what runs as a process here."""
SECONDS_OF_HEARTS = 10
CONTAINER = {
    "name": "main", "image": f"localhost/model@sha256:{'0' * 64}",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}  # fmt: skip
POD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "automountServiceAccountToken": False, "enableServiceLinks": False, "tolerations": [{"operator": "Exists"}],
}  # fmt: skip


def own_address() -> str:
    """An address of this machine that is not loopback: the API server takes no other for what a Service leads to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # nothing is sent
        return str(asked.getsockname()[0])


def certificate(ends: timedelta) -> dict[str, str]:
    """A Secret's content: a certificate of the gateway that ends so long from now, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, DOMAIN)])
    names = x509.SubjectAlternativeName([x509.DNSName(DOMAIN), x509.DNSName(f"*.{DOMAIN}")])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + ends).add_extension(names, critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"tls.crt": made.public_bytes(Encoding.PEM).decode(), "tls.key": pem}


def _secret(namespace: str, name: str, data: dict[str, str], kind: str = "Opaque") -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": data}


@dataclass
class Model:
    """A stage of a model: a server, behind the gateway, and clients of it."""

    name: str
    server: Web
    per_second: float = 0
    """So often a client asks it."""
    ready: bool = True

    @property
    def labels(self) -> dict[str, str]:
        """Of its alerts."""
        return {"model": self.name, "alias": "production"}


@dataclass
class Chain:
    """Use as a context manager."""

    folder: Path
    plane: ControlPlane
    heard: Heard = field(default_factory=Heard)
    models: dict[str, Model] = field(default_factory=dict)
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is reported of pods, by the beginning of their names, in the place of that they are well."""
    addresses: dict[str, str] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    """Those whose kubelets say that they are well; of others the API server is told by its node controller."""
    _beaten: float = 0
    registry: Web = field(default_factory=Web)
    planted: Planted = field(default_factory=Planted)

    def __enter__(self) -> Self:
        self.address = own_address()
        self.ended = threading.Event()
        self.api = threading.RLock()
        """One client, many threads."""
        self.unmounts: list[Path] = []
        self._stack = ExitStack()
        self.monitors = self._stack.enter_context(Monitors(self.folder))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._stack.close()
        for path in self.unmounts:
            subprocess.run(["umount", path], check=True)
        for server in [self.registry, *(model.server for model in self.models.values())]:
            server.stop()

    def _start(self) -> None:
        apply(self.plane, *TREES)
        # Their programs are not pods here.
        for kind, namespace in PROGRAMS:
            for one in self.plane.cluster.items("apps/v1", kind, namespace):
                self.delete(kind, namespace, one["metadata"]["name"], "apps/v1")
        self.node(NODE)
        self._plant()
        self.database = self._stack.enter_context(postgres())
        self.registry.start()
        self.tell_stack(datetime.now(UTC) + timedelta(hours=9))
        self.secret("gateway", "certificate", certificate(timedelta(days=365)), "kubernetes.io/tls")
        self._start_gateway()
        self._start_state()
        self._start_logs()
        self._start_stores()
        threading.Thread(target=self._keep_pods, daemon=True).start()

    # Objects.

    def put(self, *objects: dict[str, Any]) -> None:
        """Make objects, or change them."""
        for one in objects:
            metadata = one["metadata"]
            target = Identity(one["apiVersion"], one["kind"], metadata.get("namespace", ""), metadata["name"])
            with self.api:
                self.plane.cluster.apply(target, one, "chain", force=True)

    def delete(self, kind: str, namespace: str, name: str, api: str = "v1") -> None:
        """Delete an object, and what is of it."""
        with self.api:
            self.plane.cluster.delete(Identity(api, kind, namespace, name), "Background")

    def tell_stack(self, lease_end: datetime) -> None:
        """What the stack tells its cluster: the lease's end, and the objectives."""
        data = {"lease-end": lease_end.isoformat(), "availability": "0.99", "latency-seconds": "1"}
        metadata = {"name": "stack", "namespace": "monitoring"}
        self.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def secret(self, namespace: str, name: str, data: dict[str, str], kind: str = "Opaque") -> None:
        """A Secret."""
        self.put(_secret(namespace, name, data, kind))

    def node(self, name: str) -> None:
        """A node that says that it is ready, again and again; no kubelet answers at it."""
        self.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        self.nodes.add(name)
        self._report_node(name)

    def _report_node(self, name: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
        self.report("Node", name, {"conditions": [ready]})

    def report(self, kind: str, name: str, status: dict[str, Any], api: str = "v1") -> None:
        """Write a status."""
        with self.api:
            self.plane.report(kind, name, status, api)

    def pod(
        self, namespace: str, name: str, port: int = 0, *, address: str = LOOPBACK, node: str = NODE,
        container: dict[str, Any] | None = None, annotations: dict[str, str] | None = None, **labels: str,
    ) -> None:  # fmt: skip
        """A pod that runs; with a port it asks to be scraped there."""
        asks = {"prometheus.io/scrape": "true", "prometheus.io/port": str(port)} if port else {}
        about = {"labels": {"app": name, **labels}, "annotations": {**asks, **(annotations or {})}}
        made = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, **about},
            "spec": {**POD, "nodeName": node, "containers": [{**CONTAINER, **(container or {})}]},
        }  # fmt: skip
        status = {**running(made), "podIP": address, "hostIP": address}
        self.addresses[name] = address
        with self.api:
            self.plane.post(made)
            self.plane.report("Pod", f"{namespace}/{name}", status)

    def speaking_pod(self, agent: str, name: str, port: int = 0, **told: Any) -> None:
        """A pod of a model, whose log a collector reads."""
        identity, where = f"{name}-id", self.folder / f"{agent}-pods" / f"serving_{name}_uid" / "main"
        where.mkdir(parents=True)
        (where / "0.log").touch()
        (self.folder / f"{agent}-containers" / f"{name}_serving_main-{identity}.log").symlink_to(where / "0.log")
        state = running({"spec": {"containers": [CONTAINER]}}, containerID=f"containerd://{identity}")
        self.states[name] = {"containerStatuses": state["containerStatuses"]}
        self.pod("serving", name, port, **told)

    def say(self, agent: str, name: str, lines: list[str]) -> None:
        """What a container's runtime writes down of it."""
        path = self.folder / f"{agent}-pods" / f"serving_{name}_uid" / "main" / "0.log"
        with path.open("a") as log:
            for line in lines:
                log.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ} stderr F {line}\n")

    def _keep_pods(self) -> None:
        """What kubelets do for pods that others make: report them, as they are, again and again."""
        while not self.ended.wait(1):
            for namespace in ("serving", "training", "platform"):
                self._report_pods(namespace)
            if time.monotonic() - self._beaten > SECONDS_OF_HEARTS:
                for name in sorted(self.nodes):
                    self._report_node(name)
                self._beaten = time.monotonic()

    def _report_pods(self, namespace: str) -> None:
        try:
            with self.api:
                pods = self.plane.pods(namespace)
            for one in pods:
                name, app = one["metadata"]["name"], one["metadata"].get("labels", {}).get("app", "")
                told = {**running(one), "podIP": self.addresses.get(name, self.address), "hostIP": LOOPBACK}
                if app in self.models and not self.models[app].ready:
                    told["conditions"] = [{"type": "Ready", "status": "False"}]
                for start, state in self.states.items():
                    if name.startswith(start):
                        told |= state
                if one.get("status", {}) | told != one.get("status", {}):
                    self.report("Pod", f"{namespace}/{name}", told)
        except ProviderError:
            return  # one is gone by now, or the API server is away

    # Programs.

    def token(self, namespace: str, account: str) -> Path:
        """A folder with an account's token and the API server's certificate, as pods have it."""
        folder = self.folder / f"account-{account}"
        folder.mkdir(exist_ok=True)
        path = self.plane.cluster.path(Identity("v1", "ServiceAccount", namespace, account))
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 14400}}
        made = self.plane.cluster.request("asking for a token", "POST", f"{path}/token", asked)
        (folder / "token").write_text(made["status"]["token"])
        (folder / "ca.crt").write_bytes((self.plane.folder / "certificates/apiserver.crt").read_bytes())
        return folder

    def _start_gateway(self) -> None:
        root = self.folder / "gateway"
        image(Store(BUNDLE), "gateway", root)
        account = self.token("gateway", "gateway")
        given = options(TREE / "infrastructure" / "gateway" / "base" / "controller.yaml", "traefik")
        ports = {"http": 8000, "https": 8443, "health": 8081, "metrics": 8082}
        own = {
            **{f"entrypoints.{name}.address": f"{GATEWAY}:{port}" for name, port in ports.items()},
            "providers.kubernetesgateway.endpoint": f"https://{LOOPBACK}:{self.plane.port}",
            "providers.kubernetesgateway.token": (account / "token").read_text(),
            "providers.kubernetesgateway.certauthfilepath": str(account / "ca.crt"),
        }
        self.gateway = [
            str(root / "usr/local/bin/traefik"), *(f"--{flag}={value}" for flag, value in {**given, **own}.items())
        ]  # fmt: skip
        self.start_gateway()
        self.put({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "gateway", "namespace": "gateway", "labels": {"app": "gateway-0"},
                "annotations": {
                    "prometheus.io/scrape": "true", "prometheus.io/port": "8082", "ml-cluster.dev/scrape-interval": "5s"
                },
            },
            "spec": {**POD, "nodeName": NODE, "containers": [CONTAINER]},
        })  # fmt: skip
        self.report("Pod", "gateway/gateway", {**running({"spec": {"containers": [CONTAINER]}}), "podIP": GATEWAY})

    def start_gateway(self) -> None:
        """Start Traefik."""
        self.monitors.ports["gateway-figures"], self.monitors.hosts["gateway-figures"] = 8082, GATEWAY
        self.monitors.launch("gateway", [*self.gateway], 8081, probe="/ping", host=GATEWAY)

    def _start_state(self) -> None:
        account = self.token("monitoring", "state")
        where = self.database.rpartition("@")[2].partition("/")[0]
        self.monitors.launch(
            "state", [sys.executable, "-m", "state_exporter"], 8080, probe="/healthz", host=STATE, environment={
                "API_SERVER": f"https://{LOOPBACK}:{self.plane.port}", "ACCOUNT_FOLDER": str(account), "HOST": STATE,
                "PYTHONPATH": f"{SERVICES / 'state-exporter'}:{SERVICES.parent}", "DOMAIN": DOMAIN,
                "REGISTRY": f"http://{LOOPBACK}:{self.registry.port}", "REGISTRY_USERNAME": "monitor",
                "REGISTRY_PASSWORD": self.planted.one("monitoring/tracking", "password"),
                "GATEWAY": f"{GATEWAY}:8443", "DATABASE": where, "DATABASE_NAME": "postgres",
                "DATABASE_USERNAME": "postgres",
                "DATABASE_PASSWORD": self.planted.one("monitoring/metadata-store", "password"),
            },
        )  # fmt: skip
        self.pod("monitoring", "state", 8080, address=STATE)

    def _start_logs(self) -> None:
        port = free_port()
        own = {
            "storageDataPath": str(self.folder / "log-data"), "httpListenAddr": f"{LOOPBACK}:{port}",
            "storage.minFreeDiskSpaceBytes": "1MiB",
        }  # fmt: skip
        given = options(LOGGING / "store.yaml", "victoria-logs")
        self.monitors.start("logs", [program("logs", "victoria-logs")], port, {**given, **own})
        self.start_agent("agent", port, "/insert/native")

    def start_agent(self, name: str, port: int, path: str) -> None:
        """Start a node's collector of logs, which sends to a port."""
        files, kept = self.folder / f"{name}-containers", self.folder / f"{name}-data"
        files.mkdir(exist_ok=True)
        kept.mkdir(exist_ok=True)
        own_port = free_port()
        own = {
            "remoteWrite.url": f"http://{LOOPBACK}:{port}{path}", "tmpDataPath": str(kept),
            "httpListenAddr": f"{LOOPBACK}:{own_port}", "kubernetesCollector.logsPath": str(files),
        }  # fmt: skip
        flags = arguments(LOGGING / "nodes.yaml", "vlagent", own)
        environment = {"KUBECONFIG": str(self.plane.kubeconfig)}
        self.monitors.launch(name, [program("logs", "vlagent"), *flags], own_port, environment=environment)

    def port(self, name: str) -> int:
        """Where a program listens."""
        return self.monitors.running[name][1]

    def _start_stores(self) -> None:
        account = self.token("monitoring", "metrics")
        rules = free_port()
        self.monitors.metrics(self.scraped(account), **{"vmalert.proxyURL": f"http://{LOOPBACK}:{rules}"})
        # As it is with Slack and others, who knows the address may write to it.
        hidden = quote(self.planted.one("monitoring/receivers", "alertmanager.yaml"), safe="")
        webhook, slack, beat = (SecretStr(f"{self.heard.url}/{name}/{hidden}") for name in ("team", "slack", "beat"))
        settings = Settings.model_construct(
            monitoring=Monitoring(), alerts_webhook=webhook, alerts_email_password=None, alerts_heartbeat=beat,
            alerts_slack=slack,
        )  # fmt: skip
        self.monitors.alerts(alerting.configuration(settings))
        self.monitors.rules(rules)
        self.monitors.log_rules()
        self._start_login()
        for name in ("metrics", "alerts", "rules", "log-rules", "logs"):
            self.pod("monitoring", name, self.port(name))
        self.pod("monitoring-nodes", "node-logs", self.port("agent"))
        self._start_guarded()
        # One whose lines are refused: the store of metrics is where the one of logs ought to be. Without a pod of its
        # own a collector takes the first node for its own: there is no other yet.
        self.start_agent("misled", self.port("metrics"), "/nowhere")

    def _start_guarded(self) -> None:
        """What asks for a password before it tells its figures, as MLflow and the forge do."""
        password = self.planted.one("monitoring/tracking", "password")
        token = self.planted.one("monitoring/forge", "token")
        basic = urllib3.make_headers(basic_auth=f"monitor:{password}")["authorization"]
        for name, login in {"tracking": basic, "forge": f"Bearer {token}"}.items():
            web = Web(login=login, bodies={"/metrics": f"{name}_told 1\n"})
            web.start()
            container = {"name": "gitea"} if name == "forge" else None
            self.pod("platform", name, web.port, container=container)

    def _start_login(self) -> None:
        (told,) = (
            one
            for one in yaml.safe_load_all((MONITORING / "base" / "login.yaml").read_text())
            if one["kind"] == "ConfigMap"
        )
        routes = told["data"]["login.yaml"]
        for name in ("metrics", "alerts", "logs"):
            routes = re.sub(rf"http://{name}\.monitoring:[0-9]+", self.monitors.url(name), routes)
        (self.folder / "login.yaml").write_text(routes)
        port, figures = free_port(), free_port()
        own = {
            "auth.config": str(self.folder / "login.yaml"), "httpListenAddr": f"{LOOPBACK}:{port}",
            "httpInternalListenAddr": f"{LOOPBACK}:{figures}",
        }  # fmt: skip
        command: list[str | Path] = [
            program("metrics", "vmauth"), *arguments(MONITORING / "base" / "login.yaml", "vmauth", own)
        ]  # fmt: skip
        environment = {"PASSWORD": self.planted.one("platform/monitoring", "password")}
        self.monitors.launch("login", command, port, probe="/none", environment=environment, waits=False)
        self.monitors.ports["login-figures"], self.monitors.hosts["login-figures"] = figures, LOOPBACK
        self.monitors.wait("login-figures")
        self.pod("platform", "monitoring", figures)

    def _plant(self) -> None:
        """Every Secret that the platform can have, with planted texts; a pod that is given them every wrong way too."""
        spaces = {name.partition("/")[0] for name in self.planted.values}
        self.put(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in sorted(spaces)))
        # But for those of the gateway: what it reads is a certificate.
        told = {name: content for name, content in self.planted.values.items() if not name.startswith("gateway/")}
        for name, content in told.items():
            namespace, _, own = name.partition("/")
            self.secret(namespace, own, content)
        for name, keys in {"tracking": ("password",), "forge": ("token",)}.items():
            (self.folder / "logins" / name).mkdir(parents=True)
            for key in keys:
                (self.folder / "logins" / name / key).write_text(self.planted.one(f"monitoring/{name}", key))

    def scraped(self, account: Path) -> str:
        """The platform's list of what is scraped, for who asks the API server from outside of the cluster."""
        text = (MONITORING / "metrics" / "scrape.yaml").read_text()
        mounts = {
            ACCOUNT: account,
            "/etc/logins": self.folder / "logins",
            "/etc/cloud/*.json": self.folder / "cloud/targets.json",
        }
        for mounted, here in mounts.items():
            text = text.replace(mounted, str(here))
        listed = yaml.safe_load(text)
        for job in listed["scrape_configs"]:
            for found in job.get("kubernetes_sd_configs", ()):
                found |= {
                    "api_server": f"https://{LOOPBACK}:{self.plane.port}", "bearer_token_file": str(account / "token"),
                    "tls_config": {"ca_file": str(account / "ca.crt")},
                }  # fmt: skip
                if found.get("namespaces", {}).pop("own_namespace", False):
                    found["namespaces"] = {"names": ["monitoring"]}
        return yaml.safe_dump(listed, sort_keys=False)

    # The cloud.

    def cloud(self, **ready: Path) -> Client:
        """A cloud with a service of each name, which is ready once its file is there; what it tells is scraped."""
        folder, port = self.folder / "cloud", free_port()
        folder.mkdir()
        services = [
            entry(name, SLEEPER, folder / f"{name}.log", ready=["file", str(path)]) for name, path in ready.items()
        ]
        client = self._stack.enter_context(supervised(folder, [*services, exporter(folder, LOOPBACK, port)]))
        client.call("start")
        (folder / "targets.json").write_text(json.dumps([{"targets": [f"{LOOPBACK}:{port}"]}]))
        return client

    # Models.

    def serve(self, name: str, per_second: float, version: str = "3") -> Model:
        """A stage of a model that serves a version, which the registry names too; and a client of it."""
        model = self.models[name] = Model(name, Web(self.address, bodies={"/": "[1]"}), per_second)
        model.server.start()
        self.name_version(name, {"production": version})
        labels = {"app": name}
        container = {**CONTAINER, "ports": [{"name": "http", "containerPort": model.server.port}]}
        template = {
            "metadata": {"labels": labels, "annotations": {VERSION: version}},
            "spec": {**POD, "nodeName": NODE, "containers": [container]},
        }
        where = {"name": name, "namespace": "serving"}
        route = {
            "hostnames": [f"{name}.{DOMAIN}"],
            "parentRefs": [{"name": "gateway", "namespace": "gateway", "sectionName": "https"}],
            "rules": [{"backendRefs": [{"name": name, "port": 80}]}],
        }
        self.put(
            {
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {**where, "labels": {MODEL: name, ALIAS: "production"}},
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            },
            {
                "apiVersion": "v1", "kind": "Service", "metadata": where,
                "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
            },
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": where, "spec": route},
        )  # fmt: skip
        if per_second:
            threading.Thread(target=self._ask, args=(model,), daemon=True).start()
        return model

    def name_version(self, model: str, aliases: dict[str, str]) -> None:
        """What the registry says of a model's aliases."""
        told = [f'{{"alias": "{alias}", "version": "{version}"}}' for alias, version in aliases.items()]
        path = f"/api/2.0/mlflow/registered-models/get?name={model}"
        self.registry.bodies[path] = f'{{"registered_model": {{"name": "{model}", "aliases": [{", ".join(told)}]}}}}'

    def _ask(self, model: Model) -> None:
        """A client that goes on whatever it is answered."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(GATEWAY, 8443, timeout=20, context=context)
        served = False
        while not self.ended.wait(1 / model.per_second if served else 2):
            try:
                connection.request("GET", "/", headers={"Host": f"{model.name}.{DOMAIN}"})
                answer = connection.getresponse()
                answer.read()
                served = served or answer.status == HTTPStatus.OK
            except (OSError, http.client.HTTPException):
                connection.close()

    def active(self, name: str, labels: dict[str, str]) -> bool:
        """Whether an alert with these labels is pending or fires."""
        wanted = {"alertname": name, **labels}.items()
        asked = [self.monitors.get(which, "/api/v1/alerts")["data"]["alerts"] for which in ("rules", "log-rules")]
        return any(wanted <= one["labels"].items() for found in asked for one in found)

    def wait_for_figures(self, query: str) -> None:
        """Wait until a query has an answer."""
        wait_for(lambda: self.monitors.get("metrics", "/api/v1/query", query=query)["data"]["result"], query, 300)
