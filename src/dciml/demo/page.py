"""The results of the demo as one static page: figures, and for some sentences the hits with picture and player."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import jinja2
from PIL import Image

from dciml.clock import clock, clock_range
from dciml.errors import DataError
from dciml.files import atomic_path, write_text
from dciml.media import frame_at
from dciml.spans import temporal_iou
from dciml.types import Query, SearchHit

PAGE_FILE = "index.html"
PICTURES_FOLDER = "keyframes"
RIGHT_IOU = 0.5


@dataclass(frozen=True)
class FigureRow:
    """A row of the table of figures: percentages in the order of the columns, None where there is none."""

    name: str
    values: tuple[float | None, ...]
    is_model: bool = False


@dataclass(frozen=True)
class Figures:
    """The headline figures. `about` says in a sentence or two how to read them."""

    columns: tuple[str, ...]
    rows: tuple[FigureRow, ...]
    about: str = ""


@dataclass(frozen=True)
class ExampleAnswer:
    """A test sentence with its true video and moments, and what the search returned, best first."""

    query: Query
    hits: tuple[SearchHit, ...]


@dataclass(frozen=True)
class Corpus:
    """Where the videos lie and how long they are, by id."""

    paths: Mapping[str, Path]
    durations_seconds: Mapping[str, float]


@dataclass(frozen=True)
class _Span:
    """A span on a timeline: its place in percent of the video, and in words."""

    left: str
    width: str
    label: str


@dataclass(frozen=True)
class _Card:
    """A hit as the page shows it."""

    hit: SearchHit
    times: str
    verdict: str
    is_right: bool
    picture: str
    video: str
    predicted: _Span
    true: tuple[_Span, ...]
    duration: str


def write_page(
    out: Path, title: str, figures: Figures, answers: Sequence[ExampleAnswer], corpus: Corpus
) -> Path:
    """Write `out/index.html` and the key frames beside it; links are relative, so the folder can be moved.

    Args:
        out: a folder; the videos lie in it or below.
        title: the heading.
        figures: the table.
        answers: in the order in which they are shown.
        corpus: holds every video that a hit names.
    Returns: the page.
    Raises:
        DataError: a video is unknown, lies elsewhere, or cannot be decoded.
    """
    cards = [(answer, [_card(out, answer.query, hit, corpus) for hit in answer.hits]) for answer in answers]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dciml.demo", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clock"] = clock
    page = out / PAGE_FILE
    template = environment.get_template("page.html.j2")
    write_text(page, template.render(title=title, figures=figures, answers=cards, right_iou=RIGHT_IOU))
    return page


def verdict(query: Query, hit: SearchHit) -> tuple[str, bool]:
    """What to say of a hit, and whether it is right: the true video, and IoU ≥ 0.5 with a true moment.

    >>> query = Query("q", "v", "a cat spins", ((10.0, 20.0),))
    >>> verdict(query, SearchHit(1, "v", 11.0, 20.0, 0.5)), verdict(query, SearchHit(1, "w", 11.0, 20.0, 0.5))
    (('right moment (IoU 0.90)', True), ('another video', False))
    """
    if hit.video_id != query.video_id:
        return "another video", False
    if not query.moments:
        return "the right video", True
    overlap = float(temporal_iou([[hit.start_seconds, hit.end_seconds]], query.moments).max())
    is_right = overlap >= RIGHT_IOU
    return f"{'right moment' if is_right else 'right video, other moment'} (IoU {overlap:.2f})", is_right


def _card(out: Path, query: Query, hit: SearchHit, corpus: Corpus) -> _Card:
    if hit.video_id not in corpus.paths or hit.video_id not in corpus.durations_seconds:
        raise DataError(f"the page's corpus does not hold the video {hit.video_id!r}", where=out)
    path, duration = corpus.paths[hit.video_id], corpus.durations_seconds[hit.video_id]
    words, is_right = verdict(query, hit)
    moments = query.moments if hit.video_id == query.video_id else ()
    start, end = f"{hit.start_seconds:.2f}", f"{hit.end_seconds:.2f}"
    return _Card(
        hit=hit,
        times=clock_range(hit.start_seconds, hit.end_seconds),
        verdict=words,
        is_right=is_right,
        picture=_link(out, _key_frame(out, path, hit)),
        video=f"{_link(out, path)}#t={start},{end}",
        predicted=_span(hit.start_seconds, hit.end_seconds, duration),
        true=tuple(_span(start, end, duration) for start, end in moments),
        duration=clock(duration),
    )


def _key_frame(out: Path, video: Path, hit: SearchHit) -> Path:
    """Write the picture in the middle of a hit, twice as large, as JPEG."""
    middle = (hit.start_seconds + hit.end_seconds) / 2
    picture = Image.fromarray(frame_at(video, middle))
    if picture.width < 320:
        picture = picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)
    path = out / PICTURES_FOLDER / f"{video.stem}-{round(middle * 1000)}.jpg"
    with atomic_path(path) as temporary:
        picture.save(temporary, format="JPEG", quality=85)
    return path


def _link(out: Path, path: Path) -> str:
    try:
        relative = path.resolve().relative_to(out.resolve())
    except ValueError as error:
        raise DataError(
            "this file lies outside the page's folder", where=path, mend=f"put it below {out}"
        ) from error
    return quote(str(PurePosixPath(relative)))


def _span(start: float, end: float, duration: float) -> _Span:
    left, right = (min(max(100 * at / duration, 0.0), 100.0) for at in (start, end))
    return _Span(f"{left:.2f}%", f"{right - left:.2f}%", clock_range(start, end))
