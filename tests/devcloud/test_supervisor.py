"""The supervisor, run as it is, over small real processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from devcloud.processes import started_at, wait_for
from devcloud.services import INSIDE
from tests.devcloud.supervised import SLEEPER, Client, entry, is_running, supervised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], Client]]:
    """Start a supervisor over a list of services."""
    with ExitStack() as running:
        yield lambda services: running.enter_context(supervised(tmp_path, services))


def test_a_service_killed_is_running_again_and_the_restart_is_counted(
    supervise: Callable[..., Client], tmp_path: Path
) -> None:
    client = supervise([entry("one", SLEEPER, tmp_path / "one.log")])
    client.call("start")
    before = client.wait("one", is_running)
    os.kill(before["pid"], signal.SIGKILL)
    after = client.wait("one", lambda service: is_running(service) and service["pid"] != before["pid"])
    assert after["restarts"] == 1
    assert after["last_error"].startswith("signal 9")


def test_a_service_that_exits_backs_off_and_its_last_line_is_shown(
    supervise: Callable[..., Client], tmp_path: Path
) -> None:
    client = supervise([entry("bad", ["sh", "-c", "echo no such database >&2; exit 3"], tmp_path / "bad.log")])
    client.call("start")
    bad = client.wait("bad", lambda service: service["restarts"] == 2)
    assert bad["state"] == "backing off"
    assert bad["last_error"] == "exit 3: no such database"
    client.call("stop")
    client.wait("bad", lambda service: service["state"] == "stopped")


def test_a_service_waits_for_what_it_needs_to_be_ready(supervise: Callable[..., Client], tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    base = entry("base", SLEEPER, tmp_path / "base.log", ready=["file", str(mark)])
    client = supervise([base, entry("upper", SLEEPER, tmp_path / "upper.log", needs=["base"])])
    client.call("start")
    assert client.wait("upper", lambda service: service["state"] == "waiting")["pid"] is None
    mark.touch()
    client.wait("upper", is_running)


def test_a_service_that_ignores_the_request_to_end_is_killed_with_its_children(
    supervise: Callable[..., Client], tmp_path: Path
) -> None:
    child = tmp_path / "child"
    script = f"trap '' TERM; sleep 1000 & echo $! >{child}; while :; do sleep 0.1; done"
    client = supervise([entry("deaf", ["sh", "-c", script], tmp_path / "deaf.log", stop_seconds=0.3)])
    client.call("start")
    client.wait("deaf", is_running)
    client.call("stop")
    client.wait("deaf", lambda service: service["state"] == "stopped")
    wait_for(lambda: started_at(int(child.read_text())) is None, 5)


def test_a_broken_request_does_not_stop_the_supervisor(supervise: Callable[..., Client], tmp_path: Path) -> None:
    client = supervise([entry("one", SLEEPER, tmp_path / "one.log")])
    client.call("status")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(client.path))
        connection.sendall(b"not json\n")
    assert set(client.call("status")) == {"one"}


def test_a_daemon_forked_by_its_familys_parent_is_looked_after_like_any_other(
    supervise: Callable[..., Client], tmp_path: Path
) -> None:
    program, fork = tmp_path / "daemon.py", str(tmp_path / "fork")
    program.write_text("import sys, time\nprint(sys.argv[1:], 'json' in sys.modules, flush=True)\ntime.sleep(1000)\n")
    server = [sys.executable, str(INSIDE / "forkserver.py"), fork, "json"]
    family = entry("family", server, tmp_path / "family.log", ready=["file", fork])
    daemon = entry("daemon", [str(program), "word"], tmp_path / "daemon.log", needs=["family"], parent=fork)
    client = supervise([family, daemon])
    client.call("start")
    first = client.wait("daemon", is_running)
    wait_for(lambda: (tmp_path / "daemon.log").read_text() == "['word'] True\n", 10)
    os.kill(first["pid"], signal.SIGKILL)
    second = client.wait("daemon", lambda service: is_running(service) and service["pid"] != first["pid"])
    assert second["restarts"] == 1
    os.kill(client.call("status")["family"]["pid"], signal.SIGKILL)
    client.wait("family", lambda service: is_running(service) and service["restarts"] == 1)
    assert client.call("status")["daemon"] == second
    client.call("stop", "daemon")
    client.wait("daemon", lambda service: service["state"] == "stopped")
    assert started_at(second["pid"]) is None
