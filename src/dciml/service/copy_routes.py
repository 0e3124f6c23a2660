"""`/api/copies/{id}` makes a copy of a video that every browser plays; `/copies/{id}` is that copy, in ranges."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from dciml.errors import DataError
from dciml.service.errors import ServiceError
from dciml.service.files import GONE, copy_url
from dciml.service.jobs import Job
from dciml.service.media import media_path_of, send_file
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import CopyOut, Problem
from dciml.service.troubles import sentence_of

router = APIRouter(tags=["media"])
REFUSED: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "The file does not lie where this server may play from."},
    404: {"model": Problem},
}
MP4: dict[str, dict[str, str]] = {"video/mp4": {}}


@router.get("/api/copies/{video_id:path}", responses=REFUSED)
async def copy_state(video_id: str, request: Request) -> CopyOut:
    """Whether there is a converted copy of a video, how far it is, and what its file holds."""
    runtime = runtime_of(request)
    return await runtime.picture(lambda: _state(runtime, video_id, media_path_of(runtime, video_id)))


@router.post(
    "/api/copies/{video_id:path}",
    status_code=202,
    response_model=CopyOut,
    responses={
        200: {"model": CopyOut, "description": "It is there already."},
        503: {"model": Problem},
        **REFUSED,
    },
)
async def make_copy(video_id: str, request: Request) -> Response:
    """Convert a video; who asks for one that is being converted joins. Follow it by GET."""
    runtime = runtime_of(request)

    def work() -> CopyOut:
        media = media_path_of(runtime, video_id)
        try:
            runtime.copies.make(media)
        except FileNotFoundError:
            raise ServiceError(404, GONE) from None
        return _state(runtime, video_id, media)

    made = await runtime.picture(work)
    return JSONResponse(made.model_dump(), 200 if made.state == "done" else 202)


@router.get(
    "/copies/{video_id:path}",
    response_class=Response,
    responses={
        200: {"description": "The whole copy.", "content": MP4},
        206: {"description": "The range that was asked for.", "content": MP4},
        304: {"description": "The client has it already."},
        416: {"model": Problem, "description": "Nothing of the range is in the copy."},
        **REFUSED,
    },
)
async def copy(video_id: str, request: Request) -> Response:
    """The converted copy of a video, as `/media/{id}` gives its file."""
    runtime = runtime_of(request)

    def find() -> tuple[Path, Path]:
        media = media_path_of(runtime, video_id)
        found = runtime.copies.find(media)
        if found is None:
            raise ServiceError(404, "There is no converted copy of this video, or not yet.")
        return found, media

    found, media = await asyncio.to_thread(find)
    return send_file(request, found, f"{media.stem}.mp4")


def _state(runtime: Runtime, video_id: str, media: Path) -> CopyOut:
    try:
        copies = runtime.copies
        job = copies.job(media)
        is_there = copies.find(media) is not None
        if is_there or (job is not None and job.state == "done"):  # the latter was removed to make room
            job = None
        state = "done" if is_there else "none" if job is None else job.state
        out = CopyOut(
            state=state,
            progress=_progress(job, is_there),
            message="" if job is None else job.message,
            seconds_left=None if job is None else job.seconds_left,
            copy_url=copy_url(video_id) if is_there else None,
        )
        streams = copies.streams(media)
    except DataError as error:
        return out if out.message else out.model_copy(update={"message": sentence_of(error)})
    except FileNotFoundError:
        raise ServiceError(404, GONE) from None
    return out.model_copy(update={"form": streams.form, "pictures": streams.pictures, "type": streams.type})


def _progress(job: Job | None, is_there: bool) -> float:
    if is_there:
        return 1.0
    return 0.0 if job is None else round(job.progress, 3)
