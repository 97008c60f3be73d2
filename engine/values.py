"""What the engine does with property values (``protocol.values``): secrets, outputs, references, assets."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from protocol import values
from protocol.signatures import ARCHIVE_SIG, ASSET_SIG, OUTPUT_SIG, RESOURCE_SIG, SIG, UNKNOWN
from protocol.values import is_secret, secret, signature

from .errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from google.protobuf import struct_pb2

    from protocol.values import Properties, Value

REDACTED = "[secret]"


def from_wire(struct: struct_pb2.Struct) -> Properties:
    """Decode a protobuf object; raises :class:`EngineError` for a number that no state can hold."""
    try:
        return values.from_wire(struct)
    except ValueError as error:
        raise EngineError(str(error)) from None


@dataclass(frozen=True)
class Secret:
    """A stack output that must not be shown unless the user asks for it."""

    value: Value

    def __repr__(self) -> str:
        return REDACTED


def transform(value: Value, change: Callable[[Value], Value]) -> Value:
    """Rebuild a value bottom-up: ``change`` sees every part after its own parts were changed."""
    if isinstance(value, dict):
        value = {key: transform(item, change) for key, item in value.items()}
    elif isinstance(value, list):
        value = [transform(item, change) for item in value]
    return change(value)


def convert_properties(properties: Mapping[str, Value], convert: Callable[[Value], Value]) -> Properties:
    """Apply ``convert``, which handles nested values itself, to each property."""
    return {key: convert(value) for key, value in properties.items()}


def equal(left: Value, right: Value) -> bool:
    """Whether two values are equal; ``true`` and 1 are not, though they are in Python."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(item, right[key]) for key, item in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


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
    """Replace output values by their values: unknown, secret or plain. Collects their dependencies."""

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
    """Replace resource references by their ID (or URN), for a provider that does not accept references."""

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
        # Elements may have moved: a secret anywhere in the list makes the whole list secret.
        return secret(output) if contains_secret(source) else output
    return output


def cover_secrets(output: Value, source: Value) -> Value:
    """The output, with every part marked that is secret in its source; existing marks stay."""
    if is_secret(output) or source is None:
        return output
    if is_secret(source):
        return secret(reveal(output))
    if isinstance(source, dict) and isinstance(output, dict):
        return {key: cover_secrets(item, source.get(key)) for key, item in output.items()}
    if isinstance(source, list) and isinstance(output, list) and contains_secret(source):
        if not equal(reveal(source), reveal(output)):
            # Elements may have moved.
            return output if contains_secret(output) else secret(output)
        return [cover_secrets(item, part) for item, part in zip(output, source, strict=True)]
    return output


def secret_texts(value: Value) -> set[str]:
    """The texts and numbers inside the secrets of a value."""
    if is_secret(value):
        return {json.dumps(leaf) if not isinstance(leaf, str) else leaf for leaf in _leaves(reveal(value))}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(secret_texts, parts))


def _leaves(value: Value) -> Iterator[str | int | float]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key != SIG:
                yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif value and not isinstance(value, bool):
        yield value


def conceal(value: Value, texts: Iterable[str]) -> Value:
    """The value, with every part marked as secret that contains one of the texts as whole words."""
    forms = {form for text in texts for form in (text, json.dumps(text)[1:-1])}
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(form)}(?!\w)" for form in forms))

    def conceal_part(part: Value) -> Value:
        if is_secret(part):
            return part
        if signature(part):
            return secret(part) if any(pattern.search(str(leaf)) for leaf in _leaves(part)) else part
        if isinstance(part, dict):
            return {key: conceal_part(item) for key, item in part.items()}
        if isinstance(part, list):
            return [conceal_part(item) for item in part]
        plain = part if isinstance(part, str) else json.dumps(part)
        return secret(part) if pattern.search(plain) else part

    return conceal_part(value)


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
    # A remote asset is hashed by its address: fetching it would make previews depend on the network.
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
    """The CLI's hash: of the archive file if there is one, else of the tar file that Go would write."""
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
