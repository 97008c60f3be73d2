"""First program in devcloud's namespaces: sets up file systems and networks, then executes the supervisor.

Runs under the machine's Python with only the standard library: `unshare ... init.py PLAN`, where PLAN is the JSON file
that `devcloud.services` writes. All it creates is in private mount and network namespaces, and disappears with them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def run(*command: str) -> None:
    """Run a command; raise CalledProcessError if it fails."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def mount(source: str, target: Path | str, kind: str | None = None, options: str | None = None) -> None:
    """Mount, and create the mount point if it is missing."""
    Path(target).mkdir(parents=True, exist_ok=True)
    command = ["mount"]
    command += ["-t", kind] if kind else []
    command += ["-o", options] if options else []
    run(*command, source, str(target))


def mount_cgroups(root: Path) -> None:
    """Mount the cgroup hierarchies of this namespace, in which devcloud's own cgroups are the root."""
    top = root / "sys/fs/cgroup"
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    if all(not controllers for _, controllers, _ in lines):
        mount("cgroup2", top, "cgroup2")
        return
    mount("tmpfs", top, "tmpfs", "mode=755")
    for _, controllers, _ in lines:
        if not controllers:
            mount("cgroup2", top / "unified", "cgroup2")
        elif controllers.startswith("name="):
            mount("cgroup", top / controllers.removeprefix("name="), "cgroup", f"none,{controllers}")
        else:
            mount("cgroup", top / controllers, "cgroup", controllers)


def enter_root(root: Path, binds: dict[str, str], tmpfs: list[str]) -> None:
    """Make `root` the root of this mount namespace; of the machine's files, only `binds` stay visible."""
    run("mount", "--make-rprivate", "/")
    mount(str(root), root, options="bind")
    mount("proc", root / "proc", "proc")
    mount("sysfs", root / "sys", "sysfs")
    mount_cgroups(root)
    mount("/dev", root / "dev", options="rbind")
    for folder in tmpfs:
        mount("tmpfs", root / folder.lstrip("/"), "tmpfs", "mode=755")
    for source, target in binds.items():
        mount(source, root / target.lstrip("/"), options="bind")
    old = root / "mnt"
    os.chdir(root)
    run("pivot_root", ".", "mnt")
    os.chdir("/")
    run("umount", "--lazy", f"/{old.name}")


def main() -> None:
    """Set up the namespaces, then execute the supervisor."""
    plan_path = sys.argv[1]
    plan = json.loads(Path(plan_path).read_text())
    enter_root(Path(plan["root"]), plan["binds"], plan["tmpfs"])
    for path, text in plan["files"].items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    for command in plan["prepare"]:
        run(*command)
    os.execv("/usr/bin/python3", ["devcloud-supervisor", "/opt/devcloud/supervisor.py", plan_path])  # noqa: S606


if __name__ == "__main__":
    main()
