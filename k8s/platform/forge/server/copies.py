"""Sidecar of the forge: serves a snapshot of its files to the backup, and receives the files of a restore.

    POST   /snapshot         link all files; returns each one's mark, which changes with the file, and its size
    GET    /snapshot/PATH    a file of the snapshot
    DELETE /snapshot         delete the snapshot
    PUT    /restore/PATH     a file of a restore
    POST   /restore          complete the restore
    DELETE /restore          delete the restore

Every request has the token. At its next start (database.sh, configure.sh) the forge applies FOLDER/restore.
"""

import hmac
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

FOLDER = Path(os.environ["FOLDER"])
TOKEN = Path(os.environ["TOKEN"])
PORT = int(os.environ.get("PORT", "3001"))
COPIED = ("repositories", "attachments", "avatars", "repo-avatars", "actions_log", "actions_artifacts")
"""The folders of FOLDER that are copied: the rest is temporary or can be created again."""
EXCLUDED = {"hooks", "logs"}
"""Folders of a repository. The forge creates the first again; git appends to files of the second, also to links."""
TEMPORARY = ("tmp_", ".tmp", "incoming-")
"""Prefixes of files that git is still writing."""
ROWS = "rows.dump"
ATTEMPTS = 5
CHUNK = 1 << 20
SNAPSHOT, RESTORE = FOLDER / "snapshot", FOLDER / "restore"
READY = RESTORE / "ready"
lock = threading.Lock()


def is_repository(folder: Path) -> bool:
    """Whether a folder is a bare repository."""
    return folder.suffix == ".git" and (folder / "objects").is_dir()


def files(folder: Path) -> Iterator[Path]:
    """The files below a folder; in a repository references come before objects.

    Git adds objects before it references them, so no referenced object is missing. It packs references before it
    removes loose ones, so loose ones come first.
    """
    if is_repository(folder):
        for path in sorted(folder.iterdir(), key=lambda path: (path.name != "refs", path.name == "objects", path.name)):
            if path.name not in EXCLUDED:
                yield from files(path) if path.is_dir() else [path]
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith(TEMPORARY):
                yield from files(path)
        elif not path.name.startswith(TEMPORARY) and path.suffix != ".lock":
            yield path


def snapshot() -> dict[str, tuple[str, int]]:
    """Link all files; returns mark and size by path.

    Git replaces the files of a repository and does not write into them, so links do not change.

    Raises:
        FileNotFoundError: git packed objects during every attempt.
    """
    for attempt in range(ATTEMPTS):
        shutil.rmtree(SNAPSHOT, ignore_errors=True)
        SNAPSHOT.mkdir(mode=0o700)
        try:
            return dict(link_files())
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def link_files() -> Iterator[tuple[str, tuple[str, int]]]:
    """Link each file into the snapshot."""
    for kept in COPIED:
        for path in files(FOLDER / kept) if (FOLDER / kept).is_dir() else ():
            name = path.relative_to(FOLDER)
            target = SNAPSHOT / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(path, target)
            status = target.stat()
            yield str(name), (f"{status.st_mtime_ns}-{status.st_ino}", status.st_size)


def store(name: str, chunks: Iterator[bytes]) -> None:
    """Store a file for the next start."""
    target = RESTORE / "files" / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.name == "HEAD":
        # Git needs these folders, and copies have no empty folders.
        for folder in ("refs", "objects"):
            (target.parent / folder).mkdir(mode=0o700, exist_ok=True)
    with target.open("wb") as file:
        file.writelines(chunks)


def commit() -> None:
    """Complete a restore: the next start applies it."""
    for kept in COPIED:
        (RESTORE / "files" / kept).mkdir(mode=0o700, parents=True, exist_ok=True)
    os.sync()
    READY.touch()


class Handler(BaseHTTPRequestHandler):
    """Serves the backup."""

    protocol_version = "HTTP/1.1"

    def _name(self, root: str) -> str | None:
        """The requested path below `root`, if it may be in a copy."""
        path = PurePosixPath(unquote(urlsplit(self.path).path).removeprefix(f"/{root}/"))
        if path.is_absolute() or ".." in path.parts:
            return None
        return str(path) if (path.parts[1:] and path.parts[0] in COPIED) or str(path) == ROWS else None

    def _allowed(self) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(token.encode(), TOKEN.read_text().strip().encode()):
            return True
        # The request's body is not read.
        self.close_connection = True
        self._answer(403, "the token is wrong\n")
        return False

    def _answer(self, status: int, text: str = "") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """A file of the snapshot; /healthz for probes."""
        if self.path == "/healthz":
            return self._answer(200, "ok\n")
        if not self._allowed():
            return None
        name = self._name("snapshot")
        try:
            with (SNAPSHOT / (name or "")).open("rb") as file:
                self.send_response(200)
                self.send_header("Content-Length", str(os.fstat(file.fileno()).st_size))
                self.end_headers()
                shutil.copyfileobj(file, self.wfile, CHUNK)
        except (FileNotFoundError, IsADirectoryError):
            self._answer(404, "there is no such file in the snapshot\n")
        return None

    def do_POST(self) -> None:
        """A new snapshot; the end of a restore."""
        if not self._allowed():
            return
        with lock:
            match self.path:
                case "/snapshot":
                    try:
                        text = json.dumps(snapshot())
                    except OSError as error:
                        self._answer(500, f"no snapshot: {error}\n")
                    else:
                        self._answer(200, text)
                case "/restore":
                    commit()
                    self._answer(204)
                case _:
                    self._answer(404)

    def do_PUT(self) -> None:
        """A file of a restore."""
        if not self._allowed():
            return
        size = int(self.headers.get("Content-Length", "-1"))
        name = self._name("restore")
        if name is None or size < 0 or READY.exists():
            self.close_connection = True
            self._answer(400, "the path is not in copies, the size is missing, or a restore waits for the next start\n")
            return
        try:
            store(name, self._body(size))
        except OSError as error:
            self.close_connection = True
            self._answer(500, f"not stored: {error}\n")
        else:
            self._answer(204)

    def _body(self, size: int) -> Iterator[bytes]:
        while size:
            chunk = self.rfile.read(min(CHUNK, size))
            if not chunk:
                raise ConnectionResetError("the file ended early")
            size -= len(chunk)
            yield chunk

    def do_DELETE(self) -> None:
        """Delete a snapshot, or a restore."""
        if not self._allowed():
            return
        folder = {"/snapshot": SNAPSHOT, "/restore": RESTORE}.get(self.path)
        if folder is None:
            self._answer(404)
            return
        with lock:
            if folder == RESTORE:
                # First the mark that it is complete.
                READY.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Log no requests: a backup sends one for each file."""


if __name__ == "__main__":
    # SIGTERM has no default action for the first process of a container.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
