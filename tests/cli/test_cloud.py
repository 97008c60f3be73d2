"""`lab doctor` and `lab sweep` on a real cloud: LAB_TEST_CLOUD names its entry in clouds.yaml."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

import openstack
import pytest

from infra.naming import METADATA_KEY, stack_tag
from tests.cli.harness import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openstack.connection import Connection

SETTINGS = """\
config:
  ml-cluster:cloud: {{name: {entry}}}
  ml-cluster:lease: none
  ml-cluster:network: {{externalNetwork: {external}}}
  ml-cluster:access: {{sshFrom: ["192.0.2.0/24"]}}
  ml-cluster:nodes: {{image: {image}, groups: {{control: {{role: control-plane, count: {count}, flavor: {flavor}}}}}}}
"""


@pytest.fixture(scope="session")
def cloud() -> Connection:
    name = os.environ.get("LAB_TEST_CLOUD")
    if not name:
        pytest.skip("LAB_TEST_CLOUD names no cloud to test on")
    return openstack.connect(cloud=name)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.write()
    project = lab.project / "Pulumi.yaml"
    project.write_text(project.read_text().replace("name: demo", "name: ml-cluster"))
    if file := os.environ.get("OS_CLIENT_CONFIG_FILE"):
        lab.env["OS_CLIENT_CONFIG_FILE"] = file
    return lab


def settings(lab: Lab, cloud: Connection, **changes: Any) -> None:
    image = next(image.name for image in cloud.image.images() if image.status == "active")
    external = next(network.name for network in cloud.network.networks(is_router_external=True))
    flavor = min(cloud.compute.flavors(), key=lambda flavor: flavor.ram).name
    values = {"entry": cloud.name, "image": image, "external": external, "flavor": flavor, "count": 1}
    (lab.project / "Pulumi.dev.yaml").write_text(SETTINGS.format(**(values | changes)))


def test_doctor_finds_a_healthy_plan_healthy(lab: Lab, cloud: Connection) -> None:
    settings(lab, cloud)
    findings = lab.run("doctor", "--stack", "dev", "--json").json
    assert {f["check"] for f in findings if f["status"] == "ok"} >= {
        "credential",
        "roles",
        "image",
        "flavor",
        "compute quota",
    }
    assert not [f for f in findings if f["status"] in {"fail", "skipped"}]


def test_doctor_reports_all_errors_at_once(lab: Lab, cloud: Connection) -> None:
    settings(lab, cloud, image="no-such-image", external="no-such-network", count=3, flavor="no-such-flavor")
    outcome = lab.run("doctor", "--stack", "dev", status=1, env={"OS_PASSWORD": "planted"})
    for expected in (
        "image 'no-such-image' does not exist",
        "flavor 'no-such-flavor' does not exist",
        "external network 'no-such-network' does not exist",
        "skipped  compute quota      because of: flavor",
        "warn     variables          OS_PASSWORD override",
    ):
        assert expected in outcome.stdout
    assert "planted" not in outcome.stdout


def test_doctor_without_a_cloud_checks_the_rest(lab: Lab, cloud: Connection) -> None:
    settings(lab, cloud, entry="no-such-cloud")
    outcome = lab.run("doctor", "--stack", "dev", status=1)
    assert "fail     credential" in outcome.stdout
    assert "ok       settings" in outcome.stdout
    assert "skipped  image              because of: credential" in outcome.stdout


@pytest.fixture
def litter(cloud: Connection) -> Iterator[str]:
    """Something of most kinds, tagged as a stack's, and a port of nobody's in its network."""
    stack = f"t{uuid.uuid4().hex[:8]}"
    neutron = cloud.network
    external = next(iter(neutron.networks(is_router_external=True)))
    network = neutron.create_network(name=f"{stack}-network")
    subnet = neutron.create_subnet(network_id=network.id, ip_version=4, cidr="10.99.0.0/24")
    router = neutron.create_router(name=f"{stack}-router", external_gateway_info={"network_id": external.id})
    neutron.add_interface_to_router(router, subnet=subnet.id)
    group = neutron.create_security_group(name=f"{stack}-nodes")
    port = neutron.create_port(network_id=network.id, security_group_ids=[group.id])
    neutron.create_port(network_id=network.id, name="stray")
    address = neutron.create_ip(floating_network_id=external.id, port_id=port.id)
    for tagged in (network, subnet, router, group, port, address):
        neutron.set_tags(tagged, [stack_tag(stack)])
    cloud.compute.create_keypair(name=f"{stack}-key")
    cloud.compute.create_server_group(name=f"{stack}-workers", policy="soft-anti-affinity")
    cloud.block_storage.create_volume(name=f"{stack}-data", size=1, metadata={METADATA_KEY: stack})
    yield stack
    cloud.compute.delete_keypair(f"{stack}-key")


def test_sweep_finds_and_deletes_what_a_stack_left(lab: Lab, cloud: Connection, litter: str) -> None:
    arguments = ("sweep", "--stack", litter, "--os-cloud", str(cloud.name))
    found = lab.run(*arguments, "--json").json
    kinds = [
        "floating IP",
        "router",
        "port",
        "port",
        "subnet",
        "network",
        "security group",
        "server group",
        "keypair",
        "volume",
    ]
    assert [leftover["kind"] for leftover in found] == kinds
    assert lab.run("sweep", "--stack", f"{litter}-2", "--os-cloud", str(cloud.name), "--json").json == []
    assert (
        len(lab.run("sweep", "--all", "--keep", "volume", "--os-cloud", str(cloud.name), "--json").json)
        >= len(kinds) - 3
    )

    outcome = lab.run(*arguments)
    assert "Nothing was deleted; use --yes" in outcome.stderr
    cloud.compute.delete_keypair(f"{litter}-key")
    swept = lab.run(*arguments, "--yes")
    assert f"{len(kinds) - 1} deleted, 0 left" in swept.stderr
    assert "Nothing is left" in lab.run(*arguments).stdout


def test_sweep_finds_by_name_what_has_no_tag_yet(lab: Lab, cloud: Connection) -> None:
    """A run that is killed between the two requests of a create leaves an untagged network; others' stay."""
    stack, neutron = f"t{uuid.uuid4().hex[:8]}", cloud.network
    external = next(iter(neutron.networks(is_router_external=True)))
    half = neutron.create_network(name=f"{stack}-network")
    address = neutron.create_ip(floating_network_id=external.id, description=f"{stack}-control-0")
    others = [neutron.create_network(name=f"{stack}-{part}") for part in ("2-network", "database", "network")]
    neutron.set_tags(others[0], [stack_tag(f"{stack}-2")])
    neutron.set_tags(others[2], [stack_tag("another")])
    try:
        arguments = ("sweep", "--stack", stack, "--os-cloud", str(cloud.name))
        found = lab.run(*arguments, "--json").json
        assert [(item["id"], item["found_by"]) for item in found] == [(address.id, "name"), (half.id, "name")]
        table = lab.run(*arguments).stdout.splitlines()
        assert table[0].split() == ["KIND", "NAME", "STACK", "FOUND", "BY", "ID"]
        assert "2 deleted, 0 left" in lab.run(*arguments, "--yes").stderr
        assert all(neutron.find_network(other.id) for other in others)
        assert neutron.find_network(half.id) is None
    finally:
        for other in others:
            neutron.delete_network(other)


def test_sweep_says_what_it_could_not_delete(lab: Lab, cloud: Connection, litter: str) -> None:
    lab.refuse("sweep", "-s", litter, "--keep", "vloume", status=2, saying="there is no kind vloume")
    (group,) = [g for g in cloud.network.security_groups() if stack_tag(litter) in g.tags]
    network = cloud.network.create_network(name=f"{litter}-elsewhere")
    port = cloud.network.create_port(network_id=network.id, security_group_ids=[group.id])
    arguments = ("sweep", "--stack", litter, "--os-cloud", str(cloud.name), "--yes")
    try:
        outcome = lab.run(*arguments, "--timeout", "5", status=1)
    finally:
        cloud.network.delete_port(port)
        cloud.network.delete_network(network)
    assert "1 left" in outcome.stderr
    assert f"security group {litter}-nodes ({group.id}): Security Group {group.id} in use. (HTTP 409" in outcome.stderr
    assert "request req-" in outcome.stderr
    lab.run(*arguments)
