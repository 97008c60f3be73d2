"""Wrong address ranges, ports and domains."""

from tests.infra.wrong.base import GATEWAY, PLATFORM, Wrong, gitops

WRONG = [
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
]
