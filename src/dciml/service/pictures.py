"""`GET /thumbnails/{id}?t=`: a picture of a video of the catalogue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from dciml.errors import DataError
from dciml.service.errors import ServiceError
from dciml.service.media import media_path_of
from dciml.service.runtime import runtime_of
from dciml.service.schemas import Problem

router = APIRouter(tags=["media"])
SECONDS = Query(
    allow_inf_nan=False,
    description="A time past either end gives the first or the last picture.",
    examples=[15.75],
)


@router.get(
    "/thumbnails/{video_id:path}",
    response_class=Response,
    responses={
        200: {"description": "The picture.", "content": {"image/jpeg": {}}},
        403: {"model": Problem, "description": "The file does not lie where this server may play from."},
        404: {"model": Problem},
        422: {"model": Problem},
    },
)
async def thumbnail(video_id: str, request: Request, t: Annotated[float, SECONDS] = 0.0) -> Response:
    """The picture that a video shows at `t` seconds, as JPEG."""
    runtime = runtime_of(request)

    def work() -> bytes:
        path = media_path_of(runtime, video_id)
        duration = runtime.corpus.now.duration_seconds(video_id)
        try:
            return runtime.thumbnails.get(path, min(max(t, 0.0), duration))
        except (DataError, OSError):
            raise ServiceError(404, "The file of this video gives no picture.") from None

    content = await runtime.picture(work)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400"})
