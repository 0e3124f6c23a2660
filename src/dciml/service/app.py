"""The web application over one index: API, media, pictures and page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from pathlib import Path

import torch
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute

from dciml.service import errors, media, pictures, search, videos
from dciml.service.access import AccessControl
from dciml.service.connections import ClearFraming
from dciml.service.headers import SecurityHeaders
from dciml.service.limits import BodyAndTime
from dciml.service.metrics import CONTENT_TYPE, Measured
from dciml.service.openapi import describe_errors
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import Health
from dciml.service.settings import ServiceSettings
from dciml.threads import set_num_shares
from dciml.version import __version__

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
    # Searches run beside each other. What one of them shares out is whole videos, not single operations.
    torch.set_num_threads(1)
    set_num_shares(settings.limits.search_threads)
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
    for router in (search.router, videos.router, media.router, pictures.router):
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
