"""What all requests share: the live index, the thread pools, and the places in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import Request

from dciml.service import answers
from dciml.service.adding import Library
from dciml.service.jobs import JobQueue
from dciml.service.limits import Slots
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.metrics import Metrics
from dciml.service.schemas import SearchAnswer, SearchRequest
from dciml.service.settings import ServiceSettings
from dciml.service.thumbnails import ThumbnailCache
from dciml.service.together import Together

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
        self.changes = Slots(limits.running_changes, "changes")
        self.uploads = Slots(limits.running_uploads, "uploads", limits.uploads_per_client)
        self.jobs = JobQueue(limits.queued_jobs, limits.kept_jobs, limits.queued_jobs_per_client)
        self.library = Library(settings, self.corpus, self.jobs)
        self.streams = Slots(limits.running_streams, "players", limits.streams_per_client)
        self._search_pool = ThreadPoolExecutor(limits.search_threads, "search")
        self._questions = Together(self._search_pool, answers.search_together, limits.batch_searches)
        self._change_pool = ThreadPoolExecutor(2, "change")
        self._picture_pool = ThreadPoolExecutor(limits.thumbnail_threads, "picture")

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

    async def change(self, work: Callable[[], Result]) -> Result:
        """Run a change of the index, or of the videos kept here, in its pool."""
        with self.changes.taken():
            return await asyncio.get_running_loop().run_in_executor(self._change_pool, work)

    def close(self) -> None:
        """Wait for what runs; forget what waits. Jobs are ended."""
        self.jobs.close()
        for pool in (self._search_pool, self._picture_pool, self._change_pool):
            pool.shutdown(wait=True, cancel_futures=True)
        self.thumbnails.close()
        self._questions.close()
        self.library.close()


def runtime_of(request: Request) -> Runtime:
    """The runtime of the app that a request came to."""
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)
    return runtime
