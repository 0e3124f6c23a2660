"""The built-in video encoder: layout, colours, edges, foreground and motion in 581 numbers; no download, NumPy only.

It is meant for demonstrations and tests. It knows nothing of the world; it makes colours, places, outlines and
ways of moving easy to read for a linear layer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dciml.features.base import EncodedVideo, FloatRows
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
from dciml.media import iterate_frames, probe

SIZE = (64, 48)  # width and height that pictures are scaled to
SAMPLES_PER_ROW = 2
ROWS_PER_SECOND = 2.0
SAMPLES_PER_SECOND = SAMPLES_PER_ROW * ROWS_PER_SECOND
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
    """A `VideoEncoder` without weights.

    >>> encoder = BuiltinVisualEncoder()
    >>> encoder.name, encoder.width, encoder.rows_per_second
    ('builtin-visual-1', 581, 2.0)
    """

    name = "builtin-visual-1"
    width = 581
    rows_per_second = ROWS_PER_SECOND

    def encode(self, path: Path) -> EncodedVideo:
        """Encode a video file.

        Returns: rows (T, width), T = ceil(duration · rows_per_second), and the file's duration.
        Raises:
            DataError: the file cannot be decoded.
        """
        pictures = np.stack([picture for _, picture in iterate_frames(path, SAMPLES_PER_SECOND, SIZE)])
        return EncodedVideo(self.encode_pictures(pictures), probe(path).duration_seconds)

    def encode_pictures(self, pictures: Bytes) -> FloatRows:
        """Encode pictures sampled at `SAMPLES_PER_SECOND`: (n, 48, 64, 3) → (ceil(n / 2), width)."""
        parts: list[Floats] = []
        tracks: list[Floats] = []
        for start in range(0, len(pictures), BLOCK):
            block_parts, block_tracks = _encode_block(pictures, start)
            parts.append(block_parts)
            tracks.append(block_tracks)
        course = np.concatenate(tracks)
        courses = [GAINS["course"] * course_of(course, samples) for samples in CONTEXTS]
        samples = np.concatenate([np.concatenate(parts), GAINS["tracks"] * course, *courses], axis=1)
        return _mean_of_pairs(samples)


def _encode_block(pictures: Bytes, start: int) -> tuple[Floats, Floats]:
    """Features by picture, without the course of time, and the tracks of the foreground."""
    end = min(start + BLOCK, len(pictures))
    block = pictures[start:end]
    names, grey = colour_name_indices(block), brightness(block)
    before = brightness(pictures[max(start - 1, 0) : start + 1])[:1]
    foreground = find_foreground(block, _background(pictures, start, end))
    parts = [
        GAINS["layout"] * colour_layout(block),
        GAINS["colours"] * colour_name_shares(names, 1, 1),
        GAINS["colours"] * colour_name_shares(names, 3, 4),
        GAINS["edges"] * edge_directions(grey),
        *(GAINS[name] * part for name, part in foreground_look(block, names, foreground).items()),
        GAINS["change"] * change_by_cell(np.concatenate([before, grey]))[1:],
    ]
    return np.concatenate(parts, axis=1), foreground.tracks


def _background(pictures: Bytes, start: int, end: int) -> Floats:
    """The median picture around a block, (48, 64, 3)."""
    around = pictures[max(start - BACKGROUND_REACH, 0) : end + BACKGROUND_REACH]
    step = -(-len(around) // BACKGROUND_PICTURES)
    background: Floats = np.median(around[::step], axis=0).astype(np.float32)
    return background


def _mean_of_pairs(samples: Floats) -> FloatRows:
    """Means of `SAMPLES_PER_ROW` neighbouring rows; a last, incomplete group counts as it is."""
    starts = np.arange(0, len(samples), SAMPLES_PER_ROW)
    sizes = np.minimum(SAMPLES_PER_ROW, len(samples) - starts)[:, None]
    rows: FloatRows = (np.add.reduceat(samples, starts, axis=0) / sizes).astype(np.float32)
    return rows
