"""The table of services, and the plan that `inside/init.py` and `inside/supervisor.py` carry out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud.config import CONTROLLER, PROVIDER_BRIDGE
from devcloud.images import of_machines
from devcloud.layout import EXPORTER_PORT, MANAGEMENT, PORTS, UNDERLAY_MTU, write_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devcloud.layout import Host, Layout

INSIDE = Path(__file__).parent / "inside"
OPT = "/opt/devcloud"
LIBVIRTD = ("/usr/sbin/libvirtd", "--pid-file", "/run/libvirt/libvirtd.pid")
MANAGEMENT_BRIDGE = "br-mgmt"
BUS = ("memcached", "rabbitmq")
BASE = ("mariadb", *BUS)
# What each family of daemons has in common, the module that patches the standard library first.
FAMILIES = {
    "nova": (
        "nova.monkey_patch", "nova.cmd.api", "nova.cmd.compute", "nova.cmd.conductor", "nova.cmd.scheduler",
        "nova.api.metadata.wsgi", "nova.api.openstack.compute.routes", "nova.compute.resource_tracker",
        "nova.conductor.manager", "nova.db.main.api", "nova.network.neutron", "nova.scheduler.host_manager",
        "nova.virt.libvirt.driver", "os_brick.initiator.connector", "vif_plug_linux_bridge.linux_bridge",
        "oslo_messaging._drivers.impl_rabbit", "sqlalchemy.dialects.mysql.pymysql",
    ),
    "neutron": (
        "neutron.cmd.eventlet", "one_context", "neutron.cmd.eventlet.server", "neutron.cmd.eventlet.agents.dhcp",
        "neutron.cmd.eventlet.agents.l3", "neutron.cmd.eventlet.agents.metadata",
        "neutron.cmd.eventlet.plugins.linuxbridge_neutron_agent", "neutron.agent.dhcp.agent",
        "neutron.agent.l3.agent", "neutron.agent.linux.interface", "neutron.agent.linux.iptables_firewall",
        "neutron.agent.metadata.agent", "neutron.plugins.ml2.plugin", "spoofing",
        "neutron.plugins.ml2.drivers.linuxbridge.mech_driver.mech_linuxbridge",
        "neutron.services.l3_router.l3_router_plugin", "oslo_messaging._drivers.impl_rabbit",
        "sqlalchemy.dialects.mysql.pymysql",
    ),
    "cinder": (
        "cinder.cmd.volume", "cinder.cmd.scheduler", "cinder.db.sqlalchemy.api", "cinder.image.glance",
        "cinder.volume.driver", "cinder.volume.rpcapi", "oslo_messaging._drivers.impl_rabbit",
        "sqlalchemy.dialects.mysql.pymysql",
    ),
    # Privileged helpers of Neutron's agents and of nova-compute: they are not patched for green threads.
    "helper": (
        "oslo_privsep.daemon", "one_context", "neutron.privileged.agent.linux.ip_lib",
        "neutron.privileged.agent.linux.netlink_lib", "neutron.privileged.agent.linux.utils", "nova.privsep.fs",
        "nova.privsep.libvirt", "nova.privsep.linux_net", "nova.privsep.path", "nova.privsep.qemu",
        "os_brick.privileged.rootwrap", "vif_plug_linux_bridge.linux_net",
    ),
}  # fmt: skip
EXPORTER = "exporter"
"""The service that nothing waits for: metrics and log lines of the others."""
# A line for each request, which `inside/exporter.py` counts. uWSGI's own format has no time to the millisecond.
REQUEST_LOG = '[%(ltime)] %(addr) "%(method) %(uri) %(proto)" status: %(status) len: %(rsize) time: %(secs)'
PARENTS = tuple(f"{family}-parent" for family in FAMILIES)
LIBVIRTD_CONF = 'auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_group = "root"\nlog_outputs = "3:stderr"\n'
# Runs as root, in no cgroup and no namespace of its own.
QEMU_CONF = (
    'security_driver = "none"\nuser = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
    'namespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n'
)
LXC_CONF = 'security_driver = "none"\nlog_with_libvirtd = 0\n'


@dataclass(frozen=True)
class Service:
    """One daemon: what runs, where, after what, and how it is known to be ready.

    One of a family is forked by the family's parent (`inside/forkserver.py`), in the namespaces of `host`, if any.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: tuple[str | int, ...] | None = None
    stop_seconds: float = 10
    family: str | None = None
    host: Host | None = None


def uwsgi(name: str, address: str, *application: str, workers: tuple[str, str] = ("--threads", "6")) -> tuple[str, ...]:
    """An API under uWSGI: one process, as few callers share it. uWSGI's own HTTP needs `Connection: close`."""
    return (
        "uwsgi_python3", "--lazy-apps", "--enable-threads", "--die-on-term", "--need-app",
        "--plugins", "python3", *workers, "--buffer-size", "65535", "--log-format", REQUEST_LOG,
        "--listen", "100", "--socket-timeout", "60", "--procname-prefix-spaced", name,
        "--add-header", "Connection: close", "--http-socket", f"{address}:{PORTS[name]}", *application,
    )  # fmt: skip


def parent(family: str) -> Service:
    """The fork server of a family of daemons."""
    command = ("/usr/bin/python3", f"{OPT}/forkserver.py", fork_socket(family), *FAMILIES[family])
    # Blazar's filter is imported by nova's scheduler; cinder asks for eventlet's resolver to be off.
    environment = {"PYTHONPATH": "/opt/blazar-nova", "EVENTLET_NO_GREENDNS": "yes"}
    return Service(f"{family}-parent", command, environment=environment, ready=("file", fork_socket(family)))


def fork_socket(family: str) -> str:
    """Where the fork server of a family listens."""
    return f"/run/fork-{family}"


def agent(layout: Layout, daemon: str, name: str) -> tuple[str, ...]:
    """A Neutron agent with its configuration files."""
    files = [
        word for file in ("neutron.conf", "ml2.ini", name) for word in ("--config-file", f"{layout.etc}/neutron/{file}")
    ]
    return (f"/usr/bin/neutron-{daemon}-agent", *files)


def host_command(host: Host, *command: str) -> tuple[str, ...]:
    """`command` in a compute host's namespaces, which the process of `host_holder` keeps open."""
    enter = f'exec nsenter --target "$(cat {process_file(host)})" --net --mount --uts -- "$@"'
    return ("sh", "-c", enter, "enter", *command)


def process_file(host: Host) -> str:
    """Where a compute host's holder leaves its process id, once its namespaces are complete."""
    return f"/run/{host.name}.pid"


def host_holder(layout: Layout, host: Host) -> tuple[str, ...]:
    """Makes a compute host's mount and host name namespaces, then sleeps.

    A bind mount would keep a namespace open without a process, but Linux 6.18 often refuses one of a mount namespace
    (EINVAL: it orders namespaces by numbers that are no longer handed out in order).
    """
    folder = layout.data / "hosts" / host.name
    inside = f"""set -e
rm -f {process_file(host)}
hostname {host.name}
mount --rbind /sys/fs/cgroup /mnt
mount -t sysfs sysfs /sys
mount --rbind /mnt /sys/fs/cgroup
umount --lazy /mnt
for d in libvirt lock; do mkdir -p /run/$d; mount -t tmpfs -o mode=755 tmpfs /run/$d; done
mkdir -p {folder}/var-lib-libvirt {folder}/etc-libvirt
mount --bind {folder}/var-lib-libvirt /var/lib/libvirt
mount --bind {folder}/etc-libvirt /etc/libvirt
echo $$ >{process_file(host)}
exec sleep infinity
"""
    return (
        "nsenter", f"--net=/run/netns/{host.name}", "unshare", "--mount", "--uts", "--propagation", "private",
        "sh", "-c", inside,
    )  # fmt: skip


def table(layout: Layout) -> list[Service]:
    """Every service, dependencies first."""
    etc, api, control = layout.etc, str(layout.api_address), str(layout.control_address)
    mysql = layout.data / "mysql"
    rabbit = layout.data / "rabbitmq"
    neutron = ("--config-file", f"{etc}/neutron/neutron.conf", "--config-file", f"{etc}/neutron/ml2.ini")
    nova = ("--config-file", f"{etc}/nova/nova.conf")
    cinder = ("--config-file", f"{etc}/cinder/cinder.conf")
    bus, database = "rabbitmq", "mariadb"
    services = [
        *(parent(family) for family in FAMILIES),
        Service(
            "mariadb",
            (
                "mariadbd", "--no-defaults", "--user=root", f"--datadir={mysql}", f"--socket={layout.run}/mysql.sock",
                "--bind-address=127.0.0.1", "--max-connections=400", "--skip-log-bin", "--skip-name-resolve",
                "--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=96M", "--performance-schema=OFF",
                "--key-buffer-size=1M", f"--pid-file={layout.run}/mysqld.pid",
            ),
            ready=("tcp", "127.0.0.1", 3306),
            stop_seconds=30,
        ),
        Service(
            "memcached",
            ("memcached", "-u", "nobody", "-m", "32", "-l", "127.0.0.1"),
            ready=("tcp", "127.0.0.1", 11211),
        ),
        Service(
            "rabbitmq",
            ("/usr/lib/rabbitmq/bin/rabbitmq-server",),
            environment={
                "HOME": str(rabbit),
                "RABBITMQ_MNESIA_BASE": f"{rabbit}/mnesia",
                "RABBITMQ_LOG_BASE": f"{rabbit}/log",
                "RABBITMQ_CONFIG_FILE": f"{etc}/rabbitmq/rabbitmq",
                "RABBITMQ_NODENAME": "devcloud@localhost",
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            },
            ready=("tcp", control, 5672),
            stop_seconds=20,
        ),
        Service(
            "keystone",
            # One thread a process: Zed's AuthContextMiddleware keeps a request's token in itself, where another
            # thread's request would take it for its own.
            uwsgi("keystone", api, "--wsgi-file", "/usr/bin/keystone-wsgi-public", workers=("--processes", "2")),
            needs=(database, "memcached"),
            environment={"OS_KEYSTONE_CONFIG_FILES": f"{etc}/keystone/keystone.conf"},
            ready=("tcp", api, PORTS["keystone"]),
        ),
        Service(
            "placement",
            # One at a time: of two resource classes made at once, as by two leases, placement refuses one (409).
            uwsgi("placement", api, "--wsgi-file", "/usr/bin/placement-api", workers=("--threads", "1")),
            needs=("keystone",),
            environment={"OS_PLACEMENT_CONFIG_DIR": f"{etc}/placement"},
            ready=("tcp", api, PORTS["placement"]),
        ),
        Service(
            "glance",
            ("glance-api", "--config-file", f"{etc}/glance/glance-api.conf"),
            needs=("keystone",),
            ready=("tcp", api, PORTS["glance"]),
        ),
        Service(
            "neutron",
            ("/usr/bin/neutron-server", *neutron),
            needs=("keystone", bus),
            family="neutron",
            ready=("tcp", api, PORTS["neutron"]),
        ),
        Service("nova-conductor", ("/usr/bin/nova-conductor", *nova), needs=(database, bus), family="nova"),
        Service(
            "nova-scheduler", ("/usr/bin/nova-scheduler", *nova), needs=(database, bus, "placement"), family="nova"
        ),
        Service(
            "nova",
            ("/usr/bin/nova-api", *nova),
            needs=("keystone", bus),
            ready=("tcp", api, PORTS["nova"]),
            family="nova",
        ),
        Service(
            "cinder",
            uwsgi("cinder", api, "--wsgi-file", "/usr/bin/cinder-wsgi", "--pyargv", " ".join(cinder)),
            needs=("keystone", bus),
            ready=("tcp", api, PORTS["cinder"]),
        ),
        Service("cinder-scheduler", ("/usr/bin/cinder-scheduler", *cinder), needs=(database, bus), family="cinder"),
        Service("cinder-volume", ("/usr/bin/cinder-volume", *cinder), needs=(database, bus), family="cinder"),
        Service(
            "blazar-manager",
            (
                "sh", "-c",
                f"""mariadb --socket={layout.run}/mysql.sock -uroot blazar <{OPT}/lease-recovery.sql &&
                exec /opt/blazar/bin/python {OPT}/blazar_manager.py --config-file {etc}/blazar/blazar.conf""",
            ),
            needs=("keystone", bus),
        ),
        Service(
            "blazar",
            uwsgi("blazar", api, "--home", "/opt/blazar", "--module", "blazar.wsgi.api"),
            needs=("keystone", bus),
            environment={"OS_BLAZAR_CONFIG_DIR": f"{etc}/blazar"},
            ready=("tcp", api, PORTS["blazar"]),
        ),
        Service("l2-ctl", agent(layout, "linuxbridge", "agent-ctl.ini"), needs=("neutron",), family="neutron"),
        Service("dhcp", agent(layout, "dhcp", "dhcp.ini"), needs=("neutron",), family="neutron"),
        Service("l3", agent(layout, "l3", "l3.ini"), needs=("neutron",), family="neutron"),
        Service("metadata", agent(layout, "metadata", "metadata.ini"), needs=("neutron",), family="neutron"),
    ]  # fmt: skip
    for host in layout.settings.hosts:
        bridge_agent = agent(layout, "linuxbridge", f"agent-{host.name}.ini")
        compute = (f"{OPT}/compute.py", "--config-file", f"{etc}/nova/{host.name}.conf")
        services += [
            Service(f"host-{host.name}", host_holder(layout, host), ready=("file", process_file(host)), stop_seconds=1),
            Service(f"libvirt-{host.name}", host_command(host, *LIBVIRTD), (f"host-{host.name}",), stop_seconds=5),
            Service(
                f"l2-{host.name}", bridge_agent, needs=(f"host-{host.name}", "neutron"), family="neutron", host=host
            ),
            Service(
                f"compute-{host.name}",
                compute,
                needs=(f"libvirt-{host.name}", "nova-conductor", "neutron", "placement", "cinder-volume"),
                family="nova",
                host=host,
            ),
        ]
    if layout.settings.fake_host:
        command = ("/usr/bin/nova-compute", "--config-file", f"{etc}/nova/fake.conf")
        needs = ("nova-conductor", "neutron", "placement")
        services.append(Service("compute-fake", command, needs=needs, family="nova"))
    services.append(exporter(layout))
    return services + virtual_machines(layout)


def exporter(layout: Layout) -> Service:
    """Serves metrics and log lines of all services, where instances and this machine reach the APIs."""
    address, passwords = str(layout.api_address), str(layout.cache / "passwords")
    command = ("/usr/bin/python3", f"{OPT}/exporter.py", str(plan_file(layout)), address, str(EXPORTER_PORT), passwords)
    return Service(EXPORTER, command, ready=("tcp", address, EXPORTER_PORT), stop_seconds=2)


def plan_file(layout: Layout) -> Path:
    """Where the plan of the programs inside is."""
    return layout.run / "plan.json"


def virtual_machines(layout: Layout) -> list[Service]:
    """The compute host for virtual machines: in the controller's namespaces, so that it needs no layer 2 agent."""
    if not layout.settings.virtual_machines:
        return []
    libvirt = f"libvirt-{CONTROLLER}"
    compute = (
        f"{OPT}/virtual.py", str(of_machines(layout.settings).kernel(layout)), str(layout.virtualisation),
        "--config-file", f"{layout.etc}/nova/{CONTROLLER}.conf",
    )  # fmt: skip
    needs = (libvirt, f"l2-{CONTROLLER}", "nova-conductor", "placement", "cinder-volume")
    return [
        Service(libvirt, LIBVIRTD, stop_seconds=5),
        Service(f"compute-{CONTROLLER}", compute, needs=needs, family="nova"),
    ]


def prepare_network(layout: Layout) -> list[list[str]]:
    """Bridges of the controller, and a veth pair to each compute host's network namespace."""
    external, prefix = layout.settings.subnet.prefixlen, MANAGEMENT.prefixlen
    commands = [
        "ip link set lo up",
        f"ip link add {PROVIDER_BRIDGE} type bridge",
        f"ip address add {layout.api_address}/{external} dev {PROVIDER_BRIDGE}",
        f"ip link set {PROVIDER_BRIDGE} up",
        f"ip link add {MANAGEMENT_BRIDGE} mtu {UNDERLAY_MTU} type bridge",
        f"ip address add {layout.control_address}/{prefix} dev {MANAGEMENT_BRIDGE}",
        f"ip link set {MANAGEMENT_BRIDGE} up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ]
    for host in layout.settings.hosts:
        name = host.name
        commands += [
            f"ip netns add {name}",
            f"ip link add h-{name} mtu {UNDERLAY_MTU} type veth peer name eth0 netns {name} mtu {UNDERLAY_MTU}",
            f"ip link set h-{name} master {MANAGEMENT_BRIDGE} up",
            f"ip -n {name} address add {layout.host_address(host)}/{prefix} dev eth0",
            f"ip -n {name} link set lo up",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} route add default via {layout.control_address}",
        ]
    return [command.split() for command in commands]


def write_plan(layout: Layout) -> Path:
    """Write the plan for the programs inside; return its path."""
    hosts = layout.settings.hosts
    names = [f"{layout.host_address(host)} {host.name}" for host in hosts]
    known = "\n".join(["127.0.0.1 localhost", f"{layout.control_address} {CONTROLLER}", *names, ""])
    files = {"/etc/hosts": known, "/etc/hostname": f"{CONTROLLER}\n", "/etc/resolv.conf": ""}
    for name in (CONTROLLER, *(host.name for host in hosts)):
        etc = layout.data / "hosts" / name / "etc-libvirt"
        files |= {f"{etc}/libvirtd.conf": LIBVIRTD_CONF, f"{etc}/lxc.conf": LXC_CONF, f"{etc}/qemu.conf": QEMU_CONF}
    binds = {str(INSIDE): OPT, str(layout.state): str(layout.state)}
    # What libvirt knows of virtual machines is data. The hosts of containers lay their own over it.
    for folder, target in (("etc-libvirt", "/etc/libvirt"), ("var-lib-libvirt", "/var/lib/libvirt")):
        source = layout.data / "hosts" / CONTROLLER / folder
        source.mkdir(parents=True, exist_ok=True)
        binds[str(source)] = target
    prepare = [
        ["hostname", CONTROLLER],
        *prepare_network(layout),
    ]
    plan = {
        "root": str(layout.root),
        "binds": binds,
        "tmpfs": ["/run", "/tmp"],  # noqa: S108
        "files": files,
        "prepare": prepare,
        "socket": str(layout.socket),
        "services": [
            {
                "name": service.name,
                "command": service.command,
                "needs": [*service.needs, *([f"{service.family}-parent"] if service.family else [])],
                "environment": {"MALLOC_ARENA_MAX": "2", **service.environment},
                "ready": service.ready,
                "stop_seconds": service.stop_seconds,
                "log": str(layout.log / f"{service.name}.log"),
                "parent": fork_socket(service.family) if service.family else None,
                "namespaces": process_file(service.host) if service.host else None,
            }
            for service in table(layout)
        ],
    }
    path = plan_file(layout)
    write_secret(path, json.dumps(plan, indent=1))
    return path
