"""Programs and images of a bundle on a node; the action plugin of the same name brings the files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.parse
import urllib.request

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: artifacts
short_description: Install programs and import images from a bundle
description:
  - Compares what is there with the bundle's checksums, copies what is missing or differs, checks it on the node, then
    puts programs in their places and imports images into containerd.
options:
  bundle:
    description: The bundle's folder on the controller.
    type: path
    required: true
  programs:
    description: Programs, each with its C(name), the C(dest) file, and the C(version) where the bundle has several.
    type: list
    elements: dict
    default: []
  images:
    description: Images, each with its C(name), and the C(version) where the bundle has several.
    type: list
    elements: dict
    default: []
  signatures:
    description: Signatures of images, each with the C(name) and C(version) of its image; for a C(registry) alone.
    type: list
    elements: dict
    default: []
  manifests:
    description: Kubernetes manifests, each with its C(name); with C(state=verified) alone.
    type: list
    elements: dict
    default: []
  units:
    description: Systemd units, each with its C(name); with C(state=verified) alone.
    type: list
    elements: dict
    default: []
  registry:
    description: Address on the node of a registry that takes the images, instead of containerd.
    type: str
  state:
    description: C(verified) checks the bundle's files on the controller and returns C(faults).
    choices: [present, verified]
    default: present
"""
BLOCK = 1 << 20
NOT_FOUND = 404
TIMEOUT_SECONDS = 120
DIFFERS = "reached this node with another checksum than bundle.json's."
CTR = "/usr/local/bin/ctr"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(path):
    """The checksum of a file; None where there is none."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def images(module, namespace, *command):
    """Output of containerd's `ctr images`."""
    done = subprocess.run(
        [CTR, "--namespace", namespace, "images", *command], check=False, capture_output=True, text=True
    )
    if done.returncode:
        module.fail_json(msg=f"ctr images {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def imported(module):
    """Digests of containerd's images by name."""
    rows = [line.split() for line in images(module, "k8s.io", "list").splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def ask(method, url, body=None, **headers):
    """Answer of a registry; HTTPError where it refuses."""
    request = urllib.request.Request(url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    request.method = method
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


def served(registry, reference):
    """Digest of an image in a registry; None where it has none of that name."""
    name, _, tag = reference.removeprefix("localhost/").rpartition(":")
    try:
        with ask("HEAD", f"http://{registry}/v2/{name}/manifests/{tag}", Accept=MANIFEST) as answer:
            return answer.headers["Docker-Content-Digest"]
    except urllib.error.HTTPError as error:
        if error.code == NOT_FOUND:
            return None
        raise


def upload(place, digest, blob, size):
    """Bring one blob to a registry, unless it has it (OCI Distribution Specification, Push)."""
    try:
        ask("HEAD", f"{place}/blobs/{digest}").close()
        return
    except urllib.error.HTTPError as error:
        if error.code != NOT_FOUND:
            raise
    with ask("POST", f"{place}/blobs/uploads/", b"") as answer:
        session = urllib.parse.urljoin(place, answer.headers["Location"])
    target = session + ("&" if "?" in session else "?") + urllib.parse.urlencode({"digest": digest})
    ask("PUT", target, blob, Content_Type="application/octet-stream", Content_Length=str(size)).close()


def push(module, artifact, staged):
    """Copy an image from an OCI archive to a registry, which checks what the manifest's digest vouches for."""
    registry, reference = module.params["registry"], artifact["reference"]
    name, _, tag = reference.removeprefix("localhost/").rpartition(":")
    place = f"http://{registry}/v2/{name}"
    try:
        with tarfile.open(staged) as tar:
            text = tar.extractfile(blob_path(artifact["digest"])).read()
            if f"sha256:{hashlib.sha256(text).hexdigest()}" != artifact["digest"]:
                module.fail_json(msg=f"{artifact['path']} {DIFFERS}")
            manifest = json.loads(text)
            for blob in [manifest["config"], *manifest["layers"]]:
                upload(place, blob["digest"], tar.extractfile(blob_path(blob["digest"])), blob["size"])
        ask("PUT", f"{place}/manifests/{tag}", text, Content_Type=MANIFEST).close()
    except (tarfile.TarError, KeyError, ValueError):
        module.fail_json(msg=f"{artifact['path']} {DIFFERS}")
    except urllib.error.HTTPError as error:
        module.fail_json(msg=f"The registry refuses {reference}: {error}: {error.read().decode(errors='replace')}")


def blob_path(digest):
    """Where an OCI archive has a blob."""
    return "blobs/" + digest.replace(":", "/")


def install(module, artifact, staged):
    """Put one file in its place. It must be what bundle.json says: transfers and disks do fail."""
    if module.params["registry"]:
        push(module, artifact, staged)
        os.unlink(staged)
        return
    if sha256(staged) != artifact["sha256"]:
        module.fail_json(msg=f"{artifact['path']} {DIFFERS}")
    if artifact["kind"] == "image":
        images(module, "k8s.io", "import", staged)
        os.unlink(staged)
        return
    os.makedirs(os.path.dirname(artifact["dest"]), exist_ok=True)
    new = artifact["dest"] + ".new"
    shutil.move(staged, new)
    os.chown(new, 0, 0)
    os.chmod(new, 0o755)
    os.replace(new, artifact["dest"])


def is_missing(artifact, registry, present):
    """Whether a node lacks an artifact, or has another one in its place."""
    if artifact["kind"] == "program":
        return sha256(artifact["dest"]) != artifact["sha256"]
    found = served(registry, artifact["reference"]) if registry else present.get(artifact["reference"])
    return found != artifact["digest"]


def main():
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "wanted": {"type": "list", "elements": "dict", "required": True},
            "staged": {"type": "dict", "default": {}},
            "registry": {"type": "str"},
        },
        supports_check_mode=True,
    )
    wanted, staged = module.params["wanted"], module.params["staged"]
    for artifact in wanted:
        if artifact["key"] in staged:
            install(module, artifact, staged[artifact["key"]])
    if staged:
        module.exit_json(changed=True)
    registry = module.params["registry"]
    any_image = any(artifact["kind"] == "image" for artifact in wanted)
    present = imported(module) if any_image and not registry else {}
    module.exit_json(missing=[one["key"] for one in wanted if is_missing(one, registry, present)])


if __name__ == "__main__":
    main()
