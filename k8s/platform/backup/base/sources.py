"""What is copied at night: the buckets of the platform's store and, where there is one, the forge."""

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
"""What the forge's rows are called among its files."""
CHUNK = 1 << 20


class ForgeError(OSError):
    """The forge does not hand out its files, or take them; the text says why."""


class Source(Protocol):
    """Where files are copied from."""

    name: str

    def listed(self) -> dict[str, tuple[str, int]]:
        """What tells whether each file's content has changed, and its size, by key."""

    def chunks(self, key: str) -> Iterator[bytes]:
        """What is in a file."""


class Bucket:
    """A bucket of the platform's store."""

    def __init__(self, s3: Any, name: str) -> None:
        self.s3, self.name = s3, name

    def listed(self) -> dict[str, tuple[str, int]]:
        """What the store says of each object's content, and its size, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {
            entry["Key"]: (entry["ETag"], entry["Size"])
            for page in pages
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")
        }

    def chunks(self, key: str) -> Iterator[bytes]:
        """What is in an object."""
        body: Iterator[bytes] = self.s3.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(CHUNK)
        return body


class Forge:
    """The forge: rows that were dumped before, and what the program beside it hands out (platform/forge)."""

    name = FORGE

    def __init__(self, url: str, token: str, rows: Path) -> None:
        self._url, self._rows = url, rows
        self._http = urllib3.PoolManager(
            headers={"Authorization": f"Bearer {token}"},
            timeout=urllib3.Timeout(connect=10, read=120),
            retries=urllib3.Retry(3, redirect=False, backoff_factor=0.5),
        )

    @classmethod
    def given(cls) -> "Forge | None":
        """The one that the variables FORGE_* name."""
        if not (token := os.environ.get("FORGE_TOKEN")):
            return None
        return cls(os.environ["FORGE_URL"], token, Path(os.environ["FORGE_ROWS"]))

    def _ask(self, method: str, path: str, **given: Any) -> urllib3.BaseHTTPResponse:
        try:
            answer = self._http.request(method, self._url + path, **given)
            if answer.status < 300:
                return answer
            reason = f"{answer.status} {answer.data[:300].decode(errors='replace').strip()}"
        except urllib3.exceptions.HTTPError as error:
            reason = str(error)
        raise ForgeError(f"the forge ({method} {self._url}{path}) fails: {reason}")

    def listed(self) -> dict[str, tuple[str, int]]:
        """Its rows, and its files as they are at this moment."""
        if not self._rows.exists():
            raise ForgeError("the forge's rows could not be read")
        status = self._rows.stat()
        files = json.loads(self._ask("POST", "/snapshot").data)
        found = {key: (str(mark), int(size)) for key, (mark, size) in files.items()}
        return {ROWS: (f"{status.st_mtime_ns}-{status.st_ino}", status.st_size), **found}

    def chunks(self, key: str) -> Iterator[bytes]:
        """What is in a file."""
        if key == ROWS:
            with self._rows.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
            return
        answer = self._ask("GET", f"/snapshot/{quote(key)}", preload_content=False)
        try:
            yield from answer.stream(CHUNK)
        except urllib3.exceptions.HTTPError as error:
            raise ForgeError(f"the forge's {key} ended early: {error}") from None
        finally:
            answer.release_conn()

    def let_go(self) -> None:
        """It need not keep the files of that moment any more."""
        with suppress(ForgeError):  # the next copy makes it forget them too
            self._ask("DELETE", "/snapshot")

    def restore(self, files: Mapping[str, Path]) -> None:
        """Have these files, and no others, after its next start.

        Raises:
            ForgeError: it does not take them; then it stays as it is.
        """
        self._ask("DELETE", "/restore")
        for key, path in files.items():
            with path.open("rb") as file:
                size = str(path.stat().st_size)
                self._ask(
                    "PUT", f"/restore/{quote(key)}", body=file, headers={**self._http.headers, "Content-Length": size}
                )
        self._ask("POST", "/restore")
