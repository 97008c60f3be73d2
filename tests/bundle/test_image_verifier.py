"""A real containerd, set up as the playbooks do, which takes signed images of a real registry, and no others.

All of it runs in network and mount namespaces of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from bundle import images
from bundle.manifest import MANIFEST, load
from bundle.signatures import ARTIFACT, ENVELOPE, MATERIALS
from tests.ansible.test_content import NODE, render
from tests.bundle.conftest import CONFIG, Copy, copy_code, make_key, public_key
from tests.bundle.node import wait_until
from tests.providers.kubernetes.control_plane import program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bundle.store import Artifact

pytestmark = pytest.mark.slow_cluster
REGISTRY = "10.0.0.1:5000"
"""As the playbooks' files, for the inventory of `render`, have it."""
NAMES = ("signed", "bare", "forged", "changed", "replayed")
FAMILIES = """
families:
  hello:
    version: v1.2.3
    module: hello
    programs: {hello: .}
    images:
""" + "".join(f"      {name}: {{programs: [hello], user: 1000, arguments: [{name}]}}\n" for name in NAMES)


class Node:
    """A registry, and containerd beside it."""

    def __init__(self, folder: Path, copy: Copy) -> None:
        self.folder, self.copy = folder, copy
        self._processes: list[subprocess.Popen[bytes]] = []
        holder = ["unshare", "--mount", "--net", "setpriv", "--pdeathsig", "KILL", "sleep", "infinity"]
        self._holder = subprocess.Popen(holder)
        wait_until(lambda: self._own("net") != self._own("net", "self"), "the namespaces")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", "10.0.0.1/32", "dev", "lo")
        for name in ("etc", "run", "var/lib", "opt"):
            (folder / name).mkdir(parents=True)
            self.run("mkdir", "-p", f"/{name}/containerd")
            self.run("mount", "--bind", str(folder / name), f"/{name}/containerd")

    def _own(self, kind: str, pid: str = "") -> str:
        return subprocess.run(
            ["readlink", f"/proc/{pid or self._holder.pid}/ns/{kind}"], check=True, capture_output=True, text=True
        ).stdout

    def command(self, *words: str | Path) -> list[str | Path]:
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "--net", "--wdns=/", *words]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command(*words), check=True, capture_output=True)

    def start(self, name: str, *words: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(self.command(*words), stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def start_registry(self) -> subprocess.Popen[bytes]:
        config = self.folder / "registry.yml"
        config.write_text(CONFIG.format(folder=self.folder / "storage", address=REGISTRY))
        process = self.start("registry", program("registry", "registry"), "serve", config)
        ask = self.command("curl", "--silent", "--fail", f"http://{REGISTRY}/v2/")
        wait_until(lambda: subprocess.run(ask, check=False, capture_output=True).returncode == 0, "the registry")
        return process

    def push(self, archive: Path, reference: str) -> None:
        source = f"oci-archive:{archive}:localhost/{reference}"
        self.run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, f"docker://{REGISTRY}/{reference}")

    def start_containerd(self) -> None:
        self.start("containerd", program("containerd", "containerd"), "--config", "/etc/containerd/config.toml")
        wait_until(lambda: "UNAVAILABLE" not in self.pull("nothing"), f"containerd; see {self.folder}/containerd.log")

    def pull(self, image: str) -> str:
        """What the kubelet would hear: why an image cannot be pulled, or nothing."""

        def field(content: bytes) -> bytes:
            """Field 1 of a message, of less than 16 KiB."""
            length = len(content)
            return bytes([0x0A, *([length & 0x7F | 0x80, length >> 7] if length > 127 else [length])]) + content

        with grpc.insecure_channel(f"unix:{self.folder}/run/containerd.sock") as channel:
            call = channel.unary_unary("/runtime.v1.ImageService/PullImage", bytes, bytes)
            try:
                call(field(field(image.encode())), timeout=60)
            except grpc.RpcError as error:
                return str(error)
        return ""

    def stop(self) -> None:
        for process in (*reversed(self._processes), self._holder):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A bundle with images of several names, signed by a key of its own."""
    made = copy_code(tmp_path_factory.mktemp("copy"))
    made.manifest(FAMILIES)
    made.build()
    return made


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As its source is now."""
    made = copy_code(tmp_path_factory.mktemp("programs"))
    (made.tree / "bundle/manifest.yaml").write_text(MANIFEST.read_text())
    made.build("--only", "image-verifier")
    return made.bundle / load().program_path("image-verifier", "image-verifier")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, copy: Copy, verifier: Path) -> Iterator[Node]:
    """Its registry has each image, with the signature that its name says."""
    folder = tmp_path_factory.mktemp("node")
    key, other = make_key(folder / "images.pem"), make_key(folder / "other.pem")
    assert copy.run("sign", "--key", other).returncode == 0
    signatures = copy.tree / "bundle/signatures.json"
    of_another = json.loads(signatures.read_text())
    assert copy.run("sign", "--key", key).returncode == 0
    ours = json.loads(signatures.read_text())
    found = {one.name: one for one in copy.inventory.artifacts if one.kind == "image"}
    digests = {name: one.digest for name, one in found.items()}
    with ExitStack() as ends:
        made = Node(folder, copy)
        ends.callback(made.stop)
        for template, path in (
            ("config.toml.j2", "config.toml"),
            ("image-verifier.json.j2", "image-verifier.json"),
            ("hosts.toml.j2", "certs.d/localhost/hosts.toml"),
        ):
            scratch = folder / "rendered" / template
            scratch.mkdir(parents=True)
            target = folder / "etc" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            given = {"cluster_image_keys": [public_key(key)], "cluster_images_unsigned": [f"{REGISTRY}/trusted"]}
            target.write_text(render(scratch, template, "containerd", NODE, **given))
        # As another registry, which is asked by HTTP.
        another = folder / "etc/certs.d" / REGISTRY
        another.mkdir()
        (another / "hosts.toml").write_text(f'[host."http://{REGISTRY}"]\n')
        verifiers = folder / "opt/image-verifiers"
        verifiers.mkdir()
        (verifiers / "image-verifier").hardlink_to(verifier)
        made.start_registry()
        for name, image in found.items():
            made.push(copy.bundle / image.path, f"{name}:v1.2.3")
            envelope = {
                "forged": of_another[image.digest],
                "replayed": ours[digests["signed"]],
            }.get(name, ours[image.digest])
            if name != "bare":
                push_signature(made, image, envelope, own_materials(copy, name, changed=name == "changed"))
        made.start_containerd()
        yield made


def own_materials(copy: Copy, name: str, *, changed: bool) -> bytes:
    """The bill of materials that the bundle has for an image, or another one."""
    (one,) = (
        artifact for artifact in copy.inventory.artifacts if (artifact.kind, artifact.name) == ("signature", name)
    )
    archive = copy.bundle / one.path

    def blob(digest: str) -> bytes:
        name = f"blobs/{digest.replace(':', '/')}"
        command = ["tar", "--extract", "--to-stdout", "-f", str(archive), name]
        return subprocess.run(command, check=True, capture_output=True).stdout

    assert one.digest
    layers = json.loads(blob(one.digest))["layers"]
    document = blob(next(layer["digest"] for layer in layers if layer["mediaType"] == MATERIALS))
    return document.replace(b"golang.org/x/sys", b"golang.org/x/old") if changed else document


def push_signature(node: Node, image: Artifact, envelope: dict[str, Any], document: bytes) -> None:
    assert image.digest
    reference = f"{image.name}:{image.digest.replace(':', '-')}.sig"
    target = node.folder / f"{image.name}.tar"
    layers = {ENVELOPE: json.dumps(envelope).encode(), MATERIALS: document}
    images.attachment(f"localhost/{reference}", ARTIFACT, layers, target)
    node.push(target, reference)


def by_digest(copy: Copy, name: str, place: str = "localhost") -> str:
    (one,) = (artifact for artifact in copy.inventory.artifacts if (artifact.kind, artifact.name) == ("image", name))
    return f"{place}/{name}@{one.digest}"


def test_a_signed_image_is_pulled(node: Node, copy: Copy) -> None:
    began = time.monotonic()
    assert node.pull(by_digest(copy, "signed")) == ""
    print(f"pulled in {time.monotonic() - began:.2f} s")
    # By tag too: containerd asks about the digest that the tag leads to.
    assert node.pull("localhost/signed:v1.2.3") == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bare", "it is not signed (lab bundle sign)"),
        ("forged", "its signature is of none of the stack's keys (cluster.imageKeys)"),
        ("changed", "its bill of materials is not the one that was signed"),
        ("replayed", "its signature is another image's"),
    ],
)
def test_others_are_refused_with_the_reason(node: Node, copy: Copy, name: str, reason: str) -> None:
    told = node.pull(by_digest(copy, name))
    assert "blocked pull" in told
    assert reason in told


def test_images_of_other_registries_are_refused_but_for_those_that_are_named(node: Node, copy: Copy) -> None:
    told = node.pull(by_digest(copy, "signed", REGISTRY))
    assert "not an image of the cluster's registry" in told
    image = next(one for one in copy.inventory.artifacts if (one.kind, one.name) == ("image", "bare"))
    source, tag = f"oci-archive:{copy.bundle / image.path}:localhost/bare:v1.2.3", "bare:v1.2.3"
    for place in ("trusted", "trusted-not"):
        target = f"docker://{REGISTRY}/{place}/{tag}"
        node.run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", source, target)
    assert "blocked pull" in node.pull(by_digest(copy, "bare", f"{REGISTRY}/trusted-not"))
    assert node.pull(by_digest(copy, "bare", f"{REGISTRY}/trusted")) == ""


def test_what_cannot_be_asked_about_is_refused(node: Node, copy: Copy) -> None:
    settings = node.folder / "etc/image-verifier.json"
    text = settings.read_text()
    try:
        settings.write_text(text.replace(":5000", ":5001"))
        told = node.pull(by_digest(copy, "changed"))
        assert "blocked pull" in told
        assert "connection refused" in told
        settings.unlink()
        assert "blocked pull" in node.pull(by_digest(copy, "changed"))
    finally:
        settings.write_text(text)
