"""All nodes of a cluster that serves get another image: the preview's counts, and what clients notice meanwhile.

Three control planes and two workers. Clients ask for predictions, and write rows, artifacts and objects all the while;
where an address of the gateway takes no connection, they take the next one, as a client with several addresses of a
name does. Costs about 20 minutes on idle cores, 14 GiB of memory beside the cloud's, and a bundle.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.ansible.conftest import ETCDCTL
from tests.e2e.harness import BUNDLE, VERSION, Cloud, Cluster, Deployment
from tests.e2e.ledger import Ledger
from tests.e2e.load import Load
from tests.e2e.platform_stack import PlatformStack
from tests.e2e.rolling import Writer, another_image, servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

pytestmark = [pytest.mark.slow_cloud, pytest.mark.thorough, pytest.mark.timeout(5400)]

STACK: Final = "e2e-image"
NEWER: Final = "e2e-image-newer"
CONTROL_PLANES: Final = ["control-0", "control-1", "control-2"]
WORKERS: Final = ["worker-0", "worker-1"]
NODES: Final = [*CONTROL_PLANES, *WORKERS]


@pytest.fixture
def newer(cloud: Cloud, tmp_path: Path) -> Iterator[None]:
    with another_image(cloud, NEWER, tmp_path / "image.raw"):
        yield


@pytest.fixture
def lab(deploy: Callable[[str], AbstractContextManager[Deployment]]) -> Iterator[Deployment]:
    with deploy(STACK) as lab:
        lab.change(
            lease="none",
            cluster={"kubernetesVersion": VERSION, "bundle": str(BUNDLE)},
            platform={"profile": "lab", "example": True},
            network__floatingIps="control-plane",
            storage__volumes={"stores": {"sizeGb": 4, "attachTo": "worker-0", "holds": "stores"}},
            nodes__groups__control__flavor="m1.medium",
            nodes__groups__worker__flavor="m1.large",
        )
        lab.change(nodes__groups__control__count=len(CONTROL_PLANES), nodes__groups__worker__count=len(WORKERS))
        lab.run("up", "--yes", "--skip-preview")
        yield lab
        lab.perform("destroy")


@pytest.mark.usefixtures("newer")
def test_another_image_under_load(
    lab: Deployment, cloud: Cloud, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    stack, cluster = PlatformStack(lab, tmp_path), Cluster(lab, tmp_path / "kubeconfig")
    nodes: dict[str, dict[str, str]] = lab.output("nodes")
    addresses = [nodes[name]["floatingIp"] for name in CONTROL_PLANES]
    assert len(cluster.ready()) == len(NODES)
    before = servers(cloud, STACK)
    lab.change(nodes__image=NEWER)

    planned = lab.preview()
    replaced = {step.name for step in planned if step.op == "replace"}
    # Servers, nodes, and what ties the volume and the addresses to them; ports, volumes and addresses stay.
    assert {name for name in replaced if name in NODES} == set(NODES), planned
    assert not [step for step in planned if step.op in {"create", "delete"}], planned
    assert not [name for name in replaced if name.endswith(("-port", "-ip")) or name == "stores"], planned

    ledger = Ledger(stack)
    with Writer(cluster.kubeconfig, addresses) as writer, ledger.written(), Load(stack, addresses=addresses) as load:
        ledger.goes_on()
        update = lab.perform("up")
        ledger.goes_on()

    assert update.steps == planned
    lab.run("preview", "--expect-no-changes")
    after = servers(cloud, STACK)
    assert Counter(server for server, _ in after) == Counter(f"{STACK}-{name}" for name in NODES)
    assert not {id_ for _, id_ in before} & {id_ for _, id_ in after}
    assert set(cluster.ready()) == {f"{STACK}-{name}" for name in NODES}
    members = lab.run("ssh", "control-0", f"sudo {ETCDCTL} member list").stdout.splitlines()
    assert len([member for member in members if ", started, " in member]) == len(members) == len(CONTROL_PLANES)
    found = cluster.kubectl("get", "configmaps", "--output", "jsonpath={.items[*].metadata.name}").split()
    lost = sorted(set(writer.acknowledged) - set(found)) + ledger.lost()
    record_property(
        "figures",
        f"{len(NODES)} nodes replaced one by one in {update.seconds:.0f} s: {load}; {ledger}; "
        f"{len(writer.acknowledged)} objects acknowledged; {len(lost)} rows, artifacts and objects lost",
    )
    assert lost == []
    assert load.faults == []
