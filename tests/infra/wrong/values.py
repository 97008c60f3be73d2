"""Wrong keys, types, choices and limits."""

from tests.infra.wrong.base import PLATFORM, Wrong

RSA = (
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDqH9YtcKB7tLrK2dGXGHRzyuNspqqKzmj9tmW6PMaiC0U870r9SK1zGcWeO0QQF3wEYXxb"
    "9ZbeEWbf3x4T05Kd64SvDBb1Sq7dWFbg+1BU8JUHfkBwlp8UOZQI3/QX0/b5MuOMwCe9NPq1uAcdSADRnP19a+KRqRXAZlkcTvsZ/wIDAQAB"
)

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
    Wrong(
        "image key of SSH",
        'cluster: {imageKeys: ["ssh-ed25519 AAAA"]}',
        "cluster.imageKeys[0]",
        '"ssh-ed25519 AAAA"',
        "openssl",
    ),
    Wrong("image key of RSA", f'cluster: {{imageKeys: ["{RSA}"]}}', "cluster.imageKeys[0]", RSA[:20], "openssl pkey"),
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
]
