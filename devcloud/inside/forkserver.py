"""Imports the modules of a family of daemons once and forks each daemon: they share the memory and the start-up time.

`forkserver.py SOCKET MODULE...` runs as a service. A request is one JSON packet: the program and its arguments, its
environment, its log (null: the fork server's) and the ID of a process whose namespaces it enters (null: none). The
answer is the daemon's process ID. The daemon leads a new session, and process 1 adopts it.

Do not import modules here that read the configuration on import, as nova's and cinder's managers do: the fork server
starts before any daemon's configuration is known.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys

# The unpatched functions: a family's first module may patch `socket` and `os` for green threads.
from _socket import AF_UNIX, SOCK_SEQPACKET, socket
from os import fork, waitpid
from pathlib import Path
from typing import Any

PR_SET_NAME = 15
LARGEST_REQUEST = 1 << 16
libc = ctypes.CDLL(None, use_errno=True)


def serve(path: Path) -> dict[str, Any]:
    """Fork for each request. Returns the request, and only in the daemon."""
    path.unlink(missing_ok=True)
    listener = socket(AF_UNIX, SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(32)
    while True:
        connection = socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
        packet = connection.recv(LARGEST_REQUEST)
        child = fork() if packet else -1
        if child == 0:
            if fork():
                os._exit(0)
            listener.close()
            request: dict[str, Any] = json.loads(packet)
            enter(request)
            connection.send(str(os.getpid()).encode())
            connection.close()
            return request
        if child > 0:
            waitpid(child, 0)
        connection.close()


def enter(request: dict[str, Any]) -> None:
    """Set up the daemon's session, log, environment and namespaces."""
    os.setsid()
    if request["log"]:
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    os.environ.update(request["environment"])
    if request["namespaces"]:
        for kind in ("net", "uts", "mnt"):  # mnt last: /proc must be this namespace's until then
            namespace = os.open(f"/proc/{request['namespaces']}/ns/{kind}", os.O_RDONLY)
            if libc.setns(namespace, 0):
                raise OSError(ctypes.get_errno(), f"setns {kind}")
            os.close(namespace)
    sys.argv = request["command"]
    libc.prctl(PR_SET_NAME, Path(sys.argv[0]).name.encode())


def main() -> None:
    """Import the modules and serve; in a daemon, run its program."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    serve(Path(sys.argv[1]))
    if "eventlet" in sys.modules:
        # A hub created on import would share its epoll descriptor with every daemon.
        sys.modules["eventlet"].hubs.use_hub()
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
