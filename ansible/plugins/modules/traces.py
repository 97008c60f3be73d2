"""What a cluster leaves in the kernel of a machine that no longer belongs to it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: traces
short_description: Remove files, mounts, network namespaces, packet filters, cgroups and profiles of a cluster
description: For a machine on which the kubelet and containerd are stopped.
options:
  paths:
    description: Files and folders.
    type: list
    elements: path
    required: true
  emptied:
    description: Folders that are removed where nothing is in them, in this order.
    type: list
    elements: path
    default: []
"""
FOLDERS = ("/var/lib/kubelet/", "/run/containerd/", "/run/netns/cni-")
TABLES = {"kube-proxy", "network-policy", "pod-network", "cni_hostport", "cni_plugins_masquerade"}
# Chains that the kubelet makes, in tables which may be others' too.
KUBELET_CHAINS = "KUBE-"
# With cgroup v2 systemd holds the pods' cgroups, and would make them anew: they end with their slice.
SLICE = "kubepods.slice"
CGROUPS = ("kubepods", SLICE, "k8s.io")
# containerd loads it into the kernel, where no file leads to it.
PROFILE = "cri-containerd.apparmor.d"
PROFILES = Path("/sys/kernel/security/apparmor")


class Remover:
    """Removes, and remembers what; in check mode it only remembers."""

    def __init__(self, module):
        self.module = module
        self.removed = []

    def run(self, *command):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            self.module.fail_json(msg=f"{' '.join(command)}: {done.stderr.strip()}", removed=self.removed)

    def remove(self, what, *command):
        self.removed.append(what)
        if not self.module.check_mode:
            self.run(*command)

    def mounts(self):
        points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for point in reversed([point for point in points if point.startswith(FOLDERS)]):
            self.remove(f"mount {point}", "umount", "--lazy", point)
        for namespace in Path("/run/netns").glob("cni-*"):
            self.remove(f"network namespace {namespace.name}", "ip", "netns", "delete", namespace.name)

    def filters(self):
        done = subprocess.run(["nft", "--json", "list", "ruleset"], check=False, capture_output=True, text=True)
        objects = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []

        def of(kind):
            return [entry[kind] for entry in objects if kind in entry]

        def table(item):
            return item["family"], item["table"]

        rules, chains = of("rule"), of("chain")
        ours = {table(chain) for chain in chains if chain["name"].startswith(KUBELET_CHAINS)}
        foreign = {
            table(rule)
            for rule in rules
            if not rule["chain"].startswith(KUBELET_CHAINS) and KUBELET_CHAINS not in json.dumps(rule["expr"])
        }
        for family, name in sorted(
            {(one["family"], one["name"]) for one in of("table") if one["name"] in TABLES} | (ours - foreign)
        ):
            self.remove(f"table {family} {name}", "nft", "delete", "table", family, name)
        mixed = ours & foreign
        for rule in rules:
            if table(rule) in mixed and KUBELET_CHAINS in json.dumps(rule["expr"]):
                handle = str(rule["handle"])
                self.remove("rule", "nft", "delete", "rule", *table(rule), rule["chain"], "handle", handle)
        for action in ("flush", "delete"):
            for chain in chains:
                if table(chain) in mixed and chain["name"].startswith(KUBELET_CHAINS):
                    self.remove(f"chain {chain['name']}", "nft", action, "chain", *table(chain), chain["name"])

    def cgroups(self):
        if Path("/run/systemd/transient", SLICE).exists():
            self.remove(f"slice {SLICE}", "systemctl", "stop", SLICE)
        for name in CGROUPS:
            for top in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), Path("/sys/fs/cgroup", name)]:
                if not top.is_dir() or top.parent.is_symlink():
                    continue
                self.removed.append(f"cgroup {top}")
                if self.module.check_mode:
                    continue
                for folder, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(folder).rmdir()

    def profiles(self):
        try:
            loaded = Path(PROFILES, "profiles").read_text().splitlines()
        except OSError:
            return
        if any(line.split(" (")[0] == PROFILE for line in loaded):
            self.removed.append(f"AppArmor profile {PROFILE}")
            if not self.module.check_mode:
                Path(PROFILES, ".remove").write_text(PROFILE)

    def files(self):
        for path in map(Path, self.module.params["paths"]):
            if not path.is_symlink() and not path.exists():
                continue
            self.removed.append(str(path))
            if self.module.check_mode:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def folders(self):
        for path in map(Path, self.module.params["emptied"]):
            if path.is_dir() and not any(path.iterdir()):
                self.remove(str(path), "rmdir", str(path))


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "emptied": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    remover = Remover(module)
    remover.mounts()
    remover.filters()
    remover.cgroups()
    remover.profiles()
    remover.files()
    remover.folders()
    module.exit_json(changed=bool(remover.removed), removed=remover.removed)


if __name__ == "__main__":
    main()
