"""The stages of `up`, `reset` and `purge`."""

from __future__ import annotations

import configparser
import fcntl
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from devcloud import images, machine, rootfs
from devcloud.config import CONTROLLER, Configuration
from devcloud.control import Control
from devcloud.database import Schemas, initialise
from devcloud.errors import DevcloudError
from devcloud.layout import Layout, Passwords, Settings
from devcloud.seed import Seed, faults
from devcloud.services import BASE, BUS, EXPORTER, PARENTS, table, virtual_machines
from terminal.progress import Stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

# `up` fails after this many restarts of a service; the supervisor continues to restart it.
CRASHES = 5


class Devcloud:
    """A devcloud, identified by its state folder. The first `up` saves `settings`; later ones may repeat them."""

    def __init__(self, state: Path, settings: Settings | None = None) -> None:
        self._settings_file = state / "settings.json"
        self._requested = settings or Settings()
        saved = Settings.model_validate_json(self._settings_file.read_text()) if self._settings_file.exists() else None
        self.layout = Layout(state, saved or self._requested)
        self.control = Control(self.layout)
        self.passwords = Passwords(self.layout.cache / "passwords")

    @property
    def is_running(self) -> bool:
        """Whether the supervisor is running."""
        return self.control.first_process() is not None

    def check_machine(self) -> None:
        """Refuse a machine on which devcloud cannot run, with all reasons; see `devcloud.machine.check`."""
        machine.check(self.layout, self.control.name, running=self.is_running)

    def up(self, out: TextIO | None = None) -> Stages:
        """Start everything that is not running; show the stages on `out` (standard output), and return them.

        Raises:
            DevcloudError: a stage failed; running `up` again resumes.
        """
        requested, saved = self._requested, self.layout.settings
        if changed := [name for name in requested.model_fields_set if getattr(requested, name) != getattr(saved, name)]:
            raise DevcloudError(
                f"the devcloud in {self.layout.state} has another {' and another '.join(sorted(changed))}",
                remedy="leave the option out; or run `lab devcloud reset`, which deletes its data, and `up` again",
            )
        self.check_machine()
        with self._locked(), Stages("Starting devcloud", out=out) as stages:
            self.layout.make_folders()
            self._settings_file.write_text(self.layout.settings.model_dump_json(indent=1))
            with stages.stage("Check mmdebstrap") as stage:
                machine.install_bootstrap(self.layout, stage.wait_for)
            image = in_background(lambda: self._make_image(stages))
            with stages.stage("Install packages") as stage:
                if not rootfs.is_ready(self.layout):
                    rootfs.make(self.layout, stage.wait_for)
            self._start_services(stages)
            self._seed(stages, image)
            if self.is_complete:
                self._complete(stages)
        return stages

    @property
    def is_complete(self) -> bool:
        """Whether all images have been created."""
        return all(image.is_made(self.layout) for image in images.later(self.layout.settings))

    def complete(self, out: TextIO | None = None) -> None:
        """Add further images and the host for virtual machines, which take minutes and are not needed at first.

        `up` does this itself when the images exist.

        Raises:
            DevcloudError: a stage failed; running `up` again resumes.
        """
        with self._locked(), Stages("Completing devcloud, which is ready for use", out=out) as stages:
            self._complete(stages)

    def _complete(self, stages: Stages) -> None:
        seed = Seed(self.layout, self.passwords)
        for image in images.later(self.layout.settings):
            with stages.stage(f"Create {image.name}"):
                path = images.make(self.layout, image)
            with stages.stage(f"Upload {image.name}"):
                seed.image(image, path)
        if self.layout.settings.virtual_machines:
            with stages.stage("Start the host for virtual machines") as stage:
                self._start(stage.wait_for, *(service.name for service in virtual_machines(self.layout)))
                self._wait(stage.wait_for, lambda: seed.missing_hosts(CONTROLLER))

    @property
    def virtualisation(self) -> str | None:
        """Hypervisor of virtual machines, `kvm` or `qemu` (emulated); None if not determined yet."""
        config = configparser.ConfigParser()
        config.read(self.layout.virtualisation)
        return config.get("libvirt", "virt_type", fallback=None)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of this devcloud."""
        self.layout.state.mkdir(parents=True, exist_ok=True)
        with (self.layout.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DevcloudError(
                    f"another command is using the devcloud in {self.layout.state}", remedy="wait until it has finished"
                ) from None
            yield

    def _make_image(self, stages: Stages) -> Path:
        with stages.stage("Create the image"):
            return images.make(self.layout, images.CONTAINER)

    def _start_services(self, stages: Stages) -> None:
        schemas = Schemas(self.control, self.passwords)
        with stages.stage("Start the namespaces"):
            Configuration(self.layout, self.passwords).write()
            self.control.start()
        with stages.stage("Start database and message bus") as stage:
            self.control.call("start", *PARENTS, *BUS)
            initialise(self.control)
            self._start(stage.wait_for, *BASE)
        with stages.stage("Prepare the databases") as stage:
            schemas.prepare(stage.wait_for)
        with stages.stage("Start keystone") as stage:
            self._start(stage.wait_for, "keystone")
        with stages.stage("Create accounts"):
            Seed(self.layout, self.passwords).identity()
            schemas.keep()
        with stages.stage("Start the other services") as stage:
            later = [] if self.is_complete else virtual_machines(self.layout)
            names = [service.name for service in table(self.layout) if service not in later]
            names.remove(EXPORTER)
            self._start(stage.wait_for, *names)
        # Nothing of the cloud needs it, and a supervisor that an earlier release started does not know it.
        with suppress(DevcloudError):
            self.control.call("start", EXPORTER)

    def _seed(self, stages: Stages, image: Future[Path]) -> None:
        seed = Seed(self.layout, self.passwords)
        with stages.stage("Create resources"):
            with ThreadPoolExecutor() as pool:
                parts = [seed.students, seed.network, seed.flavors, seed.volume_types]
                for part in [pool.submit(work) for work in parts]:
                    part.result()
            seed.quotas()
        with stages.stage("Upload the image") as stage:
            stage.wait_for("the image")
            path = image.result()
            stage.wait_for("glance")
            seed.image(images.CONTAINER, path)
            if self.layout.settings.fake_host:
                seed.fake_image()
        with stages.stage("Find the compute hosts") as stage:
            self._wait(stage.wait_for, seed.missing_hosts)
            seed.reservable_hosts()
        with stages.stage("Check every API") as stage:
            self._wait(stage.wait_for, lambda: {f"{name} ({problem})" for name, problem in self.health() if problem})

    def _start(self, say: Callable[[str], None], *names: str) -> None:
        self.control.call("start", *names)

        def missing() -> set[str]:
            services = [entry for entry in self.control.call("status").services if entry.name in names]
            for entry in services:
                if entry.restarts >= CRASHES and entry.state != "running":
                    raise DevcloudError(
                        f"{entry.name} exits when it starts: {entry.last_error}",
                        remedy=f"see its log: lab devcloud logs {entry.name}",
                    )
            return {entry.name for entry in services if entry.state != "running"}

        self._wait(say, missing)

    def _wait(self, say: Callable[[str], None], missing: Callable[[], set[str]], seconds: float = 300) -> None:
        """Wait until nothing is missing; fail after `seconds` without progress."""
        fewest, deadline = None, 0.0
        while left := missing():
            say(", ".join(sorted(left)))
            if fewest is None or len(left) < fewest:
                fewest, deadline = len(left), time.monotonic() + seconds
            if time.monotonic() > deadline:
                raise DevcloudError(
                    f"not ready after {seconds:.0f} s: {', '.join(sorted(left))}",
                    remedy=f"see `lab devcloud logs {min(left)}`, or the logs in {self.layout.log}",
                )
            time.sleep(0.2)

    def health(self) -> Iterator[tuple[str, str | None]]:
        """Check every API; see `devcloud.seed.faults`."""
        yield from faults(self.layout, self.passwords)

    def down(self) -> None:
        """Stop, and keep the data."""
        if self.layout.state.exists():
            with self._locked():
                self.control.stop()

    def reset(self) -> None:
        """Stop and delete data and settings; keep trees, images and the dump of empty databases."""
        if self.layout.state.exists():
            with self._locked():
                self._reset()

    def _reset(self) -> None:
        self.control.stop()
        layout = self.layout
        unfinished = [*layout.state.glob("*.new"), *layout.cache.glob("tree-*")]
        for folder in (layout.data, layout.etc, layout.run, layout.log, *unfinished):
            shutil.rmtree(folder, ignore_errors=True)
        layout.clouds_yaml.unlink(missing_ok=True)
        self._settings_file.unlink(missing_ok=True)

    def purge(self) -> None:
        """`reset`, then remove the state folder and the packages that `up` installed on the machine."""
        if self.layout.state.exists():
            with self._locked():
                self._reset()
                machine.remove_bootstrap(self.layout)
                shutil.rmtree(self.layout.state)


def in_background(work: Callable[[], Path]) -> Future[Path]:
    """Run `work` in a daemon thread."""
    future: Future[Path] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
