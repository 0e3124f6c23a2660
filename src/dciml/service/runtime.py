"""What all requests share: the live index, the thread pools and the places in them, and the counts of `/metrics`."""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TypeVar, get_args

import torch
from fastapi import Request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dciml.service import answers
from dciml.service.adding import Library
from dciml.service.copies import Copies
from dciml.service.cutting import ClipCutter
from dciml.service.folder import FolderWatch
from dciml.service.jobs import JobQueue, State, Together
from dciml.service.limits import Slots
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.schemas import SearchAnswer, SearchRequest
from dciml.service.settings import Limits, ServiceSettings
from dciml.service.teaching import Teaching
from dciml.service.thumbnails import ThumbnailCache
from dciml.threads import set_num_shares

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
        places = (
            runtime.searches,
            runtime.pictures,
            runtime.clips,
            runtime.streams,
            runtime.changes,
            runtime.uploads,
        )
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


def share_out_searches(limits: Limits) -> None:
    """Searches run beside each other. What one of them shares out is whole videos, not single operations."""
    torch.set_num_threads(1)
    set_num_shares(limits.search_threads)


Result = TypeVar("Result")


class Runtime:
    """Made once an app; closed when the app ends."""

    def __init__(self, settings: ServiceSettings) -> None:
        limits = settings.limits
        self.settings = settings
        self.corpus = LiveCorpus(settings)
        self.metrics = Metrics()
        self.thumbnails = ThumbnailCache(
            settings.cache_folder, limits.thumbnail_cache_bytes, limits.thumbnail_threads
        )
        self.searches = Slots(limits.running_searches, "searches")
        self.pictures = Slots(limits.running_thumbnails, "pictures to make")
        self.cutter = ClipCutter(limits.clip_threads)
        self.clips = Slots(limits.running_clips, "moments to cut", limits.clips_per_client)
        self.changes = Slots(limits.running_changes, "changes")
        self.uploads = Slots(limits.running_uploads, "uploads", limits.uploads_per_client)
        self.jobs = JobQueue(limits.queued_jobs, limits.kept_jobs, limits.queued_jobs_per_client)
        self.library = Library(settings, self.corpus, self.jobs)
        if settings.is_writable:
            self.copies = Copies(self.library.added.copies, limits, self.library.added.claim)
        else:
            self.copies = Copies(settings.cache_folder / "copies", limits)
        self.teaching = Teaching(settings, self.corpus, self.jobs)
        is_watched = settings.home is not None and settings.is_writable
        self.folder = FolderWatch(settings.home, self.corpus) if is_watched and settings.home else None
        self.streams = Slots(limits.running_streams, "players", limits.streams_per_client)
        self._search_pool = ThreadPoolExecutor(limits.search_threads, "search")
        self._questions = Together(self._search_pool, answers.search_together, limits.batch_searches)
        self._change_pool = ThreadPoolExecutor(2, "change")
        self._picture_pool = ThreadPoolExecutor(limits.thumbnail_threads, "picture")
        self._clip_pool = ThreadPoolExecutor(limits.clip_threads, "clip")

    async def search(self, work: Callable[[], Result]) -> Result:
        """Run a search in its pool. Raises Busy when too many wait; so do the next three."""
        with self.searches.taken():
            return await asyncio.get_running_loop().run_in_executor(self._search_pool, work)

    async def answer(self, now: Snapshot, question: SearchRequest) -> SearchAnswer:
        """Search for a sentence; in one batch with others that wait. Raises Busy; and as `answers.search`."""
        if not question.is_unlimited:
            return await self.search(lambda: answers.search(now, question))
        with self.searches.taken():
            return await asyncio.wrap_future(self._questions.submit((now, question.k), question))

    async def picture(self, work: Callable[[], Result]) -> Result:
        """Run the decoding of a picture in its pool."""
        with self.pictures.taken():
            return await asyncio.get_running_loop().run_in_executor(self._picture_pool, work)

    async def cut(self, work: Callable[[], Result], client: str) -> Result:
        """Run the cutting of a moment in its pool."""
        with self.clips.taken(client):
            return await asyncio.get_running_loop().run_in_executor(self._clip_pool, work)

    async def change(self, work: Callable[[], Result]) -> Result:
        """Run a change of the index, or of the videos kept here, in its pool."""
        with self.changes.taken():
            return await asyncio.get_running_loop().run_in_executor(self._change_pool, work)

    def upload_room(self, client: str) -> int:
        """How many more videos a client could send now."""
        coming = self.uploads.used, self.uploads.used_by(client)
        return min(self.uploads.free(client), self.jobs.room(client, *coming))

    def close(self) -> None:
        """Wait for what runs; forget what waits. Jobs are ended."""
        if self.folder is not None:
            self.folder.close()
        self.jobs.close()
        for pool in (self._search_pool, self._picture_pool, self._change_pool, self._clip_pool):
            pool.shutdown(wait=True, cancel_futures=True)
        self.thumbnails.close()
        self.cutter.close()
        self.copies.close()
        self._questions.close()
        self.library.close()


def runtime_of(request: Request) -> Runtime:
    """The runtime of the app that a request came to."""
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)
    return runtime
