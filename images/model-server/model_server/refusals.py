"""Error responses, all of one form: a status of 400 to 499 and `{"error": "..."}`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve.errors import InvalidInput
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

JSON = "application/json"
BINARY_HEADER = "inference-header-content-length"
MEDIA_TYPES = (JSON, "application/cloudevents+json")
PREDICT_SUFFIXES = (":predict", "/infer")
"""The ends of the paths of predictions."""
MAX_DRAIN = 8
"""How much of a too large body is read before the connection is closed, in sizes of the largest body."""


def add_to(app: FastAPI, largest: int) -> None:
    """Add the error handlers and the limit of `largest` bytes to an application."""
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(InvalidInput, _invalid)
    app.add_middleware(Limits, largest=largest)


class Limits:
    """Refuses bodies that are too large or have the wrong media type."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app, self._largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"].endswith(PREDICT_SUFFIXES) and BINARY_HEADER not in headers:
            kind = headers.get("content-type", JSON).partition(";")[0].strip().lower()
            if kind not in MEDIA_TYPES and not any(name.startswith("ce-") for name in headers):
                message = f"Content-Type {kind} is not supported: send {JSON}"
                await JSONResponse({"error": message}, 415)(scope, receive, send)
                return
            # Without parameters such as a character set, which KServe does not expect.
            MutableHeaders(scope=scope)["content-type"] = kind
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._largest:
                # Most clients read the response only after they have sent the body: read it, and discard it.
                while message.get("more_body") and seen < MAX_DRAIN * self._largest:
                    message = await receive()
                    seen += len(message.get("body", b""))
                raise HTTPException(413, f"the request has more than {self._largest} bytes: send fewer rows at a time")
            return message

        await self._app(scope, counted, send)


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # Errors about the body as bytes do not apply.
    errors = [one for one in error.errors() if "bytes" not in one["loc"]]
    return JSONResponse({"error": "; ".join(_message(one) for one in errors[:5])}, 400)


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"the request is not JSON: {error['ctx']['error']}, character {error['loc'][-1]}"
    place = ".".join(str(part) for part in error["loc"] if part not in {"body", "InferenceRequest"})
    return f"{place}: {error['msg']}" if place else str(error["msg"])


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    # The client's error: not logged.
    return JSONResponse({"error": str(error)}, 400)
