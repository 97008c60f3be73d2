"""Runs images of a bundle as a cluster would: by runc, as their user, with a read-only root and nothing allowed."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bundle.store import Store

SECONDS_TO_STOP = 30


@dataclass
class Image:
    """An image's tree and its settings."""

    root: Path
    config: dict[str, Any]

    @classmethod
    def unpack(cls, archive: Path, reference: str, root: Path) -> Image:
        """Unpack an OCI archive to the new folder `root`."""
        source = f"oci-archive:{archive}:{reference}"
        root.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            subprocess.run(["skopeo", "copy", "--quiet", "--dest-decompress", source, f"dir:{scratch}/it"], check=True)
            manifest = json.loads(Path(scratch, "it/manifest.json").read_text())
            for layer in manifest["layers"]:
                file = f"{scratch}/it/{layer['digest'].removeprefix('sha256:')}"
                subprocess.run(["tar", "--extract", "--file", file, "--directory", root], check=True)
            config = Path(scratch, "it", manifest["config"]["digest"].removeprefix("sha256:")).read_text()
        return cls(root, json.loads(config)["config"])


@dataclass
class Runtime:
    """Where containers are run by a bundle's runc."""

    runc: Path
    work: Path
    running: list[Container] = field(default_factory=list)
    tag: str = field(default_factory=lambda: secrets.token_hex(4))
    """A container's control group is called as it is: two runs at once have different ones."""

    @cached_property
    def state(self) -> Path:
        """runc's own folder."""
        return self.work / "runc"

    def start(
        self,
        image: Image,
        name: str,
        arguments: Sequence[str] | None = None,
        *,
        entrypoint: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        mounts: Mapping[Path, str] | None = None,
        read_only: Mapping[Path, str] | None = None,
    ) -> Container:
        """Start a container in the network of this machine, with an empty /tmp and `mounts` to write to."""
        folder = self.work / name
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        uid = int(image.config["User"].partition(":")[0])
        os.chown(folder / "tmp", uid, uid)
        for path in mounts or {}:
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, uid, uid)
        command = [*(entrypoint or image.config["Entrypoint"]), *(arguments or image.config.get("Cmd") or [])]
        env = [*image.config["Env"], *(f"{key}={value}" for key, value in (environment or {}).items())]
        resolv = {Path("/etc/hosts"): "/etc/hosts"}
        binds = [
            *((path, target, "rw") for path, target in {folder / "tmp": "/tmp", **(mounts or {})}.items()),  # noqa: S108
            *((path, target, "ro") for path, target in {**resolv, **(read_only or {})}.items()),
        ]
        (folder / "config.json").write_text(json.dumps(_specification(image, command, env, uid, binds)))
        container = Container(self, name, folder, image.config.get("StopSignal", "SIGTERM"))
        self.running.append(container)
        container.start()
        return container

    def stop(self) -> None:
        """End all that run, the newest first."""
        for container in reversed(self.running):
            container.stop()


@dataclass
class Container:
    """One that was started."""

    runtime: Runtime
    name: str
    folder: Path
    stop_signal: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def id(self) -> str:
        """What runc knows it by."""
        return f"{self.name}-{self.runtime.tag}"

    @property
    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output").read_text(errors="replace")

    def start(self) -> None:
        """Run it again, with the same folders."""
        assert self.process is None
        with (self.folder / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*self._runc, "run", "--bundle", self.folder, self.id], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def _runc(self) -> list[str | Path]:
        return [self.runtime.runc, "--root", self.runtime.state]

    def run(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        env = [word for key, value in (environment or {}).items() for word in ("--env", f"{key}={value}")]
        return subprocess.run(
            [*self._runc, "exec", *env, self.id, *command], check=False, capture_output=True, text=True
        )

    def wait(self, seconds: float = 600) -> int:
        """Wait for its end; its exit status."""
        assert self.process
        status = self.process.wait(seconds)
        self.process = None
        return status

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process
            assert self.process.poll() is None, f"{self.name} ended: {self.output[-3000:]}"
            assert time.monotonic() < deadline, f"{self.name} is not ready: {self.output[-3000:]}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it as a lost machine would."""
        self._end("SIGKILL")

    def stop(self) -> None:
        """End it as a cluster would."""
        if self.process:
            self._end(self.stop_signal)

    def signal(self, name: str) -> None:
        """Send it a signal."""
        subprocess.run([*self._runc, "kill", self.id, name], check=False, capture_output=True)

    def _end(self, how: str) -> None:
        assert self.process
        self.signal(how)
        try:
            self.process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.signal("SIGKILL")
            self.process.wait()
            raise AssertionError(f"{self.name} did not end {SECONDS_TO_STOP} s after {how}") from None
        finally:
            self.process = None


def _specification(
    image: Image, command: list[str], env: list[str], uid: int, binds: list[tuple[Path, str, str]]
) -> dict[str, Any]:
    """The runtime specification that Kubernetes' `restricted` pods amount to."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": uid, "gid": uid},
            "args": command,
            "env": env,
            "cwd": image.config.get("WorkingDir") or "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(image.root), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"]},  # noqa: S108
            *(
                {"destination": target, "type": "bind", "source": str(path), "options": ["bind", mode]}
                for path, target, mode in binds
            ),
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
    }


def program(store: Store, name: str) -> Path:
    """A program of a bundle."""
    [found] = [one for one in store.inventory().artifacts if one.name == name and one.kind == "program"]
    return store.root / found.path


def image(store: Store, name: str, root: Path) -> Image:
    """An image of a bundle, unpacked."""
    [found] = [one for one in store.inventory().artifacts if one.name == name and one.kind == "image"]
    return Image.unpack(store.root / found.path, f"localhost/{name}:{found.version}", root)
