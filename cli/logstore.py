"""Queries of `lab logs` to the log store, which keeps lines of pods, also deleted ones, and of nodes' journals."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.errors import LabError
from cli.workloads import CAPABILITY, MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import urllib3

    from cli.workloads import Object, Platform

SERVICE = "monitoring"
"""Host name and login of the proxy in front of the store."""
CAPABILITY_OF_LOGS = "logging"
POD, NAMESPACE, CONTAINER = (f"kubernetes.{word}" for word in ("pod_name", "pod_namespace", "container_name"))
APP, OF_MODEL = (f"kubernetes.pod_labels.{label}" for label in ("app", MODEL))
NODE, UNIT = "_HOSTNAME", "_SYSTEMD_UNIT"
OWN = re.compile(r"kubernetes\..*|_(time|msg|stream|stream_id)$|[A-Z_]+$")
"""Fields that are not part of the line: those of the pod, the store and the journal."""
MOST = 1000
"""Default number of lines."""


class StoreError(LabError):
    """The store does not answer, or rejects the query."""


@dataclass(frozen=True)
class Line:
    """A line, with its source and time."""

    at: str
    source: str
    """`POD/CONTAINER`, or `NODE/UNIT`."""
    text: str


class LogStore:
    """Client of the store, which uses LogsQL."""

    def __init__(self, pool: urllib3.HTTPConnectionPool, headers: Mapping[str, str] | None = None) -> None:
        self._pool, self._headers = pool, dict(headers or {})

    @classmethod
    def of(cls, platform: Platform) -> LogStore | None:
        """The platform's store, through the gateway; None if its profile has none."""
        from infra.manifests import capabilities

        if SERVICE not in platform.credentials or CAPABILITY_OF_LOGS not in capabilities(platform.profile):
            return None
        pool = platform.connect(SERVICE)
        return cls(pool, {**(pool.headers or {}), **platform.login_headers(SERVICE)})

    def lines(self, sources: str, since: str, text: str = "", most: int = MOST) -> list[Line]:
        """The last lines of `sources` (`pods`, `journal`), oldest first, that contain a text.

        `since`: a span, such as `1h` or `14d`.

        Raises:
            StoreError: it does not answer, or rejects the query.
        """
        having = f" *:~{quoted(re.escape(text))}" if text else ""
        found = self._ask(f"_time:{since} {sources}{having} | sort by (_time) desc | limit {most}")
        return sorted(map(_line, found), key=lambda line: line.at)

    def _ask(self, query: str) -> list[dict[str, Any]]:
        import urllib3

        try:
            answer = self._pool.request(
                "POST", "/select/logsql/query", fields={"query": query}, encode_multipart=False, headers=self._headers
            )
        except urllib3.exceptions.HTTPError as error:
            raise StoreError(f"the log store does not answer: {error}") from None
        body = answer.data.decode(errors="replace")
        if answer.status >= 400:
            raise StoreError(f"the log store answers {answer.status}: {body.strip()[:300]}")
        return [json.loads(line) for line in body.splitlines() if line]


OF_PODS = f"{json.dumps(POD)}:*"
"""Filter: all pods."""


def pods(name: str, workloads: Iterable[Object]) -> str:
    """Filter: pods with this name, or of the capability, model or Job with this name."""
    filters = [f"{quoted(POD)}:={quoted(name)}", f"{quoted(POD)}:={quoted(f'{name}-')}*"]
    filters += [f"{quoted(OF_MODEL)}:={quoted(name)}", f"{quoted(APP)}:={quoted(name)}"]
    return f"({' or '.join([*filters, *_of_capability(name, workloads)])})"


def capability(name: str, workloads: Iterable[Object]) -> str:
    """Filter: pods of a capability.

    Raises:
        LabError: there is no such capability.
    """
    workloads = list(workloads)
    if not (found := _of_capability(name, workloads)):
        known = sorted({one["metadata"].get("labels", {}).get(CAPABILITY, "") for one in workloads} - {""})
        raise LabError(f"there is no capability '{name}'", remedy=f"choose one of: {', '.join(known)}")
    return f"({' or '.join(found)})"


def journal(node: str) -> str:
    """Filter: the journal of a node."""
    return f"{quoted(NODE)}:={quoted(node)}"


def quoted(text: str) -> str:
    """A quoted name or value in LogsQL."""
    return json.dumps(text, ensure_ascii=False)


def _of_capability(name: str, workloads: Iterable[Object]) -> list[str]:
    return [
        f"({quoted(NAMESPACE)}:={quoted(one['metadata']['namespace'])} "
        f"{quoted(APP)}:={quoted(one['spec']['selector']['matchLabels'].get('app', ''))})"
        for one in workloads
        if one["metadata"].get("labels", {}).get(CAPABILITY) == name
    ]


def _line(record: dict[str, Any]) -> Line:
    fields = [f"{key}={value}" for key, value in sorted(record.items()) if not OWN.fullmatch(key)]
    if POD in record:
        source = f"{record[POD]}/{record.get(CONTAINER, '')}"
    else:
        source = f"{record.get(NODE, 'unknown')}/{record.get(UNIT, 'kernel')}"
    return Line(record["_time"], source, " ".join([record.get("_msg", ""), *fields]).strip())
