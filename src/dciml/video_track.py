"""An opened video file: its picture track, the track's clock, and what its damage means (PyAV)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from dciml.errors import DataError

DAMAGED_SHARE = 0.1
"""A file of which more than this share of the packets cannot be decoded is refused; a few are passed over."""
MISSING_TAIL_SECONDS = 1.0
"""A file whose pictures end this much before its stated length is taken to be cut off."""
SKIPPING_CODECS = {"h264", "hevc"}
"""Their decoders can leave out a picture that no other one refers to."""
PACKETS_AHEAD = 20  # pictures are stored out of order, at most by 16
REFUSED_FORMS = {
    "hls": "a playlist",  # these only point to other files or to the network
    "dash": "a playlist",
    "concat": "a playlist",
    "sdp": "a playlist",
    "rtsp": "a playlist",
    "imf": "a playlist",
    "image2": "a single picture",
    "tty": "text",  # any text passes for this form, drawn as on an old terminal
}


class VideoTrack:
    """The picture track of an opened file.

    Seconds count from where a player begins to play the file: from the first picture, or from the first sound where
    that comes before it.
    """

    def __init__(self, path: Path, container: Any, stream: Any) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        start_seconds = float((stream.start_time or 0) * stream.time_base)
        file_seconds = max(float((container.start_time or 0) / av.time_base), min(start_seconds, 0.0))
        # The file's own start is rounded to a microsecond; that of the track is exact.
        self._zero_seconds = file_seconds if file_seconds < start_seconds - 1e-3 else start_seconds

    def frames(self, rates: Sequence[float] = ()) -> Iterator[tuple[float, Any]]:
        """Decode: yield (seconds, frame).

        Args:
            rates: where it is known that only the pictures on screen at 0, 1/rate, 2/rate, … seconds will be looked at,
                for any of these rates, others may be left out; the first and the last one never are.
        Raises:
            DataError: the file is damaged.
        """
        num_packets = num_damaged = 0
        seconds = -1 / (self.rate or 25)
        begun, context = False, self.stream.codec_context
        try:
            for packet, wanted in self._packets(rates):
                num_packets += 1
                context.skip_frame = "DEFAULT" if wanted or not begun else "NONREF"
                try:
                    decoded = packet.decode()
                except av.FFmpegError:
                    num_damaged += 1
                    continue
                for frame in decoded:
                    begun, timed = True, frame.pts is not None
                    seconds = self._seconds(frame.pts) if timed else seconds + 1 / (self.rate or 25)
                    yield seconds, frame
        except (av.FFmpegError, OSError) as error:
            raise unreadable(self.path, _reason(error)) from error
        if num_damaged > DAMAGED_SHARE * num_packets:
            raise unreadable(self.path, f"{num_damaged} of its {num_packets} packets are damaged")

    def _packets(self, rates: Sequence[float]) -> Iterator[tuple[Any, bool]]:
        """Packets in the order of decoding, and whether the picture of each is on screen at a time of `rates`."""
        packets = self.container.demux(self.stream)
        if not rates or self.stream.codec_context.name not in SKIPPING_CODECS:
            return ((packet, True) for packet in packets)
        return (
            (packet, after is None or self._holds_sample(packet.pts, after, rates))
            for packet, after in _with_next_time(packets)
        )

    def _holds_sample(self, start: int, end: int, rates: Sequence[float]) -> bool:
        """Whether a time of `rates` lies in [start, end), or so near that rounding could tell otherwise."""
        margin = 1e-3
        first, last = self._seconds(start) - margin, self._seconds(end) + margin
        return any(ceil(first * rate) / rate < last for rate in rates)

    def length_seconds(self, frame: Any) -> float:
        """How long a frame stays on screen, as far as the file says."""
        if frame.duration:
            return float(frame.duration * frame.time_base)
        return 1 / self.rate if self.rate else 0.0

    def seek(self, seconds: float) -> bool:
        """Go on at or before a time; False where the file cannot do that."""
        target = int((seconds + self._zero_seconds) / self.stream.time_base)
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError):
            return False
        return True

    def shown_size(self, frame: Any) -> tuple[int, int]:
        """Width and height of a frame as shown: upright, its pixels made square by widening."""
        aspect = float(self.stream.sample_aspect_ratio or 1)
        aspect = aspect if 0.1 < aspect < 10 else 1.0
        width, height = max(1, round(frame.width * aspect)), frame.height
        return (height, width) if quarter_turns(frame) % 2 else (width, height)

    def duration_seconds(self) -> float:
        """Until when the pictures last, > 0; counted where the file does not say it.

        Raises:
            DataError: the file is cut off, or has no picture.
        """
        if self.stream.duration:
            end = (self.stream.start_time or 0) + self.stream.duration
            seconds = float(end * self.stream.time_base) - self._zero_seconds
        else:
            seconds = _counted_seconds(self.path, self._zero_seconds)
        if not seconds > 0:
            raise unreadable(self.path, f"it says that it lasts {seconds:g} s")
        return seconds

    def _seconds(self, time: int) -> float:
        return float(time * self.stream.time_base) - self._zero_seconds


@contextmanager
def opened(path: Path) -> Iterator[VideoTrack]:
    """Open a video file.

    Raises:
        DataError: missing, empty, damaged, or without pictures.
    """
    if not path.exists():
        raise DataError("there is no such file", where=path, mend="check the path")
    if path.is_dir():
        raise DataError("this is a folder, not a video file", where=path, mend="name a file inside it")
    if path.stat().st_size == 0:
        raise DataError("the file is empty", where=path, mend="copy or download the video again")
    try:
        # "file:" so that a colon in a name is part of it; a file must not make us read from the network.
        container = av.open(
            f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(path, _reason(error)) from error
    with container:
        stream = _picture_stream(path, container)
        stream.codec_context.thread_count = 1
        yield VideoTrack(path, container, stream)


def _picture_stream(path: Path, container: Any) -> Any:
    names = container.format.name.split(",")
    form = next((REFUSED_FORMS[name] for name in names if name in REFUSED_FORMS), None)
    if form or names[0].endswith("_pipe"):
        raise unreadable(path, f"it is {form or 'a single picture'}, not a video")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        sound = bool(container.streams.audio)
        if container.streams.video:
            raise unreadable(path, "it has only a cover picture" + " and sound" * sound)
        raise unreadable(path, "it has no video track" + ", only sound" * sound)
    if streams[0].codec_context is None:
        raise unreadable(path, "there is no decoder for its pictures")
    return streams[0]


def quarter_turns(frame: Any) -> int:
    """How often the picture must be turned by 90 degrees, counterclockwise, to stand upright (phones)."""
    return int(round(frame.rotation / 90) % 4)


def unreadable(path: Path, why: str) -> DataError:
    """The error for a file that is no good."""
    mend = "play it in a video player; copy it again, or convert it to MP4 with ffmpeg"
    return DataError(f"this video cannot be read ({why})", where=path, mend=mend)


def _with_next_time(packets: Iterable[Any]) -> Iterator[tuple[Any, int | None]]:
    """Each packet with the time of the next picture on screen, as far as the packets around it tell; else None."""
    held: deque[Any] = deque()
    times: list[int] = []

    def paired(packet: Any) -> tuple[Any, int | None]:
        place = len(times) if packet.pts is None else bisect_right(times, packet.pts)
        return packet, times[place] if place < len(times) else None

    for packet in packets:
        held.append(packet)
        if packet.pts is not None:
            insort(times, packet.pts)
            del times[: -3 * PACKETS_AHEAD]
        if len(held) > PACKETS_AHEAD:
            yield paired(held.popleft())
    yield from map(paired, held)


def _counted_seconds(path: Path, zero_seconds: float) -> float:
    """The end of the last picture, from the times of all packets; no picture is decoded."""
    with opened(path) as track:
        container, stream = track.container, track.stream
        end_seconds = file_end_seconds = 0.0
        num_untimed = 0
        try:
            for packet in container.demux():
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None:
                    num_untimed += int(packet.size > 0 and packet.stream.index == stream.index)
                    continue
                end = float((time + (packet.duration or 0)) * packet.time_base) - zero_seconds
                file_end_seconds = max(file_end_seconds, end)
                if packet.stream.index == stream.index:
                    end_seconds = max(end_seconds, end if packet.duration else end + 1 / (track.rate or 25))
        except (av.FFmpegError, OSError) as error:
            raise unreadable(path, _reason(error)) from error
        stated_seconds = float((container.duration or 0) / av.time_base)
        # Some files count their stated length from 0, wherever their clock begins.
        found_seconds = max(file_end_seconds, end_seconds) + max(zero_seconds, 0.0)
        if end_seconds > 0 and stated_seconds - found_seconds > MISSING_TAIL_SECONDS:
            raise unreadable(path, f"it ends at {file_end_seconds:.1f} s of {stated_seconds:.1f} s")
        return end_seconds or num_untimed / (track.rate or 25)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
