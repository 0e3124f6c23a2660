"""The built-in video encoder: layout, colours, edges, foreground and motion in 581 numbers; no download, NumPy only.

It is meant for demonstrations and tests. It knows nothing of the world; it makes colours, places, outlines and
ways of moving easy to read for a linear layer.
"""

from __future__ import annotations

import numpy as np

from dciml.features.base import FloatRows
from dciml.features.motion import change_by_cell, course_of, find_foreground, foreground_look
from dciml.features.pictures import (
    Bytes,
    Floats,
    brightness,
    colour_layout,
    colour_name_indices,
    colour_name_shares,
    edge_directions,
)
from dciml.media import RGBFrame, VideoInfo

SIZE = (64, 48)  # width and height that pictures are scaled to
ROWS_PER_SECOND = 2.0
SAMPLES_PER_SECOND = 4.0  # about; a whole number of samples makes a row
BLOCK = 64  # pictures that are worked on together and share a background
BACKGROUND_REACH = 80  # pictures before and after a block that its background is found from
BACKGROUND_PICTURES = 40  # at most so many of them are looked at
CONTEXTS = (3, 7)  # samples before and after, over which the course of the foreground is described

GAINS = {
    "layout": 0.75,
    "colours": 0.4,
    "edges": 0.5,
    "hues": 2.2,
    "tone": 2.0,
    "place": 1.0,
    "outline": 0.6,
    "shading": 1.5,
    "change": 0.5,
    "tracks": 1.0,
    "course": 0.9,
}
"""How much each part weighs in a row's length; chosen on demo videos so that no part drowns the others."""


class BuiltinVisualEncoder:
    """A `FrameEncoder` without weights.

    Args:
        rows_per_second: > 0. Pictures are looked at about 4 times a second whatever it is, since the course of
            motion is described in such steps; a rate above that looks once a row.

    >>> encoder = BuiltinVisualEncoder()
    >>> encoder.name, encoder.width, encoder.rows_per_second, encoder.frames_per_second
    ('builtin-visual-1', 581, 2.0, 4.0)
    """

    name = "builtin-visual-1"
    width = 581

    def __init__(self, rows_per_second: float = ROWS_PER_SECOND) -> None:
        if not rows_per_second > 0:
            raise ValueError(f"rows_per_second must be positive, not {rows_per_second}")
        self.rows_per_second = rows_per_second
        self.samples_per_row = max(1, round(SAMPLES_PER_SECOND / rows_per_second))
        self.frames_per_second = rows_per_second * self.samples_per_row

    def picture_size(self, width: int, height: int) -> tuple[int, int]:
        """Always 64 by 48."""
        del width, height
        return SIZE

    def begin(self, info: VideoInfo) -> BuiltinRows:
        """Start a video."""
        del info
        return BuiltinRows(self.samples_per_row)


class BuiltinRows:
    """Makes the rows of one video; holds the pictures of a block and of what lies around it, 2 MB at most.

    Args:
        samples_per_row: how many neighbouring samples are averaged to a row.
    """

    def __init__(self, samples_per_row: int) -> None:
        self._samples_per_row = samples_per_row
        self._pictures: list[RGBFrame] = []  # those from `_first` on
        self._first = self._start = 0  # indices of the first picture held, and of the first not yet encoded
        self._rows: list[FloatRows] = []
        self._rest: Floats | None = None  # samples of a row that is not complete
        self._tracks: list[Floats] = []

    def add(self, seconds: float, picture: RGBFrame) -> None:
        """Take the next picture, (48, 64, 3)."""
        del seconds  # the samples are evenly spaced
        self._pictures.append(picture)
        if self._first + len(self._pictures) == self._start + BLOCK + BACKGROUND_REACH:
            self._encode_next()

    def finish(self) -> FloatRows:
        """The rows, (ceil(samples / samples_per_row), 581)."""
        while self._start < self._first + len(self._pictures):
            self._encode_next()
        if self._rest is not None and len(self._rest):
            self._rows.append(_mean_of_groups(self._rest, self._samples_per_row))
        tracks = np.concatenate(self._tracks)
        courses = [GAINS["tracks"] * tracks, *(GAINS["course"] * course_of(tracks, n) for n in CONTEXTS)]
        course_rows = _mean_of_groups(np.concatenate(courses, axis=1), self._samples_per_row)
        return np.concatenate([np.concatenate(self._rows), course_rows], axis=1)

    def _encode_next(self) -> None:
        begin = self._start - self._first
        end = min(begin + BLOCK, len(self._pictures))
        first = max(begin - BACKGROUND_REACH, 0)
        held = self._pictures[first : end + BACKGROUND_REACH]
        if all(picture is held[0] for picture in held):  # a picture that stands is looked at once
            still = np.stack(held[:1])
            samples, tracks = (
                part.repeat(end - begin, axis=0) for part in _encode_block(still, still, still)
            )
        else:
            around, begin_here = np.stack(held), begin - first
            block = around[begin_here : end - first]
            samples, tracks = _encode_block(around[max(begin_here - 1, 0) : end - first], block, around)
        self._tracks.append(tracks)
        samples = samples if self._rest is None else np.concatenate([self._rest, samples])
        whole = len(samples) // self._samples_per_row * self._samples_per_row
        self._rows.append(_mean_of_groups(samples[:whole], self._samples_per_row))
        self._rest = samples[whole:]
        self._start += end - begin
        drop = max(self._start - BACKGROUND_REACH - self._first, 0)
        del self._pictures[:drop]
        self._first += drop


def _encode_block(since: Bytes, block: Bytes, around: Bytes) -> tuple[Floats, Floats]:
    """Features by picture, without the course of time, and the tracks of the foreground.

    `since` is the block with the picture before it, where there is one; `around` gives the background.
    """
    names, grey = colour_name_indices(block), brightness(block)
    before = brightness(since[:1])
    foreground = find_foreground(block, _background(around))
    parts = [
        GAINS["layout"] * colour_layout(block),
        GAINS["colours"] * colour_name_shares(names, 1, 1),
        GAINS["colours"] * colour_name_shares(names, 3, 4),
        GAINS["edges"] * edge_directions(grey),
        *(GAINS[name] * part for name, part in foreground_look(block, names, foreground).items()),
        GAINS["change"] * change_by_cell(np.concatenate([before, grey]))[1:],
    ]
    return np.concatenate(parts, axis=1), foreground.tracks


def _background(around: Bytes) -> Floats:
    """The median picture of a stretch of time, (48, 64, 3)."""
    step = -(-len(around) // BACKGROUND_PICTURES)
    background: Floats = np.median(around[::step], axis=0).astype(np.float32)
    return background


def _mean_of_groups(samples: Floats, size: int) -> FloatRows:
    """Means of so many neighbouring rows; a last, incomplete group counts as it is."""
    if not len(samples):
        return samples.astype(np.float32)
    starts = np.arange(0, len(samples), size)
    sizes = np.minimum(size, len(samples) - starts)[:, None]
    rows: FloatRows = (np.add.reduceat(samples, starts, axis=0) / sizes).astype(np.float32)
    return rows
