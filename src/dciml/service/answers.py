"""Questions to the searcher and to the list of videos, and their answers for the wire."""

from __future__ import annotations

import sqlite3
import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from dciml.clock import to_millisecond
from dciml.datasets import DATA_FILE, DataFolder
from dciml.errors import DataError, DcimlError
from dciml.features import tokenize, whole_id
from dciml.index import CatalogueVideo, VideoFilter
from dciml.recipes.pictures import answer_picture
from dciml.recipes.told import Told, read_told
from dciml.search import Answer, ShownHit, captions_beside, select_whole
from dciml.search import EvidencePart as SearchedPart
from dciml.service.errors import ServiceError, UnknownVideo
from dciml.service.files import clip_url, media_url, thumbnail_url
from dciml.service.live import Snapshot
from dciml.service.schemas import (
    EvidencePart,
    Filters,
    Hit,
    PictureRequest,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    SimilarRequest,
    VideoOut,
    VideoPage,
)
from dciml.service.settings import ServiceSettings
from dciml.types import SearchHit

NOTHING = Answer(hits=(), found=False, confidence=None, relevance={})


def search(now: Snapshot, request: SearchRequest) -> SearchAnswer:
    """Answer a sentence. Raises UnknownVideo, in the filter; DataError: there are no words in the sentence."""
    begin = perf_counter()
    within = chosen_videos(now, request)
    answer = (
        NOTHING if within == [] else now.searcher.answer(request.sentence, request.k, within, to_show=True)
    )
    notes = list(now.searcher.notes(request.sentence, answer))
    fields = _fields(now, answer, request.sentence)
    took = perf_counter() - begin
    return SearchAnswer(sentence=request.sentence, **fields, took_seconds=took, notes=notes)


def search_together(asked: tuple[Snapshot, int], requests: Sequence[SearchRequest]) -> list[SearchAnswer]:
    """Answer sentences without filters in one batch; up to rounding the answers are those of `search`.

    Args:
        asked: of which state of the index, and for how many moments each.
    Raises:
        DataError: there are no words in one of the sentences.
    """
    now, k = asked
    begin = perf_counter()
    found = now.searcher.answer_batch([request.sentence for request in requests], k, to_show=True)
    fields = [_fields(now, answer, request.sentence) for request, answer in zip(requests, found, strict=True)]
    took = perf_counter() - begin
    return [
        SearchAnswer(
            sentence=request.sentence,
            **own,
            took_seconds=took,
            notes=list(now.searcher.notes(request.sentence, answer)),
        )
        for request, answer, own in zip(requests, found, fields, strict=True)
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


def like_picture(now: Snapshot, request: PictureRequest, device: str) -> SimilarAnswer:
    """Find moments that look like a picture.

    Raises:
        UnknownVideo: in the filter. DataError: the picture cannot be read, or this index cannot be asked by one.
    """
    begin = perf_counter()
    try:
        content = b64decode(request.picture, validate=True)
    except ValueError as error:
        raise DataError("the picture is not in Base64") from error
    within = chosen_videos(now, request)
    answer = NOTHING if within == [] else answer_picture(now.searcher, content, request.k, within, device)
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


def _fields(now: Snapshot, answer: Answer, sentence: str = "") -> dict[str, Any]:
    return {
        "found": answer.found,
        "confidence": answer.confidence,
        "hits": as_hits(now, answer, sentence),
        "relevance": {
            video_id: [round(float(value), 4) for value in clips]
            for video_id, clips in answer.relevance.items()
        },
    }


def as_hits(now: Snapshot, answer: Answer, sentence: str = "") -> list[Hit]:
    """Hits with what the catalogue knows; a video whose entry cannot be read has no file.

    Args:
        sentence: what was asked; of a moment as the question nothing is said of single kinds of evidence.
    """
    shown = now.searcher.shown(answer).hits
    videos: dict[str, CatalogueVideo | None] = {}
    for one in shown:
        if one.hit.video_id not in videos:
            videos[one.hit.video_id] = _known(now, one.hit.video_id)
    apart = now.searcher.evidence_apart(sentence, [one.hit for one in shown]) if sentence else None
    return [
        _as_hit(now, one, videos[one.hit.video_id], sentence, () if apart is None else apart[place])
        for place, one in enumerate(shown)
    ]


def as_video(video: CatalogueVideo) -> VideoOut:
    """A video of the catalogue."""
    has_media = video.media_path is not None
    return VideoOut(
        video_id=video.video_id,
        title=video.title,
        duration_seconds=to_millisecond(video.duration_seconds),
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


def _as_hit(
    now: Snapshot,
    shown: ShownHit,
    video: CatalogueVideo | None,
    sentence: str,
    apart: Sequence[SearchedPart],
) -> Hit:
    hit = shown.hit
    middle = (hit.start_seconds + hit.end_seconds) / 2
    has_media = video is not None and video.media_path is not None
    return Hit(
        rank=hit.rank,
        video_id=hit.video_id,
        title=video.title if video else hit.video_id,
        start_seconds=hit.start_seconds,
        end_seconds=hit.end_seconds,
        duration_seconds=to_millisecond(now.duration_seconds(hit.video_id)),
        score=hit.score,
        confidence=hit.confidence,
        moment_confidence=hit.moment_confidence,
        video_rank=shown.video_rank,
        far_below=shown.is_far_below,
        media_url=media_url(hit.video_id) if has_media else None,
        thumbnail_url=thumbnail_url(hit.video_id, middle) if has_media else None,
        clip_url=clip_url(hit.video_id, hit.start_seconds, hit.end_seconds) if has_media else None,
        evidence=[EvidencePart(kind=part.kind, cosine=round(part.cosine, 3)) for part in apart],
        line=_line(now, hit, sentence, apart),
    )


def _line(now: Snapshot, hit: SearchHit, sentence: str, apart: Sequence[SearchedPart]) -> str | None:
    """The line that spoke for a moment, where its text does."""
    blocks = now.searcher.apart
    if blocks is None or not any(part.kind == "text" and part.cosine > 0 for part in apart):
        return None
    file = now.file(hit.video_id)
    if file is None:
        return None
    return blocks.line(sentence, file, hit.start_seconds, hit.end_seconds)


SortOrder = Literal["newest", "oldest"]


def list_videos(now: Snapshot, words: str, order: SortOrder, offset: int, limit: int) -> VideoPage:
    """Some of the videos whose id, title or one of whose tags contains `words`; "newest": the last added first.

    Raises:
        ServiceError: 503, the catalogue cannot be read.
    """
    ids = now.video_ids if not words else named_videos(now, words)
    total = len(ids)
    places = range(offset, min(offset + limit, total))
    chosen = (ids[place if order == "oldest" else total - 1 - place] for place in places)
    return VideoPage(total=total, videos=[as_video(video) for video in _present(now, chosen)])


def named_videos(now: Snapshot, words: str) -> tuple[str, ...]:
    """The ids of whole videos whose id, title or one of whose tags contains `words`, in the order of adding."""
    wanted = folded(words)
    try:  # of a window of a long video, the times in its id are nobody's name
        found = now.index.find(lambda text: wanted in folded(whole_id(text)))
    except sqlite3.Error as error:
        raise ServiceError(503, "The catalogue of the index cannot be read now.") from error
    return tuple(dict.fromkeys(map(whole_id, found)))


def _present(now: Snapshot, video_ids: Iterable[str]) -> Iterator[CatalogueVideo]:
    """What the catalogue knows of these videos, but for those that another process has removed by now."""
    for video_id in video_ids:
        with suppress(UnknownVideo):
            yield now.video(video_id)


def folded(text: str) -> str:
    """Text without differences of case, width and composition.

    >>> folded("Strasse CAFE\u0301") == folded("Straße café")
    True
    """
    return text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()


NUM_EXAMPLES = 8
MAX_CHARS = 90
NUM_WORDS = range(3, 13)  # of a line that may be asked for as it was said
LOOKED_AT = 64  # videos, at even distances, in whose captions examples are looked for


def example_sentences(now: Snapshot, settings: ServiceSettings) -> list[str]:
    """Sentences about videos of the index, from places at even distances, one a video; empty when none are known.

    Of a home they are what people told of moments. Where nobody has written any, they are lines that are said beside
    the videos, if these are searched.

    An index may be anybody's: a data folder that it names is read only where it lies beside the index, below a root
    that the user gave, or where the user named the features.
    """
    asked: dict[str, str] = {}
    folder = (settings.features or now.index.store_path()).resolve().parent
    is_known = settings.features is not None or any(
        folder.is_relative_to(root.resolve()) for root in settings.played_roots
    )
    written = [(each.video_id, each.sentence) for each in _told(settings)]
    for video_id, sentence in written or (_asked(folder) if is_known else ()):
        if video_id in now and len(sentence) <= MAX_CHARS:
            asked.setdefault(video_id, sentence)
    sentences = list(dict.fromkeys(asked.values())) or _said(now)
    number = min(NUM_EXAMPLES, len(sentences))
    return [sentences[place * len(sentences) // number] for place in range(number)]


def _told(settings: ServiceSettings) -> list[Told]:
    """What people told of moments; nothing where it cannot be read, which the page says under Videos."""
    try:
        return [] if settings.home is None else read_told(settings.home.path)
    except DataError:
        return []


def _said(now: Snapshot) -> list[str]:
    """Lines beside videos of the index, of each the one nearest to the middle of the captions."""
    blocks = now.searcher.apart
    if blocks is None or not blocks.reads_text:
        return []
    found: dict[str, None] = {}
    step = max(1, len(now.video_ids) // LOOKED_AT)
    for video_id in now.video_ids[::step]:
        file = now.file(video_id)
        lines = [] if file is None else [plain_said(caption.text) for caption in captions_beside(file)]
        fitting = [line for line in lines if len(line) <= MAX_CHARS and len(tokenize(line)) in NUM_WORDS]
        if fitting:
            found[fitting[len(fitting) // 2]] = None
    return list(found)


def plain_said(line: str) -> str:
    """A caption without the marks of who speaks or sings.

    >>> plain_said("- ♪ We cut onions. ♪")
    'We cut onions.'
    """
    return line.strip(' -–—♪♫#*"“”')


@lru_cache(maxsize=4)
def _asked(folder: Path) -> tuple[tuple[str, str], ...]:
    """(video id, sentence) of all queries of a data folder; empty when it is none."""
    if not (folder / DATA_FILE).is_file():
        return ()
    try:
        data = DataFolder.open(folder)
        return tuple((pair.video_id, pair.sentence) for split in data.splits for pair in data.pairs(split))
    except DcimlError:
        return ()
