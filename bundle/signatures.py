"""Signatures of the bundle's images: who has the key states an image's digest and the digest of its bill of materials.

signatures.json keeps them in Git, by the image's digest: equal sources give equal images, so what was signed on one
machine holds on all. In a bundle each is an OCI artifact with the bill of materials in it, which goes to a registry as
images do, and which nodes ask for before they pull the image (go/image-verifier).
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bundle import images, sbom
from bundle.errors import BundleError
from bundle.files import sha256, write_atomically
from bundle.manifest import HERE
from bundle.store import REMEDY, SBOM, Artifact, Inventory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bundle.store import Store

    Envelope = dict[str, Any]

SIGNATURES = HERE / "signatures.json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://ml-cluster.dev/bill-of-materials/v1"
ENVELOPE = "application/vnd.dsse.envelope.v1+json"
MATERIALS = "application/vnd.cyclonedx+json"
ARTIFACT = "application/vnd.ml-cluster.signature.v1"


def load_key(text: str) -> Ed25519PrivateKey:
    """The private key in a PEM text.

    Raises:
        BundleError: it is not an Ed25519 key without a password.
    """
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(
            "the key for signing images is not a PEM file with an Ed25519 key without a password",
            remedy="openssl genpkey -algorithm ed25519 -out images.pem",
        )
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """What `cluster.imageKeys` names a key by: its SubjectPublicKeyInfo in base64."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def read(path: Path = SIGNATURES) -> dict[str, Envelope]:
    """The signed statements, by the image's digest; empty without the file.

    Raises:
        BundleError: the file cannot be read.
    """
    try:
        found: dict[str, Envelope] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}", remedy=f"take it from Git: git checkout {path}") from None
    return found


def sign(store: Store, key: Ed25519PrivateKey, locked: Iterable[str], path: Path = SIGNATURES) -> list[str]:
    """Sign the bundle's images that are not signed with this key; return their names.

    `locked`: digests of images that Git names. Statements about others, which the bundle has not either, are dropped.

    Raises:
        BundleError: the bundle is not complete.
    """
    inventory = store.inventory()
    known, signed = read(path), []
    made = {digest: known[digest] for digest in known if digest in set(locked)}
    for image in _images(inventory):
        statement = _statement(image, materials(store, inventory, image))
        assert image.digest
        if image.digest in known and _is_signed(known[image.digest], statement, key):
            made[image.digest] = known[image.digest]
            continue
        signature = base64.b64encode(key.sign(_message(statement))).decode()
        made[image.digest] = {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(statement).decode(),
            "signatures": [{"keyid": hashlib.sha256(public_key(key).encode()).hexdigest()[:16], "sig": signature}],
        }
        signed.append(image.name)
    if made != known:
        write_atomically(path, json.dumps(made, indent=1, sort_keys=True) + "\n")
    return signed


def attach(store: Store, inventory: Inventory, path: Path = SIGNATURES) -> list[str]:
    """Put the signatures of the bundle's images into it; return the names of images whose signature does not fit.

    A signature does not fit if the image was made of other parts than the signed bill of materials says.

    Raises:
        BundleError: the bundle is not complete.
    """
    known, others = read(path), []
    inventory.artifacts = [one for one in inventory.artifacts if one.kind != "signature"]
    for image in _images(inventory):
        if image.digest not in known:
            continue
        document, envelope = materials(store, inventory, image), known[image.digest]
        if _told(envelope) != json.loads(_statement(image, document)):
            others.append(image.name)
            continue
        inventory.put([_artifact(store, image, envelope, document)])
    for file in store.root.glob("signatures/*"):
        if not inventory.find(str(file.relative_to(store.root))):
            file.unlink()
    store.write(inventory)
    return others


def unattached(inventory: Inventory, path: Path = SIGNATURES) -> list[str]:
    """Names of images that Git has a signature of and the bundle has not."""
    held = {(one.name, one.key) for one in inventory.artifacts if one.kind == "signature"}
    known = read(path)
    return [
        one.name
        for one in _images(inventory)
        if one.digest in known and (one.name, _key(one, known[one.digest])) not in held
    ]


def materials(store: Store, inventory: Inventory, image: Artifact) -> bytes:
    """An image's own bill of materials, CycloneDX 1.6: equal images of equal parts have equal ones.

    Raises:
        BundleError: the bundle's bill of materials is missing or has been changed.
    """
    path = store.root / SBOM
    if not path.exists() or sha256(path) != inventory.sbom_sha256:
        raise BundleError(f"{path} is missing or has been changed", remedy=f"run {REMEDY}")
    parts = [one for one in inventory.artifacts if one.path in image.programs]
    # Other tools may well make the same bytes.
    alone = [one.model_copy(update={"tools": {}}) for one in (image, *parts)]
    digests = {one.path: one.sha256 for one in parts}
    modules = {
        where: found
        for (where, digest), found in sbom.read_modules(path.read_text()).items()
        if digests.get(where) == digest
    }
    return sbom.render(Inventory(architecture=inventory.architecture, artifacts=alone), modules).encode()


def _images(inventory: Inventory) -> list[Artifact]:
    return [one for one in inventory.artifacts if one.kind == "image" and one.digest]


def _statement(image: Artifact, document: bytes) -> bytes:
    """What is signed: an in-toto statement."""
    assert image.digest
    about = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"localhost/{image.name}", "digest": {"sha256": image.digest.removeprefix("sha256:")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {"sha256": hashlib.sha256(document).hexdigest()},
    }
    return json.dumps(about, sort_keys=True).encode()


def _message(statement: bytes) -> bytes:
    """The bytes that a signature is of (DSSE v1, PAE)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(statement), statement)


def _is_signed(envelope: Envelope, statement: bytes, key: Ed25519PrivateKey) -> bool:
    """Whether an envelope has just this statement, signed by a key."""
    if base64.b64decode(envelope["payload"]) != statement:
        return False
    for one in envelope["signatures"]:
        try:
            key.public_key().verify(base64.b64decode(one["sig"]), _message(statement))
        except InvalidSignature:
            continue
        return True
    return False


def _told(envelope: Envelope) -> Any:
    return json.loads(base64.b64decode(envelope["payload"]))


def _key(image: Artifact, envelope: Envelope) -> str:
    about = json.dumps([image.digest, envelope], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()


def _artifact(store: Store, image: Artifact, envelope: Envelope, document: bytes) -> Artifact:
    """Write a signature and its bill of materials to the bundle."""
    assert image.digest
    tag = image.digest.replace(":", "-") + ".sig"
    path = f"signatures/{image.name}_{image.version}.tar"
    target = store.root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    layers = {ENVELOPE: json.dumps(envelope, sort_keys=True).encode(), MATERIALS: document}
    digest = images.attachment(f"localhost/{image.name}:{tag}", ARTIFACT, layers, target)
    return Artifact(
        name=image.name, family=image.family, version=image.version, kind="signature", path=path,
        sha256=sha256(target), size=target.stat().st_size, key=_key(image, envelope), source="signed",
        tags=[tag], digest=digest,
    )  # fmt: skip
