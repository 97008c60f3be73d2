"""Go modules as their proxy has them: where they are, what they must be, and files of theirs."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zipfile
from typing import TYPE_CHECKING

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from bundle.errors import BundleError
from bundle.releases import transfer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bundle.manifest import Files, Source, TextKind

PROXY = "https://proxy.golang.org"
REACH = "set GOPROXY to a module proxy that this machine reaches, or use --from with a bundle"

download = retry(
    retry=retry_if_exception_type(OSError), stop=stop_after_attempt(3), wait=wait_exponential(max=5), reraise=True
)(transfer)


def address(module: str, version: str) -> str:
    """Where the zip of a module is, on the proxy that GOPROXY names."""
    proxy = re.split(r"[,|]", os.environ.get("GOPROXY") or PROXY)[0]
    return f"{proxy.rstrip('/')}/{_escaped(module, version)}"


def checksum(archive: Path) -> str:
    """What go.sum has of a module's zip (golang.org/x/mod/sumdb/dirhash, Hash1): of what is in it, not of its bytes."""
    with zipfile.ZipFile(archive) as opened:
        lines = [f"{hashlib.sha256(opened.read(name)).hexdigest()}  {name}\n" for name in sorted(opened.namelist())]
    return f"h1:{base64.b64encode(hashlib.sha256(''.join(lines).encode()).digest()).decode()}"


def fetch(module: str, version: str, expected: str, scratch: Path, *, cache: Path, say: Callable[[str], None]) -> Path:
    """The zip of a module, from Go's own `cache` of modules or from the proxy, into the folder `scratch`.

    Raises:
        BundleError: the module cannot be had, or is not the pinned one.
    """
    name = f"{module}@{version}"
    archive = cache / "cache" / "download" / _escaped(module, version)
    if not archive.exists():
        archive = scratch / "archive.zip"
        url = address(module, version)
        say(name)
        try:
            download(url, archive)
        except (OSError, ValueError) as error:
            raise BundleError(f"module {name} could not be fetched from {url}: {error}", remedy=REACH) from error
    try:
        found = checksum(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"module {name}: {archive} is not a module: {error}", remedy=f"delete {archive}") from error
    if found != expected:
        raise BundleError(
            f"module {name} has the checksum {found}, but manifest.yaml has {expected}",
            remedy="try again; if it still differs, its source has been changed",
        )
    return archive


def extract(
    wanted: Files, kind: TextKind, version: str, target: Path, *, cache: Path, say: Callable[[str], None]
) -> None:
    """Write files of a module to `target`, one after the other. `cache`: Go's own of modules, where the zip may be.

    Raises:
        BundleError: the module cannot be had, is not the pinned one, or lacks a file.
    """
    name = f"{wanted.module}@{version}"
    archive = fetch(wanted.module, version, wanted.sum, target.parent, cache=cache, say=say)
    with zipfile.ZipFile(archive) as opened:
        if missing := sorted({f"{name}/{path}" for path in wanted.files} - set(opened.namelist())):
            raise BundleError(f"module {name} has no {', '.join(missing)}")
        texts = [opened.read(f"{name}/{path}").decode().removeprefix("---\n").rstrip("\n") for path in wanted.files]
    between = "\n---\n" if kind == "manifest" else "\n"
    target.write_text(f"# From {name}, unchanged; under its license.\n{between.join(texts)}\n")


def unpack(source: Source, version: str, target: Path, *, cache: Path, say: Callable[[str], None]) -> None:
    """Unpack a module into the folder `target`, but for the files that it is built without.

    Raises:
        BundleError: the module cannot be had, is not the pinned one, or lacks such a file.
    """
    name = f"{source.module}@{version}"
    archive = fetch(source.module, version, source.sum, target.parent, cache=cache, say=say)
    say(f"unpacking {name}")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(target.parent)
    (target.parent / name).rename(target)
    for path in source.without:
        if not (target / path).exists():
            raise BundleError(f"module {name} has no {path}", remedy="adapt `without` in manifest.yaml")
        (target / path).unlink()


def _escaped(module: str, version: str) -> str:
    """A module's zip, as proxies and Go's cache name it: they write a capital as `!` and its small letter."""
    path = re.sub("[A-Z]", lambda found: f"!{found[0].lower()}", module)
    return f"{path}/@v/{version}.zip"
