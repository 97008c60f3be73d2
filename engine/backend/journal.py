"""The journal of an update: one line of JSON for each step, durable before the step that depends on it."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from engine.backend.checkpoints import digest, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from engine.backend.bucket import Journal

_log = logging.getLogger(__name__)

Json = dict[str, Any]
BEGIN, FINISH = "$begin", "$finish"


class Update:
    """An update under way: its journal, and in the end its checkpoint, backup and history. Use it from any thread."""

    def __init__(
        self,
        project: str,
        stack: str,
        journal: Journal,
        info: Json,
        *,
        store: Callable[[bytes], None],
        record: Callable[[Json, bytes], None],
    ) -> None:
        """``store`` writes the checkpoint, ``record`` adds it to the history with what is known of the update."""
        self._project = project
        self._stack = stack
        self._journal = journal
        self._info = info
        self._store = store
        self._record = record
        self._queue: queue.SimpleQueue[tuple[bytes, Future[None]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, entry: Json) -> Future[None]:
        """Add ``entry`` to the journal; the future ends when it is durable.

        The future raises StorageError when it could not be written. The entry is then written with the next one, so
        that the journal never has a gap.
        """
        if not self._writer.is_alive():
            raise RuntimeError("the update has ended")
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        self._queue.put((line(entry), future))
        return future

    def finish(self, deployment: Json, *, result: str, changes: Mapping[str, int]) -> None:
        """Write the checkpoint, drop the journal, add a backup and the history's record.

        ``result`` is ``succeeded``, ``failed`` or ``cancelled``. Raises StorageError: when the checkpoint could not be
        written, the journal stays, nothing is lost, and finish may be called again.
        """
        data = encode(self._project, self._stack, deployment)
        self.append({FINISH: digest(data)}).result()
        self._store(data)
        self.close()
        self._journal.remove()
        info = self._info | {
            "version": 0,
            # The CLI knows no third result.
            "result": "succeeded" if result == "succeeded" else "failed",
            "endTime": int(time.time()),
            "resourceChanges": dict(changes),
        }
        self._record(info, data)

    def close(self) -> None:
        """Write what is queued and stop; the journal stays for the next load, unless :meth:`finish` came before."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
            self._journal.close()

    def _write(self) -> None:
        backlog = b""
        stopping = False
        while not stopping:
            waiting = [self._queue.get()]
            # While one batch is made durable, the next one gathers.
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self._queue.get_nowait())
            stopping = None in waiting
            batch = [item for item in waiting if item]
            backlog += b"".join(text for text, _ in batch)
            try:
                if backlog:
                    self._journal.append(backlog)
                backlog = b""
            except Exception as error:  # the waiting callers get every error
                for _, future in batch:
                    future.set_exception(error)
            else:
                for _, future in batch:
                    future.set_result(None)


def line(record: Json) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parse_journal(data: bytes) -> tuple[Json, list[Json], set[str], int]:
    """The first record, the entries, the digests of checkpoints that replace the journal, and the length of it all."""
    records: list[Json] = []
    length = 0
    *lines, _torn = data.split(b"\n")
    for text in lines:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            # A crash of the machine may leave garbage in what was never acknowledged.
            _log.warning("The journal ends early: %d of its %d records can be read.", len(records), len(lines))
            break
        records.append(record)
        length += len(text) + 1
    if not records or BEGIN not in records[0]:
        return {}, [], set(), 0
    finished = {record[FINISH] for record in records if FINISH in record}
    return records[0], [record for record in records[1:] if FINISH not in record], finished, length
