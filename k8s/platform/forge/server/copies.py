"""Beside the forge: hands its files to the backup as they are at one moment, and takes those that a restore puts back.

    POST   /snapshot         link all files as they are now; says of each its mark, which changes with it, and its size
    GET    /snapshot/PATH    a file of it
    DELETE /snapshot         forget it
    PUT    /restore/PATH     a file that the forge has after its next start
    POST   /restore          they are all there
    DELETE /restore          forget them

Every request has the token. At its next start (database.sh, configure.sh) the forge takes what is in FOLDER/restore.
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
KEPT = ("repositories", "attachments", "avatars", "repo-avatars", "actions_log", "actions_artifacts")
"""What of FOLDER is copied: the rest is made anew, or is of no use later."""
LEFT_OUT = {"hooks", "logs"}
"""Folders of a repository. The forge writes the first anew; git writes into the second, so a link would change."""
HALF = ("tmp_", ".tmp", "incoming-")
"""How the names of files begin that git is still writing."""
ROWS = "rows.dump"
ATTEMPTS = 5
CHUNK = 1 << 20
SNAPSHOT, RESTORE = FOLDER / "snapshot", FOLDER / "restore"
READY = RESTORE / "ready"
alone = threading.Lock()


def is_repository(folder: Path) -> bool:
    """Whether a folder is a bare repository."""
    return folder.suffix == ".git" and (folder / "objects").is_dir()


def files(folder: Path) -> Iterator[Path]:
    """The files below a folder. Of a repository, what names objects comes before them.

    Git adds objects before it names them, so all are there that are named. It packs references before it removes the
    single ones, so those come first.
    """
    if is_repository(folder):
        for path in sorted(folder.iterdir(), key=lambda path: (path.name != "refs", path.name == "objects", path.name)):
            if path.name not in LEFT_OUT:
                yield from files(path) if path.is_dir() else [path]
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if not path.name.startswith(HALF):
                yield from files(path)
        elif not path.name.startswith(HALF) and path.suffix != ".lock":
            yield path


def snapshot() -> dict[str, tuple[str, int]]:
    """Link all files as they are now; of each its mark and size, by its path.

    Git never writes into a file of a repository, but replaces it: a link stays what it is.

    Raises:
        FileNotFoundError: git has packed objects meanwhile, each time.
    """
    for attempt in range(ATTEMPTS):
        shutil.rmtree(SNAPSHOT, ignore_errors=True)
        SNAPSHOT.mkdir(mode=0o700)
        try:
            return dict(linked())
        except FileNotFoundError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def linked() -> Iterator[tuple[str, tuple[str, int]]]:
    """Link each file into the snapshot."""
    for kept in KEPT:
        for path in files(FOLDER / kept) if (FOLDER / kept).is_dir() else ():
            name = path.relative_to(FOLDER)
            target = SNAPSHOT / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(path, target)
            status = target.stat()
            yield str(name), (f"{status.st_mtime_ns}-{status.st_ino}", status.st_size)


def take(name: str, chunks: Iterator[bytes]) -> None:
    """Keep a file for the next start."""
    target = RESTORE / "files" / name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.name == "HEAD":
        # Without them git knows no repository; copies have no empty folders.
        for folder in ("refs", "objects"):
            (target.parent / folder).mkdir(mode=0o700, exist_ok=True)
    with target.open("wb") as file:
        file.writelines(chunks)


def commit() -> None:
    """All files are there: the next start takes them."""
    for kept in KEPT:
        (RESTORE / "files" / kept).mkdir(mode=0o700, parents=True, exist_ok=True)
    os.sync()
    READY.touch()


class Handler(BaseHTTPRequestHandler):
    """Answers the backup."""

    protocol_version = "HTTP/1.1"

    def _name(self, root: str) -> str | None:
        """The path below `root` that is asked for, if it is one that copies have."""
        path = PurePosixPath(unquote(urlsplit(self.path).path).removeprefix(f"/{root}/"))
        if path.is_absolute() or ".." in path.parts:
            return None
        return str(path) if (path.parts[1:] and path.parts[0] in KEPT) or str(path) == ROWS else None

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), TOKEN.read_text().strip().encode()):
            return True
        # What it has sent is not read.
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
        with alone:
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
            self._answer(400, "no file that copies have, no size, or a restore waits for the next start\n")
            return
        try:
            take(name, self._body(size))
        except OSError as error:
            self.close_connection = True
            self._answer(500, f"not kept: {error}\n")
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
        """Forget a snapshot, or a restore."""
        if not self._allowed():
            return
        folder = {"/snapshot": SNAPSHOT, "/restore": RESTORE}.get(self.path)
        if folder is None:
            self._answer(404)
            return
        with alone:
            if folder == RESTORE:
                # First what says that it is all there.
                READY.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        self._answer(204)

    def log_message(self, *_: object) -> None:
        """Nothing: a backup asks for every file."""


if __name__ == "__main__":
    # The first process of a container has no other way to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
