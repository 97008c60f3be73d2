"""`server.py SOCKET MODULE...`: imports the modules, then forks for each request, until its standard input ends.

A fork is killed when its client is gone. It belongs to the client's group where that is of the same session, and is
told that the client's parent is its own. Keys that forks derive from passphrases, a third of a second each, are kept.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import hashlib
import importlib
import io
import marshal
import os
import runpy
import selectors
import signal
import sys
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
FLAGS_WITH_VALUE = {"-W", "-X"}
LARGEST_KEY = 4096
FLUSH_FAILED = 120
"""Python's exit status when its output cannot be written."""
DERIVE = hashlib.pbkdf2_hmac
keys: dict[tuple[Any, ...], bytes] = {}
derived, told = os.pipe()
"""Forks write the keys that they had to derive into it."""


@dataclass
class Request:
    """What a client asks for."""

    streams: array[int]
    arguments: list[str]
    environment: dict[bytes, bytes]
    folder: str
    parent: int
    group: int
    session: int


def receive(connection: socket) -> Request:
    streams = array("i")
    head, ancillary, _, _ = connection.recvmsg(4, CMSG_LEN(3 * streams.itemsize))
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
            streams.frombytes(data)
    size = int.from_bytes(head, "big")
    packet = b""
    while len(packet) < size:
        if not (part := connection.recv(size - len(packet))):
            raise ConnectionError
        packet += part
    return Request(streams, *marshal.loads(packet))  # noqa: S302


def derive(*arguments: Any) -> bytes:
    """`hashlib.pbkdf2_hmac`, once for all forks."""
    if arguments not in keys:
        keys[arguments] = DERIVE(*arguments)
        os.write(told, marshal.dumps((arguments, keys[arguments])))
    return keys[arguments]


class Server:
    """Forks, and tells each client how its fork has ended."""

    def __init__(self, path: str) -> None:
        self.listener = socket(AF_UNIX, SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(64)
        self.selector = selectors.DefaultSelector()
        for source in (self.listener, 0, derived):
            self.selector.register(source, selectors.EVENT_READ)
        self.clients: dict[socket, int] = {}
        self.forks: dict[int, tuple[int, socket]] = {}

    def serve(self) -> Request:
        """Serve until the standard input ends; return in a fork alone."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj == 0:
                    self.end()
                elif key.fileobj == derived:
                    arguments, found = marshal.loads(os.read(derived, LARGEST_KEY))  # noqa: S302
                    keys[arguments] = found
                elif key.fileobj is self.listener:
                    if request := self.fork():
                        return request
                elif key.fd in self.forks:
                    self.tell(key.fd)
                elif key.fileobj in self.clients:  # clients send nothing: this one is gone
                    self.selector.unregister(key.fileobj)
                    os.kill(self.clients.pop(key.fileobj), signal.SIGKILL)

    def fork(self) -> Request | None:
        """What was asked for, in the fork."""
        connection, _ = self.listener.accept()
        try:
            request = receive(connection)
        except ConnectionError:
            connection.close()
            return None
        if not (process := os.fork()):
            for descriptor in [self.listener.fileno(), *(one.fileno() for one in self.clients), *self.forks]:
                os.close(descriptor)
            self.listener.detach()
            connection.close()
            self.selector.close()
            return request
        for stream in request.streams:
            os.close(stream)
        connection.sendall(process.to_bytes(4, "big", signed=True))
        handle = os.pidfd_open(process)
        self.clients[connection] = process
        self.forks[handle] = (process, connection)
        self.selector.register(connection, selectors.EVENT_READ)
        self.selector.register(handle, selectors.EVENT_READ)
        return None

    def tell(self, handle: int) -> None:
        """Tell a client how its fork has ended."""
        process, connection = self.forks.pop(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        self.selector.unregister(handle)
        os.close(handle)
        if self.clients.pop(connection, None) is not None:
            self.selector.unregister(connection)
        with contextlib.suppress(OSError):  # the client may have been killed
            connection.sendall(status.to_bytes(4, "big", signed=True))
        connection.close()

    def end(self) -> NoReturn:
        """End with every fork."""
        for process in self.clients.values():
            os.kill(process, signal.SIGKILL)
        os._exit(0)


def become(request: Request) -> None:
    """Take on what the client has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getsid(0) == request.session:
        os.setpgid(0, request.group)
    else:
        os.setsid()
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request.folder)
    os.environ.clear()
    os.environb.update(request.environment)
    os.getppid = lambda: request.parent
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run(request: Request, path: list[str]) -> None:
    """Run what Python's arguments name; streams are as after `-u` if it is given."""
    arguments = list(request.arguments)
    unbuffered = False
    while arguments[0].startswith("-") and arguments[0] != "-m":
        flag = arguments.pop(0)
        unbuffered |= flag == "-u"
        if flag in FLAGS_WITH_VALUE:
            arguments.pop(0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    buffered = open(1, "wb", 0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    sys.stdout = io.TextIOWrapper(buffered, line_buffering=os.isatty(1), write_through=unbuffered)
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[:] = [*filter(None, os.environ.get("PYTHONPATH", "").split(":")), *path]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    script = Path(arguments[0])
    if not script.is_dir():
        sys.path.insert(0, str(script.parent))
    runpy.run_path(str(script), run_name="__main__")


def run_to_its_end(request: Request, path: list[str]) -> int:
    """The exit status of what was asked for, as the interpreter finds it."""
    try:
        run(request, path)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def end(status: int) -> NoReturn:
    """End as the interpreter does, but for taking apart what is loaded, for which each page of it would be copied."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except OSError:
        status = FLUSH_FAILED
    os._exit(status & 0xFF)


def main() -> None:
    socket_path, *modules = sys.argv[1:]
    path = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    loaded: list[Any] = [importlib.import_module(name) for name in modules]
    del loaded
    hashlib.pbkdf2_hmac = derive  # type: ignore[assignment]
    gc.collect()
    gc.freeze()
    request = Server(socket_path).serve()
    become(request)
    end(run_to_its_end(request, path))


if __name__ == "__main__":
    main()
