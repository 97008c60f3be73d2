"""An ML cluster on OpenStack, as a Pulumi program: `lab up`, or `pulumi up`."""

from datetime import UTC, datetime

import pulumi
import pulumi_openstack as openstack
from pulumi import ResourceOptions

from infra.access import Access
from infra.configuration import read_settings
from infra.kubernetes.cluster import Cluster
from infra.lease import Lease
from infra.network import Network
from infra.nodes import Nodes
from infra.platform import Platform
from infra.storage import Storage

# Everything that is wrong with the stack's file is told here, before the cloud is asked for anything.
settings = read_settings()
now = datetime.now(UTC)
for sentence in settings.advice(now):
    pulumi.log.warn(sentence)

cloud = openstack.Provider("openstack", cloud=settings.cloud.name, region=settings.cloud.region)
here = ResourceOptions(providers={"openstack": cloud})

lease = Lease(settings, here)
network = Network(settings, here)
access = Access(settings, here)
storage = Storage(settings, here)

pulumi.export("leaseEnd", lease.end_date)
pulumi.export("privateKey", access.private_key)

if settings.starts_later(now):
    pulumi.log.warn("The lease starts later: this run reserves; run it again after the start to make the nodes.")
else:
    nodes = Nodes(settings, lease, network, access, storage=storage, opts=here)

    described = {
        node.name: {"role": node.role, "address": node.address, "floatingIp": node.floating_ip}
        for node in nodes.nodes.values()
    }
    pulumi.export("nodes", described)
    endpoints: dict[str, pulumi.Input[str]] = {
        "ssh": pulumi.Output.concat("ssh ", settings.access.user, "@", nodes.entry())
    }
    pulumi.export("volumes", storage.devices)
    if settings.cluster is not None:
        cluster = Cluster(settings, nodes, access.private_key, here)
        pulumi.export("kubernetes", cluster.outputs)
        pulumi.export("kubeconfig", cluster.kubeconfig)
        if settings.platform is not None:
            platform = Platform(settings, nodes, cluster)
            endpoints |= platform.endpoints
            pulumi.export("platform", platform.told)
            pulumi.export("credentials", platform.credentials)
    pulumi.export("endpoints", endpoints)
