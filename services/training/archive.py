"""A model's code as one tar archive, named by its SHA-256.

`lab train` packs it, and a Job unpacks it. The same files make the same archive on every machine.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from services.training.errors import BAD_CODE, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FILE_BYTES, ARCHIVE_BYTES = 1 << 20, 8 << 20
"""Limits of a file and of the archive, which is for code; data belongs in a dataset."""
DIGEST = re.compile("[0-9a-f]{64}")
SECRET_NAMES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|\.pgpass|\.pypirc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)|clouds\.yaml|kubeconfig"
    r"|credentials(\.\w+)?|.+\.(pem|key|p12|pfx|kdbx|jks))$"
)
SECRET_TEXTS = {
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "an AWS key": re.compile(rb"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a forge token": re.compile(rb"\b(gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{40,}|glpat-[\w-]{20})"),
    "a token": re.compile(rb"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\."),
    "a password in an address": re.compile(rb"[a-z][a-z0-9+.-]*://[^/@:\s'\"{}$]+:[^/@:\s'\"{}$]+@"),
    "a password": re.compile(
        rb"(?i)\b(?:password|passwd|secret|secret_key|api_key|access_key|token)\s*[:=]\s*['\"][^'\"\s{}$]{8,}['\"]"
    ),
}


def pack(folder: Path, names: Iterable[str]) -> tuple[str, bytes]:
    """Pack files of a folder, named by their paths in it; returns the archive's SHA-256 and its bytes.

    Raises:
        TrainingError: some files may not be packed; the message names them all.
    """
    names = sorted(names)
    if problems := list(_problems(folder, names)):
        raise TrainingError(f"{folder.name} cannot be packed: {'; '.join(problems)}", BAD_CODE)
    packed = io.BytesIO()
    # Without times and owners, which differ between machines.
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            content = (folder / name).read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    content = packed.getvalue()
    return hashlib.sha256(content).hexdigest(), content


def _problems(folder: Path, names: list[str]) -> Iterator[str]:
    total = 0
    for name in names:
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield f"{name} is not a regular file"
            continue
        size = path.stat().st_size
        total += size
        if size > FILE_BYTES:
            yield f"{name} has {size} bytes, more than {FILE_BYTES}: keep data in the object store, not with the code"
            continue
        if SECRET_NAMES.search(name):
            yield f"{name} has the name of a secret"
            continue
        text = path.read_bytes()
        if found := [what for what, pattern in SECRET_TEXTS.items() if pattern.search(text)]:
            yield f"{name} seems to contain {' and '.join(found)}"
    if total > ARCHIVE_BYTES:
        yield f"the files have {total} bytes in total, more than {ARCHIVE_BYTES}"


def unpack(content: bytes, digest: str, folder: Path) -> None:
    """Write the files of an archive to a folder.

    Raises:
        TrainingError: the archive does not have that digest, or contains anything but files below the folder.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise TrainingError(f"the archive stored as {digest} has the SHA-256 {found}: it was changed", BAD_CODE)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    raise TrainingError(
                        f"the archive {digest} contains {member.name}, not a file below its root", BAD_CODE
                    )
                file = archive.extractfile(member)
                assert file
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read())
    except tarfile.TarError as error:
        raise TrainingError(f"the archive {digest} cannot be unpacked: {error}", BAD_CODE) from None
