"""An opened video file: its picture track, the track's clock, and what its damage means (PyAV)."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from math import ceil
from pathlib import Path
from time import thread_time
from typing import Any

import av
from av.format import Flags

from dciml.video_clock import (
    PACKETS_AHEAD,
    SOUND_PADDING_SECONDS,
    STILL_SECONDS,
    STILLS_SECONDS,
    UNTIMED_RATE,
    Clock,
    Timeline,
)
from dciml.video_keys import without_tails
from dciml.video_pictures import Orientation, Scaler, orientation, shown_size
from dciml.video_streams import (
    check_count,
    check_size,
    decoder_of,
    is_whole,
    opened_container,
    picture_stream,
    reason,
    unreadable,
)

DAMAGED_SHARE = 0.1
"""A file of which more than this share of the packets cannot be decoded is refused; a few are passed over."""
MISSING_TAIL_SECONDS = 1.0
"""A file whose pictures end this much before its stated length is taken to be cut off."""
UNEVEN_SEEKING = {"mpeg"}
"""Formats where several pictures share a time: after a seek they may get that of a neighbour."""
SAME_SECONDS = 1e-6
"""A time so little before that of a picture shows that picture already."""
MOST_A_SECOND = 500
"""Pictures; more are no film but a wrong time scale."""
SKIPPING_CODECS = {"h264", "hevc", "vp8", "vp9", "mjpeg", "prores"}
"""Of these, pictures that are not looked at are left out as far as no other one refers to them."""
UNREFERRED_CODECS = {"h264", "hevc"}
"""Their decoders can leave out a single picture that no other one refers to."""
DECODING_SECONDS, DECODING_SECONDS_PER_SECOND = 60.0, 30.0
"""Decoding may take so much processor time, and so much more for each second of video; then the file is given up."""
PACKETS_A_CALL = 1000
KEPT_TIMELINES = 256
LAST_SECOND = 1e9  # no time of a file is later


class VideoTrack:
    """The picture track of an opened file.

    Seconds count from where a player begins to play the file: from the first picture, or from the first sound where
    that comes before it.
    """

    def __init__(self, path: Path, container: Any) -> None:
        self.path, self.container = path, container
        self.stream = stream = picture_stream(path, container)
        self.decoder = decoder_of(stream)
        self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.aspect = float(stream.sample_aspect_ratio or 1)
        self.orientation: Orientation = (False, False, False)  # known once there are frames
        self._sounds = list(container.streams.audio)
        self._sought = False  # whether packets may begin in the middle of a chain of pictures
        start_seconds = float((stream.start_time or 0) * stream.time_base)
        file_seconds = max(float((container.start_time or 0) / av.time_base), min(start_seconds, 0.0))
        # The file's own start is rounded to a microsecond; that of the track is exact.
        self._zero_seconds = file_seconds if file_seconds < start_seconds - 1e-3 else start_seconds

    @property
    def has_index(self) -> bool:
        """Whether the file has a table of its pictures, whose clock cannot break: it need not be read through."""
        return "mov" in self.container.format.name.split(",") and bool(self.stream.frames)

    @property
    def zero_seconds(self) -> float:
        """Where a player begins, on the clock of the file."""
        return self._zero_seconds

    def starts_at(self, timeline: Timeline) -> None:
        """Count from where this file was found to begin."""
        self._zero_seconds = timeline.zero_seconds

    def timeline(self, on_progress: Callable[[], None] | None = None) -> Timeline:
        """Read the times of all packets; nothing can be decoded afterwards.

        Args:
            on_progress: called now and then: to read a large file takes a while.
        Raises:
            DataError: damaged, cut off, without a picture, or its clock is damaged.
        """
        clock, keys, file_end_seconds = self._clock(), [], -1e9
        num_bytes = self.path.stat().st_size
        try:
            for number, packet in enumerate(self.container.demux()):
                num_pictures = clock.num_pictures
                clock.follow(packet)
                if number % PACKETS_A_CALL == 0 and on_progress is not None:
                    on_progress()
                if number > num_bytes:
                    check_count(self.path, number)
                if packet.pts is None and packet.dts is None:
                    continue
                time = packet.pts if packet.pts is not None else packet.dts
                file_end_seconds = max(
                    file_end_seconds, float((time + (packet.duration or 0)) * packet.time_base)
                )
                if clock.num_pictures > num_pictures and packet.is_keyframe and clock.goes_on:
                    keys.append((number, float(time * packet.time_base)))
        except (av.FFmpegError, OSError, MemoryError) as error:
            raise unreadable(self.path, reason(error)) from error
        if not clock.num_pictures:
            raise unreadable(self.path, "it holds no picture")
        zero = self._zero_seconds
        if clock.goes_on and clock.first_seconds is not None and abs(clock.first_seconds - zero) > 0.01:
            zero = clock.first_seconds  # the head had the time of another part
        if not clock.num_breaks:
            self._check_whole(clock, file_end_seconds)
        cannot_seek = clock.num_breaks or clock.counts_packets or self.container.format.name in UNEVEN_SEEKING
        return self._timeline_of(clock, zero, keys if cannot_seek else [])

    def _timeline_of(self, clock: Clock, zero: float, keys: Sequence[tuple[int, float]]) -> Timeline:
        pictures_end = clock.end_seconds - zero
        sound_end = clock.sound_end_seconds - zero
        duration = sound_end if sound_end > pictures_end + SOUND_PADDING_SECONDS else pictures_end
        if not duration > 0:
            raise unreadable(self.path, f"it says that it lasts {duration:g} s")
        if clock.num_pictures > MOST_A_SECOND * max(pictures_end, 1 / 25):
            fast = f"its clock shows {clock.num_pictures} pictures in {pictures_end:.3g} s"
            raise unreadable(self.path, f"{fast}, which no camera makes; its time scale is wrong")
        allowed = STILLS_SECONDS + STILL_SECONDS * clock.num_pictures + clock.num_sound_seconds
        if duration > allowed:
            pictures = f"{clock.num_pictures} picture" + "s" * (clock.num_pictures > 1)
            raise unreadable(self.path, f"its clock shows {duration:.0f} s for {pictures}")
        times = tuple((number, seconds - zero) for number, seconds in keys)
        return Timeline(zero, pictures_end, duration, clock.num_pictures, times)

    def _check_whole(self, clock: Clock, file_end_seconds: float) -> None:
        """Refuse a file that is shorter than it says. Raises DataError."""
        stream = self.stream
        if clock.num_pictures >= stream.frames > 0:
            return  # every picture is there: it is the stated length that is wrong
        if self.container.format.flags & (Flags.ts_discont.value | Flags.no_timestamps.value):
            return  # their length is not stated but guessed
        zero, end = self._zero_seconds, clock.end_seconds
        missed = max(MISSING_TAIL_SECONDS, 2 / (self.rate or UNTIMED_RATE))
        if clock.counts_packets and stream.frames:  # without an index, seconds would be guessed
            found_seconds, stated_seconds = end, stream.frames / (self.rate or UNTIMED_RATE)
        elif stream.duration:
            found_seconds = end
            stated_seconds = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        else:  # some files count their stated length from 0, wherever their clock begins
            found_seconds = max(file_end_seconds, end) - min(zero, 0.0)
            stated_seconds = float((self.container.duration or 0) / av.time_base)
        if stated_seconds - found_seconds > missed and not is_whole(self.path, self.container.format.name):
            raise unreadable(
                self.path, f"it ends at {found_seconds - zero:.1f} s of {stated_seconds - zero:.1f} s"
            )

    def frames(
        self, rates: Sequence[float] = (), first_packet: int = 0, *, is_part: bool = False
    ) -> Iterator[tuple[float, Any]]:
        """Decode: yield (seconds, frame); times never go back. Then `orientation` is known.

        It is that of the second frame: a codec may turn single pictures, often the first, which browsers pass over.

        Args:
            rates: where it is known that only the pictures on screen at 0, 1/rate, 2/rate, … seconds will be looked at,
                for any of these rates, others may be left out; the first and the last one never are.
            first_packet: number of the first packet to decode, of a picture that can be decoded alone.
            is_part: a part of the file does not tell how damaged it is.
        Raises:
            DataError: the file is damaged, a picture is too large, or decoding takes too long.
        """
        frames = self._decoded(rates, first_packet, is_part=is_part)
        first = list(islice(frames, 2))
        if first:
            self.orientation = orientation(first[-1][1])
        return chain(first, frames)

    def _decoded(
        self, rates: Sequence[float], first_packet: int, *, is_part: bool
    ) -> Iterator[tuple[float, Any]]:
        num_packets = num_damaged = 0
        step = 1 / (self.rate or UNTIMED_RATE)
        seconds, spent = -step, 0.0
        begun, context = False, self.decoder
        can_skip = context.name in UNREFERRED_CODECS
        try:
            for packet, wanted in self._packets(rates, first_packet):
                num_packets += 1
                context.skip_frame = "DEFAULT" if wanted or not (begun and can_skip) else "NONREF"
                since = thread_time()
                try:
                    decoded = context.decode(packet)
                except av.FFmpegError as error:
                    self._check_error(error, begun)
                    num_damaged += 1
                    continue
                finally:
                    spent += thread_time() - since
                if spent > DECODING_SECONDS + DECODING_SECONDS_PER_SECOND * max(seconds, 0.0):
                    raise unreadable(
                        self.path, f"decoding {max(seconds, 0.0):.1f} s of it took {spent:.0f} s"
                    )
                for frame in decoded:
                    check_size(self.path, frame.width, frame.height)
                    begun, timed = True, frame.pts is not None
                    seconds = max(self._seconds(frame.pts), seconds) if timed else seconds + step
                    yield seconds, frame
        except (av.FFmpegError, OSError, MemoryError) as error:
            raise unreadable(self.path, reason(error)) from error
        if num_damaged > DAMAGED_SHARE * num_packets and not is_part:
            raise unreadable(self.path, f"{num_damaged} of its {num_packets} packets are damaged")

    def _check_error(self, error: av.FFmpegError, begun: bool) -> None:
        """Tell damage, which may be passed over, from pictures that are too large, which leave the decoder no size."""
        if isinstance(error, MemoryError):
            raise error
        if begun and not self.decoder.width:
            raise unreadable(self.path, "a picture in the middle of it is too large")

    def _clock(self) -> Clock:
        return Clock(self.path, self.container.format, self.stream, self._sounds)

    def _packets(self, rates: Sequence[float], first_packet: int) -> Iterator[tuple[Any, bool]]:
        """Packets in the order of decoding, and whether the picture of each is on screen at a time of `rates`.

        What no such picture depends on may be missing.
        """
        packets = self._timed_packets(first_packet)
        if not rates or self.decoder.name not in SKIPPING_CODECS:
            return ((packet, True) for packet in packets)
        wanted = (
            (packet, after is None or self._holds_sample(packet.pts, after, rates))
            for packet, after in _with_next_time(packets)
        )
        return without_tails(wanted, self.decoder)

    def _timed_packets(self, first_packet: int) -> Iterator[Any]:
        """The packets of the pictures, their times as the clock goes on."""
        clock, index = self._clock(), self.stream.index
        whole = not self._sought
        for number, packet in enumerate(self.container.demux()):
            clock.follow(packet)
            if packet.stream.index != index or number < first_packet:
                continue
            # After a seek some decoders make up the picture that a first one without a key refers to.
            whole = whole or packet.is_keyframe or not packet.size
            if whole:
                yield packet

    def _holds_sample(self, start: int, end: int, rates: Sequence[float]) -> bool:
        """Whether a time of `rates` lies in [start, end), or so near the start that rounding could tell otherwise."""
        first, last = self._seconds(start) - 1e-5, self._seconds(end) - SAME_SECONDS / 2
        return any(ceil(first * rate) / rate < last for rate in rates)

    def length_seconds(self, frame: Any) -> float:
        """How long a frame stays on screen, as far as the file says."""
        if frame.duration:
            return float(frame.duration * frame.time_base)
        return 1 / (self.rate or UNTIMED_RATE)

    def seek(self, seconds: float) -> bool:
        """Go on at or before a time; False where the file cannot do that."""
        target = int((min(seconds, LAST_SECOND) + self._zero_seconds) / self.stream.time_base)
        try:
            self.container.seek(target, stream=self.stream, backward=True)
        except (av.FFmpegError, OSError, OverflowError):
            return False
        self._sought = True
        return True

    def shown_size(self, frame: Any) -> tuple[int, int]:
        """Width and height of a frame as shown: upright, its pixels made square by widening."""
        return shown_size(frame, self.aspect, self.orientation)

    def scaler(self, size: tuple[int, int] | None, within: tuple[int, int] | None = None) -> Scaler:
        """What turns frames into arrays."""
        return Scaler(self.aspect, size, within)

    def _seconds(self, time: int) -> float:
        return float(time * self.stream.time_base) - self._zero_seconds


@contextmanager
def opened(path: Path) -> Iterator[VideoTrack]:
    """Open a video file.

    Raises:
        DataError: missing, empty, damaged, or without pictures.
    """
    with opened_container(path) as container:
        yield VideoTrack(path, container)


def timeline_of(path: Path, on_progress: Callable[[], None] | None = None) -> Timeline:
    """How long a file lasts, by the times of all its packets; a file that has been read before is not read again.

    Args:
        on_progress: as for `VideoTrack.timeline`.
    Raises:
        DataError: as `opened` and `VideoTrack.timeline`.
    """
    with opened(path) as track:
        status = path.stat()
        version = str(path.absolute()), status.st_mtime_ns, status.st_size
        found = _timelines.get(version)
        if found is None:
            found = track.timeline(on_progress)
            if len(_timelines) >= KEPT_TIMELINES:
                _timelines.clear()
            _timelines[version] = found
        return found


_timelines: dict[tuple[str, int, int], Timeline] = {}  # by path, time and size of the file


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
