"""The images of the forge and of its jobs: what the cluster runs, by the bundle's runc, with nothing allowed.

Needs the family runc in the bundle too, as root, and a package index.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.engine.harness import wait_for
from tests.forge.box import JOBS, REPOSITORY, Box, job_pod
from tests.forge.pulls import ROOT, WORKFLOWS
from tests.images.containers import Container, Image, Runtime
from tests.providers.kubernetes.control_plane import BUNDLE, program

if TYPE_CHECKING:
    from collections.abc import Iterator

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
def image(runtime: Runtime) -> Image:
    """What a job's pod runs."""
    (archive,) = BUNDLE.glob("images/forge-runner_*.tar")
    version = archive.stem.partition("_")[2]
    return Image.unpack(archive, f"localhost/forge-runner:{version}", runtime.work / "image")


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


def test_the_repositorys_check_succeeds_in_a_pod(box: Box, clone: Path, runtime: Runtime, image: Image) -> None:
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
    pod = start_pod(box, runtime, image, "pod")
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
