"""The stages of `up`, `reset` and `purge`."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from devcloud import images, rootfs
from devcloud.config import Configuration
from devcloud.control import Control
from devcloud.database import Schemas, initialise
from devcloud.errors import DevcloudError
from devcloud.layout import Layout, Passwords, Settings
from devcloud.seed import Seed, faults
from devcloud.services import BASE, PARENTS, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Measured: what the control plane takes, and what the trees, the image and their making take.
NEEDED_MEMORY_GIB = 6
NEEDED_DISK_GIB = 8
# Restarts after which `up` gives a service up; the supervisor goes on trying.
CRASHES = 5


class Progress:
    """One line a stage on standard output: what, how long; on a terminal also what it waits for, while it waits."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.stages: list[tuple[str, float]] = []
        self._terminal = sys.stdout.isatty()

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a stage. The value is a function that says what the stage waits for or what came of it."""
        began = time.monotonic()
        detail = ""
        over = threading.Event()

        def say(text: str) -> None:
            nonlocal detail
            detail = text

        def tick() -> None:
            while not over.wait(0.5):
                print(f"\r\x1b[2K  {name} {time.monotonic() - began:5.0f} s  {detail}", end="", flush=True)

        ticker = threading.Thread(target=tick, daemon=True)
        if self._terminal:
            ticker.start()
        try:
            yield say
        finally:
            over.set()
            if self._terminal:
                ticker.join()
                print("\r\x1b[2K", end="")
            took = time.monotonic() - began
            self.stages.append((name, took))
            print(f"  {name:<22}{took:7.1f} s  {detail}".rstrip(), flush=True)


class Devcloud:
    """One devcloud, known by its state folder."""

    def __init__(self, state: Path, settings: Settings | None = None) -> None:
        self._settings_file = state / "settings.json"
        if settings is None and self._settings_file.exists():
            settings = Settings.model_validate_json(self._settings_file.read_text())
        self.layout = Layout(state, settings or Settings())
        self.control = Control(self.layout)
        self.passwords = Passwords(self.layout.cache / "passwords")

    @property
    def is_running(self) -> bool:
        """Whether the supervisor lives."""
        return self.control.first_process() is not None

    def check_machine(self) -> None:
        """Refuse a machine that cannot carry devcloud, with all reasons at once.

        Raises:
            DevcloudError: this is not Linux, not root, or there is too little memory or disk.
        """
        alternatives = "use a cloud of your own: set OS_CLIENT_CONFIG_FILE and OS_CLOUD, or a stack made for it"
        if sys.platform != "linux":
            raise DevcloudError("devcloud needs Linux: its instances are containers", remedy=alternatives)
        reasons = []
        if os.geteuid() != 0:
            reasons.append("needs root, to make namespaces (try sudo)")
        memory = next(
            int(line.split()[1]) / 2**20
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("MemAvailable:")
        )
        if memory < NEEDED_MEMORY_GIB and not self.is_running:
            reasons.append(f"needs {NEEDED_MEMORY_GIB} GiB of free memory; {memory:.1f} are free")
        existing = next(path for path in (self.layout.state, *self.layout.state.parents) if path.exists())
        disk = shutil.disk_usage(existing).free / 2**30
        if disk < NEEDED_DISK_GIB:
            reasons.append(f"needs {NEEDED_DISK_GIB} GiB of disk for {self.layout.state}; {disk:.1f} are free")
        if reasons:
            raise DevcloudError("devcloud " + "; ".join(reasons), remedy=alternatives)

    def up(self, progress: Progress) -> None:
        """Bring everything up; what is up already is left alone.

        Raises:
            DevcloudError: a stage failed; running `up` again resumes.
        """
        self.check_machine()
        self.layout.make_folders()
        self._settings_file.write_text(self.layout.settings.model_dump_json(indent=1))
        with progress.stage("packages") as say:
            if rootfs.is_ready(self.layout):
                say("in place")
            else:
                rootfs.make(self.layout)
        with ThreadPoolExecutor(max_workers=1) as pool:
            image = pool.submit(images.make, self.layout)
            self._start_services(progress)
            self._seed(progress, image)

    def _start_services(self, progress: Progress) -> None:
        schemas = Schemas(self.control, self.passwords)
        with progress.stage("namespaces"):
            Configuration(self.layout, self.passwords).write()
            self.control.start()
        with progress.stage("database, message bus") as say:
            self.control.call("start", *PARENTS)
            initialise(self.control)
            self._start(say, *BASE)
        with progress.stage("schemas") as say:
            say(schemas.prepare())
        with progress.stage("keystone") as say:
            self._start(say, "keystone")
        with progress.stage("accounts"):
            Seed(self.layout, self.passwords).identity()
            schemas.keep()
        with progress.stage("services") as say:
            self._start(say)

    def _seed(self, progress: Progress, image: Future[Path]) -> None:
        seed = Seed(self.layout, self.passwords)
        with progress.stage("cloud"):
            with ThreadPoolExecutor() as pool:
                parts = [seed.student, seed.network, seed.flavors, seed.volume_types]
                for part in [pool.submit(work) for work in parts]:
                    part.result()
            seed.quotas()
        with progress.stage("image") as say:
            say("being made")
            path = image.result()
            say(path.name)
            seed.image(path)
            if self.layout.settings.fake_host:
                seed.fake_image()
        with progress.stage("compute hosts") as say:
            self._wait(say, seed.missing_hosts)
            seed.reservable_hosts()
        with progress.stage("health") as say:
            self._wait(say, lambda: {f"{name} ({fault})" for name, fault in self.health() if fault})

    def _start(self, say: Callable[[str], None], *names: str) -> None:
        self.control.call("start", *names)
        wanted = set(names) or {service.name for service in table(self.layout)}

        def missing() -> set[str]:
            services = [entry for entry in self.control.call("status").services if entry.name in wanted]
            for entry in services:
                if entry.restarts >= CRASHES and entry.state != "running":
                    raise DevcloudError(
                        f"{entry.name} ends as soon as it starts: {entry.last_error}",
                        remedy=f"lab devcloud logs {entry.name}",
                    )
            return {entry.name for entry in services if entry.state != "running"}

        self._wait(say, missing)

    def _wait(self, say: Callable[[str], None], missing: Callable[[], set[str]], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while left := missing():
            say("waits for " + ", ".join(sorted(left)))
            if time.monotonic() > deadline:
                raise DevcloudError(
                    f"after {seconds:.0f} s these are not ready: {', '.join(sorted(left))}",
                    remedy=f"lab devcloud logs {min(left)}; the logs are in {self.layout.log}",
                )
            time.sleep(0.2)
        say("")

    def health(self) -> Iterator[tuple[str, str | None]]:
        """Ask every API; see `devcloud.seed.faults`."""
        yield from faults(self.layout, self.passwords)

    def down(self) -> None:
        """Stop; data stay."""
        self.control.stop()

    def reset(self) -> None:
        """Stop and forget all data and settings; the trees, the image and the databases' first dump stay."""
        self.control.stop()
        for folder in (self.layout.data, self.layout.etc, self.layout.run, self.layout.log):
            shutil.rmtree(folder, ignore_errors=True)
        self.layout.clouds_yaml.unlink(missing_ok=True)
        self._settings_file.unlink(missing_ok=True)

    def purge(self) -> None:
        """`reset`, and remove the whole state folder."""
        self.reset()
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)
