"""`/api/videos`: what is in the index."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from dciml.service.answers import as_video
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import Problem, VideoOut, VideoPage

router = APIRouter(prefix="/api", tags=["videos"])


@router.get("/videos")
async def videos(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=10**12)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    search: Annotated[str, Query(max_length=200, description="Part of the id.")] = "",
) -> VideoPage:
    """The videos in the order in which they were added."""
    runtime = runtime_of(request)

    def work() -> VideoPage:
        index = runtime.corpus.now.index
        wanted = search.casefold()
        ids = [video_id for video_id in index.video_ids if wanted in video_id.casefold()]
        return VideoPage(
            total=len(ids),
            videos=[as_video(runtime.video(index, video_id)) for video_id in ids[offset : offset + limit]],
        )

    return await runtime.search(work)


@router.get("/videos/{video_id:path}", responses={404: {"model": Problem}})
async def video(video_id: str, request: Request) -> VideoOut:
    """What the catalogue knows of a video."""
    runtime = runtime_of(request)
    return await runtime.search(lambda: _video(runtime, video_id))


def _video(runtime: Runtime, video_id: str) -> VideoOut:
    return as_video(runtime.video(runtime.corpus.now.index, video_id))
