"""``lab bench class``: a class of many stacks, three nodes each, through ``lab class up``, ``status`` and ``down``.

The cloud is a devcloud with a fake compute host (``lab devcloud up --fake-host``): the control plane is real, its
instances are rows in databases. As on Chameleon, the class is on one shared network, which the benchmark makes;
``--own-networks`` gives each stack a network and a router of its own. Growth compares the seconds a stack takes in the
first and in the last quarter. Memory is of the command with all its processes, shared pages divided (PSS).
"""
# ruff: noqa: N999 - the module's name is the benchmark's

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from openstack.config import OpenStackConfig
from openstack.connection import Connection
from rich.console import Console
from rich.table import Table

from devcloud import DEFAULT_STATE
from devcloud.bringup import Devcloud
from tests.devcloud.support import cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "bench-class"
SAMPLE_SECONDS = 2.0
TEMPLATE = """\
config:
  ml-cluster:cloud: {{name: devcloud}}
  ml-cluster:lease: none
  ml-cluster:network: {network}
  ml-cluster:access: {{user: cc, sshFrom: [192.0.2.0/24]}}
  ml-cluster:nodes:
    image: fake
    groups:
      control: {{role: control-plane, count: 1, flavor: m1.small}}
      worker: {{role: worker, count: 2, flavor: m1.small}}
"""


@dataclass(frozen=True)
class Figures:
    """What one verb took."""

    seconds: float
    own_cpu: float
    cloud_cpu: float
    peak_mib: float
    processes: int
    failures: int

    @property
    def share(self) -> float:
        """The control plane's share of all processor time."""
        return self.cloud_cpu / (self.cloud_cpu + self.own_cpu)


class Class:
    """A project in a folder of its own, with a roster of `count` students."""

    def __init__(self, folder: Path, count: int, parallel: int, cloud: Devcloud, *, own_networks: bool) -> None:
        self.folder, self.cloud = folder, cloud
        self._parallel = str(parallel)
        for name in ("Pulumi.yaml", "__main__.py"):
            shutil.copy(ROOT / name, folder)
        for package in ("infra", "kubeyaml"):
            shutil.copytree(ROOT / package, folder / package)
        (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
        network = "{externalNetwork: public}"
        if not own_networks:
            network = f"{{existing: {NETWORK}, cidr: 10.43.0.0/20, externalNetwork: public}}"
        (folder / "Pulumi.class.yaml").write_text(TEMPLATE.format(network=network))
        (folder / "state").mkdir()
        rows = [f"s{number:03d},{_public_key()}\n" for number in range(count)]
        (folder / "roster.csv").write_text("id,key\n" + "".join(rows))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PULUMI_"))}
        self._environment = clean | {
            "OS_CLIENT_CONFIG_FILE": str(cloud.layout.clouds_yaml),
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
        }

    def lab(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; what it says of its progress is shown."""
        command = [str(ROOT / "lab"), "--cwd", str(self.folder), *arguments]
        return subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)

    def measure(self, *arguments: str) -> Figures:
        """Run `lab class`, watching its memory."""
        began, cpu, cloud_cpu = time.monotonic(), _children_cpu(), cpu_seconds(self.cloud)
        process = self.lab("class", arguments[0], str(self.folder / "roster.csv"), *arguments[1:], "--json")
        peak, processes = 0.0, 0
        while process.poll() is None:
            sizes = [size for pid in _tree(process.pid) if (size := _pss_mib(pid))]
            peak, processes = max(peak, sum(sizes)), max(processes, len(sizes))
            time.sleep(SAMPLE_SECONDS)
        results = json.loads(process.communicate()[0])
        return Figures(
            time.monotonic() - began,
            _children_cpu() - cpu,
            cpu_seconds(self.cloud) - cloud_cpu,
            peak,
            processes,
            sum(result.get("result", "done") not in {"done", "unchanged"} for result in results),
        )

    def up(self) -> Figures:
        """`lab class up`."""
        return self.measure("up", "--template", "class", "--parallel", self._parallel, "--yes")

    def quarters(self, began: datetime) -> tuple[float, float]:
        """Seconds a stack, in the first and in the last quarter of those that ended."""
        records = [json.loads(path.read_text()) for path in (self.folder / "roster.class").glob("*.json")]
        ends = sorted(datetime.fromisoformat(record["ended"]) for record in records)
        size = max(1, len(ends) // 4)
        moments = [began, *ends]
        first, last = moments[size] - moments[0], moments[-1] - moments[-1 - size]
        return first.total_seconds() / size, last.total_seconds() / size


def _public_key() -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = [
            child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def make_network(cloud: Connection) -> None:
    """The network that the class shares."""
    network = cloud.network.create_network(name=NETWORK)
    subnet = cloud.network.create_subnet(name=NETWORK, network_id=network.id, ip_version=4, cidr="10.43.0.0/20")
    external = cloud.network.find_network("public", ignore_missing=False)
    router = cloud.network.create_router(name=NETWORK, external_gateway_info={"network_id": external.id})
    cloud.network.add_interface_to_router(router, subnet.id)


def remove_network(cloud: Connection) -> None:
    """Remove it, if it is there."""
    for router in cloud.network.routers(name=NETWORK):
        for subnet in cloud.network.subnets(name=NETWORK):
            cloud.network.remove_interface_from_router(router, subnet.id)
        cloud.network.delete_router(router)
    for network in cloud.network.networks(name=NETWORK):
        cloud.network.delete_network(network)


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(prog="lab bench class", description=__doc__)
    parser.add_argument("--stacks", type=int, default=100, help="number of students")
    parser.add_argument("--parallel", type=int, default=4, help="stacks at once")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE, help="state folder of the devcloud")
    parser.add_argument("--own-networks", action="store_true", help="a network and a router for each stack")
    arguments = parser.parse_args()
    cloud = Devcloud(arguments.state)
    if not (cloud.is_running and cloud.layout.settings.fake_host):
        sys.exit(f"there is no devcloud with a fake host: lab devcloud up --fake-host --state {arguments.state}")
    written = OpenStackConfig(config_files=[str(cloud.layout.clouds_yaml)], load_envvars=False)
    connection = Connection(config=written.get_one("devcloud"))
    with tempfile.TemporaryDirectory(prefix="lab-class-") as folder:
        pupils = Class(Path(folder), arguments.stacks, arguments.parallel, cloud, own_networks=arguments.own_networks)
        remove_network(connection)
        make_network(connection)
        began = datetime.now().astimezone()
        try:
            up = pupils.up()
            first, last = pupils.quarters(began)
            again = pupils.up()
            status = pupils.measure("status")
        finally:
            down = pupils.measure("down", "--parallel", str(arguments.parallel), "--yes")
            remove_network(connection)
        left = json.loads(pupils.lab("sweep", "--all", "--os-cloud", "devcloud", "--json").communicate()[0])
    console = Console(width=110)
    table = Table(
        "verb",
        "total, s",
        "s a stack",
        "control plane's share",
        "own CPU, s a stack",
        "peak PSS, MiB",
        "processes",
        "failures",
    )
    for name, figures in (("up", up), ("up again", again), ("status", status), ("down", down)):
        each = arguments.stacks
        table.add_row(
            name,
            f"{figures.seconds:.0f}",
            f"{figures.seconds / each:.2f}",
            f"{figures.share:.0%}",
            f"{figures.own_cpu / each:.2f}",
            f"{figures.peak_mib:.0f}",
            str(figures.processes),
            str(figures.failures),
        )
    console.print(
        f"{arguments.stacks} stacks x 3 nodes, {arguments.parallel} at once, load average {os.getloadavg()[1]:.1f}"
    )
    console.print(table)
    console.print(
        f"growth: {first:.2f} s a stack in the first quarter, {last:.2f} in the last: {last / first:.2f} times"
    )
    console.print(f"leftovers after down: {len(left)}")
    sys.exit(bool(up.failures or down.failures or left))


if __name__ == "__main__":
    main()
