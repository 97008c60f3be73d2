"""Wrong configurations: what is changed in a good one, and the expected error."""

import json
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
CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t lab"
NOBODY = '"~nosuchuser/x"'
# What changes of many settings begin with: a platform, its gateway, bare metal.
PLATFORM = "cluster: {}, access: {apiFrom: [192.0.2.0/24]}, platform"
GATEWAY = "cluster: {}, platform: {}, access: {apiFrom: [192.0.2.0/24],"
METAL = "lease: {type: 'physical:host'}, storage: null, nodes: {groups: {worker: {flavor: baremetal"

BUCKET = '{"endpoint": "https://s3.example.org", "bucket": "lab-backups", "accessKey": "lab"}'


def second_place(place: str, volumes: str = "") -> str:
    """A platform with that as `copyTo`, and perhaps some volumes."""
    storage = f", storage: {{volumes: {{{volumes}}}}}" if volumes else ""
    return f"{{{PLATFORM}: {{backup: {{copyTo: {place}}}}}{storage}}}"


def bucket(key: str, value: str) -> str:
    """A second place with its secret and one other setting of its bucket."""
    changed = json.dumps({**json.loads(BUCKET), key: value or None})
    return second_place(f"{{s3: {changed}}}")[:-1] + ", backupSecretKey: abc}"


def gitops(section: str) -> str:
    """A platform that a controller applies, by that section."""
    return f"{{{PLATFORM}: {{apply: gitops, gitops: {{{section}}}}}}}"


@dataclass(frozen=True)
class Wrong:
    """A change of the good configuration that makes it wrong.

    `change` is YAML laid over the good configuration (`null` removes); the error must have `key`, `value` and `remedy`.
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
    Wrong("unknown key far from all", "lease: {colour: red}", "lease.colour", '"red"', "Valid here: daytimeHours"),
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
    Wrong("image missing", "nodes: {image: null}", "nodes.image", "(not set)", "Name of the image"),
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
    Wrong("blank lease", 'lease: ""', "lease", '""', "Write `none`"),
    Wrong("lease of spaces", 'lease: "  "', "lease", '"  "', "Write `none`"),
    Wrong("blank cluster", 'cluster: ""', "cluster", '""', "Write `none`"),
    Wrong("blank platform", 'platform: ""', "platform", '""', "Write `none`"),
    Wrong("none in capitals", "lease: None", "lease", '"None"', "Write `none`"),
    Wrong("blank section", 'network: ""', "network", '""', "remove the line"),
    Wrong(
        "blank flavor",
        "nodes: {groups: {worker: {flavor: ''}}}",
        "nodes.groups.worker.flavor",
        '""',
        "Set a value",
    ),
    Wrong("blank in a list", 'cloud: {flavors: [m1.small, " "]}', "cloud.flavors[1]", '" "', "remove the line"),
    Wrong("blank number", 'network: {mtu: ""}', "network.mtu", '""', "whole number from 1280 to 9000"),
    Wrong("blank range", 'network: {cidr: ""}', "network.cidr", '""', "remove the line"),
    Wrong("blank key", 'access: {publicKey: ""}', "access.publicKey", '""', "remove the line"),
    Wrong("blank domain", f'{{{PLATFORM}: {{domain: ""}}}}', "platform.domain", '""', "remove the line"),
    Wrong("line break in a name", 'nodes: {image: "a\\nb"}', "nodes.image", '"a\\nb"', "by hand"),
    Wrong("invisible in a name", 'nodes: {image: "debian-12\\u200b"}', "nodes.image", "debian-12", "by hand"),
    Wrong("too long a name", f"nodes: {{image: {'x' * 256}}}", "nodes.image", "xxx", "255 characters"),
    Wrong(
        "number of text",
        'storage: {volumes: {data: {sizeGb: "10 GB"}}}',
        "storage.volumes.data.sizeGb",
        '"10 GB"',
        "whole",
    ),
    Wrong("negative size", "storage: {volumes: {data: {sizeGb: -1}}}", "storage.volumes.data.sizeGb", "-1", "from 1"),
    Wrong("size of a half", "storage: {volumes: {data: {sizeGb: 1.0}}}", "storage.volumes.data.sizeGb", "1.0", "whole"),
    Wrong(
        "count of yes",
        "nodes: {groups: {worker: {count: true}}}",
        "nodes.groups.worker.count",
        "true",
        "from 0 to 250",
    ),
    Wrong("negative hours", "lease: {hours: -12}", "lease.hours", "-12", "from 1"),
    Wrong("hours as text", 'lease: {hours: "12"}', "lease.hours", '"12"', "whole number"),
    Wrong("login with a space", "access: {user: my user}", "access.user", '"my user"', "lower case"),
    Wrong(
        "login that is an option", 'access: {user: "-oProxyCommand=x"}', "access.user", '"-oProxyCommand', "lower case"
    ),
    Wrong(
        "version without v",
        "cluster: {kubernetesVersion: 1.37.2}",
        "cluster.kubernetesVersion",
        '"1.37.2"',
        '"v1.37.2"',
    ),
    Wrong(
        "version in short",
        'cluster: {kubernetesVersion: "v1.37"}',
        "cluster.kubernetesVersion",
        '"v1.37"',
        "full version",
    ),
    Wrong("space around a name", 'nodes: {image: "debian-12 "}', "nodes.image", '"debian-12 "', "Remove the space"),
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
    Wrong("no CIDR", "network: {cidr: nodes}", "network.cidr", '"nodes"', '"10.42.0.0/24"'),
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
        "IPv6 without prefix", 'access: {sshFrom: ["2001:db8::7"]}', "access.sshFrom[0]", '"2001', '"2001:db8::7/128"'
    ),
    Wrong("space around a range", 'access: {sshFrom: ["192.0.2.0/24 "]}', "access.sshFrom[0]", '24 "', "space"),
    Wrong(
        "host bits of all", 'access: {sshFrom: ["192.0.2.7/0"]}', "access.sshFrom[0]", '"192.0.2.7/0"', '"192.0.2.7/32"'
    ),
    Wrong("zone of IPv6", 'access: {webFrom: ["fe80::1%eth0/128"]}', "access.webFrom[0]", "%eth0", '"fe80::1/128"'),
    Wrong("IPv4 as IPv6", 'access: {apiFrom: ["::ffff:10.0.0.0/104"]}', "access.apiFrom[0]", '"::ffff', '"10.0.0.0/8"'),
    Wrong("IPv4 host as IPv6", 'access: {apiFrom: ["::ffff:a00:1"]}', "access.apiFrom[0]", '"::ffff', '"10.0.0.1/32"'),
    Wrong(
        "SSH twice",
        "access: {sshFrom: [192.0.2.0/24, 192.0.2.0/24]}",
        "access.sshFrom[1]",
        '"192.0.2.0/24"',
        "Remove one",
    ),
    Wrong(
        "API twice",
        "access: {apiFrom: [10.0.0.0/8, 11.0.0.0/8, 10.0.0.0/8]}",
        "access.apiFrom[2]",
        '"10.0',
        "Remove one",
    ),
    Wrong(
        "web twice",
        "access: {webFrom: [10.0.0.0/8, 10.0.0.0/255.0.0.0]}",
        "access.webFrom[1]",
        "255.0.0.0",
        "Remove one",
    ),
    Wrong(
        "IPv6 twice",
        'access: {sshFrom: ["2001:db8::/32", "2001:0DB8:0:0:0:0:0:0/32"]}',
        "access.sshFrom[1]",
        '"2001:0DB8',
        "Remove one",
    ),
    Wrong(
        "name server twice",
        "network: {dnsServers: [9.9.9.9, 9.9.9.9]}",
        "network.dnsServers[1]",
        '"9.9.9.9"',
        "Remove one",
    ),
    Wrong(
        "six name servers",
        "network: {dnsServers: [10.9.0.1, 10.9.0.2, 10.9.0.3, 10.9.0.4, 10.9.0.5, 10.9.0.6]}",
        "network.dnsServers",
        "10.9.0.1",
        "at most 5",
    ),
    Wrong("loopback", "network: {cidr: 127.1.0.0/24}", "network.cidr", '"127.1.0.0/24"', "private range"),
    Wrong("metadata service", "network: {podCidr: 169.254.0.0/16}", "network.podCidr", '"169.254', "private range"),
    Wrong("multicast", "network: {serviceCidr: 239.0.0.0/16}", "network.serviceCidr", '"239', "private range"),
    Wrong("pods too many", "network: {podCidr: 32.0.0.0/4}", "network.podCidr", '"32.0.0.0/4"', "/8"),
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
    Wrong(
        "forge user twice",
        f"{{{PLATFORM}: {{forge: {{users: [ada, grace, ada]}}}}}}",
        "platform.forge.users[2]",
        "ada",
        "Remove one",
    ),
    Wrong(
        "forge user is the administrator",
        f"{{{PLATFORM}: {{forge: {{users: [admin]}}}}}}",
        "platform.forge.users[0]",
        '"admin"',
        "Choose another",
    ),
    Wrong(
        "forge user with a space",
        f"{{{PLATFORM}: {{forge: {{users: [ada l]}}}}}}",
        "platform.forge.users[0]",
        '"ada l"',
        "lower case letters",
    ),
    Wrong(
        "gitops without a repository",
        f"{{{PLATFORM}: {{apply: gitops}}}}",
        "platform.gitops.repository",
        "(not set)",
        "platform.forge",
    ),
    Wrong(
        "gitops by SSH",
        gitops("repository: 'git@git.example.org:team/cluster.git'"),
        "platform.gitops.repository",
        'cluster.git"',
        "https://git.example.org",
    ),
    Wrong(
        "gitops repository with a login",
        gitops("repository: 'https://ada:pw@git.example.org/cluster'"),
        "platform.gitops.repository",
        'cluster"',
        "gitopsPassword",
    ),
    Wrong(
        "gitops repository on loopback",
        gitops("repository: 'http://127.0.0.1:3000/cluster'"),
        "platform.gitops.repository",
        'cluster"',
        "nodes reach",
    ),
    Wrong(
        "gitops repository without a path",
        gitops("repository: 'https://git.example.org/'"),
        "platform.gitops.repository",
        'org/"',
        "https://git.example.org",
    ),
    Wrong(
        "gitops branch with a space",
        gitops("repository: 'https://git.example.org/a', branch: a b"),
        "platform.gitops.branch",
        '"a b"',
        "main",
    ),
    Wrong(
        "gitops path goes up",
        gitops("repository: 'https://git.example.org/a', path: ../k8s"),
        "platform.gitops.path",
        '"../k8s"',
        "k8s",
    ),
    Wrong(
        "gitops login without its password",
        gitops("repository: 'https://git.example.org/a', username: ada"),
        "gitopsPassword",
        "(not set)",
        "config set --secret",
    ),
    Wrong(
        "gitops login without a repository",
        f"{{{PLATFORM}: {{apply: gitops, forge: {{}}, gitops: {{username: ada}}}}, gitopsPassword: pw}}",
        "platform.gitops.username",
        '"ada"',
        "platform.gitops.repository",
    ),
    Wrong(
        "gitops password without use", "gitopsPassword: pw", "gitopsPassword", "[secret]", "platform.gitops.username"
    ),
    Wrong(
        "forge user is the GitOps controller",
        f"{{{PLATFORM}: {{forge: {{users: [gitops]}}}}}}",
        "platform.forge.users[0]",
        '"gitops"',
        "Choose another",
    ),
    Wrong("port twice", "access: {webPorts: [80, 443, 80]}", "access.webPorts[2]", "80", "Remove one"),
    Wrong(
        "gateway as web port",
        f"{{{GATEWAY} webPorts: [30443]}}}}",
        "access.webPorts[0]",
        "30443",
        "apiFrom",
    ),
    Wrong(
        "redirect as web port",
        f"{{{GATEWAY} webPorts: [80, 30080]}}}}",
        "access.webPorts[1]",
        "30080",
        "apiFrom",
    ),
    Wrong("etcd as web port", "{cluster: {}, access: {webPorts: [2379]}}", "access.webPorts[0]", "2379", "Remove it"),
    Wrong(
        "kubelet as web port",
        "{cluster: {}, access: {webPorts: [10250]}}",
        "access.webPorts[0]",
        "10250",
        "Remove it",
    ),
    Wrong("port as text", 'access: {webPorts: ["80"]}', "access.webPorts[0]", '"80"', "whole number"),
    Wrong("ports as text", 'access: {webPorts: "80-443"}', "access.webPorts", '"80-443"', "list of whole number"),
    # Domain
    *(
        Wrong(f"domain {written}", f'{{{PLATFORM}: {{domain: "{written}"}}}}', "platform.domain", shown, remedy)
        for written, shown, remedy in (
            ("https://lab.example.org/", "https://", 'Write "lab.example.org"'),
            ("lab.example.org/path", "/path", 'Write "lab.example.org"'),
            ("lab.example.org:30443", ":30443", 'Write "lab.example.org"'),
            ("lab.example.org.", "org.", 'Write "lab.example.org"'),
            ("*.lab.example.org", "*.lab", 'Write "lab.example.org"'),
            ("Lab.Example.org", "Lab.Example", 'Write "lab.example.org"'),
            ("münchen.example.org", "münchen", 'Write "xn--mnchen-3ya.example.org"'),
            ("my_lab.example.org", "my_lab", "hyphens"),
            ("-lab.example.org", "-lab", "hyphens"),
            ("lab..example.org", "lab..", "hyphens"),
            (".example.org", ".example", "hyphens"),
            ("lab example.org", "lab example", "hyphens"),
            (f"{'x' * 64}.example.org", "xxx", "at most 63"),
            (".".join(["x" * 60] * 4), "xxx", "at most 189"),
            ("192.0.2.7", "192.0.2.7", "Remove it"),
            ("https://192.0.2.7:30443", "192.0.2.7", "Remove it"),
            ("2001:db8::7", "2001:db8::7", "Remove it"),
            ("10.20", "10.20", "such as"),
            ("localhost", "localhost", '"localhost.internal"'),
        )
    ),
    # The cluster
    Wrong("bundle of nobody", f"cluster: {{bundle: {NOBODY}}}", "cluster.bundle", "~nosuchuser", "whole path"),
    Wrong("bundle is a file", "cluster: {bundle: /dev/null}", "cluster.bundle", "/dev/null", "folder"),
    Wrong(
        "variable of a setting",
        "cluster: {variables: {cluster_pod_subnet: 10.9.0.0/16}}",
        "cluster.variables.cluster_pod_subnet",
        "10.9.0.0/16",
        "Set that",
    ),
    Wrong("variable with a hyphen", "cluster: {variables: {my-port: 1}}", "cluster.variables.my-port", "1", "letters"),
    # Keys
    Wrong("key file missing", "access: {publicKeyFile: gone.pub}", "access.publicKeyFile", '"gone.pub"', "ssh-keygen"),
    Wrong(
        "key file is private", "access: {publicKeyFile: private}", "access.publicKeyFile", '"private"', "ends in .pub"
    ),
    Wrong("key file is no key", "access: {publicKeyFile: text}", "access.publicKeyFile", '"text"', "ssh-ed25519"),
    Wrong("key file is a folder", "access: {publicKeyFile: .}", "access.publicKeyFile", '"."', "ending in .pub"),
    Wrong("key is no key", "access: {publicKey: hello}", "access.publicKey", '"hello"', "ssh-ed25519"),
    Wrong("key of nobody", f"access: {{publicKeyFile: {NOBODY}}}", "access.publicKeyFile", "~nosuchuser", "~/"),
    Wrong(
        "key is a device", "access: {publicKeyFile: /dev/zero}", "access.publicKeyFile", "/dev/zero", "ending in .pub"
    ),
    Wrong(
        "key file in a file", "access: {publicKeyFile: text/x.pub}", "access.publicKeyFile", "text/x", "ending in .pub"
    ),
    Wrong("key file of two", "access: {publicKeyFile: two.pub}", "access.publicKeyFile", '"two.pub"', "Keep one"),
    Wrong(
        "key file is PuTTY's", "access: {publicKeyFile: putty.pub}", "access.publicKeyFile", "putty", "ssh-keygen -i"
    ),
    Wrong(
        "key file in UTF-16", "access: {publicKeyFile: utf16.pub}", "access.publicKeyFile", "utf16", "ending in .pub"
    ),
    Wrong("key file is large", "access: {publicKeyFile: large.pub}", "access.publicKeyFile", "large", "ending in .pub"),
    Wrong("key file is empty", "access: {publicKeyFile: empty.pub}", "access.publicKeyFile", "empty", "ssh-ed25519"),
    Wrong("two keys", f'access: {{publicKey: "{PUBLIC_KEY}\\n{PUBLIC_KEY}"}}', "access.publicKey", "ssh", "Keep one"),
    Wrong(
        "two keys in a line",
        f'access: {{publicKey: "{PUBLIC_KEY} {PUBLIC_KEY}"}}',
        "access.publicKey",
        "ssh",
        "Keep one",
    ),
    Wrong("two lines", f'access: {{publicKey: "{PUBLIC_KEY}\\nhello"}}', "access.publicKey", "ssh", "Keep the line"),
    Wrong("certificate", f'access: {{publicKey: "{CERTIFICATE}"}}', "access.publicKey", "cert", "ssh-keygen"),
    Wrong("DSA", 'access: {publicKey: "ssh-dss AAAAB3NzaC1kc3MAAACB"}', "access.publicKey", "ssh-dss", "ssh-keygen"),
    Wrong("secret missing", f"access: {{publicKey: {PUBLIC_KEY}}}", "privateKey", "(not set)", "config set --secret"),
    Wrong("secret without use", "privateKey: abc", "privateKey", "[secret]", "access.publicKey"),
    Wrong(
        "secret is no key",
        f"{{access: {{publicKey: {PUBLIC_KEY}}}, privateKey: abc}}",
        "privateKey",
        "[secret]",
        "ssh-keygen",
    ),
    # Backups
    Wrong("second place is none", second_place("{}"), "platform.backup.copyTo", "{}", "either s3 or volume"),
    Wrong(
        "two second places",
        second_place(f"{{volume: data, s3: {BUCKET}}}"),
        "platform.backup.copyTo",
        "{",
        "either s3 or volume",
    ),
    Wrong("bucket missing", bucket("bucket", ""), "platform.backup.copyTo.s3.bucket", "(not set)", "Add `bucket`"),
    Wrong(
        "endpoint without scheme",
        bucket("endpoint", "s3.example.org"),
        "platform.backup.copyTo.s3.endpoint",
        '"s3.example.org"',
        "https://s3.example.org",
    ),
    Wrong(
        "endpoint with a bucket",
        bucket("endpoint", "https://s3.example.org/lab"),
        "platform.backup.copyTo.s3.endpoint",
        '/lab"',
        "setting of its own",
    ),
    Wrong(
        "endpoint with a login",
        bucket("endpoint", "https://a:b@s3.example.org"),
        "platform.backup.copyTo.s3.endpoint",
        's3.example.org"',
        "backupSecretKey",
    ),
    Wrong(
        "endpoint with a bad port",
        bucket("endpoint", "https://s3.example.org:99999"),
        "platform.backup.copyTo.s3.endpoint",
        '99999"',
        "https://s3.example.org",
    ),
    Wrong(
        "endpoint on loopback",
        bucket("endpoint", "http://127.0.0.1:8333"),
        "platform.backup.copyTo.s3.endpoint",
        '8333"',
        "nodes reach",
    ),
    Wrong(
        "endpoint is the own store",
        bucket("endpoint", "http://artifacts.platform:8333"),
        "platform.backup.copyTo.s3.endpoint",
        '8333"',
        "another one",
    ),
    Wrong("bucket is a URL", bucket("bucket", "s3://lab"), "platform.backup.copyTo.s3.bucket", '"s3://lab"', "prefix"),
    Wrong("bucket in upper case", bucket("bucket", "Lab"), "platform.backup.copyTo.s3.bucket", '"Lab"', "lower case"),
    Wrong("prefix goes up", bucket("prefix", "../lab"), "platform.backup.copyTo.s3.prefix", '"../lab"', "course/dev"),
    Wrong(
        "prefix ends with a slash", bucket("prefix", "lab/"), "platform.backup.copyTo.s3.prefix", '"lab/"', "course/dev"
    ),
    Wrong(
        "backup's secret missing",
        second_place(f"{{s3: {BUCKET}}}"),
        "backupSecretKey",
        "(not set)",
        "config set --secret",
    ),
    Wrong("backup's secret without use", "backupSecretKey: abc", "backupSecretKey", "[secret]", "remove the key"),
    Wrong("backup's volume misspelt", second_place("{volume: dta}"), "platform.backup.copyTo.volume", '"dta"', "data"),
    Wrong(
        "backup's volume missing",
        second_place("{volume: elsewhere}"),
        "platform.backup.copyTo.volume",
        '"elsewhere"',
        "holds: backups",
    ),
    Wrong(
        "backup's volume is another's",
        second_place("{volume: data}"),
        "platform.backup.copyTo.volume",
        '"data"',
        "storage.volumes.data.holds",
    ),
    Wrong(
        "backups that nobody copies",
        "storage: {volumes: {data: {holds: backups}}}",
        "storage.volumes.data.holds",
        '"backups"',
        "volume: data",
    ),
    Wrong(
        "backups beside the stores",
        second_place("{volume: data}", "data: {holds: backups}, s: {sizeGb: 1, attachTo: worker-0, holds: stores}"),
        "storage.volumes.data.attachTo",
        '"worker-0"',
        "another worker",
    ),
    Wrong(
        "backups on a control plane",
        second_place("{volume: data}", "data: {holds: backups, attachTo: control-0}"),
        "storage.volumes.data.attachTo",
        '"control-0"',
        "worker",
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
        "ordinary flavor",
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
        "Remove it",
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
        "Remove it",
    ),
    Wrong("hosts of a VM", "nodes: {groups: {worker: {hosts: 1}}}", "nodes.groups.worker.hosts", "1", "Remove it"),
    Wrong("fewer hosts than nodes", f"{{{METAL}, hosts: 1}}}}}}}}", "nodes.groups.worker.hosts", "1", "Reserve 2"),
    Wrong(
        "blank host property",
        f'{{{METAL}, hostProperties: {{node_type: ""}}}}}}}}}}',
        "nodes.groups.worker.hostProperties.node_type",
        '""',
        "node_type: compute",
    ),
    Wrong(
        "host property as Blazar asks",
        f"{{{METAL}, hostProperties: {{$node_type: x}}}}}}}}}}",
        "nodes.groups.worker.hostProperties.$node_type",
        '"x"',
        "node_type: compute",
    ),
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
    Wrong("end is a day", 'lease: {hours: null, end: "2026-12-01"}', "lease.end", '"2026-12-01"', "T18:00Z"),
    Wrong("end of time", 'lease: {hours: null, end: "9999-12-31T23:59-12:00"}', "lease.end", '"9999', "T18:00Z"),
    Wrong("end far away", 'lease: {hours: null, end: "9999-12-31T00:00Z"}', "lease.end", '"9999', "before 20"),
    Wrong("start far away", 'lease: {start: "9999-12-31T23:00Z"}', "lease.start", '"9999', "before 20"),
    Wrong("start without zone", 'lease: {start: "2026-12-01T18:00"}', "lease.start", '"2026-12-01T18:00"', "T18:00Z"),
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
        "volumes attached by one name",
        "{storage: {volumes: {a: {sizeGb: 1, attachTo: b-on-c-0}, a-on-b: {sizeGb: 1, attachTo: c-0}}}, "
        "nodes: {groups: {b-on-c: {role: worker, count: 1, flavor: m1.small}, "
        "c: {role: worker, count: 1, flavor: m1.small}}}}",
        "storage.volumes.a-on-b",
        "{",
        "Rename one",
    ),
    Wrong(
        "volume named as a node",
        "storage: {volumes: {control-0: {sizeGb: 1}}}",
        "storage.volumes.control-0",
        "{",
        "Rename",
    ),
]
