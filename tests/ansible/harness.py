"""Runs the playbooks on inventories that the tests write, and reads what came of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ANSIBLE = Path(__file__).parents[2] / "ansible"
PROGRAMS = Path(sys.executable).parent
TASK_TIME = re.compile(r"^(.+?) -+ ([\d.]+)s$", re.MULTILINE)

SAMPLE = ANSIBLE / "inventory/sample.yml"

Host = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A playbook that has ended."""

    status: int
    output: str
    seconds: float

    @property
    def changes(self) -> list[str]:
        """The tasks that changed something, each with its host."""
        found = []
        for part in re.split(r"^(?:TASK|RUNNING HANDLER) ", self.output, flags=re.MULTILINE)[1:]:
            hosts = re.findall(r"^changed: \[(.+?)\]", part.partition("PLAY RECAP")[0], re.MULTILINE)
            found += [f"{part.partition(']')[0][1:]} on {host}" for host in hosts]
        return found

    def stages(self) -> str:
        """The longest tasks, longest first."""
        rows = TASK_TIME.findall(self.output.rpartition("TASKS RECAP")[2])
        return ", ".join(f"{name.rpartition(' : ')[2]} {seconds} s" for name, seconds in rows)


def inventory(control_plane: dict[str, Host], workers: dict[str, Host], **variables: Any) -> dict[str, Any]:
    """An inventory with these machines and variables, and no others."""
    children = {"control_plane": {"hosts": control_plane}, "workers": {"hosts": workers}}
    return {"all": {"vars": variables, "children": children}}


def filled_in(control_plane: dict[str, Host], workers: dict[str, Host], **variables: Any) -> dict[str, Any]:
    """The sample inventory, as someone fills it in by hand."""
    sample: dict[str, Any] = yaml.safe_load(SAMPLE.read_text())
    own = inventory(control_plane, workers)["all"]["children"]
    return {"all": {"vars": sample["all"]["vars"] | variables, "children": sample["all"]["children"] | own}}


def play(playbook: str | Path, hosts: dict[str, Any], folder: Path, *arguments: str, **variables: Any) -> Run:
    """Run a playbook of `ansible/`, or one at a path, with extra variables."""
    file = folder / "inventory.json"
    file.write_text(json.dumps(hosts))
    path = playbook if isinstance(playbook, Path) else ANSIBLE / "playbooks" / f"{playbook}.yml"
    command: list[str | Path] = [PROGRAMS / "ansible-playbook", "-i", file, path]
    command += ["-e", json.dumps(variables), *arguments]
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ANSIBLE, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Run(done.returncode, done.stdout, time.monotonic() - began)
