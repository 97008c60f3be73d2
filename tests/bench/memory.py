"""``lab bench memory``: memory of the running platform at rest, by capability, asked for and used.

What is asked for are the requests of its pods, as a namespace's quota counts them. What is used is the working set of
their containers as metrics-server reports it (`kubectl top pods`): anonymous memory and the page cache in active use.
Each pod counts with the largest of the samples. Ends with status 1 where the sums are above the limits.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kubernetes.utils.quantity import parse_quantity
from rich.console import Console
from rich.table import Table

from cli.errors import LabError
from cli.workloads import NAMESPACES, Object, Platform, capability_of
from providers.kubernetes.client import ClusterError
from tests.bench._stack import MIB, parser, platform_of, reported

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

REQUESTS_LIMIT_MIB = 4 * 1024
USE_LIMIT_MIB = 3 * 1024
METRICS = "/apis/metrics.k8s.io/v1beta1/namespaces"
JOBS = "Jobs: not at rest"
ENDED = {"Succeeded", "Failed"}


@dataclass
class Row:
    """A capability's pods, and MiB that they ask for and use."""

    pods: int = 0
    requested: float = 0.0
    used: float = 0.0


def requested(pod: Object) -> int:
    """Bytes that a pod asks for: of its containers together, or of its largest init container, whatever is more."""

    def asked(container: Object) -> int:
        return int(parse_quantity(container.get("resources", {}).get("requests", {}).get("memory", 0)))

    spec = pod["spec"]
    together = sum(asked(one) for one in spec["containers"])
    return max([together, *(asked(one) for one in spec.get("initContainers", ()))])


def rows(pods: Iterable[Object], workloads: Iterable[Object], used: Mapping[str, int]) -> dict[str, Row]:
    """What each capability takes; `used` is bytes by `<namespace>/<pod>`."""
    workloads = list(workloads)
    found: dict[str, Row] = defaultdict(Row)
    for pod in pods:
        if pod["status"].get("phase") not in ENDED:
            row = found[capability_of(pod, workloads) or JOBS]
            row.pods += 1
            row.requested += requested(pod) / MIB
            row.used += used.get(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}", 0) / MIB
    return dict(sorted(found.items()))


def table_of(found: Mapping[str, Row]) -> tuple[Table, bool]:
    """The table, and whether both sums keep to their limits."""
    table = Table("capability", title="Memory at rest, MiB")
    for title in ("pods", "requested", "used"):
        table.add_column(title, justify="right")
    for name, row in found.items():
        table.add_row(name, str(row.pods), f"{row.requested:.0f}", f"{row.used:.0f}")
    asked, used = sum(row.requested for row in found.values()), sum(row.used for row in found.values())
    table.add_section()
    table.add_row("all", str(sum(row.pods for row in found.values())), f"{asked:.0f}", f"{used:.0f}")
    table.add_row("limit", "", str(REQUESTS_LIMIT_MIB), str(USE_LIMIT_MIB))
    return table, asked <= REQUESTS_LIMIT_MIB and used <= USE_LIMIT_MIB


def working_sets(platform: Platform) -> dict[str, int]:
    """Bytes that each pod uses now, by `<namespace>/<pod>`.

    Raises:
        LabError: the cluster has no metrics-server.
    """
    found = {}
    for namespace in NAMESPACES:
        try:
            result = platform.cluster.request("memory of pods", "GET", f"{METRICS}/{namespace}/pods")
        except ClusterError as error:
            raise LabError(f"metrics-server does not answer: {error}", remedy="`lab up` makes one") from None
        for pod in result["items"]:
            sizes = [int(parse_quantity(one["usage"]["memory"])) for one in pod["containers"]]
            found[f"{namespace}/{pod['metadata']['name']}"] = sum(sizes)
    return found


@reported
def main() -> None:
    """Take the samples and print the table."""
    options = parser("memory", __doc__)
    options.add_argument("--samples", type=int, default=4, help="default: %(default)s")
    options.add_argument("--interval", type=float, default=15.0, help="seconds between two; default: %(default)s")
    chosen = options.parse_args()
    platform = platform_of(chosen)
    most: dict[str, int] = {}
    for number in range(chosen.samples):
        if number:
            time.sleep(chosen.interval)
        most |= {pod: max(size, most.get(pod, 0)) for pod, size in working_sets(platform).items()}
    pods = [pod for namespace in NAMESPACES for pod in platform.cluster.items("v1", "Pod", namespace)]
    unknown = [
        pod["metadata"]["name"]
        for pod in pods
        if pod["status"].get("phase") == "Running"
        and f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" not in most
    ]
    if unknown:
        remedy = "metrics-server needs a minute after a pod's start: run it again"
        raise LabError(f"there are no figures yet of {', '.join(unknown)}", remedy=remedy)
    table, kept = table_of(rows(pods, platform.workloads(), most))
    console = Console(width=100)
    console.print(f"profile {platform.profile}; largest of {chosen.samples} samples, {chosen.interval:.0f} s apart")
    console.print(table)
    sys.exit(not kept)


if __name__ == "__main__":
    main()
