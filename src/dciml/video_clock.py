"""The clock of a video file: how long its pictures last, by the times of its packets; no picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from av.format import Flags

from dciml.errors import DataError

PLAYED_BY_BROWSERS = {"mov", "mp4", "matroska", "webm"}
"""A browser plays these by the file's own clock and stops where it goes back."""
UNTIMED_RATE = 25.0  # pictures a second where a file does not say
JITTER_SECONDS = (
    0.1  # a whole picture may be so much earlier than one before it, as badly written files have it
)
REORDERED_SECONDS = 1.0  # packets may come out of order by so much
LONGEST_STILL_SECONDS = 3600.0
"""A picture that stays longer than this, with no sound going on, means that the clock has jumped."""
LONGEST_STILL_OF_STREAMS_SECONDS = 10.0
"""The same for recordings of a broadcast, whose clock may begin anew at any time."""
SOUND_PADDING_SECONDS = 0.25
"""The last piece of sound is filled up; sound that ends this little after the pictures ends with them."""
SOUND_FILLING_SECONDS = 0.05  # of the last piece, at most
STILLS_SECONDS, STILL_SECONDS = 3 * 3600.0, 600.0
"""A file may last three hours, and ten minutes more for each of its pictures; where there is sound, as long as that."""
PACKETS_AHEAD = 20  # pictures are stored out of order, at most by 16


@dataclass(frozen=True)
class Timeline:
    """What the packets of a file say. Seconds count from where a player begins.

    Attributes:
        zero_seconds: where a player begins, on the clock of the file.
        pictures_end_seconds: until when the last picture is meant to stay.
        duration_seconds: the same, or the end of the sound where that goes on: the last picture stands so long.
        num_pictures: packets of pictures.
        keys: (number of a packet, seconds) of each picture that can be decoded alone; only where the clock breaks,
            where there is none, or several pictures share a time, so that none can be looked up in the file itself.
    """

    zero_seconds: float
    pictures_end_seconds: float
    duration_seconds: float
    num_pictures: int
    keys: tuple[tuple[int, float], ...] = ()


class Clock:
    """Follows the packets of a file in their order and makes the times of the pictures go on where they break.

    The clock of a recording may go back or jump ahead: parts were put together, a camera started anew, or it ran over.
    Then the pictures go on after the last one, unless a browser would play the file: it does not go on, so the file is
    refused.

    Args:
        path: of the file.
        form: its container's format.
        stream: of the pictures.
        sounds: streams of sound.
    """

    def __init__(self, path: Path, form: Any, stream: Any, sounds: list[Any]) -> None:
        self._path, self._stream = path, stream
        self.goes_on = not PLAYED_BY_BROWSERS & set(form.name.split(","))
        is_broadcast = bool(form.flags & Flags.ts_discont.value)
        self._is_broadcast = is_broadcast
        self._still = LONGEST_STILL_OF_STREAMS_SECONDS if is_broadcast else LONGEST_STILL_SECONDS
        self._base = float(stream.time_base)
        self._step = round(
            1 / (float(stream.average_rate or stream.guessed_rate or 0) or UNTIMED_RATE) / self._base
        )
        self._sounds = {sound.index: _Sound(float(sound.time_base), self._still) for sound in sounds}
        self.counts_packets = form.name == "avi"
        self._shift = self._end = 0
        self._top: int | None = None  # the latest time, in units of the stream
        self._last: int | None = None  # the time of the last packet, in the order of decoding
        self._heard_seconds = 0.0  # how much sound there was since the last picture
        self.num_breaks = self.num_pictures = 0
        self.first: int | None = None

    @property
    def end_seconds(self) -> float:
        """Until when the last picture is meant to stay, on the clock of the file, as it goes on."""
        return self._end * self._base

    @property
    def sound_end_seconds(self) -> float:
        """The end of the sound; what the last piece was filled up with does not count."""
        return max(
            (sound.end_seconds - sound.filling_seconds for sound in self._sounds.values()), default=-1e9
        )

    @property
    def num_sound_seconds(self) -> float:
        """How much sound there was."""
        return max((sound.num_seconds for sound in self._sounds.values()), default=0.0)

    @property
    def first_seconds(self) -> float | None:
        """The earliest time of the first pictures and of the sound; None where pictures have no times."""
        if self.first is None:
            return None
        first_sounds = (sound.first_seconds for sound in self._sounds.values())
        return min([self.first * self._base, *(seconds for seconds in first_sounds if seconds is not None)])

    def follow(self, packet: Any) -> None:
        """Take the next packet of the pictures or of a sound; the times of a picture's packet are set right.

        Raises:
            DataError: the clock breaks, in a file that a browser would play.
        """
        if packet.stream.index != self._stream.index:
            if packet.stream.index in self._sounds:
                self._heard_seconds += self._sounds[packet.stream.index].follow(packet)
            return
        if packet.pts is None and packet.dts is None:
            if packet.size:
                self.num_pictures += 1
                self._end += self._step
            return
        if packet.is_discard:  # an edit of the file leaves it out
            return
        self.num_pictures += 1
        if self.counts_packets and self._last is None and packet.pts is not None and packet.dts is not None:
            self._shift = packet.dts - packet.pts  # it has no times: its first packet is shown at once
        if self._is_broadcast:
            self._mend_time(packet)
        self._go_on_at_breaks(packet)
        if self._shift:
            packet.pts = None if packet.pts is None else packet.pts + self._shift
            packet.dts = None if packet.dts is None else packet.dts + self._shift
        begin = _begin(packet)
        self._last = self._last if packet.dts is None else packet.dts
        if self.num_pictures <= PACKETS_AHEAD and not self.num_breaks:
            self.first = begin if self.first is None else min(self.first, begin)
        self._top = begin if self._top is None else max(self._top, begin)
        length = packet.duration or self._step
        self._end = begin + length if self.num_pictures == 1 else max(self._end, begin + length)
        self._heard_seconds = 0.0

    def _mend_time(self, packet: Any) -> None:
        """Where two recordings meet, the last picture of one may have been given the time of the other's first."""
        if packet.pts is None or packet.dts is None:
            return
        if (
            abs(packet.pts - packet.dts) * self._base
            > REORDERED_SECONDS + PACKETS_AHEAD * self._step * self._base
        ):
            packet.pts = packet.dts + self._step

    def _go_on_at_breaks(self, packet: Any) -> None:
        if self._top is None:
            return
        begin = _begin(packet) + self._shift
        back, ahead = self._top - begin if packet.is_keyframe else 0, begin - self._end
        earlier = 0
        if packet.dts is not None and self._last is not None:
            step = packet.dts + self._shift - self._last
            earlier, ahead = -step, min(step - (packet.duration or 0), ahead)
        jitter_seconds = self._step * self._base / 2 if self.goes_on else JITTER_SECONDS
        is_back = back * self._base > jitter_seconds or earlier * self._base > REORDERED_SECONDS
        ahead_seconds = ahead * self._base
        is_ahead = ahead_seconds > self._still and self._heard_seconds < ahead_seconds / 2
        if not (is_back or is_ahead):
            return
        if not self.goes_on:
            moved = max(back, earlier) * self._base
            raise self._broken(
                f"goes back by {moved:.1f} s" if is_back else f"jumps by {ahead_seconds:.0f} s"
            )
        self._shift += self._end - begin
        self.num_breaks += 1

    def _broken(self, how: str) -> DataError:
        at_seconds = ((self._top or 0) - (self.first or 0)) * self._base
        return DataError(
            f"this video cannot be read (its clock {how} after {at_seconds:.1f} s, where players stop)",
            where=self._path,
            mend="convert it anew with ffmpeg, or cut it in two there",
        )


@dataclass
class _Sound:
    """How far a stream of sound goes; it goes on where its clock breaks."""

    base: float
    still_seconds: float
    end_seconds: float = -1e9
    filling_seconds: float = 0.0
    num_seconds: float = 0.0
    first_seconds: float | None = None
    _shift: float = field(default=0.0, repr=False)

    def follow(self, packet: Any) -> float:
        """Take a packet: how many seconds it lasts."""
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.is_discard:
            return 0.0
        length = (packet.duration or 0) * self.base
        begin = time * self.base + self._shift
        if self.first_seconds is None:
            self.first_seconds = begin
        elif not -REORDERED_SECONDS < begin - self.end_seconds < self.still_seconds:
            self._shift += self.end_seconds - begin
            begin = self.end_seconds
        self.end_seconds = max(self.end_seconds, begin + length)
        self.filling_seconds = min(length, SOUND_FILLING_SECONDS)
        self.num_seconds += min(length, 1.0)
        return min(length, 1.0)


def _begin(packet: Any) -> int:
    return int(packet.pts if packet.pts is not None else packet.dts)
