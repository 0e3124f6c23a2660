"""Video files: seconds → frames, and frames → a file that any browser plays (PyAV; one thread a file).

Times count from the first frame that the file shows, whatever its container's clock says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.files import atomic_path

RGBFrame = NDArray[np.uint8]
"""A picture, (height, width, 3), red, green, blue."""

MISSING_TAIL_SECONDS = 1.0
"""A file whose pictures end this much before its stated length is taken to be cut off."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself. `width` and `height` are as shown, after any rotation."""

    duration_seconds: float
    width: int
    height: int
    average_fps: float
    path: Path


@dataclass(frozen=True)
class Sampling:
    """Which pictures of a video somebody wants: how many a second (> 0), and the (width, height) to scale them to.

    Without a size they keep that of the file.
    """

    frames_per_second: float
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.frames_per_second > 0:
            raise ValueError(f"frames_per_second must be positive, not {self.frames_per_second}")


def probe(path: Path) -> VideoInfo:
    """Read length and size; decodes one frame, so that a file without a single good picture is refused.

    Raises:
        DataError: missing, empty, damaged, or not a video.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        first = next(_decoded(container, path), None)
        if first is None:
            raise _unreadable(path, "it holds no picture")
        turned = _quarter_turns(first) % 2
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        rate = stream.average_rate or stream.guessed_rate or 0
        return VideoInfo(_duration_seconds(container, path), width, height, float(rate), path)


def iterate_frames(
    path: Path, frames_per_second: float, size: tuple[int, int] | None = None
) -> Iterator[tuple[float, RGBFrame]]:
    """Yield (seconds, picture) at 0, 1/fps, 2/fps, …: each time the picture that a player would show then.

    Sampling goes by presentation time, so it is right for a variable frame rate; a picture that stays on
    screen longer than a step comes again.

    Args:
        path: a video file.
        frames_per_second: pictures a second, > 0; may exceed the file's own rate.
        size: (width, height) to scale to while decoding; None keeps the file's size.
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
    with _opened(path) as container:
        duration_seconds = _duration_seconds(container, path)
        takers = [_Taker(sampling) for sampling in samplings]
        shown = None  # the picture on screen
        for frame in _decoded(container, path):
            until_seconds = _seconds(frame, container)
            if shown is not None:
                for number, taker in enumerate(takers):
                    for seconds, picture in taker.take(shown, until_seconds):
                        yield number, seconds, picture
            shown = frame
        if shown is None:
            raise _unreadable(path, "it holds no picture")
        end_seconds = _seconds(shown, container) + float((shown.duration or 0) * shown.time_base)
        if duration_seconds - end_seconds > MISSING_TAIL_SECONDS:
            raise _unreadable(path, f"pictures end at {end_seconds:.1f} s of {duration_seconds:.1f} s")
        for number, taker in enumerate(takers):
            for seconds, picture in taker.take(shown, max(duration_seconds, 2e-6)):
                yield number, seconds, picture


class _Taker:
    """Takes the samples of one sampling while a file is decoded."""

    def __init__(self, sampling: Sampling) -> None:
        self._rate = sampling.frames_per_second
        self._scale = _Scaler(sampling.size)
        self._index = 0

    def take(self, frame: Any, until_seconds: float) -> Iterator[tuple[float, RGBFrame]]:
        """The samples that fall on a frame that stays on screen until a time."""
        picture: RGBFrame | None = None
        while self._index / self._rate < until_seconds - 1e-6:
            picture = self._scale(frame) if picture is None else picture
            yield self._index / self._rate, picture
            self._index += 1


def frame_at(path: Path, seconds: float, size: tuple[int, int] | None = None) -> RGBFrame:
    """The picture on screen at a time, found by an exact seek; a time past the end gives the last picture.

    Raises:
        DataError: missing, empty, damaged, or not a video.
        ValueError: a negative time.
    """
    if not seconds >= 0:
        raise ValueError(f"a time must not be negative: {seconds}")
    with _opened(path) as container:
        stream = container.streams.video[0]
        target = min(seconds, _duration_seconds(container, path))
        start = stream.start_time or 0
        container.seek(start + int(target / stream.time_base), stream=stream, backward=True)
        shown = None
        for frame in _decoded(container, path):
            if shown is not None and _seconds(frame, container) > seconds + 1e-6:
                break
            shown = frame
        if shown is None:
            raise _unreadable(path, f"it holds no picture at {seconds:.2f} s")
        return _Scaler(size)(shown)


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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise DataError("there is no such file", where=path, mend="check the path")
    if path.is_dir():
        raise DataError("this is a folder, not a video file", where=path, mend="name a file inside it")
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=path, mend="copy or download the video again")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, _reason(error)) from error
    try:
        if not container.streams.video:
            raise _unreadable(path, "it has no video track")
        container.streams.video[0].codec_context.thread_count = 1
        yield container
    finally:
        container.close()


def _decoded(container: Any, path: Path) -> Iterator[Any]:
    try:
        yield from container.decode(video=0)
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(path, _reason(error)) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _unreadable(path: Path, why: str) -> DataError:
    mend = "play it in a video player; copy it again, or convert it to MP4 with ffmpeg"
    return DataError(f"this video cannot be read ({why})", where=path, mend=mend)


def _duration_seconds(container: Any, path: Path) -> float:
    stream = container.streams.video[0]
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration / av.time_base)
    raise _unreadable(path, "it does not say how long it is")


def _seconds(frame: Any, container: Any) -> float:
    stream = container.streams.video[0]
    return float(((frame.pts or 0) - (stream.start_time or 0)) * frame.time_base)


def _quarter_turns(frame: Any) -> int:
    """How often the picture must be turned by 90 degrees, counterclockwise, to stand upright (phones)."""
    return int(round(frame.rotation / 90) % 4)


class _Scaler:
    """Turns decoded pictures into upright arrays; keeps the scaling context between pictures of a file."""

    def __init__(self, size: tuple[int, int] | None) -> None:
        self._size = size
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any) -> RGBFrame:
        turns = _quarter_turns(frame)
        width, height = self._size or (None, None)
        if turns % 2:
            width, height = height, width
        # One thread: starting more costs several times the work of scaling a small picture.
        scaled = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=Interpolation.AREA, threads=1
        )
        picture: RGBFrame = np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))
        return picture
