"""``lab bench devcloud``: how long devcloud takes to come up, what it weighs, how soon an instance answers SSH.

Runs on a state folder of its own. ``--bare`` starts without Debian trees, as on a new machine; else they are made where
they are missing. Times are wall clock; the CPU time beside them says what an idle machine would have needed at least.
Memory is the proportional set size, as `lab devcloud status` shows it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from devcloud import DEFAULT_STATE
from devcloud.bringup import Devcloud
from devcloud.layout import Settings
from tests.devcloud.support import boot_node, connect, cpu_seconds, make_key, make_network

NAME = "devcloud-bench"
INSTANCES = 3


@dataclass
class BringUp:
    """One bring-up: seconds a stage, CPU seconds of all that runs in devcloud, load average when it was done."""

    title: str
    stages: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    load: float = 0.0

    @property
    def seconds(self) -> float:
        """From the packages on: stages that run at the same time count once."""
        return self.stages["Total"] - self.stages["Install packages"]


def bring_up(cloud: Devcloud, title: str) -> BringUp:
    """Bring the cloud up and say how it went."""
    stages = cloud.up()
    seconds = {stage.name: stage.elapsed for stage in stages.stages} | {"Total": stages.elapsed}
    return BringUp(title, seconds, cpu_seconds(cloud), os.getloadavg()[0])


def memory(cloud: Devcloud) -> dict[str, float]:
    """MiB of each service, and in all."""
    result = cloud.control.call("status", memory=True)
    sizes = {entry.name: (entry.memory or 0) / 2**20 for entry in result.services}
    sizes["DHCP servers, proxies, privileged helpers, supervisor"] = result.rest / 2**20
    return sizes | {"in all": sum(sizes.values())}


def show_stages(console: Console, ups: list[BringUp]) -> None:
    """A row a stage, a column a bring-up."""
    table = Table(title="Bring-up, seconds")
    table.add_column("stage")
    for up in ups:
        table.add_column(up.title, justify="right")
    for name in ups[0].stages:
        table.add_row(name, *(f"{up.stages[name]:.1f}" for up in ups))
    table.add_row("Total without packages", *(f"{up.seconds:.1f}" for up in ups))
    table.add_row("CPU time of the services", *(f"{up.cpu:.1f}" for up in ups))
    table.add_row("load average at the end", *(f"{up.load:.1f}" for up in ups))
    console.print(table)


def show_memory(console: Console, fresh: dict[str, float], used: dict[str, float]) -> None:
    """A row a service."""
    table = Table(title="Memory, MiB (PSS, instances' own processes left out)")
    for title in ("service", "fresh", f"with {INSTANCES} instances"):
        table.add_column(title, justify="left" if title == "service" else "right")
    for name, size in used.items():
        table.add_row(name, f"{fresh[name]:.0f}", f"{size:.0f}")
    console.print(table)


def main() -> None:
    """Measure, print, and leave the cloud down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", action="store_true", help="remove the Debian trees first, and make them")
    parser.add_argument("--state", type=Path, default=DEFAULT_STATE.with_name("bench"), help="default: %(default)s")
    parser.add_argument("--subnet", default="172.29.0.0/24", help="external network; default: %(default)s")
    chosen = parser.parse_args()
    console = Console()
    old = Devcloud(chosen.state)
    if chosen.bare:
        old.purge()
    else:
        old.reset()
        for made in [*old.layout.cache.glob("databases-*"), *old.layout.cache.glob("debian12-*")]:
            made.unlink()
    settings = Settings.model_validate({"subnet": chosen.subnet})
    cloud = Devcloud(chosen.state, settings)
    ups = [bring_up(cloud, "first")]
    cloud.reset()
    ups.append(bring_up(cloud, "after reset"))
    fresh = memory(cloud)
    student = connect(cloud, "devcloud")
    with tempfile.TemporaryDirectory() as folder:
        key = make_key(student, NAME, Path(folder) / "id")
        network = make_network(student, NAME)
        nodes = [boot_node(student, NAME, network, key) for _ in range(INSTANCES)]
        booted = nodes[0].ssh(key, "systemd-analyze").stdout.partition("\n")[0]
    used = memory(cloud)
    cloud.down()
    ups.append(bring_up(cloud, "after down"))
    cloud.down()
    show_stages(console, ups)
    show_memory(console, fresh, used)
    for number, node in enumerate(nodes, 1):
        console.print(
            f"instance {number}: ACTIVE after {node.active_seconds:.1f} s, SSH after {node.ssh_seconds:.1f} s"
        )
    console.print(f"of instance 1: {booted}")


if __name__ == "__main__":
    main()
