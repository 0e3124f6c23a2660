"""The sound of a video file, as recognisers of speech take it: one channel, 16,000 samples a second, in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError
from dciml.video_cut import sound_samples, sound_stream
from dciml.video_track import opened, timeline_of

SAMPLES_A_SECOND = 16_000
PIECE_SECONDS = 120.0
SEARCHED_SECONDS = 10.0
"""At the end of a piece, or else its second half, for the quietest place to cut it."""
QUIET_SAMPLES = SAMPLES_A_SECOND // 10

Samples = NDArray[np.float32]


def pieces_of_sound(
    path: Path, begin_seconds: float = 0.0, piece_seconds: float = PIECE_SECONDS
) -> Iterator[tuple[float, Samples]]:
    """The sound from a time on, in pieces of at most `piece_seconds`, cut where it is quiet.

    Packets that are damaged are passed over, as players do; where there is no sound in between, there is silence.

    Yields: (seconds at which the piece begins, on the clock of a player; samples (N,) in [-1, 1]).
    Raises:
        DataError: the file is no video, has no sound, or has none that can be decoded.
    """
    timeline = timeline_of(path)
    most = round(max(timeline.duration_seconds - begin_seconds, 0.0) * SAMPLES_A_SECOND)
    with opened(path) as track:
        source = sound_stream(track.container)
        if source is None:
            raise DataError("the video has no sound", where=path)
        if source.codec_context is None:
            raise DataError("nothing here can decode the sound", where=path)
        held, start, num_pieces = np.zeros(0, dtype=np.float32), 0, 0
        clock = begin_seconds + timeline.zero_seconds
        for at, samples in sound_samples(track.container, source, SAMPLES_A_SECOND, "mono", clock):
            place = round((at - clock) * SAMPLES_A_SECOND)
            written = start + len(held)
            if place >= most:
                break
            fresh = samples[0, max(written - place, 0) : most - place]
            held = np.concatenate([held, np.zeros(max(place - written, 0), dtype=np.float32), fresh])
            while len(held) > piece_seconds * SAMPLES_A_SECOND:
                cut = _quiet_place(held[: round(piece_seconds * SAMPLES_A_SECOND)])
                yield begin_seconds + start / SAMPLES_A_SECOND, held[:cut]
                held, start, num_pieces = held[cut:], start + cut, num_pieces + 1
        if len(held):
            yield begin_seconds + start / SAMPLES_A_SECOND, held
        elif not num_pieces and most and not begin_seconds:
            raise DataError("the sound cannot be decoded", where=path)


def _quiet_place(samples: Samples) -> int:
    """Late in a piece, the middle of the tenth of a second with the least sound."""
    first = max(len(samples) - round(SEARCHED_SECONDS * SAMPLES_A_SECOND), len(samples) // 2)
    count = (len(samples) - first) // QUIET_SAMPLES
    blocks = samples[len(samples) - count * QUIET_SAMPLES :].reshape(count, QUIET_SAMPLES)
    quietest = int((blocks**2).sum(axis=1).argmin())
    return len(samples) - count * QUIET_SAMPLES + quietest * QUIET_SAMPLES + QUIET_SAMPLES // 2
