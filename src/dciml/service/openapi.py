"""The OpenAPI document: every error is a problem, and every status that occurs is there."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from dciml.service.errors import MEDIA_TYPE

EVERYWHERE = {
    400: "The request is malformed.",
    401: "The token is missing or wrong.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    421: "The `Host` header names another server.",
    500: "The server made a mistake, or its disk or index is damaged.",
    503: "Too much at once, or something of the server's is out of reach; see `Retry-After`.",
}
CHANGES = {
    403: "Pages of other sites, or clients of a server that is open without a token, may not change anything.",
    507: "The disk is full.",
}
PROBLEM: dict[str, Any] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def describe_errors(app: FastAPI) -> None:
    """Let the app's document say how errors look, and which ones any request may meet."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = make()
            for operations in document["paths"].values():
                for method, operation in operations.items():
                    _complete(operation["responses"], method)
            document["components"]["schemas"].pop("HTTPValidationError", None)
            document["components"]["schemas"].pop("ValidationError", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(responses: dict[str, Any], method: str) -> None:
    common = EVERYWHERE | (CHANGES if method in ("post", "delete") else {})
    for code, description in common.items():
        responses.setdefault(str(code), {"description": description})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = PROBLEM
            if response.get("description", "") in ("", "Validation Error"):
                response["description"] = HTTPStatus(int(status)).phrase
