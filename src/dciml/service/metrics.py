"""`GET /metrics` for Prometheus, and the middleware that counts."""

from __future__ import annotations

from collections import Counter as Counts
from time import perf_counter
from typing import TYPE_CHECKING, get_args

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dciml.service.jobs import State

if TYPE_CHECKING:
    from dciml.service.runtime import Runtime

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
STATES: tuple[State, ...] = get_args(State)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The figures of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dciml_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "dciml_request_seconds",
            "Time from a request to the end of its answer.",
            ("route",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.running = Gauge("dciml_running", "Work going on now.", ("what",), registry=self.registry)
        self.videos = Gauge("dciml_videos", "Videos in the index.", registry=self.registry)
        self.generation = Gauge(
            "dciml_index_generation", "Changes of the index so far.", registry=self.registry
        )
        self.reloads = Gauge(
            "dciml_index_reloads", "Times a changed index was taken up.", registry=self.registry
        )
        self.jobs = Gauge("dciml_jobs", "Jobs by state.", ("state",), registry=self.registry)

    def exposition(self, runtime: Runtime) -> bytes:
        """The text that Prometheus reads."""
        now = runtime.corpus.now
        self.videos.set(len(now.video_ids))
        self.generation.set(now.generation)
        self.reloads.set(runtime.corpus.reloads)
        counts = Counts(job.state for job in runtime.jobs.all())
        for state in STATES:
            self.jobs.labels(state).set(counts[state])
        places = (runtime.searches, runtime.pictures, runtime.streams, runtime.changes, runtime.uploads)
        for slots in places:
            self.running.labels(slots.what).set(slots.used)
        return generate_latest(self.registry)


class Measured:
    """Counts requests by the pattern of their route, never by what clients send; plain ASGI."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(perf_counter() - begin)
