"""The good configuration, and how a wrong one is written."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ruamel.yaml import YAML

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


def laid_over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7386)."""
    merged = dict(copy.deepcopy(base))
    for key, value in change.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key, {}), Mapping):
            merged[key] = laid_over(merged.get(key, {}), value)
        else:
            merged[key] = value
    return merged


def configuration(change: str = "{}") -> dict[str, Any]:
    """The good configuration, changed."""
    good: dict[str, Any] = YAML(typ="safe").load(GOOD)["config"]
    return laid_over(good, {f"ml-cluster:{key}": value for key, value in YAML(typ="safe").load(change).items()})


def write_key_files(folder: Path) -> None:
    """Write what configurations name as files of public keys, and is none."""
    private = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (folder / "private").write_bytes(private)
    (folder / "text").write_text("hello\n")
    (folder / "two.pub").write_text(f"{PUBLIC_KEY}\n{PUBLIC_KEY}\n")
    (folder / "putty.pub").write_text("---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n")
    (folder / "utf16.pub").write_text(PUBLIC_KEY, encoding="utf-16")
    (folder / "large.pub").write_bytes(bytes(100_000))
    (folder / "empty.pub").touch()
