"""Wrong nodes, leases and volumes."""

from tests.infra.wrong.base import METAL, Wrong

WRONG = [
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
