"""Wrong configurations: what is changed in a good one, and the fault that has to be told."""

from dataclasses import dataclass
from datetime import UTC, datetime

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

GOOD = """
config:
  ml-cluster:cloud:
    name: devcloud
    flavors: [m1.small, m1.large, g1.h100.pci.1]
    leaseDays: {"*": 183, "g1.h100.*": 7}
  ml-cluster:lease:
    type: flavor:instance
    hours: 12
  ml-cluster:network:
    externalNetwork: public
    externalCidrs: [172.24.4.0/24]
  ml-cluster:access:
    sshFrom: [192.0.2.0/24]
  ml-cluster:nodes:
    image: debian-12
    groups:
      control: {role: control-plane, count: 1, flavor: m1.small}
      worker: {role: worker, count: 2, flavor: m1.small}
  ml-cluster:storage:
    volumes:
      data: {sizeGb: 10, attachTo: worker-0}
"""

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO1+2rkeExcsYDTlpCG/IKC1jAXtyWXyPPKgWCq3dqVx lab"


@dataclass(frozen=True)
class Wrong:
    """A change of the good configuration that makes it wrong.

    `change` is YAML laid over the good configuration (`null` removes); `key`, `value` and `remedy` have to be told.
    """

    name: str
    change: str
    key: str
    value: str
    remedy: str


WRONG = [
    # Keys and types
    Wrong("unknown section", "netwrok: {}", "netwrok", "{}", "Did you mean `network`?"),
    Wrong("unknown key", "network: {cdir: 10.1.0.0/24}", "network.cdir", '"10.1.0.0/24"', "Did you mean `cidr`?"),
    Wrong("snake case", "network: {pod_cidr: 10.1.0.0/16}", "network.pod_cidr", '"10.1.0.0/16"', "`podCidr`"),
    Wrong("unknown key far from all", "lease: {colour: red}", "lease.colour", '"red"', "Known here: daytimeHours"),
    Wrong(
        "unknown key of a group",
        "nodes: {groups: {worker: {flavour: x}}}",
        "nodes.groups.worker.flavour",
        '"x"',
        "`flavor`",
    ),
    Wrong(
        "unknown key of a volume", "storage: {volumes: {data: {size: 3}}}", "storage.volumes.data.size", "3", "`sizeGb`"
    ),
    Wrong("section is a number", "network: 5", "network", "5", "group of settings"),
    Wrong("section is a list", "storage: [1]", "storage", "[1]", "group of settings"),
    Wrong("lease is a word", "lease: later", "lease", '"later"', "group of settings"),
    Wrong("nodes missing", "nodes: null", "nodes", "(not set)", "Add `nodes`"),
    Wrong("access missing", "access: null", "access", "(not set)", "Add `access`"),
    Wrong("image missing", "nodes: {image: null}", "nodes.image", "(not set)", "Image that nodes boot"),
    Wrong(
        "flavor missing",
        "nodes: {groups: {worker: {flavor: null}}}",
        "nodes.groups.worker.flavor",
        "(not set)",
        "Add `flavor`",
    ),
    Wrong(
        "role missing", "nodes: {groups: {worker: {role: null}}}", "nodes.groups.worker.role", "(not set)", "Add `role`"
    ),
    Wrong(
        "size missing",
        "storage: {volumes: {data: {sizeGb: null}}}",
        "storage.volumes.data.sizeGb",
        "(not set)",
        "Size in GB",
    ),
    Wrong("lease type missing", "lease: {type: null}", "lease.type", "(not set)", "flavor:instance"),
    Wrong(
        "number as text",
        'nodes: {groups: {worker: {count: "2"}}}',
        "nodes.groups.worker.count",
        '"2"',
        "whole number from 0 to 250",
    ),
    Wrong("fraction", "lease: {hours: 1.5}", "lease.hours", "1.5", "whole number"),
    Wrong("boolean as text", 'network: {portSecurity: "no"}', "network.portSecurity", '"no"', "true or false"),
    Wrong("text as number", "nodes: {image: 12}", "nodes.image", "12", "text"),
    Wrong("list as text", "access: {sshFrom: 192.0.2.0/24}", "access.sshFrom", '"192.0.2.0/24"', "list of CIDR"),
    Wrong("empty name", 'nodes: {image: ""}', "nodes.image", '""', "text"),
    Wrong("space around a name", 'nodes: {image: "debian-12 "}', "nodes.image", '"debian-12 "', "Take the space away"),
    # Choices and limits
    Wrong(
        "unknown role",
        "nodes: {groups: {worker: {role: master}}}",
        "nodes.groups.worker.role",
        '"master"',
        '"control-plane"',
    ),
    Wrong(
        "unknown anti-affinity",
        "nodes: {antiAffinity: strict}",
        "nodes.antiAffinity",
        '"strict"',
        '"soft", "hard", "none"',
    ),
    Wrong(
        "unknown flavor change", "nodes: {onFlavorChange: recreate}", "nodes.onFlavorChange", '"recreate"', '"replace"'
    ),
    Wrong(
        "unknown floating IPs",
        "network: {floatingIps: workers}",
        "network.floatingIps",
        '"workers"',
        '"first-control-plane"',
    ),
    Wrong("unknown lease type", "lease: {type: host}", "lease.type", '"host"', '"physical:host"'),
    Wrong(
        "negative count", "nodes: {groups: {worker: {count: -1}}}", "nodes.groups.worker.count", "-1", "from 0 to 250"
    ),
    Wrong(
        "too many nodes", "nodes: {groups: {worker: {count: 251}}}", "nodes.groups.worker.count", "251", "from 0 to 250"
    ),
    Wrong(
        "volume of nothing",
        "storage: {volumes: {data: {sizeGb: 0}}}",
        "storage.volumes.data.sizeGb",
        "0",
        "from 1 to 16384",
    ),
    Wrong(
        "volume too large",
        "storage: {volumes: {data: {sizeGb: 20000}}}",
        "storage.volumes.data.sizeGb",
        "20000",
        "to 16384",
    ),
    Wrong(
        "boot volume too small",
        "nodes: {groups: {worker: {bootVolumeGb: 1}}}",
        "nodes.groups.worker.bootVolumeGb",
        "1",
        "from 5",
    ),
    Wrong("MTU too small", "network: {mtu: 500}", "network.mtu", "500", "from 1280 to 9000"),
    Wrong("port zero", "access: {webPorts: [0]}", "access.webPorts[0]", "0", "from 1 to 65535"),
    Wrong("port too high", "access: {webPorts: [80, 70000]}", "access.webPorts[1]", "70000", "from 1 to 65535"),
    Wrong("no web port", "access: {webPorts: []}", "access.webPorts", "[]", "list of whole number"),
    Wrong("nobody may log in", "access: {sshFrom: []}", "access.sshFrom", "[]", "list of CIDR"),
    Wrong("no node group", "nodes: {groups: {control: null, worker: null}}", "nodes.groups", "{}", "mapping of names"),
    Wrong("no waiting", "lease: {waitMinutes: 0}", "lease.waitMinutes", "0", "from 1 to 240"),
    # Addresses
    Wrong("no CIDR", "network: {cidr: nodes}", "network.cidr", '"nodes"', '"nodes/32"'),
    Wrong("impossible prefix", "network: {cidr: 10.42.0.0/33}", "network.cidr", '"10.42.0.0/33"', '"10.42.0.0/24"'),
    Wrong(
        "impossible octet", "network: {podCidr: 10.300.0.0/16}", "network.podCidr", '"10.300.0.0/16"', "Write a network"
    ),
    Wrong("host bits", "network: {cidr: 10.42.0.7/24}", "network.cidr", '"10.42.0.7/24"', '"10.42.0.0/24"'),
    Wrong("IPv6 subnet", 'network: {cidr: "fd00::/64"}', "network.cidr", '"fd00::/64"', "IPv4"),
    Wrong(
        "address without prefix", "access: {sshFrom: [192.0.2.7]}", "access.sshFrom[0]", '"192.0.2.7"', "192.0.2.7/32"
    ),
    Wrong(
        "name server by name",
        "network: {dnsServers: [dns.example.org]}",
        "network.dnsServers[0]",
        '"dns.example.org"',
        "9.9.9.9",
    ),
    Wrong(
        "pods over nodes",
        "network: {podCidr: 10.42.0.0/16}",
        "network.podCidr",
        '"10.42.0.0/16"',
        "no address in common",
    ),
    Wrong(
        "services over pods",
        "network: {serviceCidr: 10.244.128.0/20}",
        "network.serviceCidr",
        '"10.244.128.0/20"',
        "no address",
    ),
    Wrong(
        "campus over nodes",
        "network: {externalCidrs: [10.0.0.0/8]}",
        "network.externalCidrs[0]",
        '"10.0.0.0/8"',
        "no address",
    ),
    Wrong("subnet too small", "network: {cidr: 10.42.0.0/30}", "network.cidr", '"10.42.0.0/30"', "/29 or shorter"),
    Wrong("pods too few", "network: {podCidr: 10.244.0.0/24}", "network.podCidr", '"10.244.0.0/24"', "/22 or shorter"),
    Wrong(
        "services too many", "network: {serviceCidr: 11.0.0.0/8}", "network.serviceCidr", '"11.0.0.0/8"', "10.96.0.0/16"
    ),
    Wrong(
        "services too few",
        "network: {serviceCidr: 10.96.0.0/30}",
        "network.serviceCidr",
        '"10.96.0.0/30"',
        "10.96.0.0/16",
    ),
    Wrong(
        "floating IP from nowhere",
        "network: {externalNetwork: null}",
        "network.externalNetwork",
        "(not set)",
        "floatingIps",
    ),
    Wrong(
        "MTU of another's network", "network: {existing: sharednet1, mtu: 1400}", "network.mtu", "1400", "own network"
    ),
    Wrong(
        "pairs without security",
        "network: {addressPairs: true, portSecurity: false}",
        "network.addressPairs",
        "true",
        "portSecurity: true",
    ),
    Wrong("SSH as web port", "access: {webPorts: [22]}", "access.webPorts[0]", "22", "access.sshFrom"),
    Wrong("API as web port", "access: {webPorts: [80, 6443]}", "access.webPorts[1]", "6443", "access.apiFrom"),
    Wrong("port twice", "access: {webPorts: [80, 443, 80]}", "access.webPorts[2]", "80", "once"),
    # Keys
    Wrong("key file missing", "access: {publicKeyFile: gone.pub}", "access.publicKeyFile", '"gone.pub"', "ssh-keygen"),
    Wrong(
        "key file is private", "access: {publicKeyFile: private}", "access.publicKeyFile", '"private"', "ends in .pub"
    ),
    Wrong("key file is no key", "access: {publicKeyFile: text}", "access.publicKeyFile", '"text"', "ssh-ed25519"),
    Wrong("key file is a folder", "access: {publicKeyFile: .}", "access.publicKeyFile", '"."', "ending in .pub"),
    Wrong("key is no key", "access: {publicKey: hello}", "access.publicKey", '"hello"', "ssh-ed25519"),
    Wrong("secret missing", f"access: {{publicKey: {PUBLIC_KEY}}}", "privateKey", "(not set)", "config set --secret"),
    Wrong("secret without use", "privateKey: abc", "privateKey", "[secret]", "access.publicKey"),
    Wrong(
        "secret is no key",
        f"{{access: {{publicKey: {PUBLIC_KEY}}}, privateKey: abc}}",
        "privateKey",
        "[secret]",
        "ssh-keygen",
    ),
    # Nodes
    Wrong("two control planes", "nodes: {groups: {control: {count: 2}}}", "nodes.groups.control.count", "2", "1 or 3"),
    Wrong("five control planes", "nodes: {groups: {control: {count: 5}}}", "nodes.groups.control.count", "5", "1 or 3"),
    Wrong("no control plane", "nodes: {groups: {control: null}}", "nodes.groups", "{", "1 or 3"),
    Wrong(
        "group in upper case",
        "nodes: {groups: {GPU: {role: gpu-worker, count: 1, flavor: m1.large}}}",
        "nodes.groups.GPU",
        "{",
        "RFC 1123",
    ),
    Wrong(
        "group with underscore",
        "nodes: {groups: {my_gpu: {role: gpu-worker, count: 1, flavor: m1.large}}}",
        "nodes.groups.my_gpu",
        "{",
        "RFC 1123",
    ),
    Wrong(
        "volume with a dot", "storage: {volumes: {my.data: {sizeGb: 1}}}", "storage.volumes.my.data", "{", "RFC 1123"
    ),
    Wrong(
        "host name too long",
        f"nodes: {{groups: {{{'w' * 60}: {{role: worker, count: 1, flavor: m1.small}}}}}}",
        f"nodes.groups.{'w' * 60}",
        "{",
        "Shorten",
    ),
    Wrong(
        "misspelt flavor",
        "nodes: {groups: {worker: {flavor: m1.smal}}}",
        "nodes.groups.worker.flavor",
        '"m1.smal"',
        "Did you mean m1.small?",
    ),
    Wrong(
        "unknown flavor",
        "nodes: {groups: {worker: {flavor: huge}}}",
        "nodes.groups.worker.flavor",
        '"huge"',
        "Choose one of m1.small",
    ),
    Wrong(
        "flavor of a reservation",
        "nodes: {groups: {worker: {flavor: 'reservation:123'}}}",
        "nodes.groups.worker.flavor",
        '"reservation:123"',
        "plain flavor",
    ),
    Wrong(
        "flavor of a reservation, no lease",
        "{lease: none, nodes: {groups: {worker: {flavor: 'reservation:1'}}}}",
        "nodes.groups.worker.flavor",
        '"reservation:1"',
        "ml-cluster:lease",
    ),
    Wrong(
        "bare metal without hosts",
        "{storage: {volumes: null}, nodes: {groups: {worker: {flavor: baremetal}}}}",
        "nodes.groups.worker.flavor",
        '"baremetal"',
        "physical:host",
    ),
    Wrong(
        "bare metal without a lease",
        "{lease: none, storage: {volumes: null}, nodes: {groups: {worker: {flavor: baremetal}}}}",
        "nodes.groups.worker.flavor",
        '"baremetal"',
        "physical:host",
    ),
    Wrong(
        "boot volume of bare metal",
        "{lease: {type: 'physical:host'}, storage: {volumes: null}, "
        "nodes: {groups: {worker: {flavor: baremetal, bootVolumeGb: 50}}}}",
        "nodes.groups.worker.bootVolumeGb",
        "50",
        "Take it away",
    ),
    Wrong(
        "type of no boot volume",
        "nodes: {groups: {worker: {bootVolumeType: ssd}}}",
        "nodes.groups.worker.bootVolumeType",
        '"ssd"',
        "bootVolumeGb",
    ),
    Wrong(
        "host properties of a VM",
        "nodes: {groups: {worker: {hostProperties: {node_type: x}}}}",
        "nodes.groups.worker.hostProperties",
        "node_type",
        "Take it away",
    ),
    Wrong("hosts of a VM", "nodes: {groups: {worker: {hosts: 1}}}", "nodes.groups.worker.hosts", "1", "Take it away"),
    # Leases
    Wrong(
        "end in the past",
        'lease: {hours: null, end: "2026-11-22T00:00Z"}',
        "lease.end",
        '"2026-11-22T00:00Z"',
        "after 2026-11-23T12:00Z",
    ),
    Wrong(
        "end without zone",
        'lease: {hours: null, end: "2026-12-01T18:00"}',
        "lease.end",
        '"2026-12-01T18:00"',
        "T18:00Z",
    ),
    Wrong("end is no time", "lease: {hours: null, end: tomorrow}", "lease.end", '"tomorrow"', "T18:00Z"),
    Wrong(
        "end before start",
        'lease: {hours: null, start: "2026-12-02T00:00Z", end: "2026-12-01T00:00Z"}',
        "lease.end",
        '"2026-12-01T00:00Z"',
        "later",
    ),
    Wrong(
        "both lengths", 'lease: {end: "2026-12-01T18:00Z"}', "lease.end", '"2026-12-01T18:00Z"', "either hours or end"
    ),
    Wrong("no length", "lease: {hours: null}", "lease.end", "(not set)", "either hours or end"),
    Wrong("no hours", "lease: {hours: 0}", "lease.hours", "0", "from 1"),
    Wrong("longer than six months", "lease: {hours: 4400}", "lease.hours", "4400", "4392 hours"),
    Wrong(
        "GPU longer than a week",
        "{lease: {hours: 169}, nodes: {groups: {worker: {flavor: g1.h100.pci.1}}}}",
        "lease.hours",
        "169",
        "168 hours",
    ),
    Wrong("no time zone", "lease: {timezone: Texas}", "lease.timezone", '"Texas"', "Write one such as"),
    Wrong(
        "misspelt time zone",
        "lease: {timezone: America/Chigaco}",
        "lease.timezone",
        '"America/Chigaco"',
        "America/Chicago",
    ),
    # Storage
    Wrong(
        "attached to nothing",
        "storage: {volumes: {data: {attachTo: worker-9}}}",
        "storage.volumes.data.attachTo",
        '"worker-9"',
        "Did you mean worker-",
    ),
    Wrong(
        "attached to bare metal",
        "{lease: {type: 'physical:host'}, nodes: {groups: {worker: {flavor: baremetal}}}}",
        "storage.volumes.data.attachTo",
        '"worker-0"',
        "virtual machine",
    ),
    Wrong(
        "volume named as a node",
        "storage: {volumes: {control-0: {sizeGb: 1}}}",
        "storage.volumes.control-0",
        "{",
        "another name",
    ),
]
