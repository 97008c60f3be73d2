"""OCI images of a bundle's programs, by buildah, reproducibly: one layer, no times, nothing run."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from bundle.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    from bundle.manifest import Image

SUITE = "bookworm"
TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "skopeo": "skopeo"}


def containerfile(image: Image) -> str:
    """How the image is made; its context has the tree under `root`."""
    return "\n".join(
        [
            "FROM scratch",
            "COPY root/ /",
            "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"USER {image.user}:{image.user}",
            f"ENTRYPOINT {json.dumps([f'/usr/local/bin/{image.programs[0]}'])}",
            "",
        ]
    )


def build(name: str, version: str, image: Image, programs: Path, target: Path) -> None:
    """Make the image as an OCI archive at `target`, from the folder of its programs.

    Raises:
        BundleError: a tool is missing or failed.
    """
    work = target.with_name(target.name + ".work")
    shutil.rmtree(work, ignore_errors=True)
    root = work / "context/root"
    root.mkdir(parents=True)
    try:
        if image.packages:
            run("mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(image.packages)}", SUITE, str(root))
            for rest in ("var/lib/apt", "var/cache", "usr/share/doc", "usr/share/man", "dev"):
                shutil.rmtree(root / rest, ignore_errors=True)
        # Where the kernel and Kubernetes mount things, and what programs expect to be able to write.
        for folder in ("etc", "proc", "sys", "dev", "tmp", "usr/local/bin"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        for program in image.programs:
            shutil.copyfile(programs / program, root / "usr/local/bin" / program)
            (root / "usr/local/bin" / program).chmod(0o755)
        (work / "Containerfile").write_text(containerfile(image))
        storage = ("--root", str(work / "storage"), "--runroot", str(work / "run"), "--storage-driver", "vfs")
        tag = f"localhost/{name}:{version}"
        run(
            "buildah", *storage, "build", "--quiet", "--isolation=chroot", "--format=oci", "--timestamp=0",
            "--layers=false", "--identity-label=false", "--file", str(work / "Containerfile"), "--tag", tag,
            str(work / "context"),
        )  # fmt: skip
        new = work / "image.tar"
        run("buildah", *storage, "push", "--quiet", tag, f"oci-archive:{new}:{tag}")
        target.parent.mkdir(parents=True, exist_ok=True)
        new.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def push(archive: Path, reference: str, *, tls: bool) -> None:
    """Copy an image of the bundle to a registry.

    Raises:
        BundleError: skopeo is missing, or the registry refused.
    """
    run("skopeo", "copy", "--quiet", f"--dest-tls-verify={str(tls).lower()}", f"oci-archive:{archive}",
        f"docker://{reference}")  # fmt: skip


def run(*command: str) -> None:
    """Run a tool.

    Raises:
        BundleError: it is missing or failed; with the last lines it printed.
    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise BundleError(f"{command[0]} is not installed", remedy=f"apt-get install {TOOLS[command[0]]}") from None
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise BundleError(f"{command[0]} failed:\n{said}")
