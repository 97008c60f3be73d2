"""State in a directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, unquote

import psutil

from engine.backend.bucket import ABSENT, ConflictError, Entry, StorageError
from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Options of the CLI's file backend; the last two have no effect here.
_OPTIONS = {"create_dir", "no_tmp_dir", "metadata"}
_LOCAL_FILE_SYSTEMS = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}


class FileBucket:
    """Keys are paths below ``root``. Files have mode 0600, new folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def creates_once(self) -> bool:
        """Not guaranteed on every file system that may be mounted."""
        return False

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local disk, not on a network file system."""
        return _file_system(self._root) in _LOCAL_FILE_SYSTEMS

    @classmethod
    def open(cls, url: str) -> Self:
        """Open ``file://<folder>``, where ``~`` is the home folder and a relative one is below the current."""
        path, _, query = url.removeprefix("file://").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := options.keys() - _OPTIONS:
            raise EngineError(
                f"The backend '{url}' has an unknown option: {', '.join(sorted(unknown))}.",
                remedy=f"Options are {', '.join(sorted(_OPTIONS))}.",
            )
        path = unquote(path)
        root = (Path.home() / path[2:] if path.startswith("~") else Path(path)).absolute()
        if not root.is_dir() and options.get("create_dir", "").lower() != "true":
            raise EngineError(
                f"The state directory '{root}' does not exist.",
                remedy=f"Create it: mkdir -p -m 700 '{root}'. Or put ?create_dir=true after the URL.",
            )
        return cls(root)

    def locate(self, key: str) -> str:
        """The path of ``key``."""
        return str(self._root / key)

    def read(self, key: str) -> bytes | None:
        """The contents of ``key``; None when there is no such file."""
        with self._errors("read", key):
            try:
                return (self._root / key).read_bytes()
            except FileNotFoundError:
                return None

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The contents of ``key`` and their digest; None when there is no such file."""
        data = self.read(key)
        return None if data is None else (data, hashlib.sha256(data).hexdigest())

    def write(self, key: str, data: bytes, *, version: str | None = None) -> None:
        """Write ``key`` atomically and durably: it has its old or its new contents, whatever happens. ``version`` is
        compared before the write; a write of another process in between goes unnoticed.
        """
        if version is not None:
            found = self.read_version(key)
            if (found[1] if found else ABSENT) != version:
                raise ConflictError(self.locate(key))
        path = self._root / key
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with self._errors("written", key):
            self._make_folder(path.parent)
            try:
                with _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
                    _write_all(descriptor, data)
                    os.fsync(descriptor)
                temporary.replace(path)
                _attributes(path).unlink(missing_ok=True)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def delete(self, key: str, *, version: str | None = None) -> None:
        """Delete ``key``, durably; nothing happens when there is no such file, or none of this ``version``."""
        if version is not None and (found := self.read_version(key)) and found[1] != version:
            return
        path = self._root / key
        with self._errors("deleted", key):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            _attributes(path).unlink(missing_ok=True)
            _sync_folder(path.parent)

    def list(self, prefix: str) -> Iterator[Entry]:
        """The files whose key starts with ``prefix``, at any depth, in no order."""
        with self._errors("listed", prefix):
            for folder, _, names in os.walk(self._root / prefix.rpartition("/")[0], onerror=_unless_absent):
                for name in names:
                    path = Path(folder, name)
                    key = path.relative_to(self._root).as_posix()
                    # Dot files are unfinished writes.
                    if key.startswith(prefix) and not name.startswith(".") and not name.endswith(".attrs"):
                        with contextlib.suppress(FileNotFoundError):
                            yield Entry(key, path.stat().st_mtime)

    def read_journal(self, key: str) -> bytes | None:
        """The journal at ``key`` as far as it was written; None when there is none."""
        return self.read(key)

    def create_journal(self, key: str, data: bytes) -> FileJournal:
        """Start a journal that holds ``data``, in place of any that is there."""
        self.write(key, data)
        with self._errors("written", key):
            return FileJournal(self, key, len(data))

    def resume_journal(self, key: str, length: int) -> FileJournal:
        """Open the journal at ``key`` to append after its first ``length`` bytes."""
        with self._errors("written", key):
            return FileJournal(self, key, length)

    def delete_journal(self, key: str) -> None:
        """Delete the journal."""
        self.delete(key)

    def _make_folder(self, folder: Path) -> None:
        for parent in reversed([folder, *folder.parents]):
            if not parent.is_dir():
                parent.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(parent.parent)

    @contextlib.contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(self._root / key, verb, error) from error


class FileJournal:
    """A journal open for appending."""

    def __init__(self, bucket: FileBucket, key: str, length: int) -> None:
        self._bucket = bucket
        self._key = key
        self._path = Path(bucket.locate(key))
        self._length = length
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)

    def append(self, data: bytes) -> None:
        """Add ``data``, durably. What a failed append left of it, the next one overwrites."""
        try:
            os.lseek(self._descriptor, self._length, os.SEEK_SET)
            _write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise storage_error(self._path, "written", error) from error
        self._length += len(data)

    def close(self) -> None:
        """Release the file."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Delete the journal."""
        self._bucket.delete(self._key)


def storage_error(path: Path, verb: str, error: OSError) -> StorageError:
    """The error for a failed system call."""
    return StorageError(
        f"'{path}' cannot be {verb}: {error.strerror or error}.",
        remedy="Free space on its file system, or check its permissions and its disk, then run the command again: "
        "what was recorded so far is kept.",
    )


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on; empty where unknown."""
    mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    return next((mounts[str(place)] for place in (folder, *folder.parents) if str(place) in mounts), "")


def _attributes(path: Path) -> Path:
    """Where the CLI keeps the attributes of an object, a checksum among them."""
    return path.with_name(f"{path.name}.attrs")


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextlib.contextmanager
def _open(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    with _open(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)
