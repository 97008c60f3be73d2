"""OCI images of a bundle's programs, by buildah, reproducibly: one layer, no times, nothing run."""

from __future__ import annotations

import json
import shutil
import tarfile
from typing import TYPE_CHECKING

from bundle.processes import answer
from bundle.store import emptied

if TYPE_CHECKING:
    from pathlib import Path

    from bundle.manifest import Image
    from bundle.processes import Tools

REFERENCE = "org.opencontainers.image.ref.name"
# Where the kernel and Kubernetes mount things, and what programs expect to be able to write.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr/local/bin", "var")


def tools_of() -> dict[str, str]:
    """What makes an image: equal tools give equal bytes."""
    return {"buildah": answer("buildah", "--version").split()[2]}


def containerfile(image: Image) -> str:
    """How the image is made; its context has the tree under `root`."""
    return "\n".join(
        [
            "FROM scratch",
            "COPY root/ /",
            "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            f"USER {image.user}:{image.user}",
            f"ENTRYPOINT {json.dumps(image.command)}",
            f"CMD {json.dumps(image.arguments)}",
            "",
        ]
    )


def build(references: list[str], image: Image, target: Path, tools: Tools, *, programs: Path, base: Path | None) -> str:
    """Make an image as an OCI archive at `target`, from the tree `base` and the folder of its programs.

    Returns:
        The digest that a registry will know it by.

    Raises:
        BundleError: buildah failed.
    """
    work = emptied(target.with_name(target.name + ".work"))
    root = work / "context/root"
    if base:
        shutil.copytree(base, root, symlinks=True)
    if image.overlay:
        shutil.copytree(image.folder, root, symlinks=True, dirs_exist_ok=True)
        for path in image.folder.rglob("*"):
            if not path.is_symlink():
                (root / path.relative_to(image.folder)).chmod(0o755 if path.is_dir() else 0o644)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for program in image.programs:
        shutil.copy(programs / program, root / "usr/local/bin" / program)
    if (busybox := root / "bin/busybox").exists():
        for name in answer(str(busybox), "--list").split():
            if not (root / "bin" / name).exists():
                (root / "bin" / name).symlink_to("busybox")
    (work / "Containerfile").write_text(containerfile(image))
    storage = ("--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs")
    tools.run(
        "buildah", *storage, "build", "--quiet", "--isolation=chroot", "--format=oci", "--timestamp=0",
        "--layers=false", "--identity-label=false", "--file", work / "Containerfile", "--tag", references[0],
        work / "context",
    )  # fmt: skip
    tools.run("buildah", *storage, "push", "--quiet", "--compression-format=zstd", references[0], f"oci:{work}/oci")
    digest = _name(work / "oci/index.json", references)
    _pack(work / "oci", target)
    shutil.rmtree(work)
    return digest


def push(archive: Path, reference: str, target: str, tools: Tools, *, tls: bool) -> None:
    """Copy the image `reference` of an archive to `target` in a registry.

    Raises:
        BundleError: the registry refused.
    """
    tools.run(
        "skopeo", "copy", "--quiet", f"--dest-tls-verify={str(tls).lower()}", f"oci-archive:{archive}:{reference}",
        f"docker://{target}",
    )  # fmt: skip


def _name(path: Path, references: list[str]) -> str:
    """Name the one image of an OCI layout; gives its digest."""
    index = json.loads(path.read_text())
    [manifest] = index["manifests"]
    index["manifests"] = [{**manifest, "annotations": {REFERENCE: reference}} for reference in references]
    path.write_text(json.dumps(index))
    return str(manifest["digest"])


def _pack(layout: Path, target: Path) -> None:
    """An OCI layout as an archive; buildah's own has the time of its making in it."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(layout.rglob("*")):
            entry = tarfile.TarInfo(str(path.relative_to(layout)))
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            else:
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(entry, file)
