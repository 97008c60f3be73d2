"""Metrics and log lines of devcloud's services, for the monitoring of a cluster that runs in its instances.

`exporter.py PLAN ADDRESS PORT PASSWORDS` runs as a service, under Debian's Python, with only the standard library. It
only reads, and only when it is asked, so it costs nothing where nobody monitors the cloud.

``/metrics``: state, restarts, processor time and memory of each service, and the requests of each API, in Prometheus'
text format. ``/logs?after=CURSOR``: the services' log lines, a JSON object each, without secrets; the header `X-Cursor`
is the CURSOR of the next request. Without one, it begins a little before the end of each log.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from supervisor import memory_by_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

KIB, MIB = 1 << 10, 1 << 20
FIRST_BYTES = 64 * KIB
"""So much of each log is given to who has no cursor yet."""
BYTES_AT_ONCE = 256 * KIB
"""At most so much of each log is in one answer."""
MOST_BEHIND = 16 * MIB
"""Requests are counted in at most so much of a log that has grown since the last time."""
LONGEST_LINE = 8 * KIB
MEMORY_SECONDS = 60
"""How long a measurement of memory is used: it is what costs most, a tenth of a second for 2.4 GiB."""
CLOUD = "devcloud"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# As nova and neutron (oslo.service), glance (eventlet) and the log format of uWSGI in devcloud/services.py have it.
REQUEST = re.compile(r'"(\w+) \S+ HTTP/[\d.]+" (?:status: )?(\d{3}) .*?(\d+\.\d+)\s*$')
METADATA = "nova.metadata"
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # oslo.log ends each line with one
STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,](\d{3}))?")
WEB_STAMP = re.compile(r"\[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
LEVEL = re.compile(r"[\s\[](debug|info|note|warning|error|critical)[\s\]:]", re.IGNORECASE)
HIDDEN = "***"
SECRETS = (
    (re.compile(r"gAAAA[\w=-]{40,}"), HIDDEN),  # a token of Keystone (Fernet)
    (re.compile(r"(://[^/\s:@]+:)[^/\s@]+@"), rf"\1{HIDDEN}@"),
    (
        re.compile(r"""((?:password|passwd|secret|token)\w*["']?\s*[:=]\s*["']?)[^\s"',;}]+""", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
)


class Part(NamedTuple):
    """Whole lines of a log, and the offset after them."""

    lines: list[str]
    end: int


def read(path: Path, start: int, most: int) -> Part:
    """Whole lines from an offset on; from the beginning where the file has become shorter."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            start = start if start <= size else 0
            log.seek(start)
            content = log.read(most)
    except FileNotFoundError:
        return Part([], 0)
    end = content.rfind(b"\n") + 1
    if not end and len(content) == most:  # a line that is longer than any should be
        return Part([], start + most)
    lines = [COLOUR.sub("", line[:LONGEST_LINE].decode(errors="replace")) for line in content[:end].split(b"\n")]
    return Part(lines[:-1], start + end)


def size_of(path: Path) -> int:
    """Of a file, which need not be there."""
    return path.stat().st_size if path.exists() else 0


def before_end(path: Path, most: int) -> int:
    """Offset of the first whole line of the last `most` bytes."""
    start = max(0, size_of(path) - most)
    if not start:
        return 0
    with path.open("rb") as log:
        log.seek(start)
        log.readline()
        return log.tell()


@dataclass
class Requests:
    """Counts the requests that APIs have logged since this program started."""

    logs: Mapping[str, Path]
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    times: Counter[tuple[str, float]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ends = {name: size_of(path) for name, path in self.logs.items()}

    def update(self) -> None:
        """Read what is new."""
        for name, path in self.logs.items():
            if size_of(path) - self.ends[name] > MOST_BEHIND:
                self.ends[name] = before_end(path, MOST_BEHIND)
            while True:
                lines, end = read(path, self.ends[name], BYTES_AT_ONCE)
                if end == self.ends[name]:
                    break
                self.ends[name] = end
                for line in lines:
                    self._count(name, line)

    def _count(self, service: str, line: str) -> None:
        found = REQUEST.search(line)
        if found is None:
            return
        method, status, seconds = found[1], found[2], float(found[3])
        service = "nova-metadata" if METADATA in line else service
        self.counts[service, method if method in METHODS else "other", status] += 1
        self.seconds[service] = self.seconds.get(service, 0) + seconds
        for limit in BUCKETS:
            self.times[service, limit] += seconds <= limit

    def families(self) -> Iterator[str]:
        """The metrics."""
        yield from family(
            "api_requests_total", "counter", "Requests that an API has answered.",
            (({"service": name, "method": method, "status": status}, count)
             for (name, method, status), count in sorted(self.counts.items())),
        )  # fmt: skip
        name = f"{CLOUD}_api_request_duration_seconds"
        yield f"# HELP {name} How long its answers took.\n# TYPE {name} histogram\n"
        for service in sorted(self.seconds):
            count = sum(number for (one, _, _), number in self.counts.items() if one == service)
            for limit in BUCKETS:
                yield sample(f"{name}_bucket", {"service": service, "le": f"{limit:g}"}, self.times[service, limit])
            yield sample(f"{name}_bucket", {"service": service, "le": "+Inf"}, count)
            yield sample(f"{name}_sum", {"service": service}, self.seconds[service])
            yield sample(f"{name}_count", {"service": service}, count)


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """A line of Prometheus' text format."""
    return f"{name}{{{','.join(f'{key}={json.dumps(text)}' for key, text in labels.items())}}} {value:.10g}\n"


def family(name: str, kind: str, about: str, values: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """A metric with all its series."""
    full = f"{CLOUD}_{name}"
    yield f"# HELP {full} {about}\n# TYPE {full} {kind}\n"
    for labels, value in values:
        yield sample(full, labels, value)


def cpu_by_session() -> dict[int, float]:
    """Processor seconds of the processes there are, and of those of theirs that have ended, by session."""
    ticks, found = os.sysconf("SC_CLK_TCK"), Counter[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(fields[3])] += sum(map(int, fields[11:15]))
    return {session: total / ticks for session, total in found.items()}


class Exporter:
    """What there is to tell."""

    def __init__(self, plan: Mapping[str, Any], address: str, passwords: Path) -> None:
        self._socket = plan["socket"]
        self._logs = {one["name"]: Path(one["log"]) for one in plan["services"]}
        apis = [one["name"] for one in plan["services"] if (one["ready"] or ())[:2] == ["tcp", address]]
        self._requests = Requests({name: self._logs[name] for name in apis})
        self._passwords = passwords
        self._memory: tuple[float, dict[int, int]] = (0, {})
        self._one_at_a_time = threading.Lock()

    def metrics(self) -> str:
        """The page of metrics.

        Raises:
            OSError: the supervisor does not answer.
        """
        with self._one_at_a_time:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10)
                connection.connect(self._socket)
                connection.sendall(b'{"op": "status"}\n')
                services = json.loads(connection.makefile().readline())["services"]
            if time.monotonic() - self._memory[0] > MEMORY_SECONDS or not self._memory[1]:
                self._memory = time.monotonic(), memory_by_session()
            self._requests.update()
            return "".join([*self._of_services(services), *self._requests.families()])

    def _of_services(self, services: list[dict[str, Any]]) -> Iterator[str]:
        memory, cpu = self._memory[1], cpu_by_session()
        # One that was not started is no fault: the host of virtual machines, before its image is there.
        wanted = [one for one in services if one["state"] != "stopped"]
        pids = {one["name"]: one["pid"] for one in wanted if one["pid"]}
        yield from family(
            "service_up", "gauge", "Whether a service runs.",
            (({"service": one["name"]}, one["state"] == "running") for one in wanted),
        )  # fmt: skip
        yield from family(
            "service_restarts_total", "counter", "How often a service ended by itself, and was started again.",
            (({"service": one["name"]}, one["restarts"]) for one in wanted),
        )  # fmt: skip
        yield from family(
            "service_cpu_seconds_total", "counter", "Processor time of a service's processes.",
            (({"service": name}, cpu[pid]) for name, pid in pids.items() if pid in cpu),
        )  # fmt: skip
        known = [({"service": name}, memory[pid]) for name, pid in pids.items() if pid in memory]
        others = sum(size for session, size in memory.items() if session not in pids.values())
        yield from family(
            "service_memory_bytes", "gauge",
            "Memory of a service's processes (PSS); `other`: DHCP servers, metadata proxies, the supervisor.",
            [*known, ({"service": "other"}, others)],
        )  # fmt: skip

    def lines(self, after: str) -> tuple[str, str]:
        """Log lines as JSON, and the cursor after them.

        Raises:
            ValueError: the cursor is none.
        """
        cursor = {name: int(end) for name, _, end in (one.rpartition(":") for one in after.split(",") if one)}
        known = sorted(
            (line.partition("=")[2] for line in self._passwords.read_text().splitlines()), key=len, reverse=True
        ) if self._passwords.exists() else []  # fmt: skip
        found: list[str] = []
        for name, path in self._logs.items():
            start = cursor[name] if name in cursor else before_end(path, FIRST_BYTES)
            lines, cursor[name] = read(path, start, BYTES_AT_ONCE)
            found += [json.dumps(entry) + "\n" for entry in entries(name, lines, known)]
        return "".join(found), ",".join(f"{name}:{cursor[name]}" for name in self._logs)


def entries(service: str, lines: Iterable[str], known: Iterable[str]) -> Iterator[dict[str, str]]:
    """Lines as the log store takes them. One without a time, such as of a traceback, has that of the line before."""
    stamp, number = "", 0
    for line in lines:
        if not line.strip():
            continue
        own = time_of(line)
        if own and own != stamp:
            stamp, number = own, 0
        stamp = stamp or datetime.now(UTC).isoformat(timespec="milliseconds")[:23]
        # In the order in which they were written, those of the same millisecond too.
        entry = {"_time": f"{stamp}{number:06}Z", "_msg": hidden(line, known), "cloud": CLOUD, "service": service}
        if own and (level := LEVEL.search(line[:120])):
            entry["level"] = level[1].lower()
        yield entry
        number += 1


def time_of(line: str) -> str | None:
    """The time that a line begins with, in UTC, to the millisecond."""
    if found := STAMP.match(line):
        return f"{found[1]}T{found[2]}.{found[3] or '000'}"
    if found := WEB_STAMP.match(line):
        moment = datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.000"
    return None


def hidden(line: str, known: Iterable[str]) -> str:
    """A line without the cloud's passwords, and without what looks like a secret."""
    for value in known:
        if value:
            line = line.replace(value, HIDDEN)
    for pattern, text in SECRETS:
        line = pattern.sub(text, line)
    return line


def handler(exporter: Exporter) -> type[BaseHTTPRequestHandler]:
    """Answers requests."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_GET(self) -> None:
            """Answer one."""
            url = urlsplit(self.path)
            status, kind, headers, text = 200, "text/plain; version=0.0.4; charset=utf-8", {}, ""
            try:
                if url.path == "/metrics":
                    text = exporter.metrics()
                elif url.path == "/logs":
                    kind = "application/stream+json"
                    text, headers["X-Cursor"] = exporter.lines(parse_qs(url.query).get("after", [""])[0])
                else:
                    status, text = 404, "there are /metrics and /logs\n"
            except ValueError:
                status, text = 400, "this is no cursor\n"
            except OSError as error:
                status, text = 503, f"the supervisor does not answer: {error}\n"
            body = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


def main() -> None:
    """Listen."""
    plan, address, port, passwords = sys.argv[1:]
    exporter = Exporter(json.loads(Path(plan).read_text()), address, Path(passwords))
    ThreadingHTTPServer((address, int(port)), handler(exporter)).serve_forever()


if __name__ == "__main__":
    main()
