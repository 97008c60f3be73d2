"""Refusals of requests, all of one shape: a status of 400 to 499 and `{"error": "..."}`."""

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
TAKEN = (JSON, "application/cloudevents+json")
ASKING = (":predict", "/infer")
"""How the paths end by which models are asked."""
READ_ON = 8
"""Times the largest body: what is read of one that is too large before the connection is closed."""


def add_to(app: FastAPI, largest: int) -> None:
    """Have an application refuse by one shape, and bodies of more than `largest` bytes at all."""
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(InvalidInput, _invalid)
    app.add_middleware(Limits, largest=largest)


class Limits:
    """Refuses bodies that are too large, or not of a type that models are asked in."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app, self._largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["path"].endswith(ASKING) and BINARY_HEADER not in headers:
            kind = headers.get("content-type", JSON).partition(";")[0].strip().lower()
            if kind not in TAKEN and not any(name.startswith("ce-") for name in headers):
                told = f"Content-Type {kind} is not taken: send JSON as {JSON}"
                await JSONResponse({"error": told}, 415)(scope, receive, send)
                return
            # Without what may stand behind it, such as a character set, which is not looked for there.
            MutableHeaders(scope=scope)["content-type"] = kind
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._largest:
                # Most clients look for an answer once they have sent all: read on, and keep nothing.
                while message.get("more_body") and seen < READ_ON * self._largest:
                    message = await receive()
                    seen += len(message.get("body", b""))
                raise HTTPException(413, f"the request has more than {self._largest} bytes: send fewer rows at a time")
            return message

        await self._app(scope, counted, send)


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # What is wrong with it as bytes, which it was not sent as, is of no interest.
    faults = [one for one in error.errors() if "bytes" not in one["loc"]]
    return JSONResponse({"error": "; ".join(_said(one) for one in faults[:5])}, 400)


def _said(fault: dict[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return f"the request is no JSON: {fault['ctx']['error']}, character {fault['loc'][-1]}"
    place = ".".join(str(part) for part in fault["loc"] if part not in {"body", "InferenceRequest"})
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    # The client's fault: nothing for the server's log.
    return JSONResponse({"error": str(error)}, 400)
