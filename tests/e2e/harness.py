"""Drives this repository's program with `./lab` on a real devcloud, and looks at the cloud beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ruamel.yaml import YAML

from bundle.cli import DEFAULT
from devcloud.layout import Settings as CloudSettings
from infra.settings import Cluster as ClusterSettings
from tests.cli.harness import ROOT, Lab
from tests.devcloud import support
from tests.devcloud.support import SSH, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from openstack.connection import Connection

    from devcloud.bringup import Devcloud

BUNDLE = DEFAULT.expanduser()
"""The bundle of whoever runs the tests: their commands have a home of their own."""
VERSION = ClusterSettings().kubernetes_version
"""Of Kubernetes."""
DEFAULT_SUBNET = CloudSettings().subnet
# A preview's digest, as the Pulumi CLI's, has the step `replace` alone for the three of a replacement.
NOT_TOLD = {"same", "read", "refresh", "create-replacement", "delete-replaced"}


PATIENCE_SECONDS = 600.0
"""How long a condition is waited for: long, for the machine may have other work."""


def wait(condition: Callable[[], Any], what: str) -> Any:
    """Ask until the answer is true; return it."""
    return support.wait(condition, PATIENCE_SECONDS, what)


# Rows that are not deleted, by what a stack calls things. What hangs on them cannot be without them (foreign keys), but
# for gateway ports without a router, and flavors and aggregates without a reservation: orphans, which have no names.
ROWS = """
select concat('server ', display_name) from nova.instances where deleted = 0 and display_name like '{stack}-%';
select concat('keypair ', name) from nova_api.key_pairs where name like '{stack}-%';
select concat('server group ', name) from nova_api.instance_groups where name like '{stack}-%';
select concat('network ', name) from neutron.networks where name like '{stack}-%';
select concat('subnet ', name) from neutron.subnets where name like '{stack}-%';
select concat('router ', name) from neutron.routers where name like '{stack}-%';
select concat('port ', name) from neutron.ports where name like '{stack}-%';
select concat('security group ', name) from neutron.securitygroups where name like '{stack}-%';
select concat('floating IP ', description) from neutron.floatingips join neutron.standardattributes
    on standardattributes.id = standard_attr_id where description like '{stack}-%';
select concat('volume ', display_name) from cinder.volumes where deleted = 0 and display_name like '{stack}-%';
select concat('lease ', name) from blazar.leases where name like '{stack}-%';
"""
ORPHANS = """
select concat('orphan port ', id) from neutron.ports
    where device_owner like 'network:router%' and device_id not in (select id from neutron.routers);
select concat('orphan flavor ', name) from nova_api.flavors
    where name like 'reservation:%' and substr(name, 13) not in (select id from blazar.reservations);
select concat('orphan aggregate ', name) from nova_api.aggregates
    where name regexp '^[0-9a-f-]{36}$' and name not in (select id from blazar.reservations);
"""


class Step(NamedTuple):
    """What is done to a resource."""

    op: str
    name: str
    """Last part of its URN."""


@dataclass(frozen=True)
class Update:
    """One `up`, `destroy` or `refresh` that has succeeded."""

    steps: Counter[Step]
    seconds: float


def steps(found: list[dict[str, Any]]) -> Counter[Step]:
    """The steps that change something."""
    return Counter(Step(step["op"], step["urn"].split("::")[-1]) for step in found if step["op"] not in NOT_TOLD)


class Cloud:
    """A running devcloud as its users see it, and as its databases have it."""

    def __init__(self, devcloud: Devcloud, student: Connection, admin: Connection) -> None:
        self.devcloud = devcloud
        self.clouds_yaml = devcloud.layout.clouds_yaml
        self.student = student
        self.admin = admin
        self._orphans_of_others = set(self.sql(ORPHANS))

    def client(self, *arguments: str, account: str = "devcloud") -> str:
        """What the `openstack` client prints."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        result = subprocess.run(
            [Path(sys.executable).with_name("openstack"), "--os-cloud", account, *arguments],
            env={**inherited, "OS_CLIENT_CONFIG_FILE": str(self.clouds_yaml)},
            capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout

    def shown(self, *arguments: str) -> Any:
        """What the `openstack` client answers to a command that lists or shows."""
        return json.loads(self.client(*arguments, "--format", "json"))

    def listed(self, *what: str) -> list[dict[str, Any]]:
        """`openstack WHAT list` as rows; keys in lower case, as clients differ in it."""
        return [{key.lower(): value for key, value in row.items()} for row in self.shown(*what, "list")]

    def rows(self, stack: str) -> list[str]:
        """What the databases have of a stack, and the orphans since the tests began."""
        return sorted({*self.sql(ROWS.format(stack=stack)), *self.sql(ORPHANS)} - self._orphans_of_others)

    def has_no_rows(self, stack: str) -> bool:
        """Whether nothing is left of a stack; what others are at work on may look like an orphan for a moment."""
        return not self.rows(stack)

    def sql(self, statement: str) -> list[str]:
        """Lines that MariaDB answers."""
        socket = f"--socket={self.devcloud.layout.run}/mysql.sock"
        return self.devcloud.control.inside("mariadb", socket, "-uroot", "--batch", "-N", text=statement).splitlines()


def copy_image(devcloud: Devcloud, name: str, path: Path) -> None:
    """The default image once more, under another name; `path` is where it lies meanwhile."""
    images = connect(devcloud, "devcloud").image
    found = images.find_image("CC-Debian12", ignore_missing=False)
    images.download_image(str(found.id), output=str(path), stream=True)
    images.create_image(
        name, filename=str(path), disk_format="raw", container_format="bare", wait=True, timeout=300,
        hypervisor_type=found.hypervisor_type,
    )  # fmt: skip
    path.unlink()


def on_subnet(settings: str, devcloud: Devcloud) -> str:
    """The text of settings for the subnet that a devcloud is really on."""
    default, own = (
        str(net.network_address).rpartition(".")[0] + "." for net in (DEFAULT_SUBNET, devcloud.layout.settings.subnet)
    )
    return settings.replace(default, own)


def with_settings(text: str, **settings: Any) -> str:
    """The text of a stack's file with other settings; `__` stands for the dot in their names, None takes one out."""
    yaml, written = YAML(), StringIO()
    document = yaml.load(text)
    for name, value in settings.items():
        section, *path = name.split("__")
        *parents, last = [f"ml-cluster:{section}", *path]
        node = document["config"]
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[last]
            if not node:
                node.fa.set_flow_style()  # else ruamel writes it after its key's comment, in the first column
        else:
            node[last] = value
    yaml.dump(document, written)
    return written.getvalue()


class Deployment(Lab):
    """The repository's program, with the settings of stack `dev`, as a stack of another name: small, bare nodes.

    So what other people do with their stack `dev` of the same cloud meanwhile does not matter.
    """

    patience_seconds = 1800.0

    def __init__(self, folder: Path, cloud: Cloud, stack: str) -> None:
        super().__init__(folder)
        self.cloud = cloud
        self.stack = stack
        self._login: tuple[Path, str] | None = None
        self._provide_program()
        (self.project / ".venv").symlink_to(Path(sys.executable).parents[1])
        self._file = self.project / f"Pulumi.{stack}.yaml"
        self._file.write_text(on_subnet((ROOT / "Pulumi.dev.yaml").read_text(), cloud.devcloud))
        self.env |= {
            "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml),
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            "PULUMI_STACK": stack,
        }
        bare = {f"nodes__groups__{group}__flavor": "m1.small" for group in ("control", "worker")}
        self.change(cluster="none", platform="none", storage__volumes={"data": {"sizeGb": 1}}, **bare)
        self.run("stack", "init", stack)

    def _provide_program(self) -> None:
        for name in ("Pulumi.yaml", "__main__.py"):
            (self.project / name).write_text((ROOT / name).read_text())
        for package in ("infra", "kubeyaml"):
            (self.project / package).symlink_to(ROOT / package)

    def change(self, **settings: Any) -> None:
        """Set settings in the stack's file; `__` stands for the dot in their names."""
        self._file.write_text(with_settings(self._file.read_text(), **settings))

    def reach(self, identity: str, **options: Any) -> None:
        """Reach the cloud by another URL of its identity service; `options` go into the clouds.yaml too."""
        yaml = YAML()
        account = yaml.load(self.cloud.clouds_yaml)["clouds"]["devcloud"]
        account["auth"]["auth_url"] = f"{identity}/v3"
        path = self.home / "clouds.yaml"
        path.touch(0o600)
        yaml.dump({"clouds": {"devcloud": account | options}}, path)
        self.env["OS_CLIENT_CONFIG_FILE"] = str(path)

    def preview(self, *arguments: str, verb: str = "preview") -> Counter[Step]:
        """What `preview`, or another verb's preview, says that would be done."""
        preview_only = () if verb == "preview" else ("--preview-only",)
        result = self.run(verb, *preview_only, "--json", *arguments)
        return steps(result.json["steps"])

    def perform(self, verb: str, *arguments: str) -> Update:
        """Run a verb to its end; it must succeed."""
        self._login = None
        began = time.monotonic()
        data = ("--delete-data",) if verb == "destroy" else ()
        result = self.run(verb, "--yes", "--skip-preview", "--json", *data, *arguments)
        seconds = time.monotonic() - began
        events = [json.loads(line) for line in result.stdout.splitlines()]
        # What a refresh finds is known only once it has looked.
        kind = "resOutputsEvent" if verb == "refresh" else "resourcePreEvent"
        done = [event[kind]["metadata"] for event in events if kind in event]
        return Update(steps(done), seconds)

    def up_as_previewed(self) -> Update:
        """`preview`, then `up`: what is done must be what was said."""
        planned = self.preview()
        update = self.perform("up")
        assert update.steps == planned
        return update

    def output(self, name: str) -> Any:
        """An output of the stack."""
        return self.run("stack", "output", "--show-secrets", "--json", name).json

    def login(self) -> tuple[Path, str]:
        """The stack's private key, in a file, and the printed endpoint's `user@address`."""
        if self._login is None:
            path = self.home / "key"
            path.touch(mode=0o600)
            path.write_text(str(self.output("privateKey")))
            self._login = path, str(self.output("endpoints")["ssh"]).removeprefix("ssh ")
        return self._login

    def ssh(self, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the first node, through the printed endpoint."""
        return ssh(*self.login(), command, *options)

    def answers(self, command: str, *options: str) -> bool:
        """Whether a command on the first node succeeds."""
        return self.ssh(command, *options).returncode == 0

    def logs_in(self, node: str) -> bool:
        """Whether `lab ssh` can run a command on a node."""
        return self.run("ssh", node, "true", status=None).status == 0


class Cluster:
    """A stack whose nodes are a cluster, and `kubectl` with the kubeconfig that it puts out."""

    def __init__(self, lab: Deployment, kubeconfig: Path) -> None:
        self.lab = lab
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints."""
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(self.lab.output("kubeconfig"))
        program = BUNDLE / "bin" / "kubernetes" / VERSION / "kubectl"
        result = subprocess.run(
            [program, "--kubeconfig", self.kubeconfig, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def ready(self) -> dict[str, str]:
        """Kubernetes version of each node that is Ready."""
        found: dict[str, Any] = json.loads(self.kubectl("get", "nodes", "--output", "json"))
        return {
            node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"]
            for node in found["items"]
            if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
        }


def ssh(key: Path, target: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a command over SSH, with that key alone."""
    identity = ("-i", str(key), "-o", "IdentitiesOnly=yes")
    return subprocess.run(
        [*SSH, *identity, *options, target, command],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS,
    )  # fmt: skip
