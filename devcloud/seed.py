"""Creates what a new cloud needs: accounts, the catalog, networks, flavors, images, reservable hosts.

Everything here looks before it creates, so that each `up` can run it again.
"""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import openstack
from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException
from openstack.exceptions import SDKException
from openstack.identity.v3._proxy import Proxy as IdentityProxy
from ruamel.yaml import YAML
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from devcloud.config import CONTROLLER, PROVIDER_NETWORK
from devcloud.errors import DevcloudError
from devcloud.images import of_machines
from devcloud.layout import REGION, SERVICE_ACCOUNTS, write_secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openstack.connection import Connection

    from devcloud.images import Image
    from devcloud.layout import Layout, Passwords

# name: (type, path after the base URL)
CATALOG = {
    "glance": ("image", ""),
    "placement": ("placement", ""),
    "nova": ("compute", "/v2.1"),
    "neutron": ("network", ""),
    "cinder": ("volumev3", "/v3/$(project_id)s"),
    "blazar": ("reservation", "/v1"),
}
# Nova looks up block storage under this name.
CATALOG_NAMES = {"cinder": "cinderv3"}
# vCPUs, MiB, GB. Named as on Chameleon's KVM site, sized for one machine; memory is a limit, not reserved.
FLAVORS = {
    "m1.tiny": (1, 512, 3),
    "m1.small": (1, 1024, 4),
    "m1.medium": (2, 2048, 8),
    "m1.large": (2, 4096, 20),
}
VOLUME_TYPES = ("ceph-ssd", "ceph-hdd")
EXTERNAL = "public"
# Entries of clouds.yaml, each with a project and a user of that name. The second serves tests of project isolation.
STUDENTS = {"devcloud": "student", "devcloud-student2": "student2"}
COMPUTE_QUOTA = {"instances": 40, "cores": 80, "ram": 81920, "key_pairs": 100, "server_groups": 20}
NETWORK_QUOTA = {
    "network": 40, "subnet": 40, "port": 300, "router": 40, "floatingip": 60, "security_group": 60,
    "security_group_rule": 600,
}  # fmt: skip
VOLUME_QUOTA = {"volumes": 60, "snapshots": 60, "gigabytes": 2000}
# With a fake host, the project has room for a class of 100.
FAKE_HOST_FACTOR = 10
FAKE_IMAGE = "fake"


def auth(layout: Layout, user: str, password: str) -> dict[str, str]:
    """Password credentials for a user in the project of the same name."""
    return {
        "auth_url": f"{layout.url('keystone')}/v3",
        "username": user,
        "password": password,
        "project_name": user,
        "user_domain_id": "default",
        "project_domain_id": "default",
    }


def connect(layout: Layout, user: str, password: str) -> Connection:
    """A connection that ignores OS_* variables and clouds.yaml."""
    return openstack.connect(
        auth=auth(layout, user, password), region_name=REGION, load_envvars=False, load_yaml_config=False
    )


def identity_of(cloud: Connection) -> IdentityProxy:
    """Keystone's API version 3; openstacksdk's types allow for version 2, which is long gone."""
    assert isinstance(cloud.identity, IdentityProxy)
    return cloud.identity


def reservations(cloud: Connection) -> Adapter:
    """Blazar's REST API, which openstacksdk does not know."""
    return Adapter(cloud.session, service_type="reservation", interface="public", region_name=REGION)


class Seed:
    """Creates resources as the cloud's admin."""

    def __init__(self, layout: Layout, passwords: Passwords) -> None:
        self.layout = layout
        self.passwords = passwords
        self.cloud = connect(layout, "admin", passwords["admin"])

    def identity(self) -> None:
        """Service accounts and the catalog."""
        identity = identity_of(self.cloud)
        service_project = identity.find_project("service") or identity.create_project(
            name="service", domain_id="default"
        )
        admin = identity.find_role("admin", ignore_missing=False)
        users = {user.name: user for user in identity.users()}
        services = {service.name: service.id for service in identity.services()}
        endpoints = {(endpoint.service_id, endpoint.interface) for endpoint in identity.endpoints()}
        for account in SERVICE_ACCOUNTS:
            user = users.get(account) or identity.create_user(
                name=account, password=self.passwords[account], domain_id="default"
            )
            identity.assign_project_role_to_user(service_project, user, admin)
            kind, path = CATALOG[account]
            name = CATALOG_NAMES.get(account, account)
            service_id = services.get(name) or identity.create_service(name=name, type=kind).id
            for interface in ("public", "internal"):
                if (service_id, interface) not in endpoints:
                    identity.create_endpoint(
                        service_id=service_id,
                        interface=interface,
                        url=self.layout.url(account) + path,
                        region_id=REGION,
                    )

    def students(self) -> None:
        """The students' projects, and the clouds.yaml of all accounts."""
        url = f"{self.layout.url('keystone')}/v3"
        common = {"region_name": REGION, "interface": "public", "identity_api_version": 3}
        clouds: dict[str, object] = {
            entry: {"auth_type": "v3applicationcredential", "auth": {"auth_url": url, **self.student(user)}, **common}
            for entry, user in STUDENTS.items()
        }
        clouds["devcloud-admin"] = {"auth": auth(self.layout, "admin", self.passwords["admin"]), **common}
        text = StringIO()
        YAML().dump({"clouds": clouds}, text)
        write_secret(self.layout.clouds_yaml, text.getvalue())

    def student(self, name: str) -> dict[str, str]:
        """A project, its user, and an application credential of theirs, as clouds.yaml has it.

        The credential is unrestricted, as Blazar needs it to make a trust.
        """
        identity = identity_of(self.cloud)
        project = identity.find_project(name) or identity.create_project(name=name, domain_id="default")
        user = identity.find_user(name) or identity.create_user(
            name=name, password=self.passwords[name], domain_id="default", default_project_id=project.id
        )
        for role in ("member", "reader"):
            identity.assign_project_role_to_user(project, user, identity.find_role(role, ignore_missing=False))
        own = identity_of(connect(self.layout, name, self.passwords[name]))
        secret = self.passwords["application-credential" + name.removeprefix("student")]
        found = [item for item in own.application_credentials(user.id) if item.name == "devcloud"]
        credential = (
            found[0]
            if found
            else own.create_application_credential(user.id, name="devcloud", secret=secret, unrestricted=True)
        )
        return {"application_credential_id": credential.id, "application_credential_secret": secret}

    def quotas(self) -> None:
        """Limits of the students' projects. Compute and volume hold them; so the services must run."""
        factor = FAKE_HOST_FACTOR if self.layout.settings.fake_host else 1

        def scaled(quota: dict[str, int]) -> dict[str, int]:
            return {name: limit * factor for name, limit in quota.items()}

        for name in STUDENTS.values():
            project = identity_of(self.cloud).find_project(name, ignore_missing=False).id
            self.cloud.set_compute_quotas(project, **scaled(COMPUTE_QUOTA))
            self.cloud.set_network_quotas(project, **scaled(NETWORK_QUOTA))
            self.cloud.set_volume_quotas(project, **scaled(VOLUME_QUOTA))

    def network(self) -> None:
        """The external network."""
        network = self.cloud.network
        external = network.find_network(EXTERNAL) or network.create_network(
            name=EXTERNAL,
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network=PROVIDER_NETWORK,
        )
        subnet = self.layout.settings.subnet
        if not network.find_subnet(EXTERNAL):
            network.create_subnet(
                name=EXTERNAL,
                network_id=external.id,
                ip_version=4,
                cidr=str(subnet),
                gateway_ip=str(self.layout.machine_address),
                is_dhcp_enabled=False,
                allocation_pools=[{"start": str(subnet[100]), "end": str(subnet[-57])}],
            )

    def flavors(self) -> None:
        """Flavors, and the aggregate that Blazar takes hosts from."""
        have = {flavor.name for flavor in self.cloud.compute.flavors()}
        for name, (vcpus, ram, disk) in FLAVORS.items():
            if name not in have:
                self.cloud.compute.create_flavor(name=name, vcpus=vcpus, ram=ram, disk=disk)
        if not any(aggregate.name == "freepool" for aggregate in self.cloud.compute.aggregates()):
            self.cloud.compute.create_aggregate(name="freepool")

    def volume_types(self) -> None:
        """Volume types under Chameleon's names, all on the one backend."""
        have = {kind.name for kind in self.cloud.block_storage.types()}
        for name in VOLUME_TYPES:
            if name not in have:
                self.cloud.block_storage.create_type(name=name, extra_specs={"volume_backend_name": "loopback"})

    def image(self, image: Image, path: Path) -> None:
        """Upload an image; delete an image of the same name with other content."""
        checksum = path.with_suffix(".sha256").read_text()
        for found in self.cloud.image.images(name=image.name):
            if found.properties.get("devcloud_sha256") == checksum and found.status == "active":
                return
            self.cloud.delete_image(found.id)
        self.cloud.image.create_image(
            name=image.name,
            filename=str(path),
            disk_format="raw",
            container_format="bare",
            visibility="public",
            meta={**image.properties, "devcloud_sha256": checksum},
            wait=True,
        )

    def fake_image(self) -> None:
        """An empty image that only the fake host accepts."""
        if next(self.cloud.image.images(name=FAKE_IMAGE), None) is None:
            self.cloud.image.create_image(
                name=FAKE_IMAGE,
                data=b"fake",
                disk_format="raw",
                container_format="bare",
                visibility="public",
                hypervisor_type="fake",
                wait=True,
            )

    def missing_hosts(self, *more: str) -> set[str]:
        """Compute hosts, and those in `more`, that Nova cannot schedule to yet."""
        wanted = {host.name for host in self.layout.settings.hosts} | set(more)
        if self.layout.settings.fake_host:
            wanted.add(CONTROLLER)
        alive = {
            service.host for service in self.cloud.compute.services(binary="nova-compute") if service.state == "up"
        }
        mapped = {hypervisor.name for hypervisor in self.cloud.compute.hypervisors()}
        return wanted - (alive & mapped)

    def reservable_hosts(self) -> None:
        """Add the compute hosts to Blazar's pool.

        Raises:
            DevcloudError: Blazar refused a host.
        """
        for host in self.layout.settings.hosts:
            if host.reservable:
                self._register(host.name)

    @retry(retry=retry_if_exception_type(DevcloudError), stop=stop_after_delay(180), wait=wait_fixed(2), reraise=True)
    def _register(self, name: str) -> None:
        blazar = reservations(self.cloud)
        # Listed each time: a request that timed out may have succeeded.
        if name in {host["hypervisor_hostname"] for host in blazar.get("/os-hosts").json()["hosts"]}:
            return
        answer = blazar.post("/os-hosts", json={"name": name}, raise_exc=False)
        if answer.status_code >= 400:
            raise DevcloudError(f"Blazar refused the compute host {name}: {reason(answer.text)}")


def reason(text: str) -> str:
    """The message in an OpenStack error body."""
    try:
        body = json.loads(text)
    except ValueError:
        return text[:200]
    return str(body.get("error_message") or body)


def faults(layout: Layout, passwords: Passwords) -> Iterator[tuple[str, str | None]]:
    """Check each API with a request that needs its database, bus or agents; yield (service, problem or None)."""
    cloud = connect(layout, "admin", passwords["admin"])

    def agents() -> str | None:
        dead = [f"{agent.binary} on {agent.host}" for agent in cloud.network.agents() if not agent.is_alive]
        return "not alive: " + ", ".join(dead) if dead else None

    def computes() -> str | None:
        machines = layout.settings.virtual_machines and of_machines(layout.settings).is_made(layout)
        missing = Seed(layout, passwords).missing_hosts(*([CONTROLLER] if machines else []))
        return "not up: " + ", ".join(sorted(missing)) if missing else None

    def volumes() -> str | None:
        down = [service.binary for service in cloud.block_storage.services() if service.state != "up"]
        if not down and not any(cloud.block_storage.backend_pools()):
            return "its scheduler knows of no backend yet"
        return "not up: " + ", ".join(down) if down else None

    def leases() -> str | None:
        reservations(cloud).get("/leases")
        return None

    def listed(items: Iterator[object]) -> str | None:
        next(iter(items), None)
        return None

    checks = {
        "keystone": lambda: listed(identity_of(cloud).projects()),
        "glance": lambda: listed(cloud.image.images()),
        "placement": lambda: listed(cloud.placement.resource_providers()),
        "nova": computes,
        "neutron": agents,
        "cinder": volumes,
        "blazar": leases,
    }
    for name, check in checks.items():
        try:
            yield name, check()
        except (SDKException, ClientException, OSError) as error:
            yield name, str(error)
