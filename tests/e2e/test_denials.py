"""What a stack's network, reservation and project keep out, seen to be refused; the tests build on one another."""

from __future__ import annotations

import secrets
import socket
import subprocess
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from devcloud.seed import connect, identity_of, reservations
from tests.e2e.harness import Cloud, Deployment, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from openstack.connection import Connection
    from requests import Response

pytestmark = [pytest.mark.slow_cloud, pytest.mark.timeout(3000)]
STACK = "e2e-denials"
STRANGER = "e2e-stranger"


@pytest.fixture(scope="module")
def lab(deploy: Callable[[str], AbstractContextManager[Deployment]]) -> Iterator[Deployment]:
    """One reserved node and a volume."""
    with deploy(STACK) as deployment:
        deployment.change(nodes__groups__worker__count=0, nodes__groups__control__flavor="m1.tiny")
        deployment.perform("up")
        wait(partial(deployment.answers, "true"), "SSH at the printed endpoint")
        yield deployment
        deployment.perform("destroy")


@pytest.fixture(scope="module")
def entry(lab: Deployment) -> str:
    return str(lab.output("nodes")["control-0"]["floatingIp"])


@pytest.fixture(scope="module")
def stranger(cloud: Cloud) -> Iterator[Connection]:
    """A second student, with the first one's roles in a project of their own."""
    identity, password = identity_of(cloud.admin), secrets.token_urlsafe()

    def remove() -> None:
        for user in identity.users(name=STRANGER):
            identity.delete_user(user)
        for project in identity.projects(name=STRANGER):
            identity.delete_project(project)

    remove()
    project = identity.create_project(name=STRANGER, domain_id="default")
    user = identity.create_user(name=STRANGER, password=password, domain_id="default")
    for role in ("member", "reader"):
        identity.assign_project_role_to_user(project, user, identity.find_role(role, ignore_missing=False))
    yield connect(cloud.devcloud.layout, STRANGER, password)
    remove()


@contextmanager
def another_address(cloud: Cloud) -> Iterator[str]:
    """A second address of this machine's on the external network."""
    layout, device = cloud.devcloud.layout, cloud.devcloud.control.name
    address = str(layout.machine_address + 49)
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", device], check=True)
    try:
        yield address
    finally:
        subprocess.run(["ip", "address", "delete", f"{address}/32", "dev", device], check=True)


def test_ssh_is_open_to_the_addresses_in_the_settings_alone(lab: Deployment, cloud: Cloud) -> None:
    with another_address(cloud) as other:
        refused = lab.ssh("true", "-b", other)
        assert refused.returncode == 255
        assert "timed out" in refused.stderr
        wait(partial(lab.answers, "true"), "SSH from the machine's own address")
        lab.change(access__sshFrom=[f"{cloud.devcloud.layout.machine_address}/32", f"{other}/32"])
        lab.perform("up")
        wait(partial(lab.answers, "true", "-b", other), "SSH from the address that was let in")


def is_open(address: str, port: int) -> bool:
    """Whether a TCP connection can be made; a node that itself refuses it was reached, and that is an error."""
    try:
        socket.create_connection((address, port), timeout=3).close()
    except TimeoutError:
        return False
    return True


def test_a_port_that_no_rule_opens_is_closed(lab: Deployment, entry: str) -> None:
    for port in (80, 8080):
        lab.ssh(f"sudo systemd-run python3 -m http.server {port}")
        wait(partial(lab.answers, f"curl --silent --fail http://localhost:{port}"), f"the web server on {port}")
    wait(partial(is_open, entry, 80), "the port that the settings open")
    assert not is_open(entry, 8080)


@pytest.fixture(scope="module")
def ids(lab: Deployment) -> dict[str, str]:
    """Ids of the stack's resources, by name."""
    resources = lab.run("state", "export").json["deployment"]["resources"]
    return {resource["urn"].split("::")[-1]: str(resource["id"]) for resource in resources if "id" in resource}


def boot(account: Connection, network: str, flavor: str, **options: Any) -> Response:
    """Ask for an instance."""
    image = account.image.find_image("CC-Debian12", ignore_missing=False).id
    wanted = {"name": STRANGER, "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}], **options}
    return account.compute.post("/servers", json={"server": wanted})


def test_another_project_neither_reads_nor_deletes(lab: Deployment, ids: dict[str, str], stranger: Connection) -> None:
    neutron = {"network": "networks", "router": "routers", "nodes": "security-groups", "control-0-port": "ports"}
    for service, path in (
        (stranger.compute, f"/servers/{ids['control-0']}"),
        (stranger.compute, f"/os-keypairs/{ids['key']}"),
        (stranger.block_storage, f"/volumes/{ids['data']}"),
        (reservations(stranger), f"/leases/{ids['lease-control']}"),
        *((stranger.network, f"/{collection}/{ids[name]}") for name, collection in neutron.items()),
    ):
        for method in ("GET", "DELETE"):
            assert service.request(path, method, raise_exc=False).status_code in {403, 404}, (method, path)
    assert lab.preview("--refresh") == {}, "all is there still"


def test_another_project_uses_nothing(lab: Deployment, ids: dict[str, str], stranger: Connection) -> None:
    port = stranger.network.post("/ports", json={"port": {"network_id": ids["network"]}})
    assert port.status_code == 404
    tiny = stranger.compute.find_flavor("m1.tiny", ignore_missing=False).id
    refused = boot(stranger, ids["network"], tiny)
    assert refused.status_code == 400
    assert "could not be found" in refused.json()["badRequest"]["message"]
    (reservation,) = {
        resource["outputs"]["reservation_id"]
        for resource in lab.run("state", "export").json["deployment"]["resources"]
        if resource["urn"].endswith("::lease-control")
    }
    own = stranger.network.create_network(name=STRANGER)
    try:
        stranger.network.create_subnet(network_id=own.id, ip_version=4, cidr="10.43.0.0/24")
        refused = boot(stranger, own.id, reservation)
        assert refused.status_code == 400
        assert f"Flavor {reservation} could not be found" in str(refused.json())
    finally:
        stranger.network.delete_network(own)


def test_a_reservable_host_takes_no_instance_without_a_reservation(cloud: Cloud, ids: dict[str, str]) -> None:
    reservable = next(host.name for host in cloud.devcloud.layout.settings.hosts if host.reservable)
    tiny = cloud.admin.compute.find_flavor("m1.tiny", ignore_missing=False).id
    zone = {"availability_zone": f"nova:{reservable}"}
    assert boot(cloud.student, ids["network"], tiny, **zone).status_code == 403, "only an admin may choose the host"
    made = cloud.admin.compute.create_server(
        name=STRANGER, flavor_id=tiny, networks=[{"uuid": ids["network"]}], host=reservable,
        image_id=cloud.admin.image.find_image("CC-Debian12", ignore_missing=False).id,
    )  # fmt: skip
    try:
        server = wait(lambda: (s := cloud.admin.compute.get_server(made.id)).status != "BUILD" and s, "an answer")
        assert server.status == "ERROR"
        assert "No valid host" in server.fault["message"]
    finally:
        cloud.admin.compute.delete_server(made.id)
        cloud.admin.compute.wait_for_delete(made, wait=60)
