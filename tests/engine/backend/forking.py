"""Processes that are killed in the middle of what the backend does."""

from __future__ import annotations

import gc
import os


def fork() -> int:
    """`os.fork()`; the child never collects objects of its parent, for those of gRPC would abort it."""
    child = os.fork()
    if not child:
        gc.freeze()
    return child
