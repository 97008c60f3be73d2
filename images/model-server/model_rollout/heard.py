"""What the promotion service tells of its decisions: that there is one, at once, and where a rollback would lead."""

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
"""For one change: the most that the service lets anybody wait."""
SECONDS_TO_ANSWER, SECONDS_TO_RETRY = 10, 5
log = logging.getLogger("model-rollout")


class HeardError(Exception):
    """The promotion service does not answer, or not with what was asked for."""


@dataclass(frozen=True)
class Service:
    """The promotion service, and who asks it: a user of MLflow who may read."""

    address: str
    username: str
    password: str

    def ask(self, path: str, **query: float) -> Any:
        """What it answers to a path below `/v1/`; `seconds` of a query are how long it may wait.

        Raises:
            HeardError: it does not answer, or refuses.
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
            raise HeardError(f"the promotion service does not answer: {' '.join(str(error).split())}") from error
        if answer.status != 200:
            raise HeardError(f"the promotion service answers {answer.status}: {str(found)[:200]}")
        return found


class Heard:
    """Listens in a thread of its own. Nobody waits for the service: the registry is looked at all the same."""

    def __init__(self, service: Service | None) -> None:
        self._service = service
        self._asked: frozenset[Key] = frozenset()
        self._former: dict[Key, str | None] = {}
        self.news = threading.Event()
        """Set when something was decided, or a rollback would lead somewhere else."""
        self._stopping = threading.Event()

    def start(self) -> None:
        """Listen from now on."""
        if self._service is not None:
            threading.Thread(target=self._listen, args=(self._service,), daemon=True).start()

    def stop(self) -> None:
        """Wake up who waits for news, and listen no more."""
        self._stopping.set()
        self.news.set()

    def ask_about(self, stages: Iterable[Key]) -> None:
        """Of which models' stages it is to be known where a rollback would lead."""
        self._asked = frozenset(stages)

    def former(self) -> dict[Key, str | None]:
        """The version that a rollback of a stage would lead to, or None; without those of which nothing is known."""
        return dict(self._former)

    def _listen(self, service: Service) -> None:
        last, told, seconds = -1, "", 0
        while not self._stopping.is_set():
            try:
                number = _number(service.ask("changes", since=max(last, 0), seconds=seconds))
                # What is decided while this is acted on has a higher number, and is answered at once.
                if number != last:
                    last = number
                    self.news.set()
                self._look_back(service)
                told, seconds = "", SECONDS_TO_WAIT
            except HeardError as error:
                if str(error) != told:
                    log.warning("decisions are heard of by looking at the registry alone: %s", error)
                told, seconds = str(error), 0
                self._stopping.wait(SECONDS_TO_RETRY)

    def _look_back(self, service: Service) -> None:
        found = {
            (model, stage): _version(service.ask(f"models/{model}/stages/{stage}/rollback"))
            for model, stage in self._asked
        }
        if found != self._former:
            self._former = found
            self.news.set()


def _number(answer: Any) -> int:
    if isinstance(answer, dict) and isinstance(last := answer.get("last"), int):
        return last
    raise HeardError(f"the promotion service does not say what its last decision is, but {str(answer)[:200]}")


def _version(answer: Any) -> str | None:
    version = answer.get("version", "") if isinstance(answer, dict) else ""
    if version is None or (isinstance(version, str) and version.isdecimal()):
        return version
    raise HeardError(f"the promotion service does not say where a rollback would lead, but {str(answer)[:200]}")
