"""The manifests of k8s/ with those that the bundle adds, rendered and put in order. Free of Pulumi: the command and the
tests read them too.

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

import yaml

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "k8s"
IMAGES = TREE / "images" / "kustomization.yaml"
THIRD_PARTY = {"gateway-api": Path("infrastructure", "gateway-api", "kinds.yaml")}
"""Where manifests of others belong in the tree, which has none of them: the bundle has, by these names."""
LOCK = ROOT / "bundle" / "manifest.lock"
DOMAIN = "lab.internal"
"""The domain in the manifests; a stack's own takes its place."""
WAVE = "argocd.argoproj.io/sync-wave"
"""When an object is applied: after all workloads of lower waves are ready. Argo CD reads the same annotation."""
PORT = 30443
"""Of each node: the gateway's, HTTPS."""
REDIRECT_PORT = 30080
"""Of each node: sends on to `PORT`."""
# What others of the same wave stand on, before what runs.
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
    """The manifests cannot be rendered; the text says why, and what to do."""


def kubectl(bundle: str, version: str) -> str | None:
    """A `kubectl`: the bundle's of this version, or the one on PATH."""
    held = Path(bundle).expanduser() / "bin" / "kubernetes" / version / "kubectl"
    return str(held) if held.exists() else shutil.which("kubectl")


def write_tree(target: Path, given: Mapping[str, Path]) -> None:
    """Copy k8s/ to the folder `target`, with the files `given` of what is of THIRD_PARTY; the rest of that is empty."""
    shutil.copytree(TREE, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for name, path in THIRD_PARTY.items():
        Path(target, path).write_text(given[name].read_text() if name in given else "# The bundle does not have it.\n")


def render(
    folder: str, program: str, held: Mapping[str, str] | None = None, given: Mapping[str, Path] | None = None
) -> list[Manifest]:
    """The objects of a kustomization, its path relative to k8s/.

    `held`: digests by name of the images that there are. They take the place of those that the manifests name: what a
    bundle is built of may be newer, such as a Debian package with a fault less.
    `given`: the bundle's files of THIRD_PARTY, by name. Without one its objects are missing.

    Raises:
        ManifestError: kustomize refused it, or does not run.
    """
    text = _kustomized(folder, program, given or {})
    text = PINNED.sub(lambda found: f"localhost/{found[1]}@{(held or {}).get(found[1], found[2])}", text)
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


def images(manifests: Iterable[Manifest]) -> set[str]:
    """Names of the images that rendered manifests run."""
    return {name for name, _digest in PINNED.findall(json.dumps(list(manifests)))}


def _kustomized(folder: str, program: str, given: Mapping[str, Path]) -> str:
    """What kustomize makes of a folder. It takes over a second, at each preview too: the last is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-cluster" / "kustomized"
    kept, head = cache / f"{folder.replace('/', '_')}.yaml", f"# {_state(program, given)}\n"
    with suppress(OSError):
        if (text := kept.read_text()).startswith(head):
            return text
    # A build that prunes by its own environment would not be the same everywhere.
    with tempfile.TemporaryDirectory(prefix="k8s-") as scratch:
        tree = Path(scratch, "k8s")
        write_tree(tree, given)
        try:
            done = subprocess.run([program, "kustomize", tree / folder], capture_output=True, text=True, check=False)
        except OSError as error:
            raise ManifestError(f"k8s/{folder} cannot be rendered: {program} does not run: {error.strerror}") from None
    if done.returncode:
        raise ManifestError(f"k8s/{folder} cannot be rendered: {done.stderr.strip().replace(str(tree), str(TREE))}")
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder_of_new:
            new = Path(folder_of_new, kept.name)
            new.write_text(head + done.stdout)
            new.replace(kept)
    return done.stdout


def _state(program: str, given: Mapping[str, Path]) -> str:
    """A digest of all that kustomize reads, and of which kustomize it is."""
    seen = hashlib.sha256(f"{program} {Path(program).stat().st_mtime_ns}".encode())
    for path in sorted(path for path in TREE.rglob("*") if path.is_file()):
        seen.update(f"{path.relative_to(TREE)} {path.stat().st_size}\n".encode() + path.read_bytes())
    for name, path in sorted(given.items()):
        seen.update(f"{name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return seen.hexdigest()


def profiles() -> list[str]:
    """Names of the profiles."""
    return sorted(path.parent.name for path in TREE.glob("clusters/*/kustomization.yaml"))


def wave(manifest: Manifest) -> int:
    """The wave that an object belongs to."""
    return int(manifest["metadata"].get("annotations", {}).get(WAVE, "0"))


def rank(manifest: Manifest) -> tuple[int, int]:
    """Objects of a lower rank come first."""
    kind = manifest["kind"]
    return wave(manifest), 0 if kind in FIRST else 2 if kind in WORKLOADS else 1


def named(manifest: Manifest) -> str:
    """`<namespace>/<name>`, or `<name>`."""
    metadata = manifest["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def digests(lock: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """Digest of each image of the platform in the bundle's lock, by name."""
    wanted = set(images_named())
    return {
        artifact["name"]: artifact["digest"]
        for artifacts in lock.values()
        for artifact in artifacts
        if artifact["kind"] == "image" and artifact["name"] in wanted
    }


def pins() -> dict[str, str]:
    """Digest of each image in the manifests, by name."""
    images = yaml.safe_load(IMAGES.read_text())["images"]
    return {image["name"].removeprefix("localhost/"): image["digest"] for image in images}


def images_named() -> Iterator[str]:
    """Names of the images that the manifests use."""
    found = {
        name
        for path in TREE.rglob("*.yaml")
        for name in re.findall(r"image: localhost/([a-z0-9-]+)$", path.read_text(), re.MULTILINE)
    }
    yield from sorted(found)


def pinned(lock: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Text of the generated component that pins the images."""
    head, _, _ = IMAGES.read_text().partition("images:")
    rows = "".join(f"  - {{name: localhost/{name}, digest: {digest}}}\n" for name, digest in digests(lock).items())
    return f"{head}images:{f'{chr(10)}{rows}' if rows else f' []{chr(10)}'}"


if __name__ == "__main__":
    IMAGES.write_text(pinned(json.loads(LOCK.read_text())))
