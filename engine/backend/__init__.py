"""Where stacks' state is kept: a directory or an S3 bucket, laid out as by the Pulumi CLI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.backend.base import Backend, StackSummary
from engine.backend.journal import Update
from engine.backend.locks import LockHolder, StateLockedError
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.backend.bucket import Bucket
    from engine.project import Project

__all__ = ["Backend", "LockHolder", "StackSummary", "StateLockedError", "Update", "default_backend_url", "open_backend"]


def open_backend(url: str) -> Backend:
    """Open the backend at ``url``: ``file://<folder>`` or ``s3://<bucket>[/<prefix>][?endpoint=...&region=...]``.

    Raises EngineError when the URL is of another kind, or when its target is missing or unusable.
    """
    scheme = urlsplit(url).scheme
    bucket: Bucket
    if scheme == "file":
        from engine.backend.file import FileBucket  # noqa: PLC0415 - only the one in use is loaded; boto3 is slow to

        bucket = FileBucket.open(url)
    elif scheme == "s3":
        from engine.backend.s3 import S3Bucket  # noqa: PLC0415

        bucket = S3Bucket.open(url)
    elif scheme in {"http", "https"}:
        raise EngineError(
            f"The backend '{url}' is Pulumi Cloud, which only the Pulumi CLI can use.",
            remedy="Install the Pulumi CLI and use --engine pulumi, or set PULUMI_BACKEND_URL to file://~ or s3://<bucket>.",
        )
    else:
        raise EngineError(
            f"The backend '{url}' is not of a supported kind.",
            remedy="Use file://<folder> or s3://<bucket>; for gs:// and azblob:// use the Pulumi CLI.",
        )
    return Backend(url, bucket)


def default_backend_url(project: Project | None = None) -> str:
    """The URL that the Pulumi CLI would use.

    That is PULUMI_BACKEND_URL, else ``backend.url`` of Pulumi.yaml, else what `pulumi login` chose, else ``file://~``.
    """
    if url := os.environ.get("PULUMI_BACKEND_URL"):
        return url
    if project and project.backend_url:
        return project.backend_url
    home = os.environ.get("PULUMI_CREDENTIALS_PATH") or os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi"
    file = Path(home) / "credentials.json"
    try:
        current = json.loads(file.read_text(encoding="utf-8")).get("current") if file.exists() else None
    except (OSError, ValueError, AttributeError) as error:
        raise EngineError(
            f"'{file}' cannot be read, so the backend is not known: {error}.",
            remedy="Set PULUMI_BACKEND_URL, or repair the file with `pulumi login`.",
        ) from None
    return str(current) if current else "file://~"
