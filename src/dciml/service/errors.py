"""Errors as `application/problem+json` (RFC 9457): a plain sentence for the user, never a traceback."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dciml.errors import DataError, DcimlError
from dciml.service.troubles import MISTAKE, Trouble, sentence_of, trouble_of

MEDIA_TYPE = "application/problem+json"
SENTENCES = {
    400: "The body of the request cannot be read.",
    404: "There is nothing at this address.",
    405: "This address does not take this method.",
    500: MISTAKE,
}
_log = logging.getLogger("dciml.service")


class ServiceError(HTTPException):
    """A refusal that is sent to the client.

    Args:
        status: the HTTP status.
        detail: one or two plain sentences; may quote the request, is never HTML.
        more: further members of the problem, for programs.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.more = dict(more or {})


class UnknownVideo(ServiceError):
    """The index does not hold a video."""

    def __init__(self, video_id: str) -> None:
        super().__init__(404, f"The index does not hold the video {shortened(video_id)!r}.")


class Busy(ServiceError):
    """Too much is going on; the client may come again soon."""

    def __init__(self, what: str, retry_after_seconds: int = 1) -> None:
        detail = f"The server has too many {what} at the moment. Try again in a moment."
        super().__init__(503, detail, {"Retry-After": str(retry_after_seconds)})


def shortened(text: str, limit: int = 200) -> str:
    """A client's text, short enough to be quoted back.

    >>> shortened("a" * 300, 5)
    'aaaaa…'
    """
    return text if len(text) <= limit else text[:limit] + "…"


def problem(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """An error as a response; `more` are further members of it."""
    return Response(problem_content(status, detail, more), status, dict(headers or {}), MEDIA_TYPE)


def problem_content(status: int, detail: str, more: Mapping[str, Any] | None = None) -> bytes:
    """The body of an error; ASCII with \\u escapes: half a surrogate pair in a request must not break the answer."""
    content = {
        **(more or {}),
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": detail,
    }
    return json.dumps(content).encode("ascii")


def troubled(error: Exception, trouble: Trouble) -> Response:
    """What the machine refused, as a problem; the log gets the rest."""
    _log.error("%s: %s", type(error).__name__, error)
    return problem(trouble.status, trouble.sentence, {"Retry-After": "5"} if trouble.status == 503 else None)


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        return problem(error.status_code, error.detail, error.headers, error.more)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = SENTENCES.get(error.status_code, str(error.detail))
        return problem(error.status_code, detail, error.headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(422, invalid_sentence(error.errors()[0]))

    async def expected(_: Request, error: Exception) -> Response:
        assert isinstance(error, DcimlError)
        if (trouble := trouble_of(error)) is not None:
            return troubled(error, trouble)
        if not isinstance(error, DataError):
            _log.error("%s", error)
        return problem(422 if isinstance(error, DataError) else 500, sentence_of(error))

    async def refused_by_machine(_: Request, error: Exception) -> Response:
        trouble = trouble_of(error)
        assert trouble is not None
        return troubled(error, trouble)

    async def gone(_: Request, error: Exception) -> Response:
        return problem(400, "The connection ended before the request was complete.")  # nobody reads it

    async def unexpected(_: Request, error: Exception) -> Response:
        _log.error("unexpected error", exc_info=error)
        return problem(500, SENTENCES[500])

    app.add_exception_handler(ServiceError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(DcimlError, expected)
    for kind in (OSError, sqlite3.Error, MemoryError):
        app.add_exception_handler(kind, refused_by_machine)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unexpected)


def invalid_sentence(first: Mapping[str, Any]) -> str:
    """What is wrong with a request, from the first of pydantic's errors.

    >>> invalid_sentence({"loc": ("body", "k"), "msg": "Input should be less than or equal to 100"})
    'The request is not valid: k: Input should be less than or equal to 100.'
    """
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = shortened(str(first["msg"]))
    return f"The request is not valid: {f'{shortened(place)}: ' if place else ''}{message}."


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
