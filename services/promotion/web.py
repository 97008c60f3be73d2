"""The API: JSON over HTTP, with a password of MLflow's users. README.md has it."""

from __future__ import annotations

import base64
import binascii
import hmac
import http.server
import json
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.promotion.decisions import STAGES
from services.promotion.errors import InvalidError, PromotionError, UnknownError
from services.promotion.gates import faults
from services.promotion.registry import MissingError
from services.promotion.verdicts import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from services.promotion.decisions import Decisions

    Query = Mapping[str, str]
    Answer = dict[str, Any]

LARGEST = 16 << 20
LONGEST_WAIT = 25.0
PASSWORD = "-password"  # noqa: S105
DECIDE, READ = "decide", "read"
ADMIN = "admin"
RIGHTS = {ADMIN: DECIDE, "trainer": DECIDE, "pipelines": DECIDE, "server": READ, "monitor": READ}
"""What each of MLflow's users may ask for; others nothing."""
NEWEST = "newest"
"""In a plan: the newest version that may be promoted."""
log = logging.getLogger("promotion")
STRICT = ConfigDict(extra="forbid", frozen=True)
Number = Field(default=None, ge=1, le=2**31 - 1)


class DeniedError(PromotionError):
    """A caller without a password, or without the right."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Registration(BaseModel):
    """What is to be registered."""

    model_config = STRICT
    run: str = Field(min_length=1, max_length=100)


class Promotion(BaseModel):
    """What a stage is to serve; by default the newest version."""

    model_config = STRICT
    version: int | None = Number
    incident: str | None = Field(default=None, max_length=200)


class Rollback(BaseModel):
    """Why a stage is to serve what it served before; and whether it is before Git says so."""

    model_config = STRICT
    incident: str | None = Field(default=None, max_length=200)
    ahead_of_git: bool = False


class Settled(BaseModel):
    """What a commit says of all stages of a model, and where it came from."""

    model_config = STRICT
    stages: dict[Annotated[str, Field(pattern=f"^({'|'.join(STAGES)})$")], Annotated[int, Field(ge=1, le=2**31 - 1)]]
    commit: str = Field(pattern="^[0-9a-f]{7,64}$")
    pull_request: int | None = Number
    author: str = Field(default="", max_length=200)
    after: str = Field(default="", max_length=64)
    """The commit that was done last, as the caller knows it."""


class Withdrawal(BaseModel):
    """What a stage serves that is to be taken down."""

    model_config = STRICT
    version: int = Field(ge=1, le=2**31 - 1)


@dataclass(frozen=True)
class Callers:
    """Who may ask: a folder with a file NAME-password for each."""

    folder: Path

    def name(self, authorization: str | None) -> str:
        """Who asks.

        Raises:
            DeniedError: nobody known, or with a wrong password.
        """
        scheme, _, encoded = (authorization or "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
        file = self.folder / f"{user}{PASSWORD}"
        known = scheme.lower() == "basic" and user in RIGHTS and file.is_file()
        if known and hmac.compare_digest(file.read_text().strip().encode(), password.encode()):
            return user
        raise DeniedError("log in as one of MLflow's users, with its password", 401)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    decisions: Decisions
    callers: Callers
    started: Callable[[], bool]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer what reads."""
        self._answer({})

    def do_POST(self) -> None:
        """Answer what decides."""
        try:
            length = int(self.headers.get("Content-Length", "0"))
        except ValueError:
            length = -1
        if not 0 <= length <= LARGEST:
            self.close_connection = True
            self._send(413, {"error": f"send at most {LARGEST} bytes, with their number in Content-Length"})
            return
        self._answer(self.rfile.read(length))

    def _answer(self, body: Any) -> None:
        began, caller = time.monotonic(), ""
        path, query = (
            urlsplit(self.path).path,
            {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()},
        )
        try:
            if self.command == "GET" and path in {"/healthz", "/readyz"}:
                status, answer = (
                    (200, {}) if path == "/healthz" or self.started() else (503, {"error": "it is starting"})
                )
                self._send(status, answer)
                return
            caller = self.callers.name(self.headers.get("Authorization"))
            verb, parts = _route(self.command, path)
            if verb.right == DECIDE and RIGHTS[caller] != DECIDE:
                raise DeniedError(f"{caller} may only read", 403)
            if not self.started():
                raise DeniedError("it is starting: PostgreSQL or the registry does not answer yet", 503)
            status, answer = 200, verb.answer(self.decisions, caller, parts, _json(body) if body else {}, query)
        except ValidationError as error:
            status, answer = 400, {"error": faults(error)}
        except PromotionError as error:
            status, answer = error.status, {"error": str(error)}
            if error.remedy:
                answer["remedy"] = error.remedy
        except MissingError as error:
            status, answer = 404, {"error": f"the registry has no such thing: {error}"}
        except Exception:
            log.exception("%s %s", self.command, path)
            status, answer = 500, {"error": "a fault of the promotion service: see its log"}
        if self.command == "POST":
            told = answer.get("error") or json.dumps(
                {key: answer[key] for key in ("version", "passed") if key in answer}
            )
            log.info("%s %s by %s: %s %s (%.0f ms)", self.command, path, caller or "nobody", status, told,
                     1000 * (time.monotonic() - began))  # fmt: skip
        self._send(status, answer)

    def _send(self, status: int, answer: Answer) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="promotion"')
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of every request."""


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise InvalidError(f"the request is no JSON: {error}") from None
    except RecursionError:
        raise InvalidError("the request is no JSON that can be read") from None
    if not isinstance(found, dict):
        raise InvalidError("the request is no JSON object")
    return found


def _count(query: Query, name: str, default: str, most: float) -> float:
    try:
        found = float(query.get(name, default))
    except ValueError:
        found = -1
    if not 0 <= found <= most:
        raise InvalidError(f"{name} must be a number from 0 to {most:g}")
    return found


@dataclass(frozen=True)
class Verb:
    """What a path means."""

    right: str
    answer: Callable[[Decisions, str, Mapping[str, str], dict[str, Any], Query], Answer]


def _promote(decisions: Decisions, caller: str, at: Mapping[str, str], body: dict[str, Any], _: Query) -> Answer:
    asked = Promotion.model_validate(body)
    return decisions.promote(at["model"], at["stage"], asked.version, asked.incident, caller)


def _rollback(decisions: Decisions, caller: str, at: Mapping[str, str], body: dict[str, Any], _: Query) -> Answer:
    asked = Rollback.model_validate(body)
    return decisions.rollback(at["model"], at["stage"], asked.incident, caller, ahead_of_git=asked.ahead_of_git)


def _former(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], ___: Query) -> Answer:
    return decisions.former(at["model"], at["stage"])


def _withdraw(decisions: Decisions, caller: str, at: Mapping[str, str], body: dict[str, Any], _: Query) -> Answer:
    return decisions.withdraw(at["model"], at["stage"], Withdrawal.model_validate(body).version, caller)


def _plan(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], query: Query) -> Answer:
    wanted = {
        stage: None if query[stage] == NEWEST else int(_count(query, stage, "", 2**31 - 1))
        for stage in STAGES
        if stage in query
    }
    return decisions.plan(at["model"], wanted)


def _settle(decisions: Decisions, caller: str, at: Mapping[str, str], body: dict[str, Any], _: Query) -> Answer:
    if caller != ADMIN:
        raise DeniedError(f"{caller} may not say what Git says", 403)
    asked = Settled.model_validate(body)
    change = asked.model_dump(include={"commit", "pull_request", "author"})
    return decisions.settle(at["model"], asked.stages, change, asked.after, caller)


def _register(decisions: Decisions, _: str, at: Mapping[str, str], body: dict[str, Any], __: Query) -> Answer:
    return decisions.register(at["model"], Registration.model_validate(body).run)


def _evaluate(decisions: Decisions, caller: str, at: Mapping[str, str], body: dict[str, Any], _: Query) -> Answer:
    return decisions.evaluate(at["model"], Evidence.model_validate(body), caller)


def _gate(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], query: Query) -> Answer:
    return decisions.gate(at["model"], query.get("test"))


def _verdicts(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], query: Query) -> Answer:
    version = int(_count(query, "version", "0", 2**31 - 1)) or None
    return decisions.verdicts(at["model"], query.get("run"), version)


def _stages(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], ___: Query) -> Answer:
    return decisions.stages(at["model"])


def _history(decisions: Decisions, _: str, at: Mapping[str, str], __: dict[str, Any], query: Query) -> Answer:
    return decisions.history(at["model"], query.get("stage"), int(_count(query, "count", "100", 1_000_000)))


def _changes(decisions: Decisions, _: str, __: Mapping[str, str], ___: dict[str, Any], query: Query) -> Answer:
    since, seconds = _count(query, "since", "0", 2**53), _count(query, "seconds", "0", LONGEST_WAIT)
    return decisions.changes(int(since), seconds)


MODEL = "/v1/models/(?P<model>[^/]{1,200})"
STAGE = f"{MODEL}/stages/(?P<stage>{'|'.join(STAGES)})"
VERBS = {
    f"GET {MODEL}/gate": Verb(READ, _gate),
    f"GET {MODEL}/verdict": Verb(READ, _verdicts),
    f"POST {MODEL}/verdicts": Verb(DECIDE, _evaluate),
    f"POST {MODEL}/versions": Verb(DECIDE, _register),
    f"GET {MODEL}/stages": Verb(READ, _stages),
    f"GET {MODEL}/plan": Verb(READ, _plan),
    f"POST {MODEL}/stages": Verb(DECIDE, _settle),
    f"GET {MODEL}/history": Verb(READ, _history),
    f"POST {STAGE}/promote": Verb(DECIDE, _promote),
    f"POST {STAGE}/rollback": Verb(DECIDE, _rollback),
    f"GET {STAGE}/rollback": Verb(READ, _former),
    f"POST {STAGE}/withdraw": Verb(DECIDE, _withdraw),
    "GET /v1/changes": Verb(READ, _changes),
}


def _route(method: str, path: str) -> tuple[Verb, dict[str, str]]:
    for pattern, verb in VERBS.items():
        if found := re.fullmatch(pattern, f"{method} {path}"):
            parts = {name: unquote(part) for name, part in found.groupdict().items()}
            # As Kubernetes and MLflow both take it; a name never reaches a path or a selector otherwise.
            if "model" in parts and not re.fullmatch("[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", parts["model"]):
                raise InvalidError(
                    f"{parts['model']!r} is no name of a model: letters, digits and -._ within, 63 at most"
                )
            return verb, parts
    raise UnknownError(f"there is no {method} {path}; stages are {', '.join(STAGES)}")
