"""A client of the promotion service, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

SECONDS_TO_ANSWER = 120
"""It asks MLflow, which may take its time."""


class PromotionError(Exception):
    """The service does not answer, or refuses; `status` is of HTTP, 0 where it does not answer."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    @property
    def refused(self) -> bool:
        """Whether it was decided against, so that asking again changes nothing."""
        return self.status in {400, 404, 409}


@dataclass(frozen=True)
class Promotion:
    """A service, and who asks it.

    Raises:
        PromotionError: it does not answer, or refuses; of every method.
    """

    address: str
    username: str
    password: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        """What it answers to a path below `/v1/`."""
        asked = f"?{urllib.parse.urlencode(query)}" if query else ""
        request = urllib.request.Request(  # noqa: S310
            f"{self.address.rstrip('/')}/v1/{path}{asked}",
            json.dumps(body).encode() if body is not None else None, method=method,
        )  # fmt: skip
        login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise PromotionError(_told(error.read(), error.code), error.code) from None
        except (OSError, ValueError) as error:
            raise PromotionError(f"the promotion service does not answer: {error}", 0) from error


def _told(answer: bytes, status: int) -> str:
    try:
        found = json.loads(answer)
        return "; ".join(str(found[key]) for key in ("error", "remedy") if key in found)
    except (ValueError, TypeError):
        return f"the promotion service answers {status}"
