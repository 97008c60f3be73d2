"""``lab bench serving``: what the gateway costs, and what the model server costs beside a bare FastAPI application.

One pod of its own, made from production's pod template, holds the model server and, in the same image with the same
resources, a FastAPI application with the same model; production gets no request. A second pod asks them, so that all
three ways to the model begin at the same place of the cluster and differ in nothing but what is measured: through the
gateway (TLS, its certificate checked), straight to the model server's Service, to the FastAPI application's. The fourth
row is what a user of this machine gets through the gateway, by its address. All connections are kept alive. Rounds take
turns, so that noise hits all alike; a ratio is of medians, with the lowest and the highest of single rounds behind it.

What it makes belongs to one Job, and goes with it: at the end, on Ctrl-C, and, if nobody is left to delete it, when its
time is up. Ends with status 1 where the gateway's overhead is above the limit.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from cli.errors import LabError
from cli.workloads import SERVING, VERSION, Object, Platform, served_version, wait
from infra.manifests import TREE, kubectl
from infra.naming import PROJECT
from infra.settings import Cluster
from providers.kubernetes.objects import Identity
from tests.bench._stack import parser, percentile, platform_of, reported, session_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

NAME = "bench-serving"
ROLE = "ml-cluster.dev/bench"
MANAGER = "lab-bench"
OWNER = Identity("batch/v1", "Job", SERVING, NAME)
LIMIT = 1.3
"""Median latency through the gateway may be this many times that of the way straight to the server."""
CLIENTS = (1, 8)
GATEWAY, DIRECT, BARE, OUTSIDE = "gateway", "model server", "bare FastAPI", "gateway, from here"
WAYS = (GATEWAY, DIRECT, BARE, OUTSIDE)
PODS = Path(__file__).parent / "pods"
FOLDER = "/opt/bench"
BARE_PORT = 8081
START_SECONDS = 300
END_SECONDS = 120
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Round:
    """What one run of the load generator says."""

    latencies: tuple[float, ...]
    seconds: float
    processor: float
    """Seconds of processor time that the generator itself took."""


def milliseconds(rounds: Sequence[Round], percent: float = 50) -> float:
    """The median of all latencies of some rounds, or another percentile."""
    return percentile([latency for one in rounds for latency in one.latencies], percent) * 1000


def ratio(rounds: Sequence[Round], others: Sequence[Round]) -> tuple[float, float, float]:
    """How many times the median of the others, and the lowest and the highest of that in single rounds."""
    single = [milliseconds([one]) / milliseconds([other]) for one, other in zip(rounds, others, strict=True)]
    return milliseconds(rounds) / milliseconds(others), min(single), max(single)


def table_of(results: Mapping[tuple[str, int], Sequence[Round]]) -> Table:
    """A row a way and number of clients."""
    table = Table("way", title="One server; ratios are to the way straight to the model server")
    for title in ("clients", "requests", "requests/s", "p50, ms", "p99, ms", "p50 ratio", "rounds", "generator's core"):
        table.add_column(title, justify="right")
    for (way, clients), rounds in results.items():
        count, seconds = sum(len(one.latencies) for one in rounds), sum(one.seconds for one in rounds)
        whole, least, most = ratio(rounds, results[DIRECT, clients])
        table.add_row(
            way,
            str(clients),
            str(count),
            f"{count / seconds:.0f}",
            f"{milliseconds(rounds):.2f}",
            f"{milliseconds(rounds, 99):.2f}",
            f"{whole:.2f}",
            f"{least:.2f}-{most:.2f}",
            f"{sum(one.processor for one in rounds) / seconds:.0%}",
        )
    return table


def pod_of(template: Object) -> tuple[Object, Object]:
    """The pod of a Deployment's template, and its first container."""
    spec = copy.deepcopy(template["spec"])
    return spec, spec["containers"][0]


def with_environment(container: Object, **values: str) -> None:
    """Set variables of a container."""
    kept = [one for one in container.get("env", []) if one["name"] not in values]
    container["env"] = kept + [{"name": name, "value": value} for name, value in values.items()]


def generator(template: Object, seconds: int) -> Object:
    """The Job whose pod asks; it does nothing by itself, and ends after `seconds`."""
    spec, container = pod_of(template)
    mount = {"name": "bench", "mountPath": FOLDER}
    asks = {
        "name": "generator",
        "image": container["image"],
        "command": ["python3", "-c", f"import time; time.sleep({seconds})"],
        "securityContext": container["securityContext"],
        "resources": {"requests": {"cpu": "100m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [mount],
    }
    spec |= {
        "containers": [asks],
        "volumes": [{"name": "bench", "configMap": {"name": NAME}}],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": seconds,
            "ttlSecondsAfterFinished": 0,
            "template": {"metadata": {"labels": {"app": NAME, ROLE: "generator"}}, "spec": spec},
        }
    }


def subject(deployment: Object) -> Object:
    """A pod with production's model server and the FastAPI application, neither of which production's Service finds."""
    template = deployment["spec"]["template"]
    spec, server = pod_of(template)
    bare = copy.deepcopy(server)
    bare |= {
        "name": "bare",
        "command": ["python3", f"{FOLDER}/bare.py"],
        "ports": [{"name": "bare", "containerPort": BARE_PORT}],
        "volumeMounts": [*server.get("volumeMounts", []), {"name": "bench", "mountPath": FOLDER}],
    }
    bare.pop("args", None)
    with_environment(bare, PORT=str(BARE_PORT))
    with_environment(server, DRAIN_SECONDS="0")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in bare:
            bare[probe]["httpGet"]["port"] = "bare"
    spec |= {
        "containers": [server, bare],
        "volumes": [*spec.get("volumes", []), {"name": "bench", "configMap": {"name": NAME}}],
        "terminationGracePeriodSeconds": 5,
    }
    selector = deployment["spec"]["selector"]["matchLabels"]
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key not in selector}
    annotations = {VERSION: served_version(deployment)}
    return {"metadata": {"labels": {**labels, "app": NAME, ROLE: "subject"}, "annotations": annotations}, "spec": spec}


def others(deployment: Object, route: Object, domain: str, files: Mapping[str, str]) -> dict[Identity, Object]:
    """All that the Job owns: the pod, the ways to it, and the rules of the network that open them."""
    pod = subject(deployment)
    port = pod["spec"]["containers"][0]["ports"][0]["containerPort"]
    asks, asked = ({"podSelector": {"matchLabels": {ROLE: role}}} for role in ("generator", "subject"))
    gateway = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}},
        "podSelector": {"matchLabels": {"app": "gateway"}},
    }
    ways = [{"name": "model", "port": 80, "targetPort": port}, {"name": "bare", "port": BARE_PORT}]
    networking = "networking.k8s.io/v1"
    return {
        Identity("v1", "ConfigMap", SERVING, NAME): {"data": dict(files)},
        Identity(networking, "NetworkPolicy", SERVING, f"{NAME}-generator"): {
            "spec": {**asks, "policyTypes": ["Egress"], "egress": [{"to": [asked, gateway]}]}
        },
        Identity(networking, "NetworkPolicy", SERVING, f"{NAME}-subject"): {
            "spec": {**asked, "policyTypes": ["Ingress"], "ingress": [{"from": [asks]}]}
        },
        Identity("v1", "Service", SERVING, NAME): {"spec": {"selector": {ROLE: "subject"}, "ports": ways}},
        Identity("gateway.networking.k8s.io/v1", "HTTPRoute", SERVING, NAME): {
            "spec": {
                "parentRefs": route["spec"]["parentRefs"],
                "hostnames": [f"{NAME}.{domain}"],
                "rules": [{"backendRefs": [{"name": NAME, "port": 80}]}],
            }
        },
        Identity("v1", "Pod", SERVING, NAME): pod,
    }


class Bench:
    """The pods in the cluster, and the generator in each of its two places."""

    def __init__(self, platform: Platform, model: str, request: bytes, program: str, folder: Path) -> None:
        self._platform, self._model, self._folder = platform, model, folder
        self._files = {
            "request.json": request.decode(),
            "ca.crt": platform.authority,
            **{path.name: path.read_text() for path in PODS.glob("*.py")},
        }
        for name, text in self._files.items():
            (folder / name).write_text(text)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.touch(0o600)
        kubeconfig.write_text(platform.kubeconfig)
        self._exec = [program, "--kubeconfig", str(kubeconfig), "exec", "--namespace", SERVING, f"job/{NAME}", "--"]

    def make(self, seconds: int) -> str:
        """Make everything, to live for `seconds` at most; the version that is measured.

        Raises:
            LabError: production serves nothing.
        """
        cluster, model = self._platform.cluster, self._model
        deployment = self._platform.deployments(model).get("production")
        route = cluster.find(Identity("gateway.networking.k8s.io/v1", "HTTPRoute", SERVING, model))
        if deployment is None or route is None or not (version := served_version(deployment)):
            remedy = f"`lab promote {model} --to production`"
            raise LabError(f"production serves no version of {model}", remedy=remedy)
        self.remove()
        owner = cluster.apply(OWNER, generator(deployment["spec"]["template"], seconds), MANAGER)
        reference = {
            "apiVersion": OWNER.api_version,
            "kind": OWNER.kind,
            "name": NAME,
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for target, manifest in others(deployment, route, self._platform.domain, self._files).items():
            metadata = {**manifest.get("metadata", {}), "ownerReferences": [reference]}
            cluster.apply(target, {**manifest, "metadata": metadata}, MANAGER)
        return version

    def wait(self) -> None:
        """Wait until all of it answers.

        Raises:
            LabError: it does not.
        """
        wait(self._ready, START_SECONDS, lambda: "waiting for the pods of the benchmark, and the gateway's way to them")

    def _ready(self) -> bool:
        pods = self._platform.cluster.items("v1", "Pod", SERVING, labelSelector=ROLE)
        ready = [
            condition
            for pod in pods
            for condition in pod["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        ]
        if len(ready) < 2:
            return False
        try:
            self._platform.ask(NAME, "POST", self._path, json.loads(self._files["request.json"]))
        except LabError:
            return False  # the gateway has not heard of the route yet
        return True

    def remove(self) -> None:
        """Delete everything, and wait until it is gone."""
        cluster = self._platform.cluster
        if cluster.delete(OWNER, "Foreground"):
            wait(lambda: cluster.find(OWNER) is None, END_SECONDS, lambda: "waiting for the benchmark's pods to end")

    @property
    def _path(self) -> str:
        return f"/v2/models/{self._model}/infer"

    def round(self, way: str, clients: int, seconds: float, requests: int) -> Round:
        """Let the generator ask, one way.

        Raises:
            LabError: an answer was not 200, or the generator could not run.
        """
        platform, outside = self._platform, way == OUTSIDE
        places = {
            GATEWAY: "https://gateway.gateway",
            DIRECT: f"http://{NAME}",
            BARE: f"http://{NAME}:{BARE_PORT}",
            OUTSIDE: f"https://{platform.address}:{platform.port}",
        }
        folder = str(self._folder) if outside else FOLDER
        plan = {
            "url": places[way] + self._path,
            "name": f"{NAME}.{platform.domain}" if way in {GATEWAY, OUTSIDE} else None,
            "authority": f"{folder}/ca.crt",
            "body": f"{folder}/request.json",
            "clients": clients,
            "seconds": seconds,
            "requests": requests,
        }
        start = [sys.executable] if outside else [*self._exec, "python3"]
        command = [*start, f"{folder}/load.py", json.dumps(plan)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
        if done.returncode:
            raise LabError(f"the load generator failed, way '{way}': {done.stderr.strip()[-500:]}")
        output: dict[str, Any] = json.loads(done.stdout)
        return Round(tuple(output["latencies"]), output["seconds"], output["processor"])


def measure(bench: Bench, chosen: argparse.Namespace, console: Console) -> dict[tuple[str, int], list[Round]]:
    """All rounds: in each one every way with every number of clients, another way first each time."""
    for way in WAYS:
        bench.round(way, max(CLIENTS), SETTLE_SECONDS, chosen.requests)
    results: dict[tuple[str, int], list[Round]] = {(way, clients): [] for clients in CLIENTS for way in WAYS}
    for number in range(chosen.rounds):
        console.print(f"round {number + 1} of {chosen.rounds} ...")
        first = number % len(WAYS)
        for clients in CLIENTS:
            for way in WAYS[first:] + WAYS[:first]:
                results[way, clients].append(bench.round(way, clients, chosen.seconds, chosen.requests))
    return results


@reported
def main() -> None:
    """Measure, print the table, and leave the cluster as it was."""
    options = parser("serving", __doc__)
    options.add_argument("--model", default="digits", help="the model; default: %(default)s")
    options.add_argument("--sample", type=Path, help="a V2 request; default: the model's sample.json")
    options.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    options.add_argument("--seconds", type=float, default=3.0, help="of each way in a round; default: %(default)s")
    options.add_argument("--requests", type=int, default=5000, help="of each way in a round, at most: %(default)s")
    chosen = options.parse_args()
    sample = chosen.sample or TREE.parent / "models" / chosen.model / "sample.json"
    session = session_of(chosen)
    given = session.config(session.stack()).get(f"{PROJECT}:cluster")
    wanted = Cluster.model_validate(json.loads(given.value)) if given and given.is_object else Cluster()
    program = kubectl(wanted.bundle, wanted.kubernetes_version)
    if program is None:
        raise LabError("kubectl is neither in the bundle nor on PATH", remedy="run `lab bundle build`")
    request = json.dumps(json.loads(sample.read_text())).encode()
    seconds = START_SECONDS + int(chosen.rounds * len(WAYS) * len(CLIENTS) * (chosen.seconds + 10))
    console = Console(width=120)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        bench = Bench(platform_of(chosen), chosen.model, request, program, Path(folder))
        try:
            version = bench.make(seconds)
            bench.wait()
            results = measure(bench, chosen, console)
        finally:
            bench.remove()
    console.print(f"{chosen.model}, version {version}; load average {os.getloadavg()[0]:.1f}")
    console.print(table_of(results))
    overheads = {clients: ratio(results[GATEWAY, clients], results[DIRECT, clients])[0] for clients in CLIENTS}
    result = ", ".join(f"{value:.2f} with {clients}" for clients, value in overheads.items())
    console.print(f"overhead of the gateway at p50, by number of clients: {result} (limit {LIMIT})")
    sys.exit(any(value > LIMIT for value in overheads.values()))


if __name__ == "__main__":
    main()
