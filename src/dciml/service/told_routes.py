"""`/api/told` and `/api/teach`: sentences for moments, and learning from them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from dciml.recipes.teach import NEEDED_VIDEOS, Verdict
from dciml.recipes.told import Told
from dciml.service.errors import ServiceError, UnknownVideo
from dciml.service.jobs import Job
from dciml.service.limits import client_of
from dciml.service.live import Snapshot
from dciml.service.routes import job_out, why_read_only
from dciml.service.runtime import Runtime, runtime_of
from dciml.service.schemas import (
    MAX_ID_CHARS,
    JobOut,
    Problem,
    TeachOut,
    TeachReport,
    TellRequest,
    ToldOut,
    ToldPage,
)
from dciml.service.teaching import NO_HOME

router = APIRouter(prefix="/api", tags=["teaching"])
Refused = dict[int | str, dict[str, Any]]
TELL_REFUSED: Refused = {code: {"model": Problem} for code in (403, 404, 422, 507)}
TAKE_BACK_REFUSED: Refused = {code: {"model": Problem} for code in (403, 404, 507)}
TEACH_REFUSED: Refused = {code: {"model": Problem} for code in (403, 409, 422, 503)}


@router.get("/told", responses={422: {"model": Problem}})
async def told(
    request: Request,
    video_id: Annotated[
        str | None, Query(min_length=1, max_length=MAX_ID_CHARS, description="Of this video alone.")
    ] = None,
    offset: Annotated[int, Query(ge=0, le=10**12)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> ToldPage:
    """What people told of moments, newest first; nothing where this server serves no home."""
    runtime = runtime_of(request)
    now = runtime.corpus.now

    def read() -> ToldPage:
        found = [each for each in runtime.teaching.read() if video_id in (None, each.video_id)]
        shown = [_told_out(now, each) for each in found[offset : offset + limit]]
        return ToldPage(total=len(found), told=shown)

    return await runtime.search(read)


@router.post("/told", status_code=201, responses=TELL_REFUSED)
async def tell(new: TellRequest, request: Request) -> ToldOut:
    """Keep a sentence for a moment of a video. It may be taught to the search later; the times never are."""
    runtime = runtime_of(request)
    _check_may_tell(runtime)
    kept = await runtime.change(
        lambda: runtime.teaching.tell(new.video_id, new.start_seconds, new.end_seconds, new.sentence)
    )
    return _told_out(runtime.corpus.now, kept)


@router.delete("/told/{told_id}", status_code=204, responses=TAKE_BACK_REFUSED)
async def take_back(told_id: str, request: Request) -> Response:
    """Take back what was told. A model that was taught from it stays as it is."""
    runtime = runtime_of(request)
    _check_may_tell(runtime)
    await runtime.change(lambda: runtime.teaching.take_back(told_id))
    return Response(status_code=204)


@router.get("/teach")
async def teaching(request: Request) -> TeachOut:
    """What there is to learn from, what was learned, and how far it is."""
    runtime = runtime_of(request)
    return await runtime.search(lambda: _state(runtime))


@router.post("/teach", status_code=202, response_model=JobOut, responses=TEACH_REFUSED)
async def teach(request: Request) -> Response:
    """Learn from what was told; the result is kept only if it finds better what it was not taught. Follow the job."""
    runtime = runtime_of(request)
    _check_may_tell(runtime)
    return _started(await runtime.change(lambda: runtime.teaching.start(client_of(request.scope))))


@router.delete("/teach", status_code=202, response_model=JobOut, responses=TEACH_REFUSED)
async def undo(request: Request) -> Response:
    """Go back to the untrained model. Follow the job."""
    runtime = runtime_of(request)
    _check_may_tell(runtime)
    return _started(await runtime.change(lambda: runtime.teaching.start_undo(client_of(request.scope))))


def _started(job: Job) -> Response:
    return JSONResponse(job_out(job).model_dump(), 202, {"Location": f"/api/jobs/{job.job_id}"})


def _why_not(runtime: Runtime) -> str | None:
    """Why no sentences are kept here, as one or two sentences; None: they are."""
    if runtime.teaching.home is None:
        return NO_HOME
    why = why_read_only(runtime.settings)
    return None if why is None else f"Sentences for moments cannot be kept here: {why}."


def _check_may_tell(runtime: Runtime) -> None:
    if why := _why_not(runtime):
        raise ServiceError(403, why)


def _state(runtime: Runtime) -> TeachOut:
    own, home, last = runtime.teaching, runtime.teaching.home, runtime.teaching.last_job
    known, why, report = own.collected(), _why_not(runtime), own.report()
    return TeachOut(
        can_tell=why is None,
        why_not=why,
        sentences=len(known.pairs),
        videos=len(known.video_ids),
        needed_videos=NEEDED_VIDEOS,
        taught=home is not None and home.taught is not None,
        report=None if report is None else _report_out(report),
        job=None if last is None else job_out(last),
    )


def _report_out(verdict: Verdict) -> TeachReport:
    return TeachReport(
        trained_on_sentences=verdict.trained_on[0],
        held_out_sentences=verdict.held_out[0],
        untrained=verdict.untrained,
        trained=verdict.trained,
        gain=verdict.gain.value,
        gain_low=verdict.gain.low,
        gain_high=verdict.gain.high,
    )


def _told_out(now: Snapshot, told: Told) -> ToldOut:
    try:
        title = now.video(told.video_id).title
    except UnknownVideo:
        title = told.video_id
    return ToldOut(
        told_id=told.told_id,
        video_id=told.video_id,
        title=title,
        start_seconds=told.start_seconds,
        end_seconds=told.end_seconds,
        sentence=told.sentence,
        written_unix=told.written_unix,
    )
