"""Questions to the searcher, and its answers for the wire."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import numpy as np

from dciml.errors import DataError
from dciml.index import ClipIndex
from dciml.index.videos import CatalogueVideo, VideoFilter
from dciml.service.errors import ServiceError, UnknownVideo
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


def search(now: Snapshot, request: SearchRequest) -> SearchAnswer:
    """Answer a sentence. Raises DataError: there are no words in it."""
    begin = perf_counter()
    within = chosen_videos(now.index, request)
    if within == ():
        return SearchAnswer(
            sentence=request.sentence, found=False, confidence=None, took_seconds=0.0, hits=[], relevance={}
        )
    hits = now.searcher.search(request.sentence, request.k, within)
    matches = now.searcher.match_videos([request.sentence], 100, within)[0]
    named = {hit.video_id for hit in hits}
    relevance = {m.video_id: np.clip(m.clip_scores, 0, 1) for m in matches if m.video_id in named}
    return SearchAnswer(
        sentence=request.sentence,
        found=bool(hits),
        confidence=None,
        took_seconds=perf_counter() - begin,
        hits=as_hits(now.index, hits),
        relevance={video_id: [round(float(v), 4) for v in row] for video_id, row in relevance.items()},
    )


def similar(now: Snapshot, request: SimilarRequest) -> SimilarAnswer:
    """Find moments like a given one. Raises ServiceError: an unknown video, or no moment of it."""
    raise ServiceError(501, "The search cannot do this yet.")


def chosen_videos(index: ClipIndex, filters: Filters) -> tuple[str, ...] | None:
    """The videos that a filter lets through, None: all. Raises UnknownVideo."""
    wanted = VideoFilter(
        video_ids=filters.video_ids,
        folder=filters.folder,
        tag=filters.tag,
        after_unix=filters.after,
        before_unix=filters.before,
        min_duration_seconds=filters.min_duration_seconds,
        max_duration_seconds=filters.max_duration_seconds,
    )
    if wanted == VideoFilter():
        return None
    for video_id in filters.video_ids or ():
        if video_id not in index:
            raise UnknownVideo(video_id)
    return index.select(wanted)


def as_hits(index: ClipIndex, hits: Sequence[SearchHit]) -> list[Hit]:
    """Hits with what the catalogue knows; a video that has just been removed has no file."""
    videos: dict[str, CatalogueVideo | None] = {}
    for hit in hits:
        if hit.video_id not in videos:
            videos[hit.video_id] = _known(index, hit.video_id)
    return [_as_hit(index, hit, videos[hit.video_id]) for hit in hits]


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


def _known(index: ClipIndex, video_id: str) -> CatalogueVideo | None:
    try:
        return index.video(video_id)
    except DataError:
        return None


def _as_hit(index: ClipIndex, hit: SearchHit, video: CatalogueVideo | None) -> Hit:
    middle = (hit.start_seconds + hit.end_seconds) / 2
    has_media = video is not None and video.media_path is not None
    return Hit(
        rank=hit.rank,
        video_id=hit.video_id,
        title=video.title if video else hit.video_id,
        start_seconds=hit.start_seconds,
        end_seconds=hit.end_seconds,
        duration_seconds=float(index.durations_seconds[index.places([hit.video_id])[0]]),
        score=hit.score,
        confidence=getattr(hit, "confidence", None),
        media_url=media_url(hit.video_id) if has_media else None,
        thumbnail_url=thumbnail_url(hit.video_id, middle) if has_media else None,
    )
