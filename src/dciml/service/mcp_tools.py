"""What a program may ask of an index by the Model Context Protocol: each method of `MomentTools` is a tool."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from dciml.clock import to_millisecond
from dciml.service import answers
from dciml.service.live import LiveCorpus, Snapshot
from dciml.service.schemas import (
    MAX_FILTER_VIDEOS,
    MAX_HITS,
    MAX_ID_CHARS,
    MAX_SENTENCE_CHARS,
    Moment,
    SearchAnswer,
    SearchRequest,
    SimilarAnswer,
    SimilarRequest,
)

Sentence = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_SENTENCE_CHARS,
        description="What happens in the moment, such as: a red ball bounces twice.",
    ),
]
NumHits = Annotated[int, Field(ge=1, le=MAX_HITS, description="At most how many moments.")]
VideoId = Annotated[
    str, Field(min_length=1, max_length=MAX_ID_CHARS, description="As `list_videos` gives it.")
]
VideoIds = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]] | None,
    Field(
        min_length=1,
        max_length=MAX_FILTER_VIDEOS,
        description="Ids of the videos to search in; left out: all of them.",
    ),
]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Words = Annotated[
    str, Field(max_length=200, description="Part of an id, a title or a tag; empty: all videos.")
]
Offset = Annotated[int, Field(ge=0, le=10**12, description="How many videos to pass over.")]
PageLength = Annotated[int, Field(ge=1, le=200, description="At most how many videos.")]


class Moments(BaseModel):
    """Moments, best first."""

    found: bool = Field(description="False: nothing in the videos fits; the moments are the nearest ones.")
    confidence: float | None = Field(
        description="Probability that the described video is there; null: not known."
    )
    hits: list[Moment]
    notes: list[str] = Field(
        [],
        description="What this search cannot take from the sentence, such as negation, or cannot tell.",
    )


class ListedVideo(BaseModel):
    """A video of the index."""

    video_id: str
    title: str
    duration_seconds: float
    tags: list[str]
    added_unix: float | None = Field(description="When it came into the index; seconds since 1970.")


class VideoList(BaseModel):
    """Some videos of the index, those added last first."""

    total: int = Field(description="How many match in all.")
    next_offset: int | None = Field(description="Where the next ones begin; null: these were the last.")
    videos: list[ListedVideo]


class VideoFacts(ListedVideo):
    """All that is known of a video."""

    date_unix: float | None = Field(description="Date of the video; seconds since 1970; null: not known.")
    media_path: str | None = Field(
        description="Its file on this machine; null: not known, or not told to clients over HTTP."
    )


class MomentTools:
    """The tools over one index. Before each answer, what others have changed in the index is taken up.

    The errors are those of `dciml.service.answers`, and `DataError` for a sentence without words.

    Args:
        tells_paths: whether clients learn where files lie.
    """

    def __init__(self, corpus: LiveCorpus, *, tells_paths: bool) -> None:
        self._corpus, self._tells_paths = corpus, tells_paths

    def find_moments(self, sentence: Sentence, k: NumHits = 10, videos: VideoIds = None) -> Moments:
        """Find the videos, and the seconds in them, where what a sentence describes happens.

        Look at `found` first: when it is false, nothing fits, and the moments are only the nearest ones. A score
        compares moments of one answer; `confidence` compares everywhere.
        """
        question = SearchRequest(sentence=sentence, k=k, video_ids=videos)
        return _moments(answers.search(self._now(), question))

    def similar_moments(
        self,
        video_id: VideoId,
        start_seconds: Annotated[Seconds, Field(description="Start of the moment.")],
        end_seconds: Annotated[Seconds, Field(description="End of the moment.")],
        k: NumHits = 10,
    ) -> Moments:
        """Find moments that look like a given one, in all videos; what overlaps it is left out."""
        question = SimilarRequest(
            video_id=video_id, start_seconds=start_seconds, end_seconds=end_seconds, k=k
        )
        return _moments(answers.similar(self._now(), question))

    def list_videos(self, words: Words = "", offset: Offset = 0, limit: PageLength = 50) -> VideoList:
        """List the videos that can be searched, those added last first; by words of their ids, titles or tags."""
        page = answers.list_videos(self._now(), words.strip(), "newest", offset, limit)
        videos = [
            ListedVideo(**video.model_dump(include=set(ListedVideo.model_fields))) for video in page.videos
        ]
        following = offset + limit
        return VideoList(
            total=page.total, next_offset=following if following < page.total else None, videos=videos
        )

    def video_details(self, video_id: VideoId) -> VideoFacts:
        """Tell what is known of one video: title, length, tags, dates, and its file where that may be told."""
        video = self._now().video(video_id)
        return VideoFacts(
            video_id=video.video_id,
            title=video.title,
            duration_seconds=to_millisecond(video.duration_seconds),
            tags=list(video.tags),
            added_unix=video.added_unix,
            date_unix=video.date_unix,
            media_path=video.media_path if self._tells_paths else None,
        )

    @property
    def num_videos(self) -> int:
        """How many whole videos the index holds, as far as was looked."""
        return len(self._corpus.now.video_ids)

    def _now(self) -> Snapshot:
        self._corpus.refresh()
        return self._corpus.now


def _moments(answer: SimilarAnswer) -> Moments:
    """An answer of the service without what only its page needs."""
    hits = [Moment(**hit.model_dump(include=set(Moment.model_fields))) for hit in answer.hits]
    notes = answer.notes if isinstance(answer, SearchAnswer) else []
    return Moments(found=answer.found, confidence=answer.confidence, hits=hits, notes=notes)
