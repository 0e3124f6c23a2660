"""The web application over one index: API, media, pictures and page; and its OpenAPI document."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from dciml.service import clips, copy_routes, errors, media, routes, told_routes
from dciml.service.access import AccessControl, SecurityHeaders
from dciml.service.errors import MEDIA_TYPE
from dciml.service.limits import BodyAndTime, ClearFraming
from dciml.service.runtime import CONTENT_TYPE, Measured, Runtime, runtime_of, share_out_searches
from dciml.service.schemas import Health
from dciml.service.settings import ServiceSettings
from dciml.version import __version__

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


_log = logging.getLogger("dciml.service")
ABOUT = (
    "Finds the video and the moment that a sentence describes. Ids of videos may hold slashes and any character: "
    "percent-encode them in addresses. Errors are `application/problem+json` with a plain sentence in `detail`."
)


def create_app(settings: ServiceSettings) -> FastAPI:
    """The app that serves an index; opens it at once.

    Raises:
        ModelError, DataError: the index, its model or its features cannot be opened.
    """
    share_out_searches(settings.limits)
    runtime = Runtime(settings)
    app = FastAPI(
        title="dciml",
        version=__version__,
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=_middleware(settings, runtime),
    )
    app.state.runtime = runtime
    errors.install(app)
    _add_own_routes(app)
    video_routers = (routes.video_routes, told_routes.router, media.router, clips.router, copy_routes.router)
    for router in (routes.search_routes, *video_routers):
        app.include_router(router)
        _answer_head(app, router.routes)
    _answer_head(app, app.routes)
    describe_errors(app)
    return app


def _answer_head(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Take HEAD wherever GET is taken: proxies and players ask that way. The server leaves the content out."""
    for route in [route for route in routes if isinstance(route, APIRoute) and route.methods == {"GET"}]:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=["HEAD"],
            include_in_schema=False,
            response_model=route.response_model,
            response_class=route.response_class,
        )


def _middleware(settings: ServiceSettings, runtime: Runtime) -> list[Middleware]:
    """Outermost first."""
    stack = [
        Middleware(Measured, metrics=runtime.metrics),
        Middleware(SecurityHeaders),
        Middleware(ClearFraming),
    ]
    if settings.cors_origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["authorization", "content-type"],
            )
        )
    stack.append(Middleware(AccessControl, settings=settings))
    stack.append(Middleware(BodyAndTime, limits=settings.limits))
    return stack


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    runtime: Runtime = app.state.runtime
    watch = asyncio.create_task(_watch(runtime))
    if runtime.folder is not None:
        runtime.folder.start()
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await asyncio.to_thread(runtime.close)


async def _watch(runtime: Runtime) -> None:
    """Take up what other processes change in the index."""
    seconds = runtime.settings.poll_seconds
    while seconds > 0:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(runtime.corpus.refresh)
        except Exception:  # whatever it was, the next look may go well
            _log.exception("the index could not be looked at")


def _add_own_routes(app: FastAPI) -> None:
    @app.get("/healthz", tags=["operation"])
    async def healthz(request: Request) -> Health:
        """The server lives and has an index."""
        videos = len(runtime_of(request).corpus.now.video_ids)
        return Health(status="ok", videos=videos, version=__version__)

    @app.get(
        "/metrics",
        tags=["operation"],
        response_class=Response,
        responses={200: {"content": {CONTENT_TYPE.partition(";")[0]: {}}}},
    )
    async def metrics(request: Request) -> Response:
        """Figures for Prometheus."""
        runtime = runtime_of(request)
        return Response(runtime.metrics.exposition(runtime), media_type=CONTENT_TYPE)

    page = Path(str(files("dciml.service") / "page"))

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return FileResponse(page / "index.html")

    app.mount("/static", StaticFiles(directory=page), name="static")
