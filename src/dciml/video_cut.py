"""A piece of a video as an MP4 file of its own: its packets copied, or its pictures encoded anew (PyAV).

Packets can only be copied from a picture on that can be decoded alone, a key picture, so such a piece begins a little
earlier than was asked for. Encoded anew it begins with the picture on screen at the time.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.files import atomic_path
from dciml.media import probe
from dciml.video_pictures import RGBFrame
from dciml.video_streams import opened_container, unreadable
from dciml.video_track import VideoTrack, opened, timeline_of

COPIED_PICTURES = {"h264", "hevc", "av1", "vp9", "mpeg4"}
COPIED_SOUNDS = {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"}
"""What an MP4 file may hold and players play; all else is encoded anew."""
NEAR_SECONDS = 0.05
"""A key picture that comes so little after the start, about one picture, does as well as one before it."""
MOST_EARLY_SECONDS = 30.0
"""Where the last key picture lies further back, the piece is encoded anew."""
SEEK_STEPS_SECONDS = (0.0, 10.0)
"""How much before its target a seek is tried; some formats land behind it. Then the file is read from its beginning."""
SOUND_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
"""Samples a second that AAC can have."""
SOUND_JUMP_SECONDS = 0.05
"""Sound that comes this much later than the sound before it ended has a gap, which becomes silence."""
CLOCK = 90_000  # units a second of the pictures that are encoded anew: any rate, and a changing one, fits
EPSILON = 1e-6

Handling = Literal["copied", "encoded"]


@dataclass(frozen=True)
class Piece:
    """What was written.

    Attributes:
        start_seconds, end_seconds: of the source, as far as pictures tell.
        pictures, sound: whether they are those of the source or encoded anew; `sound` is None where there is none.
    """

    start_seconds: float
    end_seconds: float
    pictures: Handling
    sound: Handling | None


def cut_video(
    path: Path, out: Path, start_seconds: float, end_seconds: float, *, exact: bool = False
) -> Piece:
    """Write a piece of a video as MP4; atomic, and never over a file.

    Packets are copied from the last key picture at or before the start, unless that lies more than
    `MOST_EARLY_SECONDS` before it, or MP4 or the file's clock do not allow it: then the piece is H.264 and AAC anew,
    as it always is where `exact` is asked for.

    Args:
        path: any video file that can be read.
        out: the file to write.
        start_seconds, end_seconds: as a player counts, 0 ≤ start < end; an end after that of the video is its end.
        exact: begin with the picture on screen at the start.
    Raises:
        DataError: the video is missing, damaged, or over before the start; `out` is there already.
        ValueError: not 0 ≤ start < end.
    """
    if not 0 <= start_seconds < end_seconds:
        raise ValueError(f"not a piece of a video: {start_seconds} to {end_seconds} s")
    refuse_existing(out)
    length = _length_seconds(path)
    if start_seconds >= length:
        what = f"the video is over at {length:.2f} s, before {start_seconds:.2f} s"
        raise DataError(what, where=path, mend="extract and index the video again if it was changed")
    with atomic_path(out) as temporary:
        piece = None if exact else _copied(path, temporary, start_seconds, end_seconds)
        piece = piece or _encoded(path, temporary, start_seconds, end_seconds)
        refuse_existing(out)
    return piece


PLAYED_PICTURES = {"h264"}
PLAYED_SOUNDS = {"aac", "mp3"}
"""What every browser plays in an MP4 file."""
PLAYED_PIXELS = {"yuv420p", "yuvj420p"}
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name of the form


def convert_video(
    path: Path,
    out: Path,
    *,
    within: tuple[int, int],
    on_progress: Callable[[float], None] | None = None,
) -> Piece:
    """Write a whole video as an MP4 file that every browser plays, with the same times.

    Packets that browsers play are copied out of a form that they do not open. All else becomes H.264 and AAC anew; so
    does what is in an MP4 file already, which then has another fault.

    Args:
        path: any video file that can be read.
        out: the file to write. Not atomic: give the path that `atomic_path` yields.
        within: (width, height) that the pictures must fit into; smaller ones keep their size.
        on_progress: is told now and then how far it is, from 0 to 1; what it raises ends the conversion.
    Raises:
        DataError: the video is missing or damaged.
    """
    end = timeline_of(path).duration_seconds
    with opened(path) as track:
        context = track.stream.codec_context
        is_played = (
            context.codec.canonical_name in PLAYED_PICTURES
            and context.pix_fmt in PLAYED_PIXELS
            and max(context.width, context.height) <= max(within)
            and track.container.format.name != MP4
        )
    piece = _copied(path, out, 0.0, end, PLAYED_PICTURES, PLAYED_SOUNDS) if is_played else None
    return piece or _encoded(path, out, 0.0, end, within, on_progress)


def _length_seconds(path: Path) -> float:
    with opened(path) as track:
        if track.has_index and track.container.duration:
            return float(track.container.duration / av.time_base)
    return timeline_of(path).duration_seconds


def refuse_existing(out: Path, instead: str = "another file") -> None:
    """Raises DataError where there is something of this name already; `instead` is what to name."""
    if out.exists() or out.is_symlink():
        mend = f"name {instead}, or remove this one first"
        raise DataError("there is a file of this name already", where=out, mend=mend)


class _Uncopyable(Exception):
    """The packets do not fit into MP4 as they are."""


@dataclass(frozen=True)
class _Key:
    """A picture that can be decoded alone: its time in units of the stream, in seconds, and where to seek for it."""

    time: int
    seconds: float
    sought_seconds: float | None


@contextmanager
def _track(path: Path) -> Iterator[VideoTrack]:
    with opened(path) as track:
        if not track.has_index:
            track.starts_at(timeline_of(path))
        yield track


def _copied(
    path: Path,
    temporary: Path,
    start: float,
    end: float,
    pictures: Set[str] = COPIED_PICTURES,
    sounds: Set[str] = COPIED_SOUNDS,
) -> Piece | None:
    """Copy packets of these codecs; None where that cannot be."""
    try:
        with _track(path) as track:
            if track.stream.codec_context.codec.canonical_name not in pictures:
                return None
            if not track.has_index and timeline_of(path).keys:  # its clock breaks, or has no times
                return None
        key = _find_key(path, start)
        if key is None or start - key.seconds > MOST_EARLY_SECONDS:
            return None
        sound = _copy_from(path, temporary, key, end, sounds)
        length = probe(temporary).duration_seconds  # decodes a picture, too
    except (_Uncopyable, DataError):
        return None
    except av.FFmpegError as error:
        _refuse_full_disk(error, temporary)
        return None
    begin = max(key.seconds, 0.0)
    return Piece(begin, begin + length, "copied", sound)


def _find_key(path: Path, seconds: float) -> _Key | None:
    """The last key picture at or before a time; None where there is none."""
    for step in (*SEEK_STEPS_SECONDS, None):
        with _track(path) as track:
            sought = None if step is None else max(seconds - step, 0.0)
            if sought is not None and not track.seek(sought):
                continue
            found = None
            for packet in _timed(track):
                at = float(packet.pts * packet.time_base) - track.zero_seconds
                if packet.is_keyframe and not packet.is_discard and at <= seconds + NEAR_SECONDS:
                    found = _Key(packet.pts, at, sought)
                if float(packet.dts * packet.time_base) - track.zero_seconds > seconds + NEAR_SECONDS:
                    break
            if found is not None:
                return found
    return None


def _timed(track: VideoTrack) -> Iterator[Any]:
    """The packets of the pictures from where the file stands. Matroska does not say when the first ones are decoded.

    Raises:
        _Uncopyable: a packet has no time.
    """
    waiting: list[Any] = []
    for packet in track.container.demux(track.stream):
        if not packet.size:
            continue
        if packet.pts is None:
            raise _Uncopyable
        waiting.append(packet)
        if packet.dts is None:
            continue
        step = packet.duration or round(1 / (track.rate or 25) / packet.time_base)
        for place, early in enumerate(reversed(waiting)):
            early.dts = packet.dts - place * step
        yield from waiting
        waiting.clear()
    if waiting:
        raise _Uncopyable


def _copy_from(path: Path, temporary: Path, key: _Key, end: float, sounds: Set[str]) -> Handling | None:
    """Write the packets from a key picture on; returns what became of the sound."""
    with _track(path) as track, opened_container(path) as heard, _writer(temporary) as out:
        pictures = _picture_packets(track, key, end, out.add_stream_from_template(track.stream))
        source = sound_stream(heard)
        if source is None:
            out.mux(pictures)
            return None
        if source.codec_context is None or source.codec_context.codec.canonical_name in sounds:
            stream = out.add_stream_from_template(source)
            sound = _sound_packets(heard, source, stream, key.seconds, end, track.zero_seconds)
            handling: Handling = "copied"
        else:
            stream = _add_sound(out, source)
            sound = _encoded_sound(heard, source, stream, key.seconds, end, track.zero_seconds)
            handling = "encoded"
        out.mux(heapq.merge(pictures, sound, key=_when))
        return handling


def _picture_packets(track: VideoTrack, key: _Key, end: float, stream: Any) -> Iterator[Any]:
    """The packets of the pictures from a key picture to a time, counted from that picture.

    Pictures are stored out of order: one after the end is kept where one before it refers to it.
    """
    if key.sought_seconds is not None:
        track.seek(key.sought_seconds)
    late: list[Any] = []
    begun = False
    for packet in _timed(track):
        begun = begun or (packet.is_keyframe and packet.pts == key.time)
        if not begun or packet.pts < key.time:  # the latter refer to pictures before the key picture
            continue
        if float(packet.dts * packet.time_base) - track.zero_seconds >= end - EPSILON:
            break
        is_late = float(packet.pts * packet.time_base) - track.zero_seconds >= end - EPSILON
        packet.pts, packet.dts, packet.stream = packet.pts - key.time, packet.dts - key.time, stream
        late.append(packet)
        if not is_late:
            yield from late
            late.clear()


def sound_stream(container: Any) -> Any:
    """The stream of sound that a player takes; None where there is none."""
    return container.streams.best("audio")


def _sound_packets(
    container: Any, source: Any, stream: Any, begin: float, end: float, zero: float
) -> Iterator[Any]:
    """The packets of a sound from one time to another, counted from the first of them."""
    shift = round((begin + zero) / source.time_base)
    for packet in _demuxed(container, source, begin + zero):
        if packet.pts is None or packet.dts is None:
            raise _Uncopyable
        at = float(packet.pts * packet.time_base) - zero
        if at >= end - EPSILON:
            return
        if at >= begin - 1e-3:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
            yield packet


def _demuxed(container: Any, source: Any, seconds: float) -> Iterator[Any]:
    """The packets of a stream from a little before a time on the clock of the file."""
    try:
        container.seek(int((seconds - 1) / source.time_base), stream=source, backward=True)
    except (av.FFmpegError, OSError, OverflowError):
        container.seek(0)
    return (packet for packet in container.demux(source) if packet.size)


def _encoded(
    path: Path,
    temporary: Path,
    start: float,
    end: float,
    within: tuple[int, int] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Piece:
    """Encode anew."""
    pictures = _pictures(path, start, end, within)
    if on_progress is not None:
        pictures = _told(pictures, start, end, on_progress)
    first = next(pictures, None)
    if first is None:
        raise unreadable(path, f"it holds no picture at {start:.2f} s")
    with _track(path) as track:
        rate, zero = track.rate, track.zero_seconds
        has_breaks = not track.has_index and _breaks(path)
    try:
        with opened_container(path) as heard, _writer(temporary) as out:
            height, width = first[2].shape[:2]
            stream = out.add_stream("libx264", rate=Fraction(rate or 25).limit_denominator(1001))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"preset": "veryfast", "crf": "20"}
            stream.codec_context.thread_count = 1
            stream.codec_context.time_base = Fraction(1, CLOCK)
            shown = _encoded_pictures(stream, first, pictures, start)
            source = None if has_breaks else sound_stream(heard)
            if source is None or source.codec_context is None:
                out.mux(shown)
            else:
                sound = _encoded_sound(heard, source, _add_sound(out, source), start, end, zero)
                out.mux(heapq.merge(shown, sound, key=_when))
            has_sound = len(out.streams) > 1
    except av.FFmpegError as error:
        _refuse_full_disk(error, temporary)
        raise unreadable(path, str(error)) from error
    return Piece(
        start, start + probe(temporary).duration_seconds, "encoded", "encoded" if has_sound else None
    )


def _breaks(path: Path) -> bool:
    """Whether the clock of a recording breaks, so that its sound cannot be laid beside its pictures."""
    with opened(path) as track:
        has_times = track.container.format.name not in ("avi", "mpeg")
    return has_times and bool(timeline_of(path).keys)


def _told(
    pictures: Iterator[tuple[float, float, RGBFrame]],
    start: float,
    end: float,
    on_progress: Callable[[float], None],
) -> Iterator[tuple[float, float, RGBFrame]]:
    for picture in pictures:
        on_progress(min((picture[0] - start) / (end - start), 1.0))
        yield picture


def _even(width: int, height: int, within: tuple[int, int] | None) -> tuple[int, int]:
    """The nearest even sides, in proportion, within a size, which may also stand upright.

    >>> _even(3841, 2161, (1920, 1080)), _even(720, 1281, (1920, 1080)), _even(1, 1, None)
    ((1918, 1080), (720, 1280), (2, 2))
    """
    if within is not None:
        room = sorted(within, reverse=width >= height)
        scale = min(1.0, room[0] / width, room[1] / height)
        width, height = int(width * scale), int(height * scale)
    return max(width - width % 2, 2), max(height - height % 2, 2)


def _pictures(
    path: Path, start: float, end: float, within: tuple[int, int] | None = None
) -> Iterator[tuple[float, float, RGBFrame]]:
    """Seconds, length in seconds and picture of all that is on screen from one time to another; even sides."""
    for is_sought in (True, False):
        with _track(path) as track:
            timeline = None if track.has_index else timeline_of(path)
            number, is_sure = 0, True
            if is_sought and timeline is not None and timeline.keys:
                number = max((number for number, at in timeline.keys if at <= start), default=0)
                is_sure = number == 0
            elif is_sought:
                is_sure = not track.seek(start)
            frames = track.frames(first_packet=number, is_part=True)
            first = next(frames, None)
            if first is None or (first[0] > start + EPSILON and not is_sure):
                continue  # the seek failed, or landed behind its target
            scale = track.scaler(_even(*track.shown_size(first[1]), within))
            for at, length, frame in _on_screen(track, first, frames, start, end):
                yield at, length, scale(frame, track.orientation)
            return


def _on_screen(
    track: VideoTrack, first: tuple[float, Any], frames: Iterator[tuple[float, Any]], start: float, end: float
) -> Iterator[tuple[float, float, Any]]:
    """The frames that are on screen from one time to another; the first one stands for what comes before it, too."""
    shown_at, shown = min(first[0], start) if first[0] <= start + EPSILON else start, first[1]
    for at, frame in frames:
        begin = max(shown_at, start)
        if min(at, end) - begin > EPSILON:
            yield begin, min(at, end) - begin, shown
        if at >= end - EPSILON:
            return
        shown_at, shown = at, frame
    begin = max(shown_at, start)
    stands = shown_at + track.length_seconds(shown) <= start  # the sound goes on after it
    length = end - begin if stands else min(end - begin, track.length_seconds(shown))
    if length > EPSILON:
        yield begin, length, shown


def _encoded_pictures(
    stream: Any,
    first: tuple[float, float, RGBFrame],
    rest: Iterator[tuple[float, float, RGBFrame]],
    start: float,
) -> Iterator[Any]:
    lengths: dict[int, int] = {}
    picture: tuple[float, float, RGBFrame] | None = first
    while picture is not None:
        at, length, pixels = picture
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", threads=1)
        frame.pts, frame.time_base = round((at - start) * CLOCK), Fraction(1, CLOCK)
        lengths[frame.pts] = round(length * CLOCK)
        yield from _with_lengths(stream.encode(frame), lengths)
        picture = next(rest, None)
    yield from _with_lengths(stream.encode(None), lengths)


def _with_lengths(packets: list[Any], lengths: dict[int, int]) -> Iterator[Any]:
    for packet in packets:
        packet.duration = lengths.pop(packet.pts, packet.duration)
        yield packet


def _add_sound(out: Any, source: Any) -> Any:
    rate = source.codec_context.sample_rate
    stream = out.add_stream("aac", rate=rate if rate in SOUND_RATES else 48_000)
    stream.codec_context.layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
    return stream


def _encoded_sound(
    container: Any, source: Any, stream: Any, begin: float, end: float, zero: float
) -> Iterator[Any]:
    """Sound from one time to another as AAC, to the sample; where there is none in between, silence."""
    context = stream.codec_context
    rate, layout = context.sample_rate, context.layout
    total, written = round((end - begin) * rate), 0
    for at, samples in sound_samples(container, source, rate, layout, begin + zero):
        place = round((at - zero - begin) * rate)
        if place >= total:
            break
        while place > written:
            silence = np.zeros((len(samples), min(place - written, rate)), dtype=np.float32)
            yield from stream.encode(_sound_frame(silence, layout, rate, written))
            written += silence.shape[1]
        fresh = samples[:, written - place : total - place]
        if fresh.shape[1]:
            yield from stream.encode(_sound_frame(fresh, layout, rate, written))
            written += fresh.shape[1]
    yield from stream.encode(None)


def sound_samples(
    container: Any, source: Any, rate: int, layout: Any, seconds: float
) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """(seconds on the clock of the file, samples (channels, N)); a packet that is damaged is passed over."""
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    due: float | None = None
    for packet in _demuxed(container, source, seconds):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            at = frame.time
            if due is None or (at is not None and abs(at - due) > SOUND_JUMP_SECONDS):
                due = at
            if due is None:
                continue
            for part in resampler.resample(frame):
                samples: Any = part.to_ndarray()
                yield due, samples
                due += samples.shape[1] / rate


def _sound_frame(samples: NDArray[np.float32], layout: Any, rate: int, place: int) -> Any:
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout.name)
    frame.sample_rate, frame.pts, frame.time_base = rate, place, Fraction(1, rate)
    return frame


def _writer(temporary: Path) -> Any:
    return av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"})


def _when(packet: Any) -> float:
    return float(packet.dts * packet.time_base)


def _refuse_full_disk(error: av.FFmpegError, path: Path) -> None:
    """Raise what the disk refused as the system's own error: no other way of cutting would help."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
        raise OSError(error.errno, error.strerror, str(path)) from error
