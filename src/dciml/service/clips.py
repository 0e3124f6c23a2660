"""`GET /clips/{id}?start=&end=`: a moment as a video file of its own."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from dciml.errors import DataError
from dciml.recipes.cut import moment_name, span_to_cut
from dciml.service.errors import ServiceError
from dciml.service.limits import client_of
from dciml.service.media import ByteRange, FileSlice, attachment, media_path_of
from dciml.service.runtime import runtime_of
from dciml.service.schemas import Problem

MOST_SECONDS = 600.0
UNCUT = (
    "This moment cannot be cut out of its file, which is damaged, holds something that cannot be read, or takes too "
    "long. To mend it: convert the file."
)
SECONDS = Query(ge=0, le=1e9, allow_inf_nan=False, examples=[12.4])
router = APIRouter(tags=["media"])


@router.get(
    "/clips/{video_id:path}",
    response_class=Response,
    responses={
        200: {"description": "The moment, as a file to keep.", "content": {"video/mp4": {}}},
        403: {"model": Problem, "description": "The file does not lie where this server may play from."},
        404: {"model": Problem},
        422: {
            "model": Problem,
            "description": "No such moment, one that is too long, or a file that cannot be cut.",
        },
        507: {"model": Problem, "description": "There is no room for the file in the temporary folder."},
    },
)
async def clip(
    video_id: str,
    request: Request,
    start: Annotated[float, SECONDS],
    end: Annotated[float, SECONDS],
    exact: Annotated[
        bool, Query(description="Begin with the very picture, which takes longer; else a little earlier.")
    ] = False,
) -> Response:
    """A moment cut out of its video, without encoding where possible."""
    runtime = runtime_of(request)

    def work() -> tuple[int, os.stat_result]:
        path = media_path_of(runtime, video_id)
        duration = runtime.corpus.now.duration_seconds(video_id)
        _check_span(start, end, duration)
        try:
            return runtime.cutter.cut(path, *span_to_cut(start, end, duration), exact=exact)
        except DataError:
            raise ServiceError(422, UNCUT) from None

    descriptor, status = await runtime.cut(work, client_of(request.scope))
    headers = {
        "Content-Type": "video/mp4",
        "Content-Length": str(status.st_size),
        "Content-Disposition": attachment(f"{moment_name(video_id, start, end)}.mp4"),
        "Cache-Control": "private, no-store",
    }
    if request.method == "HEAD":
        os.close(descriptor)
        return Response(status_code=200, headers=headers)
    return FileSlice(descriptor, ByteRange(0, status.st_size), runtime.streams, 200, headers)


def _check_span(start: float, end: float, duration: float) -> None:
    """Raises ServiceError: 422, no moment of a video that is so long, or one that is too long to cut."""
    if not start < min(end, duration):
        raise ServiceError(
            422,
            f"{start:g} s to {end:g} s is no moment of this video. To mend it: give a start and a later end between 0 "
            f"and {duration:g} seconds.",
        )
    if end - start > MOST_SECONDS:
        raise ServiceError(
            422,
            f"A moment of {end - start:g} s is too long to cut here, where the most is {MOST_SECONDS:g} s. To mend it: "
            "use `dciml cut`.",
        )
