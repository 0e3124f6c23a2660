"""Video files: seconds → frames, and frames → a file that any browser plays (PyAV; one thread a file).

Times are those of a player: they count from where the file begins to play, whatever its container's clock says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from dciml.files import atomic_path
from dciml.video_pictures import RGBFrame
from dciml.video_streams import unreadable
from dciml.video_track import MISSING_TAIL_SECONDS, SAME_SECONDS, VideoTrack, opened, timeline_of

__all__ = [
    "RGBFrame",
    "Sampling",
    "VideoInfo",
    "frame_at",
    "iterate_frames",
    "iterate_samples",
    "probe",
    "write_video",
]


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself. `width` and `height` are as shown: upright, with square pixels."""

    duration_seconds: float
    width: int
    height: int
    average_fps: float
    path: Path


@dataclass(frozen=True)
class Sampling:
    """Which pictures of a video are wanted: how many a second (> 0), and the (width, height) to scale them to.

    Without a size they keep the one that they are shown at.
    """

    frames_per_second: float
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.frames_per_second > 0:
            raise ValueError(f"frames_per_second must be positive, not {self.frames_per_second}")


def probe(path: Path, on_progress: Callable[[], None] | None = None) -> VideoInfo:
    """Read length and size; decodes one frame, so that a file without a single good picture is refused.

    The length is that of the pictures, counted from the times of all packets, whatever the file states; or that of the
    sound where it goes on after the last picture, which then stands.

    Args:
        on_progress: called now and then: to read the times of a large file takes a while.
    Raises:
        DataError: missing, empty, damaged, cut off, or not a video.
    """
    timeline = timeline_of(path, on_progress)
    with opened(path) as track:
        first = next(track.frames(), None)
        if first is None:
            raise unreadable(path, "it holds no picture")
        width, height = track.shown_size(first[1])
        return VideoInfo(timeline.duration_seconds, width, height, track.rate, path)


def iterate_frames(
    path: Path, frames_per_second: float, size: tuple[int, int] | None = None
) -> Iterator[tuple[float, RGBFrame]]:
    """Yield (seconds, picture) at 0, 1/fps, 2/fps, …: each time the picture that a player would show then.

    Sampling goes by presentation time, so it is right for a variable frame rate; a picture that stays on
    screen longer than a step comes again.

    Args:
        path: a video file.
        frames_per_second: pictures a second, > 0; may exceed the file's own rate.
        size: (width, height) to scale to while decoding; None keeps the size that the file is shown at.
    Raises:
        DataError: missing, empty, damaged, cut off, or not a video.
    """
    for _, seconds, picture in iterate_samples(path, [Sampling(frames_per_second, size)]):
        yield seconds, picture


def iterate_samples(path: Path, samplings: Sequence[Sampling]) -> Iterator[tuple[int, float, RGBFrame]]:
    """Sample a file in several ways in one pass: yield (index of the sampling, seconds, picture).

    Each sampling gets what `iterate_frames` would give it alone, in the order of time.

    Raises:
        DataError: as `iterate_frames`.
    """
    timeline = timeline_of(path)
    with opened(path) as track:
        track.starts_at(timeline)
        takers = [_Taker(track, sampling, timeline.duration_seconds) for sampling in samplings]
        shown, end_seconds = None, 0.0  # the picture on screen, and until when
        for seconds, frame in track.frames([sampling.frames_per_second for sampling in samplings]):
            if shown is not None:
                yield from _take(takers, shown, seconds)
            shown, end_seconds = frame, seconds + track.length_seconds(frame)
        if shown is None:
            raise unreadable(path, "it holds no picture")
        missing = timeline.pictures_end_seconds - end_seconds
        if abs(missing) > max(MISSING_TAIL_SECONDS, 3 * track.length_seconds(shown)):
            stated = f"{timeline.pictures_end_seconds:.1f} s"
            raise unreadable(path, f"pictures end at {end_seconds:.1f} s of {stated}")
        yield from _take(takers, shown, timeline.duration_seconds)


def _take(
    takers: Sequence[_Taker], frame: Any, until_seconds: float
) -> Iterator[tuple[int, float, RGBFrame]]:
    for number, taker in enumerate(takers):
        for seconds, picture in taker.take(frame, until_seconds):
            yield number, seconds, picture


class _Taker:
    """Takes the samples of one sampling while a file is decoded; there is at least one."""

    def __init__(self, track: VideoTrack, sampling: Sampling, duration_seconds: float) -> None:
        self._rate = sampling.frames_per_second
        self._end_seconds = max(duration_seconds, 2e-6)
        self._track, self._scale = track, track.scaler(sampling.size)
        self._index = 0

    def take(self, frame: Any, until_seconds: float) -> Iterator[tuple[float, RGBFrame]]:
        """The samples that fall on a frame that stays on screen until a time."""
        picture: RGBFrame | None = None
        until_seconds = min(until_seconds, self._end_seconds)
        while self._index / self._rate < until_seconds - SAME_SECONDS:
            picture = self._scale(frame, self._track.orientation) if picture is None else picture
            yield self._index / self._rate, picture
            self._index += 1


def frame_at(
    path: Path,
    seconds: float,
    size: tuple[int, int] | None = None,
    within: tuple[int, int] | None = None,
) -> RGBFrame:
    """The picture on screen at a time, found by an exact seek; a time past the end gives the last picture.

    Args:
        size: (width, height) to scale to; None keeps the size that the file is shown at.
        within: without a size: (width, height) to scale the picture into, its sides in proportion.
    Raises:
        DataError: missing, empty, damaged, or not a video.
        ValueError: a negative time.
    """
    if not seconds >= 0:
        raise ValueError(f"a time must not be negative: {seconds}")
    frame = None
    with opened(path) as track:
        scale = track.scaler(size, within)
        timeline = None if track.has_index else timeline_of(path)
        if timeline is not None:
            track.starts_at(timeline)
            seconds = min(seconds, timeline.duration_seconds)
        if timeline is not None and timeline.keys:  # a seek would not know of the clock's breaks
            first = max((number for number, at in timeline.keys if at <= seconds), default=0)
            frame = _frame_on_screen(track, seconds, since_start=first == 0, first_packet=first)
        elif track.seek(seconds):
            frame = _frame_on_screen(track, seconds, since_start=False)
        if frame is not None:
            return scale(frame, track.orientation)
    with opened(path) as track:  # the seek failed or landed behind its target
        if timeline is not None:
            track.starts_at(timeline)
        frame = _frame_on_screen(track, seconds, since_start=True)
        if frame is None:
            raise unreadable(path, f"it holds no picture at {seconds:.2f} s")
        return scale(frame, track.orientation)


def _frame_on_screen(track: VideoTrack, seconds: float, *, since_start: bool, first_packet: int = 0) -> Any:
    """The last frame up to a time; the first one of the file stands for what comes before it, too."""
    shown = None
    for at_seconds, frame in track.frames(first_packet=first_packet, is_part=True):
        if at_seconds > seconds + 1e-6:
            return frame if shown is None and since_start else shown
        shown = frame
    return shown


def write_video(
    path: Path,
    frames: Iterable[RGBFrame],
    frames_per_second: float,
    *,
    preset: str = "veryfast",
    crf: int = 23,
) -> None:
    """Write pictures of equal, even size as H.264 in MP4 that browsers play and seek; atomic.

    Args:
        path: the file to write; the old one stays when anything fails.
        frames: pictures (height, width, 3); at least one.
        frames_per_second: > 0.
        preset: x264's choice between speed and size.
        crf: x264's quality, 0 (lossless) to 51.
    Raises:
        ValueError: no picture, an odd size, or pictures of different sizes.
    """
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("a video needs at least one picture")
    height, width = first.shape[:2]
    if height % 2 or width % 2:
        raise ValueError(f"H.264 with 4:2:0 colour needs even sides, not {width}x{height}")
    rate = Fraction(frames_per_second).limit_denominator(1001)
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=rate, options={"preset": preset, "crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        to_yuv = VideoReformatter()
        for picture in chain([first], pictures):
            if picture.shape != (height, width, 3):
                raise ValueError(f"a picture has the shape {picture.shape}, not {(height, width, 3)}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(to_yuv.reformat(frame, format="yuv420p", threads=1)))
        container.mux(stream.encode(None))
