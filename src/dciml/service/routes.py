"""`/api/search`, `/api/similar`, `/api/examples` and `/api/videos`."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from dciml.service import answers
from dciml.service.adding import MAX_TITLE_CHARS
from dciml.service.answers import SortOrder, as_video, example_sentences, list_videos
from dciml.service.errors import ServiceError
from dciml.service.files import MEDIA_TYPES
from dciml.service.jobs import Job
from dciml.service.limits import client_of
from dciml.service.media import media_path_of
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import (
    AddByPath,
    Examples,
    FolderFailure,
    FolderOut,
    JobList,
    JobOut,
    PictureRequest,
    Problem,
    SameContent,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    SimilarRequest,
    UploadsOut,
    VideoOut,
    VideoPage,
)
from dciml.service.settings import ServiceSettings

search_routes = APIRouter(prefix="/api", tags=["search"])
REFUSED: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem},
    404: {"model": Problem},
    503: {"model": Problem},
}


@search_routes.post("/search", responses=REFUSED)
async def search(question: SearchRequest, request: Request) -> SearchAnswer:
    """The moments that a sentence describes, best first, and the relevance of every clip of their videos."""
    runtime = runtime_of(request)
    return await runtime.answer(runtime.corpus.now, question)


@search_routes.post("/similar", responses=REFUSED)
async def similar(question: SimilarRequest, request: Request) -> SimilarAnswer:
    """Moments like a given one."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return await runtime.search(lambda: answers.similar(now, question))


@search_routes.post("/picture", responses=REFUSED)
async def picture(question: PictureRequest, request: Request) -> SimilarAnswer:
    """Moments that look like a picture, where the features are of an image–text model."""
    runtime = runtime_of(request)
    now, device = runtime.corpus.now, runtime.settings.device
    return await runtime.search(lambda: answers.like_picture(now, question, device))


@search_routes.get("/examples")
async def examples(request: Request) -> Examples:
    """Sentences that suit this corpus; none when nothing is known of what people asked of it."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return Examples(sentences=await runtime.search(lambda: example_sentences(now, runtime.settings)))


video_routes = APIRouter(prefix="/api", tags=["videos"])
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}
ADD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "title": {"type": "string", "maxLength": MAX_TITLE_CHARS},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            },
            "application/json": {"schema": AddByPath.model_json_schema()},
        },
    }
}
ADD_REFUSED: dict[int | str, dict[str, Any]] = {
    **{code: {"model": Problem} for code in (400, 403, 404, 413, 415, 422, 503, 507)},
    409: {
        "model": SameContent,
        "description": "The video, or its content, is there; or somebody else writes.",
    },
}


@video_routes.get("/videos")
async def videos(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=10**12)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    search: Annotated[str, Query(max_length=200, description="Part of the id, the title or a tag.")] = "",
    sort: Annotated[SortOrder, Query(description="By when they were added to the index.")] = "newest",
) -> VideoPage:
    """The videos of the index, those added last first."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return await runtime.search(lambda: list_videos(now, search.strip(), sort, offset, limit))


@video_routes.get("/videos/{video_id:path}", responses=NOT_FOUND)
async def video(video_id: str, request: Request) -> VideoOut:
    """What the catalogue knows of a video."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return as_video(await runtime.search(lambda: now.video(video_id)))


@video_routes.post(
    "/videos", status_code=202, response_model=JobOut, responses=ADD_REFUSED, openapi_extra=ADD_BODY
)
async def add_video(request: Request) -> Response:
    """Add a video: upload it as the form field `file`, or name a file below an allowed root. Follow the job.

    The form field `title` says how the video is called; without it, that is the name of the file.
    """
    runtime = runtime_of(request)
    _check_writable(runtime)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        job = await _add_upload(runtime, request)
    elif kind == "application/json":
        job = await _add_path(runtime, await request.body(), client_of(request.scope))
    else:
        raise ServiceError(415, "Send a form with the field `file`, or JSON with the field `path`.")
    return JSONResponse(job_out(job).model_dump(), 202, {"Location": f"/api/jobs/{job.job_id}"})


@video_routes.delete(
    "/videos/{video_id:path}", status_code=204, responses={409: {"model": Problem}, **NOT_FOUND}
)
async def remove_video(video_id: str, request: Request) -> Response:
    """Take a video out of the index; its file is deleted only if it was uploaded here."""
    runtime = runtime_of(request)
    _check_writable(runtime)

    def work() -> None:
        path = None
        with suppress(ServiceError):
            path = media_path_of(runtime, video_id)
        runtime.library.remove(video_id)
        if path is not None:
            runtime.copies.forget(path)

    await runtime.change(work)
    return Response(status_code=204)


@video_routes.get("/uploads")
async def uploads(request: Request) -> UploadsOut:
    """What may be sent here, and how much of it now."""
    runtime = runtime_of(request)
    limits = runtime.settings.limits
    return UploadsOut(
        allowed=runtime.settings.is_writable,
        at_once=min(limits.running_uploads, limits.uploads_per_client),
        room=runtime.upload_room(client_of(request.scope)),
        max_bytes=limits.upload_bytes,
        max_title_chars=MAX_TITLE_CHARS,
        suffixes=sorted(MEDIA_TYPES),
    )


@video_routes.get("/folder")
async def folder(request: Request) -> FolderOut:
    """How far the reading of the watched folders is; `folders` is empty where this server watches none."""
    watch = runtime_of(request).folder
    if watch is None:
        return FolderOut()
    state = watch.state
    return FolderOut(
        folders=[path.name for path in watch.home.folders],
        working=state.is_working,
        videos=state.num_videos,
        done=state.num_done,
        seconds_left=state.seconds_left,
        failures=[FolderFailure(video_id=video_id, reason=reason) for video_id, reason in state.failures],
        text_failures=[
            FolderFailure(video_id=video_id, reason=reason) for video_id, reason in state.text_failures
        ],
        trouble=state.trouble,
        notes=list(watch.home.notes),
    )


@video_routes.get("/jobs")
async def jobs(request: Request) -> JobList:
    """The last jobs, newest first."""
    return JobList(jobs=[job_out(job) for job in runtime_of(request).jobs.all()])


@video_routes.get("/jobs/{job_id}", responses=NOT_FOUND)
async def job(job_id: str, request: Request) -> JobOut:
    """How far a job is."""
    found = runtime_of(request).jobs.get(job_id)
    if found is None:
        raise ServiceError(404, "There is no such job, or it ended long ago.")
    return job_out(found)


@video_routes.delete("/jobs/{job_id}", status_code=204, responses={409: {"model": Problem}, **NOT_FOUND})
async def cancel_job(job_id: str, request: Request) -> Response:
    """Cancel a job; it leaves nothing half done. One that is as good as done may end well all the same."""
    runtime = runtime_of(request)
    _check_writable(runtime)
    if runtime.jobs.get(job_id) is None:
        raise ServiceError(404, "There is no such job, or it ended long ago.")
    if not await runtime.change(lambda: runtime.jobs.cancel(job_id)):
        raise ServiceError(409, "The job has ended already.")
    return Response(status_code=204)


async def _add_upload(runtime: Runtime, request: Request) -> Job:
    client = client_of(request.scope)
    coming = runtime.uploads.used, runtime.uploads.used_by(client)
    runtime.jobs.check_room(client, *coming)  # before gigabytes are sent in vain
    with runtime.uploads.taken(client):
        return await _take_form(runtime, request)


async def _take_form(runtime: Runtime, request: Request) -> Job:
    async with request.form(max_files=1, max_fields=1) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise ServiceError(422, "The form has no file in its field `file`.")
        name, content, title = file.filename, file.file, form.get("title")
        typed = title if isinstance(title, str) else None
        return await runtime.change(
            lambda: runtime.library.add_upload(name, content, client_of(request.scope), typed)
        )


async def _add_path(runtime: Runtime, body: bytes, client: str) -> Job:
    try:
        wanted = AddByPath.model_validate_json(body)
    except ValidationError:
        raise ServiceError(422, 'The body must be JSON such as {"path": "holiday/beach.mp4"}.') from None
    return await runtime.change(lambda: runtime.library.add_path(wanted.path, client))


def _check_writable(runtime: Runtime) -> None:
    if why := why_read_only(runtime.settings):
        raise ServiceError(403, f"Videos cannot be added or removed here: {why}.")


def why_read_only(settings: ServiceSettings) -> str | None:
    """Why nothing may be changed here, in words; None: it may."""
    if settings.is_writable:
        return None
    if settings.read_only:
        return "this server was started with --read-only"
    if settings.cannot_be_written:
        return "the index cannot be written"
    return "others can reach this server and it has no token"


def job_out(job: Job) -> JobOut:
    """A job as it is sent."""
    return JobOut(
        job_id=job.job_id,
        kind=job.kind,
        state=job.state,
        progress=round(job.progress, 3),
        message=job.message,
        video_id=job.video_id,
        title=job.title,
        seconds_left=job.seconds_left,
    )
