"""Asks a server of warm interpreters for a fork that does what `python` with these arguments would do."""

# Nothing but built-in modules: this starts in a hundredth of a second.
import marshal
import os
import signal
import sys
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket

SOCKET = "@socket@"
PYTHON = "@python@"
STREAMS = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))


def ask(server: socket) -> int:
    """Become the shadow of a fork; its exit status, negative for a signal."""
    folder = os.getcwd()  # noqa: PTH109
    request = marshal.dumps((sys.argv[1:], dict(os.environb), folder, os.getppid(), os.getpgid(0), os.getsid(0)))
    # A group gets Ctrl-C as a whole, the fork with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server.sendmsg([len(request).to_bytes(4, "big")], [(SOL_SOCKET, SCM_RIGHTS, STREAMS)])
    server.sendall(request)
    fork = int.from_bytes(server.recv(4), "big", signed=True)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(fork, signal.SIGTERM))
    answer = server.recv(4)
    return int.from_bytes(answer, "big", signed=True) if answer else -signal.SIGKILL


connection = socket(AF_UNIX, SOCK_STREAM)
try:
    connection.connect(SOCKET)
except OSError:
    os.execv(PYTHON, [PYTHON, *sys.argv[1:]])  # noqa: S606
status = ask(connection)
if status < 0:
    if status != -signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
