"""The configuration files of every service, as OpenStack Zed's own documentation names their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from devcloud.layout import PORTS, REGION, UNDERLAY_MTU, write_secret

if TYPE_CHECKING:
    from ipaddress import IPv4Address
    from pathlib import Path

    from devcloud.layout import Host, Layout, Passwords

Section = Mapping[str, object]
Ini = dict[str, Section]
DATABASES = ("keystone", "glance", "placement", "nova_api", "nova_cell0", "nova", "neutron", "cinder", "blazar")
# Timeout of calls to other daemons; OpenStack's default is 60, too short on a busy machine. Not longer, because calls
# that were lost with a killed message bus run into it too.
RPC_TIMEOUT_SECONDS = 90
# Sections in which nova-compute and its libraries configure their privileged helpers.
PRIVILEGED_IN_COMPUTE = ("nova_sys_admin", "privsep_osbrick", "vif_plug_linux_bridge_privileged")
PROVIDER_NETWORK = "external"
PROVIDER_BRIDGE = "br-ex"
# The host name of the control plane and its agents.
CONTROLLER = "ctl"


def render(ini: Ini) -> str:
    """An oslo.config file."""
    parts = [
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
        for section, options in ini.items()
    ]
    return "\n".join(parts)


class Configuration:
    """Builds and writes the files under the state folder's `etc`."""

    def __init__(self, layout: Layout, passwords: Passwords) -> None:
        self.layout = layout
        self.passwords = passwords

    def write(self) -> None:
        """Write every file, 0600: they hold passwords."""
        files: dict[str, Ini] = {
            "keystone/keystone.conf": self.keystone(),
            "glance/glance-api.conf": self.glance(),
            "placement/placement.conf": self.placement(),
            "nova/nova.conf": self.nova(),
            "neutron/neutron.conf": self.neutron(),
            "neutron/ml2.ini": self.ml2(),
            "neutron/dhcp.ini": {"DEFAULT": {"interface_driver": "linuxbridge", "enable_isolated_metadata": True}},
            "neutron/l3.ini": {"DEFAULT": {"interface_driver": "linuxbridge", "agent_mode": "legacy"}},
            "neutron/metadata.ini": self.metadata(),
            "neutron/agent-ctl.ini": self.bridge_agent(None),
            "cinder/cinder.conf": self.cinder(),
            "blazar/blazar.conf": self.blazar(),
        }
        for host in self.layout.settings.hosts:
            files[f"nova/{host.name}.conf"] = self.containers(host)
            files[f"neutron/agent-{host.name}.ini"] = self.bridge_agent(host)
        if self.layout.settings.fake_host:
            files["nova/fake.conf"] = self.fake_compute()
        if self.layout.settings.virtual_machines:
            files[f"nova/{CONTROLLER}.conf"] = self.virtual_machines()
        for name, ini in files.items():
            self._write(name, render(ini))
        self._write("rabbitmq/rabbitmq.conf", self.rabbitmq())

    def _write(self, name: str, text: str) -> None:
        path = self.layout.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(path, text)

    def _folder(self, *parts: str) -> Path:
        folder = self.layout.data.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def database(self, name: str) -> Section:
        """A connection to MariaDB, few kept open: memory is scarce and callers are few."""
        password = self.passwords["database"]
        return {
            "connection": f"mysql+pymysql://devcloud:{password}@127.0.0.1/{name}?charset=utf8",
            "max_pool_size": 5,
            "max_overflow": 20,
        }

    def account(self, name: str) -> Section:
        """Keystone credentials of a service account."""
        return {
            "auth_type": "password",
            "auth_url": self.layout.url("keystone"),
            "project_domain_id": "default",
            "user_domain_id": "default",
            "project_name": "service",
            "username": name,
            "password": self.passwords[name],
            "region_name": REGION,
        }

    def token_check(self, name: str) -> Section:
        """How an API validates the tokens it gets."""
        return {
            **self.account(name),
            "www_authenticate_uri": self.layout.url("keystone"),
            "memcached_servers": "127.0.0.1:11211",
            "service_token_roles": "admin",
            "service_token_roles_required": True,
        }

    def service_user(self, name: str) -> Section:
        """The service token sent along, without which cinder refuses to detach (OSSA-2023-003)."""
        return {**self.account(name), "send_service_user_token": True}

    @property
    def message_bus(self) -> str:
        """RabbitMQ's URL."""
        return f"rabbit://devcloud:{self.passwords['rabbitmq']}@{self.layout.control_address}:5672/"

    def defaults(self, *state: str) -> Section:
        """Options that all OpenStack daemons share: the message bus, a state folder, logs to stderr."""
        return {
            "transport_url": self.message_bus,
            "rpc_response_timeout": RPC_TIMEOUT_SECONDS,
            "state_path": self._folder(*state),
            "log_dir": "",
            "use_stderr": True,
        }

    def privileged_helper(self, file: str) -> Section:
        """How a daemon gets its privileged helper: forked by the parent of all helpers (`inside/forkserver.py`)."""
        program = f"/usr/bin/privsep-helper --config-file {self.layout.etc / file}"
        return {"helper_command": f"/usr/bin/python3 -IS /opt/devcloud/helper.py /run/fork-helper {program}"}

    def locks(self, *parts: str) -> Section:
        """[oslo_concurrency]."""
        return {"lock_path": self._folder("locks", *parts)}

    def rabbitmq(self) -> str:
        """rabbitmq.conf: one listener, one user, alarms that suit a small disk."""
        self._folder("rabbitmq")
        return (
            f"listeners.tcp.1 = {self.layout.control_address}:5672\n"
            "default_user = devcloud\n"
            f"default_pass = {self.passwords['rabbitmq']}\n"
            "loopback_users = none\n"
            "disk_free_limit.absolute = 50MB\n"
        )

    def keystone(self) -> Ini:
        """Fernet tokens for a day, cached in memcached."""
        keys = self.layout.etc / "keystone"
        return {
            "DEFAULT": {"use_stderr": True, "log_dir": ""},
            "database": self.database("keystone"),
            "cache": {
                "enabled": True,
                "backend": "dogpile.cache.memcached",
                "memcache_servers": "127.0.0.1:11211",
            },
            "token": {"provider": "fernet", "expiration": 86400},
            # Blazar makes a trust for each lease, which CVE-2026-80184 forbids to application credentials by default.
            "security_compliance": {"allow_insecure_application_credential_trust_escalation": True},
            "fernet_tokens": {"key_repository": keys / "fernet"},
            "credential": {"key_repository": keys / "credential"},
        }

    def placement(self) -> Ini:
        """Placement's API."""
        return {
            "DEFAULT": {"use_stderr": True, "log_dir": ""},
            "api": {"auth_strategy": "keystone"},
            "placement_database": self.database("placement"),
            "keystone_authtoken": self.token_check("placement"),
        }

    def glance(self) -> Ini:
        """Images as files."""
        return {
            "DEFAULT": {
                "bind_host": self.layout.api_address,
                "bind_port": PORTS["glance"],
                "workers": 0,
                "use_stderr": True,
                "log_dir": "",
                "enabled_backends": "file:file",
            },
            "glance_store": {"default_backend": "file"},
            "file": {"filesystem_store_datadir": self._folder("images"), "filesystem_thin_provisioning": True},
            "os_glance_staging_store": {"filesystem_store_datadir": self._folder("glance", "staging")},
            "os_glance_tasks_store": {"filesystem_store_datadir": self._folder("glance", "tasks")},
            "database": self.database("glance"),
            "paste_deploy": {"flavor": "keystone", "config_file": "/etc/glance/glance-api-paste.ini"},
            "oslo_concurrency": self.locks("glance"),
            "keystone_authtoken": self.token_check("glance"),
        }

    def nova(self) -> Ini:
        """Nova's control plane, with Blazar's scheduler filter."""
        filters = (
            "ComputeFilter",
            "ComputeCapabilitiesFilter",
            "ImagePropertiesFilter",
            "AvailabilityZoneFilter",
            "AggregateInstanceExtraSpecsFilter",
            "ServerGroupAntiAffinityFilter",
            "ServerGroupAffinityFilter",
            "BlazarFilter",
        )
        api = self.layout.api_address
        return {
            "DEFAULT": {
                **self.defaults("nova"),
                "my_ip": self.layout.control_address,
                "host": CONTROLLER,
                "allow_resize_to_same_host": True,
                "enabled_apis": "osapi_compute,metadata",
                "periodic_fuzzy_delay": 0,  # else the scheduler waits up to a minute before it looks for hosts
                "osapi_compute_listen": api,
                "osapi_compute_workers": 1,
                "metadata_listen": api,
                "metadata_workers": 1,
            },
            "wsgi": {"api_paste_config": "/etc/nova/api-paste.ini"},
            "api": {"auth_strategy": "keystone"},
            "api_database": self.database("nova_api"),
            "database": self.database("nova"),
            "conductor": {"workers": 1},
            "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 5},
            "filter_scheduler": {
                "track_instance_changes": False,
                # A repeated option, which a mapping can hold only as one value of two lines.
                "available_filters": "nova.scheduler.filters.all_filters\n"
                "available_filters = blazarnova.scheduler.filters.blazar_filter.BlazarFilter",
                "enabled_filters": ",".join(filters),
            },
            "neutron": {
                **self.account("neutron"),
                "service_metadata_proxy": True,
                "metadata_proxy_shared_secret": self.passwords["metadata"],
            },
            **self.nova_common("nova"),
            "keystone_authtoken": self.token_check("nova"),
        }

    def nova_common(self, *locks: str) -> Ini:
        """What nova's control plane and its compute hosts both need."""
        return {
            "glance": {"api_servers": self.layout.url("glance")},
            "placement": self.account("placement"),
            "cinder": {"os_region_name": REGION},
            "service_user": self.service_user("nova"),
            "vnc": {"enabled": False},
            "oslo_concurrency": self.locks(*locks),
        }

    def containers(self, host: Host) -> Ini:
        """A compute host for containers."""
        driver = {"compute_driver": "container.ContainerDriver", "force_raw_images": True, "use_cow_images": False}
        libvirt = {"virt_type": "lxc", "images_type": "raw", "cpu_mode": "none"}
        return self.compute(host.name, self.layout.host_address(host), driver, libvirt)

    def virtual_machines(self) -> Ini:
        """The compute host for virtual machines; `inside/virtual.py` adds how they run."""
        driver = {"compute_driver": "libvirt.LibvirtDriver", "force_raw_images": False}
        libvirt = {"images_type": "qcow2"}
        return self.compute(CONTROLLER, self.layout.control_address, driver, libvirt)

    def compute(self, name: str, address: IPv4Address, driver: Section, libvirt: Section) -> Ini:
        """A compute host. Memory and cores are overcommitted: instances share this machine with the control plane."""
        return {
            "DEFAULT": {
                **self.defaults("hosts", name, "nova"),
                **driver,
                "my_ip": address,
                "host": name,
                "instances_path": self._folder("hosts", name, "nova", "instances"),
                "allow_resize_to_same_host": True,
                "resume_guests_state_on_host_boot": True,
                "vif_plugging_timeout": 120,
                "reserved_host_memory_mb": 0,
                "ram_allocation_ratio": 4,
                "cpu_allocation_ratio": 32,
                "disk_allocation_ratio": 10,
                "sync_power_state_interval": 60,
                "max_concurrent_builds": 4,
            },
            "libvirt": {**libvirt, "inject_partition": -2},
            "workarounds": {"disable_rootwrap": True},
            "neutron": self.account("neutron"),
            **dict.fromkeys(PRIVILEGED_IN_COMPUTE, self.privileged_helper(f"nova/{name}.conf")),
            **self.nova_common("hosts", name),
            "keystone_authtoken": self.token_check("nova"),
        }

    def fake_compute(self) -> Ini:
        """The fake compute host. It goes by the controller's name, whose layer 2 agent lets its ports be bound."""
        return {
            "DEFAULT": {
                **self.defaults("hosts", "fake"),
                "my_ip": self.layout.control_address,
                "host": CONTROLLER,
                "compute_driver": "fake.FakeDriver",
                "reserved_host_memory_mb": 0,
                "sync_power_state_interval": -1,
            },
            "workarounds": {"disable_rootwrap": True},
            "neutron": self.account("neutron"),
            **self.nova_common("hosts", "fake"),
            "keystone_authtoken": self.token_check("nova"),
        }

    def neutron(self) -> Ini:
        """Neutron's server, routers in namespaces."""
        return {
            "DEFAULT": {
                **self.defaults("neutron"),
                "host": CONTROLLER,
                "core_plugin": "ml2",
                "service_plugins": "router,trunk",
                "auth_strategy": "keystone",
                "bind_host": self.layout.api_address,
                "api_workers": 0,
                "rpc_workers": 0,
                "rpc_state_report_workers": 0,
                "global_physnet_mtu": UNDERLAY_MTU - 50,
                "notify_nova_on_port_status_changes": True,
                "notify_nova_on_port_data_changes": True,
                "dhcp_agents_per_network": 1,
                "api_paste_config": "/etc/neutron/api-paste.ini",
            },
            "experimental": {"linuxbridge": True},
            # Root already: no sudo, no rootwrap.
            "agent": {"root_helper": "", "root_helper_daemon": "", "report_interval": 15},
            "privsep": self.privileged_helper("neutron/neutron.conf"),
            "database": self.database("neutron"),
            "nova": self.account("nova"),
            "placement": self.account("placement"),
            "oslo_concurrency": self.locks("neutron"),
            "keystone_authtoken": self.token_check("neutron"),
        }

    @staticmethod
    def ml2() -> Ini:
        """Tenant networks over VXLAN, one flat external network."""
        return {
            "ml2": {
                "type_drivers": "flat,vxlan",
                "tenant_network_types": "vxlan",
                "mechanism_drivers": "linuxbridge",
                "extension_drivers": "port_security",
                "physical_network_mtus": f"{PROVIDER_NETWORK}:1500",
                "path_mtu": UNDERLAY_MTU - 50,
            },
            "ml2_type_flat": {"flat_networks": PROVIDER_NETWORK},
            "ml2_type_vxlan": {"vni_ranges": "1:4000"},
            "securitygroup": {"enable_security_group": True, "enable_ipset": True},
        }

    def metadata(self) -> Ini:
        """The metadata agent."""
        return {
            "DEFAULT": {
                "nova_metadata_host": self.layout.api_address,
                "metadata_proxy_shared_secret": self.passwords["metadata"],
                "metadata_workers": 0,
            }
        }

    def bridge_agent(self, host: Host | None) -> Ini:
        """The layer 2 agent of the controller (None) or of a compute host."""
        name = host.name if host else CONTROLLER
        address = self.layout.host_address(host) if host else self.layout.control_address
        return {
            "DEFAULT": {"host": name, "state_path": self._folder("hosts", name, "neutron")},
            "oslo_concurrency": self.locks("hosts", name, "neutron"),
            "linux_bridge": {} if host else {"bridge_mappings": f"{PROVIDER_NETWORK}:{PROVIDER_BRIDGE}"},
            "vxlan": {"enable_vxlan": True, "local_ip": address, "vxlan_group": "239.1.1.1"},
            "agent": {"polling_interval": 1},
            "securitygroup": {
                "firewall_driver": "iptables",
                "enable_security_group": True,
                "enable_ipset": True,
            },
        }

    def cinder(self) -> Ini:
        """Volumes as sparse files (`inside/loopback.py`)."""
        return {
            "DEFAULT": {
                **self.defaults("cinder"),
                "host": CONTROLLER,
                "my_ip": self.layout.control_address,
                "api_paste_config": "/etc/cinder/api-paste.ini",
                "rootwrap_config": "/etc/cinder/rootwrap.conf",
                "auth_strategy": "keystone",
                "enabled_backends": "loopback",
                # How often the scheduler hears of the backend; it may miss the first time, at the start.
                "backend_stats_polling_interval": 5,
                "glance_api_servers": self.layout.url("glance"),
            },
            "loopback": {
                "volume_driver": "loopback.LoopbackDriver",
                "volume_backend_name": "loopback",
                "loopback_folder": self._folder("volumes"),
            },
            "database": self.database("cinder"),
            "nova": self.account("nova"),
            "service_user": self.service_user("cinder"),
            "oslo_concurrency": self.locks("cinder"),
            "keystone_authtoken": self.token_check("cinder"),
        }

    def blazar(self) -> Ini:
        """Reservations of whole hosts and, as on KVM@TACC, of flavors."""
        return {
            "DEFAULT": {
                "transport_url": self.message_bus,
                "rpc_response_timeout": RPC_TIMEOUT_SECONDS,
                "use_stderr": True,
                "os_auth_protocol": "http",
                "os_auth_host": self.layout.api_address,
                "os_auth_port": PORTS["keystone"],
                "os_auth_prefix": "",
                "os_auth_version": "v3",
                "os_admin_username": "blazar",
                "os_admin_password": self.passwords["blazar"],
                "os_admin_project_name": "service",
                "os_admin_user_domain_name": "Default",
                "os_admin_project_domain_name": "Default",
                "os_region_name": REGION,
                "identity_service": "identity",
            },
            "database": self.database("blazar"),
            "manager": {"plugins": "physical.host.plugin,flavor.instance.plugin"},
            "enforcement": {"enabled_filters": ""},
            "nova": {"aggregate_freepool_name": "freepool"},
            "keystone_authtoken": self.token_check("blazar"),
            "oslo_concurrency": self.locks("blazar"),
        }
