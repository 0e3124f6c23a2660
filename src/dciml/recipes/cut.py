"""Cut: the best moments for a sentence → video files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dciml.clock import clock_name
from dciml.errors import DataError
from dciml.recipes.moments import known_video, safe_name, video_file
from dciml.search import Searcher
from dciml.types import SearchHit
from dciml.video_cut import Piece, cut_video, refuse_existing

SHORTEST_SECONDS = 0.04  # a moment without length is still a picture


@dataclass(frozen=True)
class Clip:
    """A moment that was cut out: `file` holds `piece` of its video."""

    hit: SearchHit
    file: Path
    piece: Piece

    @property
    def early_seconds(self) -> float:
        """How much before the moment the file begins, padding included."""
        return max(self.hit.start_seconds - self.piece.start_seconds, 0.0)


@dataclass(frozen=True)
class NotCut:
    """A moment that could not be cut out, and why."""

    hit: SearchHit
    why: str


@dataclass(frozen=True)
class CutReport:
    """What came of each moment; both in the order of rank."""

    clips: tuple[Clip, ...]
    failed: tuple[NotCut, ...]


def cut_moments(
    searcher: Searcher,
    hits: Sequence[SearchHit],
    out: Path,
    *,
    exact: bool = False,
    padding_seconds: float = 0.0,
    on_clip: Callable[[Clip], None] | None = None,
) -> CutReport:
    """Write each moment as a file `RANK_VIDEO_START-END.mp4`; one that cannot be read is reported, the others go on.

    Args:
        searcher: found the hits.
        out: a folder, made if need be.
        exact: begin with the picture at the start; else packets are copied where that can be (`cut_video`).
        padding_seconds: ≥ 0, before and after each moment, as far as the video goes.
        on_clip: called when a file has been written.
    Raises:
        DataError: one of the files is there already (then nothing is written), or `out` is no folder.
    """
    refuse_file(out)
    files = [out / clip_name(hit) for hit in hits]
    for file in files:
        refuse_existing(file, "another folder with --out")
    clips: list[Clip] = []
    failed: list[NotCut] = []
    for hit, file in zip(hits, files, strict=True):
        try:
            video = known_video(searcher, hit.video_id)
            start, end = span_to_cut(
                hit.start_seconds, hit.end_seconds, video.duration_seconds, padding_seconds
            )
            clip = Clip(hit, file, cut_video(video_file(video), file, start, end, exact=exact))
        except DataError as error:
            failed.append(NotCut(hit, str(error)))
            continue
        clips.append(clip)
        if on_clip is not None:
            on_clip(clip)
    return CutReport(tuple(clips), tuple(failed))


def refuse_file(out: Path) -> None:
    """Raises DataError where a folder for clips cannot be; may be asked before anything is searched."""
    if (out.exists() or out.is_symlink()) and not out.is_dir():
        raise DataError("this is a file, not a folder", where=out, mend="name a folder with --out")


def clip_name(hit: SearchHit) -> str:
    """The name of a moment's file, by its rank, video and times.

    >>> clip_name(SearchHit(1, "kitchen/monday", 40.0, 60.2, 0.9))
    '01_kitchen_monday_00m40s-01m00s.mp4'
    """
    return f"{hit.rank:02}_{moment_name(hit.video_id, hit.start_seconds, hit.end_seconds)}.mp4"


def moment_name(video_id: str, start_seconds: float, end_seconds: float) -> str:
    """The same without its rank and suffix."""
    return f"{safe_name(video_id)}_{clock_name(start_seconds)}-{clock_name(end_seconds)}"


def span_to_cut(
    start_seconds: float, end_seconds: float, duration_seconds: float, padding_seconds: float = 0.0
) -> tuple[float, float]:
    """From where to where a moment is cut out: with its padding, as far as the video goes, and never nothing.

    >>> span_to_cut(2.0, 4.5, 5.0, padding_seconds=1.0), span_to_cut(3.0, 3.0, 5.0)
    ((1.0, 5.0), (3.0, 3.04))
    """
    start = max(start_seconds - padding_seconds, 0.0)
    return start, max(min(end_seconds + padding_seconds, duration_seconds), start + SHORTEST_SECONDS)
