"""Questions to the searcher, and its answers for the wire."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from dciml.index import CatalogueVideo, VideoFilter
from dciml.search.compose import Answer
from dciml.search.long_videos import select_whole
from dciml.service.errors import ServiceError
from dciml.service.live import Snapshot
from dciml.service.schemas import (
    Filters,
    Hit,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    SimilarRequest,
    VideoOut,
)
from dciml.service.urls import media_url, thumbnail_url
from dciml.types import SearchHit

NOTHING = Answer(hits=(), found=False, confidence=None, relevance={})


def search(now: Snapshot, request: SearchRequest) -> SearchAnswer:
    """Answer a sentence. Raises UnknownVideo, in the filter; DataError: there are no words in the sentence."""
    begin = perf_counter()
    within = chosen_videos(now, request)
    answer = NOTHING if within == [] else now.searcher.answer(request.sentence, request.k, within)
    return SearchAnswer(
        sentence=request.sentence, **_fields(now, answer), took_seconds=perf_counter() - begin
    )


def search_together(asked: tuple[Snapshot, int], requests: Sequence[SearchRequest]) -> list[SearchAnswer]:
    """Answer sentences without filters in one batch; up to rounding the answers are those of `search`.

    Args:
        asked: of which state of the index, and for how many moments each.
    Raises:
        DataError: there are no words in one of the sentences.
    """
    now, k = asked
    begin = perf_counter()
    found = now.searcher.answer_batch([request.sentence for request in requests], k)
    fields = [_fields(now, answer) for answer in found]
    took = perf_counter() - begin
    return [
        SearchAnswer(sentence=request.sentence, **own, took_seconds=took)
        for request, own in zip(requests, fields, strict=True)
    ]


def similar(now: Snapshot, request: SimilarRequest) -> SimilarAnswer:
    """Find moments like a given one. Raises UnknownVideo; DataError: the span does not lie in the video."""
    begin = perf_counter()
    now.parts(request.video_id)
    within = chosen_videos(now, request)
    if within == []:
        return SimilarAnswer(**_fields(now, NOTHING), took_seconds=perf_counter() - begin)
    answer = now.searcher.similar(
        request.video_id, request.start_seconds, request.end_seconds, request.k, within
    )
    return SimilarAnswer(**_fields(now, answer), took_seconds=perf_counter() - begin)


def chosen_videos(now: Snapshot, filters: Filters) -> list[str] | None:
    """The whole videos that a filter lets through, None: all. Raises UnknownVideo."""
    if filters.is_unlimited:
        return None
    for video_id in filters.video_ids or ():
        now.parts(video_id)
    wanted = VideoFilter(
        video_ids=filters.video_ids,
        folder=filters.folder,
        tag=filters.tag,
        after_unix=filters.after,
        before_unix=filters.before,
        min_duration_seconds=filters.min_duration_seconds,
        max_duration_seconds=filters.max_duration_seconds,
    )
    return list(select_whole(now.index, wanted, now.windowed))


def _fields(now: Snapshot, answer: Answer) -> dict[str, Any]:
    return {
        "found": answer.found,
        "confidence": answer.confidence,
        "hits": as_hits(now, answer.hits),
        "relevance": {
            video_id: [round(float(value), 4) for value in clips]
            for video_id, clips in answer.relevance.items()
        },
    }


def as_hits(now: Snapshot, hits: Sequence[SearchHit]) -> list[Hit]:
    """Hits with what the catalogue knows; a video whose entry cannot be read has no file."""
    videos: dict[str, CatalogueVideo | None] = {}
    for hit in hits:
        if hit.video_id not in videos:
            videos[hit.video_id] = _known(now, hit.video_id)
    return [_as_hit(now, hit, videos[hit.video_id]) for hit in hits]


def as_video(video: CatalogueVideo) -> VideoOut:
    """A video of the catalogue."""
    has_media = video.media_path is not None
    return VideoOut(
        video_id=video.video_id,
        title=video.title,
        duration_seconds=video.duration_seconds,
        media_url=media_url(video.video_id) if has_media else None,
        thumbnail_url=thumbnail_url(video.video_id, video.duration_seconds / 2) if has_media else None,
        tags=list(video.tags),
        added_unix=video.added_unix,
    )


def _known(now: Snapshot, video_id: str) -> CatalogueVideo | None:
    try:
        return now.video(video_id)
    except ServiceError:
        return None


def _as_hit(now: Snapshot, hit: SearchHit, video: CatalogueVideo | None) -> Hit:
    middle = (hit.start_seconds + hit.end_seconds) / 2
    has_media = video is not None and video.media_path is not None
    return Hit(
        rank=hit.rank,
        video_id=hit.video_id,
        title=video.title if video else hit.video_id,
        start_seconds=hit.start_seconds,
        end_seconds=hit.end_seconds,
        duration_seconds=now.duration_seconds(hit.video_id),
        score=hit.score,
        confidence=hit.confidence,
        media_url=media_url(hit.video_id) if has_media else None,
        thumbnail_url=thumbnail_url(hit.video_id, middle) if has_media else None,
    )
