"""Renders and orders the manifests of k8s/ with those of the bundle. Does not import Pulumi, because `lab` uses it too.

`python -m infra.manifests` writes the digests of the bundle's images into k8s/images/kustomization.yaml.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import kubeyaml

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "k8s"
IMAGES = TREE / "images" / "kustomization.yaml"
THIRD_PARTY = {
    "gateway-api": Path("infrastructure", "gateway-api", "kinds.yaml"),
    "argo-cd": Path("platform", "gitops", "kinds.yaml"),
}
"""Third-party manifests: name in the bundle, and path in the tree, which does not contain them."""
ADDONS = {
    "local-path": "storage",
    "metrics-server": "metrics_server",
    "network-policy": "network_policy",
    "nvidia-device-plugin": "nvidia",
}
"""Add-ons that the playbooks apply: name in the bundle, and the role that has the kustomization."""
BY_NAME = ("platform/cloud", "platform/forge", "platform/gitops")
"""Folders that no profile has, but a setting: what they take need not be in the bundle."""
UPSTREAM = "upstream.yaml"
LOCK = ROOT / "bundle" / "manifest.lock"
DOMAIN = "lab.internal"
"""The domain in the manifests, which is replaced by the stack's domain."""
WAVE = "argocd.argoproj.io/sync-wave"
"""Annotation: an object is applied after all workloads of lower waves are ready, as in Argo CD."""
PORT = 30443
"""Node port of the gateway, HTTPS."""
REDIRECT_PORT = 30080
"""Node port that redirects to `PORT`."""
# Kinds that are applied before all others of the same wave.
FIRST = (
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")

PINNED = re.compile(r"localhost/([a-z0-9-]+)@(sha256:[0-9a-f]{64})")

Manifest = dict[str, Any]


class ManifestError(Exception):
    """The manifests cannot be rendered; the text has the reason and what to do."""


def kubectl(bundle: str, version: str) -> str | None:
    """Path of kubectl: the bundle's in this version, or the one on PATH."""
    bundled = Path(bundle).expanduser() / "bin" / "kubernetes" / version / "kubectl"
    return str(bundled) if bundled.exists() else shutil.which("kubectl")


def write_tree(target: Path, files: Mapping[str, Path]) -> None:
    """Copy k8s/ to the folder `target`, with `files` as those of THIRD_PARTY; missing ones are empty."""
    shutil.copytree(TREE, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for name, path in THIRD_PARTY.items():
        Path(target, path).write_text(files[name].read_text() if name in files else "# Not in the bundle.\n")


def addon(name: str) -> Path:
    """Folder of the kustomization of one of ADDONS."""
    return ROOT / "ansible" / "roles" / ADDONS[name] / "files"


def addon_images(name: str) -> list[str]:
    """Names of the bundle's images that one of ADDONS uses."""
    matches = (re.findall(r"localhost/([a-z-]+)", path.read_text()) for path in addon(name).iterdir())
    return sorted({image for images in matches for image in images})


def required() -> tuple[set[str], set[str]]:
    """Names of the images and third-party manifests of a bundle that k8s/, but for BY_NAME, and ADDONS use."""
    patched = {name for name in ADDONS if UPSTREAM in (addon(name) / "kustomization.yaml").read_text()}
    images = {*image_names(BY_NAME), *(image for name in ADDONS for image in addon_images(name))}
    return images, third_party([]) | patched


def third_party(folders: Iterable[str]) -> set[str]:
    """Names of the third-party manifests of the tree: all but those of BY_NAME, unless that is one of `folders`."""
    left_out = {*BY_NAME} - {*folders}
    return {name for name, path in THIRD_PARTY.items() if str(path.parent) not in left_out}


def write_addons(target: Path, files: Mapping[str, Path], versions: Mapping[str, str]) -> None:
    """Write the folder `target`/<name> of each of ADDONS, with the third-party `files`, for the images' `versions`."""
    for name in ADDONS:
        base = target / name / "base"
        shutil.copytree(addon(name), base, dirs_exist_ok=True)
        if name in files:
            shutil.copyfile(files[name], base / UPSTREAM)
        top = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": ["base"],
            "images": [{"name": f"localhost/{image}", "newTag": versions[image]} for image in addon_images(name)],
        }
        (target / name / "kustomization.yaml").write_text(json.dumps(top, indent=1) + "\n")


def render(
    folder: str, program: str, digests: Mapping[str, str] | None = None, files: Mapping[str, Path] | None = None
) -> list[Manifest]:
    """Render the objects of a kustomization; `folder` is relative to k8s/, `program` is kubectl.

    `digests`: digests of available images, by name. They replace those in the manifests, because a bundle may have
    newer images, for example with a security fix in a Debian package.
    `files`: the bundle's files for THIRD_PARTY, by name. Objects of missing files are left out.

    Raises:
        ManifestError: kustomize fails or cannot be run.
    """
    text = _kustomize(folder, program, files or {})
    text = PINNED.sub(lambda match: f"localhost/{match[1]}@{(digests or {}).get(match[1], match[2])}", text)
    return [document for document in kubeyaml.read_documents(text) if document]


def images(manifests: Iterable[Manifest]) -> set[str]:
    """Names of the images in rendered manifests."""
    return {name for name, _digest in PINNED.findall(json.dumps(list(manifests)))}


def _kustomize(folder: str, program: str, files: Mapping[str, Path]) -> str:
    """Output of kustomize for a folder, cached because it takes over a second at each preview."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-cluster" / "kustomized"
    cached, head = cache / f"{folder.replace('/', '_')}.yaml", f"# {_digest(program, files)}\n"
    with suppress(OSError):
        if (text := cached.read_text()).startswith(head):
            return text
    with tempfile.TemporaryDirectory(prefix="k8s-") as scratch:
        tree = Path(scratch, "k8s")
        write_tree(tree, files)
        try:
            done = subprocess.run([program, "kustomize", tree / folder], capture_output=True, text=True, check=False)
        except OSError as error:
            raise ManifestError(f"k8s/{folder} cannot be rendered: {program} does not run: {error.strerror}") from None
    if done.returncode:
        raise ManifestError(f"k8s/{folder} cannot be rendered: {done.stderr.strip().replace(str(tree), str(TREE))}")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder_of_new:
            new = Path(folder_of_new, cached.name)
            new.write_text(head + done.stdout)
            new.replace(cached)
    return done.stdout


def _digest(program: str, files: Mapping[str, Path]) -> str:
    """Digest of all input of kustomize, and of the program itself."""
    digest = hashlib.sha256(f"{program} {Path(program).stat().st_mtime_ns}".encode())
    for path in sorted(path for path in TREE.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(TREE)} {path.stat().st_size}\n".encode() + path.read_bytes())
    for name, path in sorted(files.items()):
        digest.update(f"{name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def profiles() -> list[str]:
    """Names of the profiles."""
    return sorted(path.parent.name for path in TREE.glob("clusters/*/kustomization.yaml"))


def models() -> list[str]:
    """Names of the models."""
    return sorted(path.parent.name for path in TREE.glob("models/*/kustomization.yaml"))


def capabilities(profile: str) -> set[str]:
    """Folders of k8s/platform that a profile has anything of."""
    (kustomization,) = kubeyaml.read_documents((TREE / "clusters" / profile / "kustomization.yaml").read_text())
    paths = [Path(entry).parts for entry in (*kustomization["resources"], *kustomization.get("components", ()))]
    return {parts[parts.index("platform") + 1] for parts in paths if "platform" in parts}


def wave(manifest: Manifest) -> int:
    """The sync wave of an object."""
    return int(manifest["metadata"].get("annotations", {}).get(WAVE, "0"))


def rank(manifest: Manifest) -> tuple[int, int]:
    """Sort key: objects of a lower rank are applied first."""
    kind = manifest["kind"]
    return wave(manifest), 0 if kind in FIRST else 2 if kind in WORKLOADS else 1


def qualified_name(manifest: Manifest) -> str:
    """`<namespace>/<name>`, or `<name>`."""
    metadata = manifest["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def digests(lock: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Digest of each platform image in the bundle's lock, by name."""
    names = set(image_names())
    return {
        artifact["name"]: artifact["digest"]
        for artifacts in lock.values()
        for artifact in artifacts
        if artifact["kind"] == "image" and artifact["name"] in names
    }


def pins() -> dict[str, str]:
    """Digest of each image in the manifests, by name."""
    (kustomization,) = kubeyaml.read_documents(IMAGES.read_text())
    return {image["name"].removeprefix("localhost/"): image["digest"] for image in kustomization["images"]}


def image_names(without: Iterable[str] = ()) -> Iterator[str]:
    """Names of the images that the manifests use, but for some folders'."""
    left_out = [TREE / folder for folder in without]
    names = {
        name
        for path in TREE.rglob("*.yaml")
        if not any(path.is_relative_to(folder) for folder in left_out)
        for name in re.findall(r"image: localhost/([a-z0-9-]+)$", path.read_text(), re.MULTILINE)
    }
    yield from sorted(names)


def pinned(lock: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Content of the generated component that pins the images."""
    head, _, _ = IMAGES.read_text().partition("images:")
    rows = "".join(f"  - {{name: localhost/{name}, digest: {digest}}}\n" for name, digest in digests(lock).items())
    return f"{head}images:{f'{chr(10)}{rows}' if rows else f' []{chr(10)}'}"


if __name__ == "__main__":
    IMAGES.write_text(pinned(json.loads(LOCK.read_text())))
