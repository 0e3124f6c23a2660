"""What goes over the wire, with examples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

MAX_PICTURE_CHARS = 1_000_000
MAX_SENTENCE_CHARS = 500
MAX_HITS = 100
MAX_ID_CHARS = 1024
MAX_FILTER_VIDEOS = 10_000
EXAMPLE_HIT: JsonDict = {
    "rank": 1,
    "video_id": "kitchen/monday",
    "title": "kitchen/monday",
    "start_seconds": 12.4,
    "end_seconds": 19.1,
    "duration_seconds": 61.0,
    "score": 7.31,
    "confidence": 0.84,
    "moment_confidence": 0.71,
    "video_rank": 1,
    "far_below": False,
    "media_url": "/media/kitchen%2Fmonday",
    "thumbnail_url": "/thumbnails/kitchen%2Fmonday?t=15.75",
    "clip_url": "/clips/kitchen%2Fmonday?start=12.4&end=19.1",
    "evidence": [{"kind": "picture", "cosine": 0.31}, {"kind": "text", "cosine": 0.62}],
    "line": "and then the red ball bounces",
}
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Hits = Annotated[int, Field(ge=1, le=MAX_HITS, description="How many moments.")]
VideoId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)  # true is no number, and neither is "5"


class Filters(_Request):
    """Which videos a question is about; what is left out does not count."""

    video_ids: Annotated[list[VideoId], Field(max_length=MAX_FILTER_VIDEOS)] | None = None
    folder: Annotated[str, Field(max_length=1024)] | None = None
    tag: Annotated[str, Field(max_length=200)] | None = None
    after: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="Unix time.")
    before: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="Unix time.")
    min_duration_seconds: Seconds | None = None
    max_duration_seconds: Seconds | None = None

    @property
    def is_unlimited(self) -> bool:
        """Is every video meant?"""
        return all(getattr(self, name) is None for name in Filters.model_fields)


class SearchRequest(Filters):
    """A question to the corpus."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"sentence": "a red ball bounces twice", "k": 5}]}
    )
    sentence: Annotated[str, Field(min_length=1, max_length=MAX_SENTENCE_CHARS)]
    k: Hits = 10


class SimilarRequest(Filters):
    """A moment; the answer is other moments like it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"video_id": "kitchen/monday", "start_seconds": 12.4, "end_seconds": 19.1, "k": 5}]
        },
    )
    video_id: VideoId
    start_seconds: Seconds
    end_seconds: Seconds
    k: Hits = 10


class PictureRequest(Filters):
    """A picture; the answer is moments that look like it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"picture": "iVBORw0KGgo…", "k": 5}]})
    picture: Annotated[str, Field(min_length=1, max_length=MAX_PICTURE_CHARS)] = Field(
        description="A JPEG, PNG or WebP file in Base64; a few hundred pixels are enough."
    )
    k: Hits = 10


class Moment(BaseModel):
    """A moment that was found."""

    rank: int
    video_id: str
    title: str
    start_seconds: float
    end_seconds: float
    duration_seconds: float = Field(description="Of the whole video.")
    score: float = Field(description="Higher is better; compares inside one answer only.")
    confidence: float | None = Field(
        description="0 to 1, calibrated: that the video is the described one; null without a calibration."
    )
    moment_confidence: float | None = Field(
        description="0 to 1: that what is described is in this span of it; never above `confidence`."
    )
    video_rank: int = Field(
        1, description="1 for the video of the best moment, 2 for the next video, …: groups moments by video."
    )
    far_below: bool = Field(
        False, description="True: so far below the best moment that the page shows it on request only."
    )


class EvidencePart(BaseModel):
    """What one kind of evidence says of a moment."""

    kind: Literal["picture", "text"]
    cosine: float = Field(description="Of the moment's best clip with the sentence, -1 to 1.")


class Hit(Moment):
    """A moment that was found, and where the service shows it."""

    media_url: str | None
    thumbnail_url: str | None
    clip_url: str | None = Field(description="The moment as a video file; null where the video has no file.")
    evidence: list[EvidencePart] = Field(
        [], description="Where pictures and text are searched together: what each says; else empty."
    )
    line: str | None = Field(None, description="The line beside the video that spoke for the moment.")


class SimilarAnswer(BaseModel):
    """Moments like a given one, best first."""

    found: bool = Field(description="False: nothing in the corpus fits.")
    confidence: float | None
    took_seconds: float
    hits: list[Hit]
    relevance: dict[str, list[float]] = Field(
        description="For each video of a hit, 0 to 1 for equal parts of its duration, as many as it has clips."
    )


class SearchAnswer(SimilarAnswer):
    """Moments for a sentence, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sentence": "a red ball bounces twice",
                    "found": True,
                    "confidence": 0.84,
                    "took_seconds": 0.12,
                    "hits": [EXAMPLE_HIT],
                    "relevance": {"kitchen/monday": [0.1, 0.9, 0.7, 0.0]},
                    "notes": ["Numbers hardly count: the things are found, not how many there are."],
                }
            ]
        }
    )
    sentence: str
    notes: list[str] = Field(
        [], description="What the search could not take from the sentence, in plain words."
    )


class Examples(BaseModel):
    """Sentences that suit this corpus."""

    sentences: list[str]


class VideoOut(BaseModel):
    """A video of the corpus."""

    video_id: str
    title: str
    duration_seconds: float
    media_url: str | None = Field(description="null: the catalogue knows no file of this video.")
    thumbnail_url: str | None
    tags: list[str]
    added_unix: float | None


class VideoPage(BaseModel):
    """Some videos of the corpus; `total` counts all that match."""

    total: int
    videos: list[VideoOut]


class AddByPath(_Request):
    """A video file on the server's disk, below an allowed root."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "kitchen/monday.mp4"}]})
    path: Annotated[str, Field(min_length=1, max_length=4096)]


class JobOut(BaseModel):
    """Work on a video that is being added, or on a model that is being taught."""

    job_id: str
    kind: str = Field(description="video or teach.")
    state: str = Field(description="queued, running, done, failed or cancelled.")
    progress: float = Field(description="0 to 1.")
    message: str
    video_id: str | None
    title: str | None = Field(None, description="Of an upload, as it was typed.")
    seconds_left: float | None = Field(None, description="A guess; null while it cannot be told.")


class JobList(BaseModel):
    """The last jobs, newest first."""

    jobs: list[JobOut]


class Health(BaseModel):
    """The server lives and has an index."""

    status: str
    videos: int
    version: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class SameContent(Problem):
    """The answer to an upload whose content is there already, and to other conflicts, without the ids."""

    video_id: str | None = Field(None, description="The video that has this content.")
    job_id: str | None = Field(None, description="The job that is adding it; absent: it is in the index.")


class UploadsOut(BaseModel):
    """What this server takes of this client."""

    allowed: bool = Field(description="Whether videos may be added here at all.")
    at_once: int = Field(description="How many files may be on their way at once.")
    room: int = Field(description="How many could begin now.")
    max_bytes: int = Field(description="Of a file with its form.")
    max_title_chars: int
    suffixes: list[str] = Field(description="Of the names of video files.")


class CopyOut(BaseModel):
    """A converted copy of a video, for browsers that cannot play its file."""

    state: str = Field(description="none, queued, running, done, failed or cancelled.")
    progress: float = Field(description="0 to 1.")
    message: str
    seconds_left: float | None = Field(description="A guess; null while it cannot be told.")
    copy_url: str | None = Field(description="null: it is not there yet.")
    form: str | None = Field(None, description="Of the file, for people; null: it cannot be read.")
    pictures: str | None = Field(None, description="The codec of its pictures, for people.")
    type: str | None = Field(
        None, description="What a browser can be asked whether it plays these pictures; null: none does."
    )


class FolderFailure(BaseModel):
    """A video of a folder that could not be read, or the text beside it."""

    video_id: str
    reason: str


class FolderOut(BaseModel):
    """How far the reading of the folders is that this server watches."""

    folders: list[str] = Field(
        [], description="Names of the folders, or of single files; none: none is watched."
    )
    working: bool = Field(False, description="Whether something is being read now.")
    videos: int = Field(0, description="How many videos lie there.")
    done: int = Field(0, description="How many of them were looked at; in the end all but the failures.")
    seconds_left: float | None = Field(None, description="A guess; null while it cannot be told.")
    failures: list[FolderFailure] = []
    text_failures: list[FolderFailure] = Field(
        [], description="Videos that are searched without the text beside them, which could not be read."
    )
    trouble: str | None = Field(None, description="Why nothing can be read at all.")
    notes: list[str] = Field(
        [], description="What the evidence of this collection cannot do, in plain sentences."
    )


class TellRequest(_Request):
    """A sentence for a moment of a video."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "video_id": "kitchen/monday",
                    "start_seconds": 12.4,
                    "end_seconds": 19.1,
                    "sentence": "a woman cuts an onion",
                }
            ]
        },
    )
    video_id: VideoId
    start_seconds: Seconds
    end_seconds: Seconds
    sentence: Annotated[str, Field(min_length=1, max_length=MAX_SENTENCE_CHARS)]


class ToldOut(BaseModel):
    """What somebody told of a moment."""

    told_id: str
    video_id: str
    title: str = Field(description="Of the video; its id where the index does not hold it any more.")
    start_seconds: float
    end_seconds: float
    sentence: str
    written_unix: float


class ToldPage(BaseModel):
    """Some of what was told, newest first; `total` counts all that match."""

    total: int
    told: list[ToldOut]


class TeachReport(BaseModel):
    """How the taught model and the untrained one did on sentences that neither was taught; in per cent."""

    trained_on_sentences: int
    held_out_sentences: int
    untrained: dict[str, float]
    trained: dict[str, float]
    gain: float = Field(description="Of the mean reciprocal rank, in points.")
    gain_low: float
    gain_high: float


class TeachOut(BaseModel):
    """What there is to learn from, and what was learned."""

    can_tell: bool = Field(description="Whether this server keeps sentences for moments.")
    why_not: str | None = None
    sentences: int = Field(
        0, description="Of videos that the index holds; the same of one video counts once."
    )
    videos: int = Field(0, description="With a sentence.")
    needed_videos: int = Field(description="How many it takes.")
    taught: bool = Field(False, description="Whether a taught model is in use.")
    report: TeachReport | None = None
    job: JobOut | None = Field(None, description="The last job of teaching.")
