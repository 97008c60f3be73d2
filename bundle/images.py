"""OCI images by buildah, reproducibly: no times, nothing run. One layer, or a stack of layers that images share."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

from bundle.files import emptied, link
from bundle.manifest import Image
from bundle.processes import answer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bundle.processes import Tools

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
REFERENCE = "org.opencontainers.image.ref.name"
# Where the kernel and Kubernetes mount things, and what programs expect to be able to write.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp", "usr/local/bin", "var")
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tools_of() -> dict[str, str]:
    """What makes an image: equal tools give equal bytes."""
    return {"buildah": answer("buildah", "--version").split()[2]}


def containerfile(image: Image) -> str:
    """How the image is made; its context has the tree under `root`."""
    return "\n".join(
        [
            "FROM scratch",
            "COPY root/ /",
            f"ENV PATH={PATH}",
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
        overlay(image.folder, root)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for program in image.programs:
        shutil.copy(programs / program, root / "usr/local/bin" / program)
    _layout(work, image, tools)
    digest = _finish(work / "oci", references, target)
    shutil.rmtree(work)
    return digest


def layer(folder: Path, tools: Tools) -> Path:
    """Make one layer of the tree at context/root in `folder`; the OCI layout that has it.

    Raises:
        BundleError: buildah failed.
    """
    for name in FOLDERS:
        (folder / "context/root" / name).mkdir(parents=True, exist_ok=True)
    _layout(folder, Image(arguments=("layer",)), tools)
    return folder / "oci"


def programs_layer(programs: list[Path], folder: Path, tools: Tools) -> Path:
    """Make one layer of programs, in `folder`; the OCI layout that has it.

    Raises:
        BundleError: buildah failed.
    """
    target = emptied(folder) / "context/root/usr/local/bin"
    target.mkdir(parents=True)
    for program in programs:
        shutil.copy(program, target)
    return layer(folder, tools)


def stack(references: list[str], image: Image, target: Path, layers: list[Path]) -> str:
    """Make an image as an OCI archive at `target`, of the layers in several OCI layouts, the lowest first.

    Returns:
        The digest that a registry will know it by.
    """
    oci = emptied(target.with_name(target.name + ".work"))
    read = [_read(layout) for layout in layers]
    for layout, (manifest, _) in zip(layers, read, strict=True):
        for descriptor in manifest["layers"]:
            link(_blob(layout, descriptor["digest"]), _blob(oci, descriptor["digest"]))
    manifest, config = read[0]
    config["rootfs"]["diff_ids"] = [diff for _, one in read for diff in one["rootfs"]["diff_ids"]]
    config["history"] = [entry for _, one in read for entry in one["history"]]
    config["config"] = {
        "User": f"{image.user}:{image.user}",
        "Env": [f"{name}={value}" for name, value in {"PATH": PATH, **image.environment}.items()],
        "Entrypoint": image.command,
        "Cmd": list(image.arguments),
        **({"StopSignal": image.stop_signal} if image.stop_signal else {}),
    }
    manifest["layers"] = [descriptor for one, _ in read for descriptor in one["layers"]]
    manifest["config"] |= _write(oci, _json(config))
    index = json.loads((layers[0] / "index.json").read_text())
    index["manifests"] = [index["manifests"][0] | _write(oci, _json(manifest))]
    (oci / "index.json").write_text(json.dumps(index))
    shutil.copy(layers[0] / "oci-layout", oci)
    digest = _finish(oci, references, target)
    shutil.rmtree(oci)
    return digest


def overlay(folder: Path, root: Path) -> None:
    """Copy files over a tree, without bytecode that this machine made of them.

    Their modes are not those of this machine's user, but for who may execute.
    """
    shutil.copytree(folder, root, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in folder.rglob("*"):
        if not path.is_symlink() and "__pycache__" not in path.parts:
            executable = path.is_dir() or path.stat().st_mode & 0o100
            (root / path.relative_to(folder)).chmod(0o755 if executable else 0o644)


def attachment(reference: str, kind: str, documents: Mapping[str, bytes], target: Path) -> str:
    """Write what goes beside an image, as an OCI archive: `documents` by media type, of the artifact type `kind`.

    Returns:
        The digest that a registry will know it by.
    """
    oci = emptied(target.with_name(target.name + ".work"))
    (oci / "blobs/sha256").mkdir(parents=True)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": kind,
        "config": {"mediaType": EMPTY, **_write(oci, b"{}")},
        "layers": [{"mediaType": media, **_write(oci, content)} for media, content in documents.items()],
    }
    entry = {"mediaType": MANIFEST, **_write(oci, _json(manifest))}
    (oci / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (oci / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    digest = _finish(oci, [reference], target)
    shutil.rmtree(oci)
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


def _layout(work: Path, image: Image, tools: Tools) -> None:
    """Make an image of the tree at context/root, as the OCI layout `oci`; all in `work`."""
    root = work / "context/root"
    (root / "tmp").chmod(0o1777)
    if (busybox := root / "bin/busybox").exists():
        for name in answer(str(busybox), "--list").split():
            if not (root / "bin" / name).exists():
                (root / "bin" / name).symlink_to("busybox")
    (work / "Containerfile").write_text(containerfile(image))
    storage = ("--root", work / "storage", "--runroot", work / "run", "--storage-driver", "vfs")
    tools.run(
        "buildah", *storage, "build", "--quiet", "--isolation=chroot", "--format=oci", "--timestamp=0",
        "--layers=false", "--identity-label=false", "--file", work / "Containerfile", "--tag", "localhost/it",
        work / "context",
    )  # fmt: skip
    tools.run("buildah", *storage, "push", "--quiet", "--compression-format=zstd", "localhost/it", f"oci:{work}/oci")
    shutil.rmtree(work / "storage")


def _read(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest and the configuration of the one image of an OCI layout."""
    [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(layout, entry["digest"]).read_text())
    return manifest, json.loads(_blob(layout, manifest["config"]["digest"]).read_text())


def _write(layout: Path, content: bytes) -> dict[str, str | int]:
    """Put a document into an OCI layout; what to name it by."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _blob(layout, digest).write_bytes(content)
    return {"digest": digest, "size": len(content)}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _finish(layout: Path, references: list[str], target: Path) -> str:
    """Name the one image of an OCI layout, and pack it; gives its digest."""
    index = json.loads((layout / "index.json").read_text())
    [manifest] = index["manifests"]
    index["manifests"] = [{**manifest, "annotations": {REFERENCE: reference}} for reference in references]
    (layout / "index.json").write_text(json.dumps(index))
    _pack(layout, target)
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
