"""What a backend needs of the storage that holds its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from engine.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable


class StorageError(EngineError):
    """The storage failed: it is full, broken or out of reach, or access is denied. What was recorded before is kept."""


class DeniedError(StorageError):
    """The credentials may not do this."""


class ConflictError(StorageError):
    """Another process has changed what this one was about to write."""

    def __init__(self, place: str) -> None:
        super().__init__(
            f"'{place}' was written by another process meanwhile.",
            remedy="Somebody else works on this stack, though it was locked: see who, wait for the end of it, and run "
            "the command again. What was recorded before is kept.",
        )


ABSENT = ""
"""The version of a key that does not exist."""


class Entry(NamedTuple):
    """A key of a bucket and when it was last written, in seconds since the epoch."""

    key: str
    modified: float


class Journal(Protocol):
    """A journal open for appending."""

    def append(self, data: bytes) -> None:
        """Add ``data``, durably. After a StorageError, the next append is of data that begins with this."""
        ...

    def close(self) -> None:
        """Close the file or connection; the journal stays."""
        ...

    def remove(self) -> None:
        """Delete the journal, unless another one has taken its place."""
        ...


class Bucket(Protocol):
    """Where bytes are kept under keys. Every method may raise StorageError."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: then a lock from before a restart of the machine is abandoned."""
        ...

    @property
    def creates_once(self) -> bool:
        """Whether only one of several processes that write a key as ABSENT at the same time succeeds."""
        ...

    def locate(self, key: str) -> str:
        """The path or URL of ``key``, for messages."""
        ...

    def read(self, key: str) -> bytes | None:
        """The contents; None where the key does not exist."""
        ...

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The contents and their version; None where the key does not exist."""
        ...

    def write(self, key: str, data: bytes, *, version: str | None = None) -> None:
        """Replace the contents atomically and durably.

        With ``version``, raises ConflictError unless the current contents have this version.
        """
        ...

    def delete(self, key: str, *, version: str | None = None) -> None:
        """Delete durably; does nothing where the key does not exist, or has another ``version``."""
        ...

    def list(self, prefix: str) -> Iterable[Entry]:
        """All keys that start with ``prefix``."""
        ...

    def read_journal(self, key: str) -> bytes | None:
        """The contents of a journal, None when there is none."""
        ...

    def create_journal(self, key: str, data: bytes) -> Journal:
        """Start a journal with ``data``, durably, in place of any that is there."""
        ...

    def resume_journal(self, key: str, length: int) -> Journal:
        """Open a journal to append after its first ``length`` bytes, which are its whole records."""
        ...

    def delete_journal(self, key: str) -> None:
        """Delete a journal."""
        ...
