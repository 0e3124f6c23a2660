"""`/api/search`, `/api/similar` and `/api/examples`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from dciml.service import answers
from dciml.service.examples import example_sentences
from dciml.service.runtime import runtime_of
from dciml.service.schemas import (
    Examples,
    Problem,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    SimilarRequest,
)

router = APIRouter(prefix="/api", tags=["search"])
REFUSED: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem},
    404: {"model": Problem},
    503: {"model": Problem},
}


@router.post("/search", responses=REFUSED)
async def search(question: SearchRequest, request: Request) -> SearchAnswer:
    """The moments that a sentence describes, best first, and the relevance of every clip of their videos."""
    runtime = runtime_of(request)
    return await runtime.answer(runtime.corpus.now, question)


@router.post("/similar", responses=REFUSED)
async def similar(question: SimilarRequest, request: Request) -> SimilarAnswer:
    """Moments like a given one."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return await runtime.search(lambda: answers.similar(now, question))


@router.get("/examples")
async def examples(request: Request) -> Examples:
    """Sentences that suit this corpus; none when nothing is known of what people asked of it."""
    runtime = runtime_of(request)
    now = runtime.corpus.now
    return Examples(sentences=await runtime.search(lambda: example_sentences(now, runtime.settings)))
