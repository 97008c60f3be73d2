"""What a cluster must know of a machine before it is touched."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: node_state
short_description: Describe a machine that is, or becomes, a Kubernetes node
description: Reads only. Returns the facts `cluster_node`.
options:
  now:
    description:
      - The controller's time in seconds since the epoch, with which this machine's clock is compared. It comes back as
        C(clock_asked), because what C(clock_offset) says ahead may be the time that the question took.
    type: float
    required: true
  ports:
    description: TCP ports that the node's services listen on.
    type: list
    elements: int
    default: []
  commands:
    description: Programs that kubeadm, the kubelet and the network need.
    type: list
    elements: str
    default: []
  disk:
    description: A folder, or one to be, whose file system's free space is told.
    type: path
    default: /var/lib
  sysctl:
    description: Kernel parameters whose values are told.
    type: list
    elements: str
    default: []
"""
CAP_SYS_RESOURCE = 24
LISTEN = "0A"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def read(path):
    """The text of a file; empty where there is none."""
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def listeners(ports):
    """Which program listens on each of the ports that are taken."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read(table).splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == LISTEN and port in ports:
                inodes[f"socket:[{fields[9]}]"] = port
    found = dict.fromkeys(inodes.values(), "unknown")
    if inodes:
        for process in filter(str.isdigit, os.listdir("/proc")):
            folder = f"/proc/{process}/fd"
            try:
                links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
            except OSError:
                continue
            for link in inodes.keys() & set(links):
                found[inodes[link]] = read(f"/proc/{process}/comm").strip()
    return {str(port): name for port, name in found.items()}


def capabilities():
    """Effective capabilities of root here, as a bit set."""
    lines = dict(line.split(":", 1) for line in read("/proc/self/status").splitlines())
    return int(lines["CapEff"], 16)


def kubelet_version():
    """The version of the kubelet that is installed; empty where there is none."""
    program = shutil.which("kubelet", path=SYSTEM_PATH)
    if program is None:
        return ""
    done = subprocess.run([program, "--version"], check=False, capture_output=True, text=True)
    return done.stdout.strip().rpartition(" ")[2]


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "now": {"type": "float", "required": True},
            "ports": {"type": "list", "elements": "int", "default": []},
            "commands": {"type": "list", "elements": "str", "default": []},
            "disk": {"type": "path", "default": "/var/lib"},
            "sysctl": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    space = os.statvfs(module.params["disk"])
    # kubeadm's configuration is there only while kubeadm runs, or a node is upgraded.
    unfinished = os.path.exists("/etc/kubernetes/kubeadm.yaml")
    memory = next((line for line in read("/proc/meminfo").splitlines() if line.startswith("MemTotal:")), "_ 0")
    module.exit_json(
        ansible_facts={
            "cluster_node": {
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
                "cgroup_v2": os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
                "clock_asked": module.params["now"],
                "clock_offset": round(time.time() - module.params["now"], 1),
                "container": read("/run/systemd/container").strip(),
                "disk_free_mib": space.f_bavail * space.f_frsize >> 20,
                "hostname": socket.gethostname(),
                "joined": os.path.exists("/etc/kubernetes/kubelet.conf") and not unfinished,
                "kubelet_version": kubelet_version(),
                "listeners": listeners(set(module.params["ports"])),
                "memory_mib": int(memory.split()[1]) >> 10,
                "missing_commands": [
                    name for name in module.params["commands"] if shutil.which(name, path=SYSTEM_PATH) is None
                ],
                "overlay": "\toverlay\n" in read("/proc/filesystems"),
                "python": list(sys.version_info[:2]),
                "sysctl": {
                    name: read("/proc/sys/" + name.replace(".", "/")).strip() for name in module.params["sysctl"]
                },
                "foreign": [
                    found
                    for name in ("containerd", "kubeadm", "kubelet")
                    if (found := shutil.which(name, path="/usr/sbin:/usr/bin"))
                ],
                "swap": [line.split()[0] for line in read("/proc/swaps").splitlines()[1:]],
                "sys_resource": bool(capabilities() >> CAP_SYS_RESOURCE & 1),
                "systemd": os.path.isdir("/run/systemd/system"),
                "unfinished": unfinished,
                "upgrading": os.path.exists("/etc/kubernetes/upgrade.yaml"),
            }
        }
    )


if __name__ == "__main__":
    main()
