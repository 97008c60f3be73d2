"""Watches the promotion service: for decisions, and for the version that a rollback would lead to."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3

if TYPE_CHECKING:
    from collections.abc import Iterable

    Key = tuple[str, str]

SECONDS_TO_WAIT = 25
"""How long one request waits for a change: the service's maximum."""
SECONDS_TO_ANSWER, SECONDS_TO_RETRY = 10, 5
log = logging.getLogger("model-rollout")


class PromotionError(Exception):
    """The promotion service does not answer, or its answer is not valid."""


@dataclass(frozen=True)
class Service:
    """The promotion service, with the login of an MLflow user who may read."""

    address: str
    username: str
    password: str

    def get(self, path: str, **query: float) -> Any:
        """GET a path below `/v1/`; `seconds` in the query: how long the service may wait.

        Raises:
            PromotionError: the service does not answer, or refuses.
        """
        headers = urllib3.make_headers(basic_auth=f"{self.username}:{self.password}")
        timeout = urllib3.Timeout(connect=SECONDS_TO_ANSWER, read=SECONDS_TO_ANSWER + query.get("seconds", 0))
        try:
            answer = urllib3.request(
                "GET", f"{self.address.rstrip('/')}/v1/{path}", fields={key: str(query[key]) for key in query},
                headers=headers, retries=False, timeout=timeout,
            )  # fmt: skip
            found = answer.json()
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise PromotionError(f"the promotion service does not answer: {' '.join(str(error).split())}") from error
        if answer.status != 200:
            raise PromotionError(f"the promotion service answers {answer.status}: {str(found)[:200]}")
        return found


class Decisions:
    """Watches in a thread of its own. Without the service, the controller polls the registry."""

    def __init__(self, service: Service | None) -> None:
        self._service = service
        self._stages: frozenset[Key] = frozenset()
        self._former: dict[Key, str | None] = {}
        self.changed = threading.Event()
        """Set after a decision, and when a rollback would lead to another version."""
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start to watch."""
        if self._service is not None:
            threading.Thread(target=self._run, args=(self._service,), daemon=True).start()

    def stop(self) -> None:
        """Stop, and wake the thread that waits for a change."""
        self._stopping.set()
        self.changed.set()

    def watch(self, stages: Iterable[Key]) -> None:
        """Set the stages for which `former` is read."""
        self._stages = frozenset(stages)

    def former(self) -> dict[Key, str | None]:
        """The version that a rollback of each stage would lead to, or None; stages left out are unknown."""
        return dict(self._former)

    def _run(self, service: Service) -> None:
        last, logged, seconds = -1, "", 0
        while not self._stopping.is_set():
            try:
                number = _number(service.get("changes", since=max(last, 0), seconds=seconds))
                # A decision in the meantime has a higher number, so the next request returns at once.
                if number != last:
                    last = number
                    self.changed.set()
                self._read_former(service)
                logged, seconds = "", SECONDS_TO_WAIT
            except PromotionError as error:
                if str(error) != logged:
                    log.warning("polling only the registry: %s", error)
                logged, seconds = str(error), 0
                self._stopping.wait(SECONDS_TO_RETRY)

    def _read_former(self, service: Service) -> None:
        found = {
            (model, stage): _version(service.get(f"models/{model}/stages/{stage}/rollback"))
            for model, stage in self._stages
        }
        if found != self._former:
            self._former = found
            self.changed.set()


def _number(answer: Any) -> int:
    if isinstance(answer, dict) and isinstance(last := answer.get("last"), int):
        return last
    raise PromotionError(f"the promotion service's answer has no number of a decision: {str(answer)[:200]}")


def _version(answer: Any) -> str | None:
    version = answer.get("version", "") if isinstance(answer, dict) else ""
    if version is None or (isinstance(version, str) and version.isdecimal()):
        return version
    raise PromotionError(f"the promotion service's answer has no version to roll back to: {str(answer)[:200]}")
