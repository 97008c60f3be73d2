"""The images of the forge and of its jobs: what the cluster runs, by the bundle's runc, with nothing allowed.

Needs the families runc, postgres and mlflow in the bundle too, as root, and a package index.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from infra.manifests import TREE
from tests.engine.harness import wait_for
from tests.forge.box import JOBS, REPOSITORY, SERVER, Box, job_pod
from tests.forge.pulls import ROOT, WORKFLOWS
from tests.images.containers import Container, Image, Runtime
from tests.k8s.object_store import SECRET, running
from tests.providers.kubernetes.control_plane import BUNDLE, program
from tests.services.delivery.postgres import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKUP = TREE / "platform" / "backup"
KEYS = {"AWS_ACCESS_KEY_ID": "setup", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
pytestmark = [pytest.mark.slow_forge, pytest.mark.timeout(3600)]
SECONDS = 1800.0
MIB = 1 << 20
CERTIFICATES = Path("/etc/ssl/certs")
OF_THIS_MACHINE = {CERTIFICATES: str(CERTIFICATES), Path("/etc/resolv.conf"): "/etc/resolv.conf"}
"""How it finds a package index, and whom it trusts."""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    made = Runtime(program("runc", "runc"), tmp_path_factory.mktemp("containers"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def images(runtime: Runtime) -> dict[str, Image]:
    """By name, as the manifests have them."""
    found = {}
    for name in ("forge", "forge-runner", "postgres", "mlflow"):
        (archive,) = BUNDLE.glob(f"images/{name}_*.tar")
        reference = f"localhost/{name}:{archive.stem.partition('_')[2]}"
        found[f"localhost/{name}"] = Image.unpack(archive, reference, runtime.work / f"image-{name}")
    return found


class BoxInImages(Box):
    """The server's pod, container by container, as its manifest has them; PostgreSQL is this machine's."""

    def __init__(self, runtime: Runtime, images: dict[str, Image]) -> None:
        super().__init__()
        self.runtime, self.images = runtime, images
        self.containers: list[Container] = []

    def start(self) -> None:
        objects = yaml.safe_load_all((SERVER / "server.yaml").read_text())
        (stateful,) = (one for one in objects if one["kind"] == "StatefulSet")
        spec = stateful["spec"]["template"]["spec"]
        for container in spec["initContainers"]:
            running = self._run(container)
            if container.get("restartPolicy") != "Always":
                assert running.wait(120) == 0, running.output
            else:
                self.containers.append(running)
        self.containers += [self._run(one) for one in spec["containers"]]
        wait_for(lambda: self._answers("/api/healthz") and self._answers("/"), "the forge", 120)
        wait_for(lambda: self.ask("GET", f"/repos/{REPOSITORY}").status == 200, "the repository", 120)

    def stop(self) -> None:
        """As where the pod is deleted: each of them ends when it is told to."""
        while self.containers:
            self.containers.pop().stop()

    def run_backup(self, file: str, kind: str, s3: Any, volume: Path) -> str:
        """Run the containers of a Job of the backup; what they printed."""
        (job,) = (one for one in yaml.safe_load_all((BACKUP / file).read_text()) if one["kind"] == kind)
        spec = job["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else job["spec"]
        pod, scratch, printed = spec["template"]["spec"], self.runtime.work / f"scratch-{next(self._numbers)}", ""
        for container in (*pod["initContainers"], *pod["containers"]):
            environment = {
                **{one["name"]: one["value"] for one in container["env"] if "value" in one},
                **{key: value for key, value in self.rows.items() if key != "PATH"},
                **KEYS, "S3_ENDPOINT": s3.meta.endpoint_url, "JOB": scratch.name, "FORGE_URL": self.copies_url,
            }  # fmt: skip
            if "FORGE_TOKEN" in {one["name"] for one in container["env"]}:
                environment["FORGE_TOKEN"] = (self.folder / "secrets/copies-token").read_text()
            running = self.runtime.start(
                self.images[container["image"]], f"{scratch.name}-{container['name']}", container["args"],
                entrypoint=container["command"], environment=environment,
                mounts={volume: "/backup", scratch: "/tmp"},  # noqa: S108
                read_only={path: f"/opt/backup/{path.name}" for path in (BACKUP / "base").glob("*.py")},
            )  # fmt: skip
            assert running.wait(180) == 0, running.output
            printed += running.output
        return printed

    def _answers(self, path: str) -> bool:
        try:
            return self.anonymously(path) in {path, "/user/login"}
        except OSError:
            return False

    def _run(self, container: dict[str, Any]) -> Container:
        folders = {
            "settings": "etc",
            "run": "run",
            "setup": "setup",
            "scratch": "scratch",
            "data": "data",
            "users": "users",
        }
        mounts, read_only = {}, {}
        for mount in container["volumeMounts"]:
            folder = self.folder / folders.get(mount["name"], "secrets")
            if mount.get("readOnly") or mount["name"] == "settings":
                read_only[folder] = mount["mountPath"]
            else:
                mounts[folder] = mount["mountPath"]
        # Where things are; the rest is the manifest's.
        here = {key: value for key, value in self._environment().items() if key.startswith("GITEA__")}
        environment = {
            **{one["name"]: one["value"] for one in container["env"] if "value" in one},
            **{key: value for key, value in here.items() if "/" not in value or value.startswith("http")},
            **{key: value for key, value in self.rows.items() if key != "PATH"},
            "FORGE_PASSWORD": (self.folder / "secrets/database-password").read_text(),
            "FORGE": self.url,
            "PORT": str(self.copies_port),
        }
        if container["name"] == "copies":
            environment["TOKEN"] = str(Path(environment["TOKEN"]).with_name("copies-token"))
        return self.runtime.start(
            self.images[container["image"]], f"{container['name']}-{next(self._numbers)}", [],
            entrypoint=container["command"],
            environment=environment, mounts=mounts, read_only=read_only,
        )  # fmt: skip


def test_the_server_takes_what_is_pushed_protects_main_and_is_what_a_night_had(
    runtime: Runtime, images: dict[str, Image], tmp_path: Path
) -> None:
    with BoxInImages(runtime, images) as box, tempfile.TemporaryDirectory(prefix="clone-") as name:
        folder = Path(name)
        (folder / "settings").write_text("three workers")
        for words in (
            ["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message=Start"],
            ["remote", "add", "origin", f"{box.url}/{REPOSITORY}.git"], ["push", "--quiet", "origin", "main"],
        ):  # fmt: skip
            done = box.git(folder, *words)
            assert done.returncode == 0, done.stderr
        wait_for(lambda: box.ask("GET", f"/repos/{REPOSITORY}").body["has_actions"], "protection", 120)

        def branches() -> list[str]:
            return [one["name"] for one in box.ask("GET", f"/repos/{REPOSITORY}/branches").body]

        # The forge learns of it, and refuses, by the hooks of its repositories.
        assert branches() == ["main"]
        push = ["push", "--quiet", "origin"]
        for words in (["commit", "--quiet", "--allow-empty", "--message=More"], [*push, "HEAD:more"]):
            assert box.git(folder, *words, user="ada").returncode == 0
        assert "protected branch" in box.git(folder, "push", "origin", "HEAD:main", user="ada").stderr

        subprocess.run([PROGRAMS / "createdb", "mlflow"], env=box.rows, check=True)
        with running(tmp_path) as s3:
            for bucket in ("mlflow", "datasets", "code"):
                s3.create_bucket(Bucket=bucket)
            volume = runtime.work / "backup"
            box.run_backup("base/backup.yaml", "CronJob", s3, volume)
            assert box.git(folder, *push, "HEAD:later", ":more", user="ada").returncode == 0
            told = box.run_backup("restore/restore.yaml", "Job", s3, volume)
        assert "its next start restores them" in told
        assert set(branches()) == {"main", "later"}
        box.restart()
        assert set(branches()) == {"main", "more"}
        assert box.git(folder, "fetch", "--quiet", "origin", "more", user="ada").returncode == 0
        assert "protected branch" in box.git(folder, "push", "origin", "HEAD:main", user="ada").stderr
        box.stop()


@pytest.fixture(scope="module")
def clone(box: Box) -> Iterator[Path]:
    """This repository as it is committed, of whose workflows only the check has all it needs."""
    with tempfile.TemporaryDirectory(prefix="clone-") as name:
        folder = Path(name)
        for words in (
            ["clone", "--quiet", str(ROOT), "."], ["switch", "--quiet", "--create", "start"],
            ["rm", "--quiet", *(str(one.relative_to(ROOT)) for one in WORKFLOWS.iterdir() if one.stem != "check")],
            ["commit", "--quiet", "--message=Start"], ["remote", "set-url", "origin", f"{box.url}/{REPOSITORY}.git"],
            ["push", "--quiet", "origin", "start:main"],
        ):  # fmt: skip
            done = box.git(folder, *words)
            assert done.returncode == 0, done.stderr
        wait_for(lambda: box.ask("GET", f"/repos/{REPOSITORY}").body["has_actions"], "workflows", 120)
        yield folder


def start_pod(box: Box, runtime: Runtime, image: Image, name: str) -> Container:
    """A job's pod: its first container makes it known, the second is returned."""
    settings = runtime.work / f"{name}-settings"
    settings.mkdir()
    for file in ("runner.yaml", "known.py"):
        shutil.copy(JOBS / file, settings)
    spec = job_pod()
    run, work = (runtime.work / f"{name}-{part}" for part in ("run", "work"))
    token = box.folder / "secrets/token"
    (register,), (job,) = spec["initContainers"], spec["containers"]
    command = [word.replace("http://forge.platform:3000", box.url) for word in register["command"]]
    first = runtime.start(
        image, f"{name}-register", [], entrypoint=command, mounts={run: "/run/runner"},
        read_only={settings: "/etc/runner", token: "/run/secrets/runner/token"},
    )  # fmt: skip
    assert first.wait(60) == 0, first.output
    environment = {one["name"]: one["value"] for one in job["env"]}
    return runtime.start(
        image, name, [], entrypoint=job["command"],
        environment={**environment, "SSL_CERT_FILE": str(CERTIFICATES / "ca-certificates.crt")},
        mounts={run: "/run/runner", work: "/work"}, read_only={settings: "/etc/runner", **OF_THIS_MACHINE},
    )  # fmt: skip


def resident(pod: Container) -> int:
    """Memory that its processes hold, in bytes; what they share counts for each."""
    assert pod.process
    total = 0
    for one in psutil.Process(pod.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total


def test_the_repositorys_check_succeeds_in_a_pod(
    box: Box, clone: Path, runtime: Runtime, images: dict[str, Image]
) -> None:
    for words in (
        ["switch", "--quiet", "--create", "more"], ["commit", "--quiet", "--allow-empty", "--message=More"],
        ["push", "--quiet", "origin", "more"],
    ):  # fmt: skip
        done = box.git(clone, *words, user="ada")
        assert done.returncode == 0, done.stderr
    request = {"title": "More", "head": "more", "base": "main"}
    made = box.ask("POST", f"/repos/{REPOSITORY}/pulls", request, user="ada")
    assert made.status == 201, made.body
    head = made.body["head"]["sha"]
    pod = start_pod(box, runtime, images["localhost/forge-runner"], "pod")
    pod.until(lambda: pod.run("python3", "/etc/runner/known.py").returncode == 0)
    peak = 0

    def has_ended() -> bool:
        nonlocal peak
        peak = max(peak, resident(pod))
        return box.job("check", head).get("status") == "completed"

    wait_for(has_ended, "the check", SECONDS)
    log = box.text(f"/repos/{REPOSITORY}/actions/jobs/{box.job('check', head)['id']}/logs")
    assert box.job("check", head)["conclusion"] == "success", log[-6000:]
    assert pod.wait(60) == 0, pod.output
    (job,) = job_pod()["containers"]
    print(f"most memory: {peak // MIB} MiB")
    assert peak < int(job["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024 * MIB
