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

# Reports all errors of the stack's file, before the first call to the cloud.
settings = read_settings()
now = datetime.now(UTC)
for warning in settings.warnings(now):
    pulumi.log.warn(warning)

cloud = openstack.Provider("openstack", cloud=settings.cloud.name, region=settings.cloud.region)
options = ResourceOptions(providers={"openstack": cloud})

lease = Lease(settings, options)
network = Network(settings, options)
access = Access(settings, options)
storage = Storage(settings, options)

pulumi.export("leaseEnd", lease.end_date)
pulumi.export("privateKey", access.private_key)

if settings.starts_later(now):
    pulumi.log.warn(
        "The lease starts later. This run creates the lease; run it again after the start to create the nodes."
    )
else:
    nodes = Nodes(settings, lease, network, access, storage=storage, opts=options)

    node_outputs = {
        node.name: {"role": node.role, "address": node.address, "floatingIp": node.floating_ip}
        for node in nodes.nodes.values()
    }
    pulumi.export("nodes", node_outputs)
    endpoints: dict[str, pulumi.Input[str]] = {
        "ssh": pulumi.Output.concat("ssh ", settings.access.user, "@", nodes.entry())
    }
    pulumi.export("volumes", storage.devices)
    if settings.cluster is not None:
        cluster = Cluster(settings, nodes, access.private_key, options)
        pulumi.export("kubernetes", cluster.outputs)
        pulumi.export("kubeconfig", cluster.kubeconfig)
        if settings.platform is not None:
            platform = Platform(settings, nodes, cluster, lease_end=lease.end_date)
            endpoints |= platform.endpoints
            pulumi.export("platform", platform.outputs)
            pulumi.export("credentials", platform.credentials)
    pulumi.export("endpoints", endpoints)
