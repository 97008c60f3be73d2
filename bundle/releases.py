"""Programs from their publishers' releases, each checked against the publisher's checksum."""

from __future__ import annotations

import hashlib
import tarfile
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bundle.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundle.manifest import Family

CHUNK = 1 << 20
SECONDS_TO_ANSWER = 10


class Releases:
    """Downloads releases. A host that cannot be reached is tried once."""

    def __init__(self) -> None:
        self._unreachable: set[str] = set()
        self._lock = threading.Lock()

    def get(self, family: Family, architecture: str, target: Path, say: Callable[[str], None]) -> dict[str, str]:
        """Download a family's programs to the folder `target`; return their URLs by name, empty if not available.

        Raises:
            BundleError: a file does not match its publisher's checksum, or lacks a program.
        """
        if family.release is None or not family.programs:
            return {}
        addresses = {}
        for program in family.programs:
            words = family.words(architecture) | {"program": program}
            addresses[program] = family.release.url.format(**words), family.release.checksum.format(**words)
        archive = target / "archive"
        try:
            for program, (url, checksum) in addresses.items():
                if "{program}" in family.release.url:
                    self._checked(url, checksum, target / program, say)
                elif not archive.exists():
                    self._checked(url, checksum, archive, say)
                    _extract(archive, set(family.programs), target, url)
        except (OSError, ValueError) as error:
            say(f"a build, because its release is not available ({error})")
            return {}
        archive.unlink(missing_ok=True)
        for program in family.programs:
            (target / program).chmod(0o755)
        return {program: url for program, (url, _) in addresses.items()}

    def _checked(self, url: str, checksum: str, target: Path, say: Callable[[str], None]) -> None:
        host = urlsplit(url).netloc
        with self._lock:
            if host in self._unreachable:
                raise OSError(f"{host} did not answer")
        try:
            say(f"{host}: {url.rpartition('/')[2]}")
            with urllib.request.urlopen(checksum, timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
                expected = _digest_in(answer.read(CHUNK).decode(), url)
            found = transfer(url, target)
        except urllib.error.HTTPError:
            raise
        except OSError:
            with self._lock:
                self._unreachable.add(host)
            raise
        if found != expected:
            raise BundleError(
                f"{url} has SHA-256 {found}, but its publisher's checksum is {expected}",
                remedy="try again; if it still differs, build from source with --no-releases",
            )


def transfer(url: str, target: Path) -> str:
    """Download to a file, in chunks; return its SHA-256.

    Raises:
        OSError: it cannot be reached, or the connection broke.
    """
    hashed = hashlib.sha256()
    with urllib.request.urlopen(url, timeout=SECONDS_TO_ANSWER) as answer, target.open("wb") as file:  # noqa: S310
        while chunk := answer.read(CHUNK):
            hashed.update(chunk)
            file.write(chunk)
        # not with GOPROXY=file://
        if left := getattr(answer, "length", None):
            raise OSError(f"{url}: the connection broke {left} bytes before the end")
    return hashed.hexdigest()


def _digest_in(text: str, url: str) -> str:
    """The digest of a file from a checksum file with one or several entries."""
    name = url.rpartition("/")[2]
    rows = [line.split() for line in text.splitlines() if line.strip()]
    digests = [row[0] for row in rows if row[1:] == [] or Path(row[1].lstrip("*")).name == name]
    if not digests:
        raise ValueError(f"no checksum for {name}")
    return digests[0]


def _extract(archive: Path, programs: set[str], target: Path, url: str) -> None:
    with tarfile.open(archive) as opened:
        for member in opened:
            name = Path(member.name).name
            if member.isfile() and name in programs:
                source = opened.extractfile(member)
                assert source
                with (target / name).open("wb") as file:
                    while chunk := source.read(CHUNK):
                        file.write(chunk)
    if missing := sorted(name for name in programs if not (target / name).exists()):
        raise BundleError(f"{url} has no {', '.join(missing)}")
