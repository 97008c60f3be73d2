"""Interpreters that have their modules loaded: tests start thousands of short commands, which mostly import.

`launchers()` makes two programs that take the arguments of `python`. Each asks a server, started once for this process
of pytest, for a fork of itself that has the caller's arguments, environment, folder and files, and ends as that does.
Where a server cannot help, they start Python as usual.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("server.py")
CLIENT = Path(__file__).with_name("client.py")
LAB = (
    "cli.app",
    "cli.display",
    "cli.display.tree",
    "cli.operations",
    "cli.origin",
    "cli.plans",
    "cli.provision",
    "engine.backend.file",
    "engine.operations",
    "services.delivery.history",
)
"""What most commands of `lab` load."""
SDK = (
    "grpc.aio",
    "pulumi",
    "pulumi.dynamic.dynamic",
    "pulumi.runtime.proto.provider_pb2_grpc",
    "pulumi.provider.server",
    "pulumi.runtime.stack",
    "pulumi_kubernetes",
    "pulumi_openstack.networking",
    "pulumi_policy.policy",
    "pydantic",
    "ruamel.yaml",
    "cryptography.hazmat.primitives.serialization.ssh",
)
"""What programs, policy packs and providers load."""


@dataclass(frozen=True)
class Launchers:
    """Programs that take Python's arguments."""

    lab: Path
    """For `cli/__main__.py`."""
    python: Path
    """`bin/python` of a folder that looks like a virtual environment: for programs and providers."""

    @property
    def virtualenv(self) -> Path:
        """The folder of `python`."""
        return self.python.parents[1]


@cache
def launchers() -> Launchers:
    """The launchers of this process; their servers end with it."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    atexit.register(shutil.rmtree, folder)
    made = Launchers(folder / "lab", folder / "venv/bin/python")
    made.python.parent.mkdir(parents=True)
    for path, modules in ((made.lab, LAB), (made.python, SDK)):
        socket = folder / f"{path.name}.socket"
        process = subprocess.Popen(
            [sys.executable, "-P", str(SERVER), str(socket), *modules], stdin=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdin is not None
        atexit.register(process.wait)
        atexit.register(process.stdin.close)
        text = CLIENT.read_text().replace("@socket@", str(socket)).replace("@python@", sys.executable)
        path.write_text(f"#!{sys.executable} -IS\n{text}")
        path.chmod(0o755)
    return made
