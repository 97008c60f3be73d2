"""The settings of a stack: sections, keys, limits and defaults. The descriptions make up the reference page."""

import fnmatch
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from infra.naming import PROJECT
from infra.settings.values import (
    Address4,
    AddressPort,
    Branch,
    Bucket,
    Cidr,
    Cidr4,
    Domain,
    Endpoint,
    Folder,
    ForgeUser,
    GitUrl,
    HostPort,
    ImageKey,
    Instant,
    Login,
    MailAddress,
    Name,
    Network4,
    Port,
    Prefix,
    PublicKey,
    TimeZone,
    Version,
    none_or_section,
)


class Section(BaseModel):
    """A part of the settings: keys in camelCase, no unknown keys, no conversion between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Cloud(Section):
    """The OpenStack cloud and what it offers. Lists given here are checked before the first API call."""

    name: Name | None = Field(
        default=None,
        description="Entry of clouds.yaml to use. By default, the OS_* environment variables are used.",
    )
    region: Name | None = Field(default=None, description="Region, if the entry of clouds.yaml has several.")
    flavors: list[Name] = Field(
        default=[],
        description="Flavors that the site offers. If given, misspelt flavors are found before the first API call.",
    )
    bare_metal_flavors: list[Name] = Field(
        default=["baremetal"],
        description="Flavors that are whole machines (Ironic). They need a lease of type physical:host.",
    )
    lease_days: dict[str, Annotated[int, Field(ge=1, le=3660)]] = Field(
        default={"*": 183},
        description="Longest lease that the site grants, in days, by flavor (shell pattern; the lowest match applies). "
        "Chameleon: 183 days on KVM@TACC, 7 days for g1.h100.* (Chameleon documentation, Reservations).",
    )


class Lease(Section):
    """A Blazar lease for the nodes; created, extended and deleted with the stack."""

    type: Literal["flavor:instance", "physical:host"] = Field(
        description="What to reserve: flavor:instance (virtual machines) or physical:host (whole hosts). Each node "
        "group has a lease of its own, so changing the number of workers does not affect the control plane.",
        examples=["flavor:instance"],
    )
    hours: int | None = Field(
        default=None, ge=1, le=24 * 3660, description="Length in hours from the start. Set either this or `end`."
    )
    end: Instant | None = Field(default=None, description="When the lease ends. Set either this or `hours`.")
    start: Instant | None = Field(
        default=None,
        description="When the lease starts; now by default. If that is more than `waitMinutes` away, `up` creates the "
        "lease and the network, and an `up` after the start creates the nodes.",
    )
    wait_minutes: int = Field(
        default=15, ge=1, le=240, description="How long, in minutes, `up` waits for the lease to become ACTIVE."
    )
    daytime_hours: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Warn if the lease takes more than this many hours between 8:00 and midnight of one day (the "
        "course's rule: at most 8; nights are free).",
    )
    timezone: TimeZone = Field(default="UTC", description="Time zone of `daytimeHours`.")


class NetworkSettings(Section):
    """The nodes' network, the cluster's ranges, and the external network."""

    existing: Name | None = Field(
        default=None,
        description="Name of a shared network to use (e.g. sharednet1). By default the stack creates a network.",
    )
    cidr: Cidr4 = Field(
        default=Network4("10.42.0.0/24"),
        description="Range of the nodes' subnet; with `existing`, the range of that network.",
    )
    pod_cidr: Cidr4 = Field(
        default=Network4("10.244.0.0/16"), description="Range of the pods; each node gets a /24 of it (Kubernetes)."
    )
    service_cidr: Cidr4 = Field(
        default=Network4("10.96.0.0/16"),
        description="Range of Kubernetes services, at most a /12 (kube-apiserver --service-cluster-ip-range).",
    )
    external_cidrs: list[Cidr4] = Field(
        default=[],
        description="Ranges outside the stack that nodes must reach (campus, VPN, floating IPs). None may overlap.",
    )
    external_network: Name | None = Field(
        default=None, description="Network of the router's gateway and of the floating IPs (e.g. public)."
    )
    floating_ips: Literal["first-control-plane", "control-plane", "all", "none"] = Field(
        default="first-control-plane", description="Which nodes get a floating IP. They are scarce: one is enough."
    )
    dns_servers: list[Address4] = Field(default=[], description="Name servers of the subnet; by default the cloud's.")
    mtu: int | None = Field(
        default=None, ge=1280, le=9000, description="MTU of the stack's network in bytes; by default the cloud's."
    )
    port_security: bool = Field(
        default=True,
        description="Filter the nodes' traffic with security groups. Set false only if the site has disabled them, as "
        "for Chameleon's bare metal on sharednet1.",
    )
    address_pairs: bool | None = Field(
        default=None,
        description="Allow nodes to send with addresses of pods and services (required by routed pod networks, not by "
        "overlays). By default true on the stack's network and false on an existing one, where only its owner may set "
        "it (Neutron).",
    )

    @property
    def routes_pods(self) -> bool:
        """Whether ports carry allowed address pairs for the pods' and services' ranges."""
        enabled = self.existing is None if self.address_pairs is None else self.address_pairs
        return enabled and self.port_security


class Access(Section):
    """Who can reach the nodes, from where, and with which key."""

    ssh_from: list[Cidr] = Field(
        min_length=1,
        description="Ranges that may open SSH connections. 0.0.0.0/0 is the whole internet, and causes a warning.",
        examples=[["192.0.2.0/24"]],
    )
    web_from: list[Cidr] = Field(
        default=[Network4("0.0.0.0/0")],
        description="Ranges that may reach `webPorts` on nodes with a floating IP.",
    )
    web_ports: list[Port] = Field(default=[80, 443], min_length=1, description="TCP ports that are open to `webFrom`.")
    api_from: list[Cidr] = Field(
        default=[],
        description="Ranges that may reach the Kubernetes API (TCP 6443) and the platform's gateway (TCP 30443, 30080) "
        "from outside. Empty by default: use SSH.",
    )
    user: Login = Field(default="debian", description="User name of the image (debian, ubuntu; cc on Chameleon).")
    public_key: PublicKey | None = Field(
        default=None, description="Public key that may log in, as text; set its private key in ml-cluster:privateKey."
    )
    public_key_file: Name | None = Field(
        default=None,
        description="File with the public key, relative to the stack's file; ~ is the home folder. With neither this "
        "nor `publicKey`, the stack creates a key pair; its private key is a secret output.",
    )


class NodeGroup(Section):
    """Nodes of one role and flavor, named <stack>-<group>-<index>."""

    role: Literal["control-plane", "worker", "gpu-worker"] = Field(
        description="Role of the nodes. All groups together must have 1 or 3 control planes: etcd needs an odd number "
        "(Kubernetes documentation, Options for Highly Available Topology).",
        examples=["worker"],
    )
    count: int = Field(ge=0, le=250, description="Number of nodes.", examples=[1])
    flavor: Name = Field(
        description="Name of the flavor. A lease of type flavor:instance reserves this flavor.",
        examples=["m1.small"],
    )
    image: Name | None = Field(default=None, description="Image of this group; `nodes.image` by default.")
    boot_volume_gb: int | None = Field(
        default=None, ge=5, le=16384, description="Boot from a volume of this size in GB instead of the flavor's disk."
    )
    boot_volume_type: Name | None = Field(default=None, description="Volume type of the boot volume.")
    host_properties: dict[str, str] = Field(
        default={},
        description="Blazar host properties of the hosts to reserve, e.g. {node_type: compute_skylake}.",
    )
    hosts: int | None = Field(
        default=None,
        ge=1,
        le=250,
        description="Hosts to reserve with physical:host; by default one per node.",
    )
    availability_zone: Name | None = Field(default=None, description="Availability zone; by default the cloud chooses.")


class Nodes(Section):
    """The machines of the cluster."""

    image: Name = Field(description="Name of the image that nodes boot.", examples=["debian-12"])
    anti_affinity: Literal["soft", "hard", "none"] = Field(
        default="soft",
        description="Place each group's nodes on different hosts: if possible (soft), or fail otherwise (hard).",
    )
    on_flavor_change: Literal["resize", "replace"] = Field(
        default="resize",
        description="What a change of the flavor does: resize a node in place (with a restart), or replace it. "
        "Reserved nodes are always replaced, because their flavor is the reservation.",
    )
    groups: dict[str, NodeGroup] = Field(
        min_length=1,
        description="Node groups by name.",
        examples=[{"control": {"role": "control-plane", "count": 1, "flavor": "m1.small"}}],
    )

    @property
    def total(self) -> int:
        """Nodes of all groups."""
        return sum(group.count for group in self.groups.values())


class Volume(Section):
    """A volume, named <stack>-<name>."""

    size_gb: int = Field(ge=1, le=16384, description="Size in GB. It can grow but not shrink.", examples=[10])
    type: Name | None = Field(default=None, description="Volume type (e.g. ceph-ssd); by default the cloud's default.")
    attach_to: Name | None = Field(default=None, description="Node to attach it to, as <group>-<index>.")
    holds: Literal["etcd", "stores", "backups"] | None = Field(
        default=None,
        description="Cluster data to store on it, which then survives a replacement of the node's server: `etcd`, the "
        "cluster's objects and keys, on a control plane; `stores`, the local volumes of databases and object stores; "
        "`backups`, the copies that platform.backup.copyTo makes.",
    )
    protect: bool | None = Field(
        default=None,
        description="Refuse to delete or replace it. True: by `destroy` too, until this is taken away. By default what "
        "`holds` something and is not retained is protected, and `destroy` deletes it with --delete-data, or after the "
        "stack's name was typed.",
    )
    retain: bool = Field(default=False, description="Keep it in the cloud when it is removed from the stack.")

    @property
    def protected(self) -> bool:
        """Whether deleting it is refused."""
        return self.holds is not None and not self.retain if self.protect is None else self.protect


class Storage(Section):
    """Volumes that survive the replacement of nodes."""

    volumes: dict[str, Volume] = Field(default={}, description="Volumes by name.")


class Cluster(Section):
    """Kubernetes on the nodes, installed by the playbooks of ansible/."""

    kubernetes_version: Version = Field(
        default="v1.37.2",
        description="Version of Kubernetes. The bundle must contain it (`lab bundle ls`). A newer version upgrades the "
        "nodes one by one, by at most one minor version (Kubernetes documentation, Version Skew Policy).",
    )
    bundle: Name = Field(
        default="~/.cache/ml-cluster/bundle",
        description="Folder of the bundle, which contains every program and image of the cluster (`lab bundle build`).",
    )
    image_keys: list[ImageKey] = Field(
        default=[],
        description="Public keys of who signs images. If there are any, nodes pull only images that one of them has "
        "signed, and the platform runs the images that Git names (docs/how-to/images.md).",
    )
    variables: dict[str, Any] = Field(
        default={},
        description="Further variables for the playbooks; ansible/inventory/sample.yml describes them.",
    )


class BackupBucket(Section):
    """A bucket of any S3, such as that of a Swift with its S3 interface."""

    endpoint: Endpoint = Field(description="URL of the S3 service.", examples=["https://s3.example.org"])
    bucket: Bucket = Field(description="The bucket. It has to be there.", examples=["lab-backups"])
    prefix: Prefix | None = Field(
        default=None,
        description="What all keys begin with; the stack's name by default. Two stacks need two: each keeps 14 nights.",
    )
    region: Name = Field(default="us-east-1", description="Region that requests are signed for.")
    access_key: Name = Field(
        description="Access key that may list, read, write and delete below the prefix; its secret goes into "
        "ml-cluster:backupSecretKey.",
        examples=["lab-backups"],
    )


class SecondPlace(Section):
    """Where each night's backup is copied to: a bucket or a volume."""

    s3: BackupBucket | None = Field(default=None, description="A bucket outside the stack.")
    volume: Name | None = Field(
        default=None,
        description="A volume of storage.volumes that `holds: backups`, on another node than the stores.",
    )


class Backup(Section):
    """The nightly copies of rows and files."""

    copy_to: SecondPlace | None = Field(
        default=None, description="Second place of each night; without it a night is in the cluster alone."
    )


class Forge(Section):
    """Pull requests on the cluster: Gitea, and a pod for each job of a workflow."""

    users: list[ForgeUser] = Field(
        default=[],
        max_length=40,
        description="Who may push branches, review and merge, beside `admin`. Each gets a password "
        "(`lab stack output credentials --show-secrets`); who is taken out can no longer log in.",
        examples=[["ada", "grace"]],
    )
    jobs: int = Field(default=2, ge=1, le=10, description="How many jobs run at a time.")


class GitOps(Section):
    """Where a controller on the cluster finds the platform, with `apply: gitops`."""

    controller: Literal["argo-cd", "none"] = Field(
        default="argo-cd",
        description="Argo CD, which the stack installs, or none: a controller of your own. For that the stack creates "
        "only the namespaces and the Secrets.",
    )
    repository: GitUrl | None = Field(
        default=None, description="The Git repository, over HTTP. By default the one of platform.forge."
    )
    branch: Branch = Field(default="main", description="The branch that is applied.")
    path: Folder = Field(default="k8s", description="Folder of the manifests in it: what is k8s/ here.")
    username: Name | None = Field(
        default=None,
        description="Login at the repository; its password or token goes into ml-cluster:gitopsPassword.",
    )


class Platform(Section):
    """The services on the cluster: the manifests of k8s/, and who applies them."""

    profile: Literal["ci", "lab", "production"] = Field(
        default="lab", description="Profile in k8s/clusters: the smallest, for tests; the normal one; more replicas."
    )
    apply: Literal["pulumi", "gitops"] = Field(
        default="pulumi",
        description="Who applies the manifests: this stack, or a controller on the cluster from Git. With gitops, the "
        "stack keeps what gives rights and limits, the Secrets, the gateway and the controller.",
    )
    domain: Domain | None = Field(
        default=None,
        description="Domain of the services' host names (tracking.<domain>). By default the first control plane's "
        "address under sslip.io, which public name servers resolve.",
    )
    example: bool = Field(
        default=False,
        description="The first `lab up` trains, promotes and queries the example model, models/digits.",
    )
    forge: Forge | None = Field(
        default=None,
        description="A forge on the cluster, with the stack's repository in it. `{}` has one with its defaults.",
    )
    gitops: GitOps = Field(default=GitOps(), description="The repository that `apply: gitops` applies.")
    promotion: Literal["service", "git"] = Field(
        default="service",
        description="What says which version of a model each stage serves: `lab promote`, through the promotion "
        "service; or the file models/MODEL/stages.yaml on the main branch, which changes by pull request.",
    )
    backup: Backup = Field(default=Backup(), description="Nightly copies of rows and files, and their second place.")


class Email(Section):
    """A mail server, and who gets alerts from it."""

    to: list[MailAddress] = Field(min_length=1, description="Who gets them.", examples=[["you@example.org"]])
    sender: MailAddress = Field(alias="from", description="Whom they come from.", examples=["lab@example.org"])
    server: HostPort = Field(
        description="The mail server, as host:port. It must offer TLS.", examples=["mail.example.org:587"]
    )
    username: Name | None = Field(
        default=None, description="Login at the mail server; the password goes into ml-cluster:alertsEmailPassword."
    )


class Monitoring(Section):
    """What alerts go by, and who hears of them. Addresses that are secrets are settings of their own, below."""

    availability: float = Field(
        default=99,
        ge=1,
        le=99.999,
        description="Which share of a model's answers, in percent over 30 days, is to be no error: alerts come where "
        "the rest is spent too fast (Google SRE Workbook, Alerting on SLOs).",
    )
    latency_ms: int = Field(
        default=1000,
        ge=1,
        le=60000,
        description="How long one request of a hundred may take, in milliseconds, at the gateway.",
    )
    email: Email | None = Field(default=None, description="Send alerts by mail.")
    cloud: AddressPort | None = Field(
        default=None,
        description="Where the cloud serves metrics and log lines of its own services, as devcloud does at the address "
        "of its APIs. Monitoring asks there, and nowhere else outside of the cluster.",
        examples=["172.25.0.2:9180"],
    )


class Settings(Section):
    """Configuration of a stack, in Pulumi.<stack>.yaml under the namespace ml-cluster."""

    cloud: Cloud = Field(default=Cloud(), description="The OpenStack cloud to use and what it offers.")
    lease: Annotated[Lease | None, BeforeValidator(none_or_section)] = Field(
        default=None, description="Blazar lease for the nodes, or `none` on a cloud without Blazar."
    )
    network: NetworkSettings = Field(default=NetworkSettings(), description="Network, cluster ranges, floating IPs.")
    access: Access = Field(
        description="SSH keys, and the ranges that may connect.", examples=[{"sshFrom": ["192.0.2.0/24"]}]
    )
    nodes: Nodes = Field(
        description="Nodes of the cluster.",
        examples=[
            {"image": "debian-12", "groups": {"control": {"role": "control-plane", "count": 1, "flavor": "m1.small"}}}
        ],
    )
    storage: Storage = Field(default=Storage(), description="Volumes.")
    cluster: Annotated[Cluster | None, BeforeValidator(none_or_section)] = Field(
        default=None, description="Kubernetes on the nodes, or `none` for machines without it."
    )
    platform: Annotated[Platform | None, BeforeValidator(none_or_section)] = Field(
        default=None, description="MLOps platform on the cluster: tracking, training, serving; or `none`."
    )
    monitoring: Monitoring = Field(
        default=Monitoring(),
        description="What alerts go by, and who hears of them; for platforms whose profile has monitoring.",
    )
    alerts_webhook: SecretStr | None = Field(
        default=None,
        description="Address that gets alerts as JSON (Alertmanager's webhook), a secret: `lab config set --secret "
        "alertsWebhook https://...`.",
    )
    alerts_slack: SecretStr | None = Field(
        default=None,
        description="Incoming webhook of Slack, Mattermost or Rocket.Chat that gets alerts, a secret, set likewise.",
    )
    alerts_heartbeat: SecretStr | None = Field(
        default=None,
        description="Address that hears every minute that monitoring works, and tells of it when it does not hear it: "
        "a dead man's switch such as healthchecks.io, a secret, set likewise.",
    )
    alerts_email_password: SecretStr | None = Field(
        default=None, description="Password of monitoring.email.username, a secret, set likewise."
    )
    private_key: SecretStr | None = Field(
        default=None,
        description="Private key of access.publicKey, a secret, which the steps that log in to the nodes need. Set it "
        "with `lab config set --secret privateKey < FILE`.",
    )

    backup_secret_key: SecretStr | None = Field(
        default=None,
        description="Secret half of platform.backup.copyTo.s3.accessKey. Set it with "
        "`lab config set --secret backupSecretKey < FILE`.",
    )

    gitops_password: SecretStr | None = Field(
        default=None,
        description="Password or token of platform.gitops.username, a secret. Set it with "
        "`lab config set --secret gitopsPassword < FILE`.",
    )

    @property
    def reserves_flavors(self) -> bool:
        """Whether the nodes use the flavors of their reservations."""
        return self.lease is not None and self.lease.type == "flavor:instance"

    def flavor_limit(self, flavor: str) -> tuple[str, int] | None:
        """Pattern and length, in days, of the lowest lease limit for `flavor`."""
        matching = [item for item in self.cloud.lease_days.items() if fnmatch.fnmatchcase(flavor, item[0])]
        return min(matching, key=lambda item: item[1], default=None)

    def lease_period(self, now: datetime) -> tuple[datetime, datetime] | None:
        """Start and end of a lease that is created `now`; None without a lease or without a length."""
        if self.lease is None:
            return None
        start = self.lease.start or now
        end = self.lease.end or (start + timedelta(hours=self.lease.hours) if self.lease.hours else None)
        return (start, end) if end else None

    def starts_later(self, now: datetime) -> bool:
        """Whether the lease starts too late for this `up` to wait for it, so that a later one creates the nodes."""
        if self.lease is None or self.lease.start is None:
            return False
        return self.lease.start > now + timedelta(minutes=self.lease.wait_minutes)

    def warnings(self, now: datetime) -> list[str]:
        """Warnings about settings that are allowed but rarely intended."""
        warnings = [
            f"{PROJECT}:access.sshFrom: {network} lets the whole internet try to log in; use your own range."
            for network in self.access.ssh_from
            if network.prefixlen == 0
        ]
        copy_to = self.platform.backup.copy_to if self.platform else None
        if copy_to and copy_to.s3 and copy_to.s3.endpoint.startswith("http:"):
            warnings.append(
                f"{PROJECT}:platform.backup.copyTo.s3.endpoint: the backups are not encrypted in transit; use https."
            )
        gitops = self.platform.gitops if self.platform else None
        if gitops and gitops.username and (gitops.repository or "").startswith("http:"):
            warnings.append(
                f"{PROJECT}:platform.gitops.repository: the password is not encrypted in transit; use https."
            )
        period = self.lease_period(now)
        if self.lease and self.lease.daytime_hours and period:
            for day, hours in daytime_hours(*period, timezone=self.lease.timezone).items():
                if hours > self.lease.daytime_hours:
                    warnings.append(
                        f"{PROJECT}:lease: takes {hours:g} daytime hours on {day}, more than the "
                        f"{self.lease.daytime_hours} of daytimeHours; shorten it, or start late in the evening."
                    )
                    break
        return warnings


DAY_STARTS = 8


def daytime_hours(start: datetime, end: datetime, *, timezone: str) -> dict[str, float]:
    """Hours that a lease takes between 8:00 and midnight, local time in `timezone`, for each day (ISO date)."""
    zone = ZoneInfo(timezone)
    first, last = start.astimezone(zone), end.astimezone(zone)
    taken: dict[str, float] = {}
    day = first.date()
    while day <= last.date():
        opens = datetime(day.year, day.month, day.day, DAY_STARTS, tzinfo=zone)
        closes = datetime.combine(day + timedelta(days=1), time(), tzinfo=zone)
        seconds = (min(last, closes) - max(first, opens)).total_seconds()
        if seconds > 0:
            taken[day.isoformat()] = seconds / 3600
        day += timedelta(days=1)
    return taken
