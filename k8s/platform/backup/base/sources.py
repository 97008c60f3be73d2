"""Sources of the nightly copies: the buckets of the platform's store and, if there is one, the forge."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import urllib3

FORGE = "forge"
ROWS = "rows.dump"
"""The name of the forge's rows among its files."""
CHUNK = 1 << 20


class ForgeError(OSError):
    """The forge does not return its files, or refuses new ones."""


class Source(Protocol):
    """A source of files."""

    name: str

    def listed(self) -> dict[str, tuple[str, int]]:
        """A mark that changes with the content of each file, and its size, by key."""

    def chunks(self, key: str) -> Iterator[bytes]:
        """The content of a file."""


class Bucket:
    """A bucket of the platform's store."""

    def __init__(self, s3: Any, name: str) -> None:
        self.s3, self.name = s3, name

    def listed(self) -> dict[str, tuple[str, int]]:
        """ETag and size of each object, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {
            entry["Key"]: (entry["ETag"], entry["Size"])
            for page in pages
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")
        }

    def chunks(self, key: str) -> Iterator[bytes]:
        """The content of an object."""
        body: Iterator[bytes] = self.s3.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(CHUNK)
        return body


class Forge:
    """The forge: rows that were dumped before, and files from its sidecar (platform/forge/server/copies.py)."""

    name = FORGE

    def __init__(self, url: str, token: str, rows: Path) -> None:
        self._url, self._rows = url, rows
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}"},
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=urllib3.Retry(3, redirect=False, backoff_factor=0.5),
        )

    @classmethod
    def from_environment(cls) -> "Forge | None":
        """The forge in the variables FORGE_*; None without them."""
        if not (token := os.environ.get("FORGE_TOKEN")):
            return None
        return cls(os.environ["FORGE_URL"], token, Path(os.environ["FORGE_ROWS"]))

    def _request(self, method: str, path: str, **options: Any) -> urllib3.BaseHTTPResponse:
        try:
            answer = self._http.request(method, self._url + path, **options)
            if answer.status < 300:
                return answer
            reason = f"{answer.status} {answer.data[:300].decode(errors='replace').strip()}"
        except urllib3.exceptions.HTTPError as error:
            reason = str(error)
        raise ForgeError(f"the forge ({method} {self._url}{path}) fails: {reason}")

    def listed(self) -> dict[str, tuple[str, int]]:
        """Its rows, and a snapshot of its files."""
        if not self._rows.exists():
            raise ForgeError("the forge's rows could not be read")
        status = self._rows.stat()
        files = json.loads(self._request("POST", "/snapshot").data)
        found = {key: (str(mark), int(size)) for key, (mark, size) in files.items()}
        return {ROWS: (f"{status.st_mtime_ns}-{status.st_ino}", status.st_size), **found}

    def chunks(self, key: str) -> Iterator[bytes]:
        """The content of a file."""
        if key == ROWS:
            with self._rows.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            return
        answer = self._request("GET", f"/snapshot/{quote(key)}", preload_content=False)
        try:
            yield from answer.stream(CHUNK)
        except urllib3.exceptions.HTTPError as error:
            raise ForgeError(f"the forge's {key} ended early: {error}") from None
        finally:
            answer.release_conn()

    def release_snapshot(self) -> None:
        """Delete the snapshot."""
        with suppress(ForgeError):  # the next copy deletes it too
            self._request("DELETE", "/snapshot")

    def restore(self, files: Mapping[str, Path]) -> None:
        """Replace its files by these at its next start.

        Raises:
            ForgeError: the forge refuses them; then it does not change.
        """
        self._request("DELETE", "/restore")
        for key, path in files.items():
            with path.open("rb") as file:
                size = str(path.stat().st_size)
                self._request(
                    "PUT", f"/restore/{quote(key)}", body=file, headers={**self._http.headers, "Content-Length": size}
                )
        self._request("POST", "/restore")
