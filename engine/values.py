"""Property values in the form that Pulumi puts on the wire and in checkpoints.

A value is plain JSON data. What JSON cannot say is an object that carries a signature under :data:`SIG`: a secret, an
asset, an archive, a reference to a resource, an output. A value that a preview cannot know yet is the string
:data:`UNKNOWN`. The signatures are constants of the protocol (``sdk/go/common/resource`` in pulumi/pulumi).
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import struct_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

SIG = "4dabf18193072939515e22adb298388d"
SECRET_SIG = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105
ASSET_SIG = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE_SIG = "0def7320c3a5731c473e5ecbe6d01bc7"
RESOURCE_SIG = "5cf8f73096256a8f31e491e813e4eb8e"
OUTPUT_SIG = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
REDACTED = "[secret]"

_UNKNOWNS = frozenset(
    {
        UNKNOWN,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)
_EXACT_INTEGERS = 2**53

Value = Any
"""Plain JSON data, with signed objects for what JSON cannot say."""
Properties = dict[str, Value]


@dataclass(frozen=True)
class Secret:
    """A stack output that must not be shown unless the user asks for it."""

    value: Value

    def __repr__(self) -> str:
        return REDACTED


def from_wire(struct: struct_pb2.Struct) -> Properties:
    """Decode a protobuf object; every typed unknown becomes :data:`UNKNOWN`."""
    return {key: value_from_wire(field) for key, field in struct.fields.items()}


def value_from_wire(value: struct_pb2.Value) -> Value:
    """Decode one protobuf value."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        text = value.string_value
        return UNKNOWN if text in _UNKNOWNS else text
    if kind == "struct_value":
        return from_wire(value.struct_value)
    if kind == "list_value":
        return [value_from_wire(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < _EXACT_INTEGERS else number
    if kind == "bool_value":
        return value.bool_value
    return None


def to_wire(properties: Mapping[str, Value]) -> struct_pb2.Struct:
    """Encode properties as a protobuf object."""
    struct = struct_pb2.Struct()
    fields = struct.fields
    for key, value in properties.items():
        _set_wire(fields[key], value)
    return struct


def _set_wire(wire: struct_pb2.Value, value: Value) -> None:
    if isinstance(value, str):
        wire.string_value = value
    elif value is None:
        wire.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        wire.bool_value = value
    elif isinstance(value, int | float):
        wire.number_value = value
    elif isinstance(value, list):
        items = wire.list_value.values
        # Mentioning the field is what makes an empty list a list.
        wire.list_value.SetInParent()
        for item in value:
            _set_wire(items.add(), item)
    else:
        fields = wire.struct_value.fields
        wire.struct_value.SetInParent()
        for key, item in value.items():
            _set_wire(fields[key], item)


def signature(value: Value) -> str | None:
    """The signature of a signed object, or None."""
    return value.get(SIG) if isinstance(value, dict) else None


def secret(value: Value) -> Value:
    """Mark a value as secret; a secret stays as it is."""
    return value if is_secret(value) else {SIG: SECRET_SIG, "value": value}


def is_secret(value: Value) -> bool:
    """Whether the value itself is a secret (not one of its parts)."""
    return isinstance(value, dict) and value.get(SIG) == SECRET_SIG


def transform(value: Value, change: Callable[[Value], Value]) -> Value:
    """Rebuild a value bottom-up: ``change`` sees every part after its own parts were changed."""
    if isinstance(value, dict):
        value = {key: transform(item, change) for key, item in value.items()}
    elif isinstance(value, list):
        value = [transform(item, change) for item in value]
    return change(value)


def convert_properties(properties: Mapping[str, Value], convert: Callable[[Value], Value]) -> Properties:
    """Apply ``convert``, which goes through all parts of a value itself, to each property."""
    return {key: convert(value) for key, value in properties.items()}


def contains(value: Value, test: Callable[[Value], bool]) -> bool:
    """Whether the value or any part of it passes the test."""
    if test(value):
        return True
    if isinstance(value, dict):
        return any(contains(item, test) for item in value.values())
    if isinstance(value, list):
        return any(contains(item, test) for item in value)
    return False


def contains_secret(value: Value) -> bool:
    """Whether the value or any part of it is secret."""
    return contains(value, is_secret)


def contains_unknown(value: Value) -> bool:
    """Whether the value or any part of it is not known yet."""
    return contains(value, lambda part: part == UNKNOWN)


def reveal(value: Value) -> Value:
    """The value with every secret replaced by its content."""
    return transform(value, lambda part: part.get("value") if is_secret(part) else part)


def reveal_properties(properties: Mapping[str, Value]) -> Properties:
    """Apply :func:`reveal` to each property."""
    return convert_properties(properties, reveal)


def redact(value: Value) -> Value:
    """The value with every secret replaced by ``[secret]``; for everything that is shown."""
    return REDACTED if is_secret(value) else _redact_parts(value)


def _redact_parts(value: Value) -> Value:
    if isinstance(value, dict):
        return {key: redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item) for item in value]
    return value


def lower_outputs(value: Value, dependencies: set[str] | None = None) -> Value:
    """Replace output values by what they hold: unknown, secret or plain. Collects their dependencies."""

    def lower(part: Value) -> Value:
        if signature(part) != OUTPUT_SIG:
            return part
        if dependencies is not None:
            dependencies.update(part.get("dependencies") or ())
        held = part.get("value", UNKNOWN)
        return secret(held) if part.get("secret") else held

    return transform(value, lower)


def raise_outputs(value: Value, dependencies: Iterable[str]) -> Value:
    """Wrap a property as an output value, the form in which transforms see properties with dependencies."""
    if signature(value) == OUTPUT_SIG:
        return value
    urns = sorted(dependencies)
    if not urns:
        return value
    wrapped: Properties = {SIG: OUTPUT_SIG, "dependencies": urns}
    if is_secret(value):
        wrapped["secret"] = True
        value = value.get("value")
    if value != UNKNOWN:
        wrapped["value"] = value
    return wrapped


def without_references(value: Value) -> Value:
    """Replace resource references by the ID (or URN) they stand for, for a peer that does not take references."""

    def plain(part: Value) -> Value:
        if signature(part) != RESOURCE_SIG:
            return part
        return part.get("id") or part.get("urn")

    return transform(value, plain)


def propagate_secrets(outputs: Mapping[str, Value], inputs: Mapping[str, Value]) -> Properties:
    """Mark as secret each output whose input is secret, for providers that do not track secrets themselves."""
    return {key: _propagate(value, inputs.get(key)) for key, value in outputs.items()}


def _propagate(output: Value, source: Value) -> Value:
    if is_secret(output) or source is None:
        return output
    if is_secret(source):
        return secret(output)
    if isinstance(source, dict) and isinstance(output, dict):
        return {key: _propagate(item, source.get(key)) for key, item in output.items()}
    if isinstance(source, list) and isinstance(output, list):
        # Elements may have moved: a secret anywhere in the list taints the whole of it.
        return secret(output) if contains_secret(source) else output
    return output


def hash_assets(value: Value, folder: Path) -> Value:
    """Add the content hash to every asset and archive; relative paths are taken from ``folder``.

    Raises :class:`OSError` when a file cannot be read.
    """

    def add_hash(part: Value) -> Value:
        if signature(part) == ASSET_SIG and not part.get("hash"):
            return {**part, "hash": hashlib.sha256(_asset_bytes(part, folder)).hexdigest()}
        if signature(part) == ARCHIVE_SIG and not part.get("hash"):
            return {**part, "hash": _archive_hash(part, folder)}
        return part

    return transform(value, add_hash)


def _asset_bytes(asset: Mapping[str, Value], folder: Path) -> bytes:
    if "path" in asset:
        path: Path = folder / asset["path"]
        return path.read_bytes()
    # A remote asset is known by its address: fetching it here would make previews depend on the network.
    return str(asset.get("text") or asset.get("uri") or "").encode()


def _archive_entries(archive: Mapping[str, Value], folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files in the order in which the CLI writes them."""
    for name, part in sorted((archive.get("assets") or {}).items()):
        if signature(part) == ARCHIVE_SIG:
            for inner, content in _archive_entries(part, folder):
                yield f"{name}/{inner}", content
        else:
            yield name, _asset_bytes(part, folder)
    if "path" in archive:
        yield from _read_archive(folder / archive["path"])
    elif "uri" in archive:
        yield "uri", str(archive["uri"]).encode()


def _read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        files = sorted((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.parts)
        yield from ((str(file.relative_to(path)), file.read_bytes()) for file in files)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from ((entry.filename, archive.read(entry)) for entry in archive.infolist() if not entry.is_dir())
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            members = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
            yield from ((name, file.read()) for name, file in members if file is not None)
    else:
        yield path.name, path.read_bytes()


def _archive_hash(archive: Mapping[str, Value], folder: Path) -> str:
    """The CLI's: of the archive file if there is one, else of the tar file that Go would write of the contents."""
    if "path" in archive and (path := folder / archive["path"]).is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    seen = set()
    for name, content in _archive_entries(archive, folder):
        if name in seen:
            continue
        seen.add(name)
        digest.update(_tar_header(name, len(content)) + content + bytes(-len(content) % tarfile.BLOCKSIZE))
    digest.update(bytes(2 * tarfile.BLOCKSIZE))
    return digest.hexdigest()


def _tar_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    header = bytearray(entry.tobuf(tarfile.PAX_FORMAT))
    # Go writes the numbers of the device where Python leaves them empty.
    block = len(header) - tarfile.BLOCKSIZE
    header[block + 329 : block + 345] = b"0000000\0" * 2
    header[block + 148 : block + 156] = b" " * 8
    header[block + 148 : block + 156] = b"%06o\0 " % sum(header[block:])
    return bytes(header)
