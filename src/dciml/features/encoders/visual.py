"""The built-in video encoder: layout, colours, edges, foreground and motion in 581 numbers; no download.

What single pictures hold: colours by place, colour names, directions of edges. Plain NumPy, batches of pictures.

`pictures` is always (n, height, width, 3) with height and width multiples of 12 and 16; values 0 to 255.

What moves before a background that is still or sways a little: where, how large, in which colours, how it goes on.

The background is the median over some time around; what lies outside its local range of brightness (so that a
swaying camera does not count) is foreground. Plain NumPy; pictures are (n, height, width, 3).

The built-in video encoder: layout, colours, edges, foreground and motion in 581 numbers; no download, NumPy only.

It is meant for demonstrations and tests. It knows nothing of the world; it makes colours, places, outlines and
ways of moving easy to read for a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.features.base import FloatRows
from dciml.media import RGBFrame, VideoInfo

Floats = NDArray[np.floating[Any]]
Bytes = NDArray[np.uint8]

COLOUR_NAMES = (
    "black",
    "grey",
    "white",
    "red",
    "orange",
    "brown",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
)
NUM_ORIENTATIONS = 8


def cell_means(maps: Floats, rows: int, columns: int) -> Floats:
    """Means over a grid of equal cells: (n, height, width) → (n, rows · columns), row by row.

    >>> cell_means(np.arange(8, dtype=np.float32).reshape(1, 2, 4), 1, 2).tolist()
    [[2.5, 4.5]]
    """
    count, height, width = maps.shape
    blocks = maps.reshape(count, rows, height // rows, columns, width // columns)
    means: Floats = blocks.mean(axis=(2, 4)).reshape(count, rows * columns)
    return means


def colour_layout(pictures: Bytes) -> Floats:
    """Mean and spread of red, green, blue in 4 × 4 cells: (n, 96), about -1 to 1."""
    scaled = pictures.astype(np.float32) / 255
    channels = [scaled[..., channel] for channel in range(3)]
    means = [cell_means(channel, 4, 4) for channel in channels]
    squares = [cell_means(channel * channel, 4, 4) for channel in channels]
    spreads = [
        np.sqrt(np.maximum(square - mean * mean, 0)) for mean, square in zip(means, squares, strict=True)
    ]
    return np.concatenate([*(mean - 0.45 for mean in means), *(2 * spread for spread in spreads)], axis=1)


def colour_name_indices(pictures: Bytes) -> NDArray[np.int64]:
    """The index into `COLOUR_NAMES` of every pixel, (n, height, width)."""
    coarse = (pictures >> 3).astype(np.int64)
    names: NDArray[np.int64] = _name_table()[(coarse[..., 0] << 10) | (coarse[..., 1] << 5) | coarse[..., 2]]
    return names


def colour_name_shares(names: NDArray[np.int64], rows: int, columns: int) -> Floats:
    """Square roots of the share of each colour name in each cell: (n, rows · columns · 12), 0 to 1."""
    count, height, width = names.shape
    cell = _cell_of_pixel(height, width, rows, columns)
    bins = rows * columns * len(COLOUR_NAMES)
    index = names + cell * len(COLOUR_NAMES) + (np.arange(count) * bins)[:, None, None]
    tally = np.bincount(index.ravel(), minlength=count * bins).reshape(count, bins)
    shares: Floats = np.sqrt(tally / (height * width / (rows * columns))).astype(np.float32)
    return shares


def edge_directions(grey: Floats) -> Floats:
    """Strength of edges by direction (8 steps of 22.5°, sign ignored) in 3 × 4 cells: (n, 96).

    Args:
        grey: brightness, (n, height, width), 0 to 255.
    """
    count, height, width = grey.shape
    across, down = gradients(grey)
    strength = np.hypot(across, down)
    turn = np.arctan2(down, across) / np.pi * NUM_ORIENTATIONS
    direction = np.floor(turn + 0.5).astype(np.int64) % NUM_ORIENTATIONS
    bins = 12 * NUM_ORIENTATIONS
    index = direction + _cell_of_pixel(height, width, 3, 4) * NUM_ORIENTATIONS
    index += (np.arange(count) * bins)[:, None, None]
    tally = np.bincount(index.ravel(), weights=strength.ravel(), minlength=count * bins)
    means = tally.reshape(count, bins) / (height * width / 12)
    edges: Floats = np.sqrt(means / 32).astype(np.float32)
    return edges


def gradients(grey: Floats) -> tuple[Floats, Floats]:
    """Central differences across and down, each of the shape of `grey`; 0 at the border."""
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :, 1:-1] = (grey[:, :, 2:] - grey[:, :, :-2]) / 2
    down[:, 1:-1, :] = (grey[:, 2:, :] - grey[:, :-2, :]) / 2
    return across, down


def brightness(pictures: NDArray[np.generic]) -> Floats:
    """Luma, (n, height, width), 0 to 255."""
    red, green, blue = (pictures[..., channel].astype(np.float32) for channel in range(3))
    luma: Floats = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    return luma


@cache
def _cell_of_pixel(height: int, width: int, rows: int, columns: int) -> NDArray[np.int64]:
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    return row[:, None] * columns + column


@cache
def _name_table() -> NDArray[np.int64]:
    """A name for each colour of 5 bits a channel, by hue, saturation and value."""
    levels = (np.arange(32) * 8 + 4) / 255
    red, green, blue = (axis.ravel() for axis in np.meshgrid(levels, levels, levels, indexing="ij"))
    value, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = np.maximum(value - low, 1e-6)
    hue = np.where(
        value == red,
        (green - blue) / chroma % 6,
        np.where(value == green, (blue - red) / chroma + 2, (red - green) / chroma + 4),
    )
    by_hue = np.searchsorted([15, 42, 68, 165, 200, 255, 295, 345], hue * 60, side="right") % 8
    named = np.array([3, 4, 6, 7, 8, 9, 10, 11])[by_hue]
    named = np.where((named == 4) & (value < 0.65), 5, named)
    is_grey = chroma / np.maximum(value, 1e-6) < 0.2
    grey = np.where(value > 0.8, 2, 1)
    return np.where(value < 0.18, 0, np.where(is_grey, grey, named)).astype(np.int64)


SWAY_PIXELS = 2  # how far the background may shift without becoming foreground
TOLERANCE = 14.0  # brightness steps of noise that are let pass
PATCH = 7  # side of the grid on which the outline of the foreground is sampled
NUM_TRACKS = 8


@dataclass(frozen=True)
class Foreground:
    """Foreground of n pictures: `mask` (n, height, width), 0 to 1; `tracks` (n, NUM_TRACKS), see `_tracks`."""

    mask: Floats
    presence: Floats
    tracks: Floats


def find_foreground(pictures: Bytes, background: Floats) -> Foreground:
    """Compare pictures with their background, (height, width, 3), after matching their brightness."""
    low, high = _local_range(background)
    ratio = np.median(
        brightness(pictures)[:, ::2, ::2] / np.maximum(brightness(background[None])[:, ::2, ::2], 8),
        axis=(1, 2),
    )
    level = pictures.astype(np.float32) / np.clip(ratio, 0.5, 2.0)[:, None, None, None]
    outside = np.maximum(np.maximum(level - high, low - level), 0).max(axis=3)
    mask = _smooth(np.clip((outside - TOLERANCE) / 20, 0, 1))
    mask = np.clip(2 * mask - 0.6, 0, 1)
    area = mask.mean(axis=(1, 2))
    presence = (area / (area + 0.004)).astype(np.float32)
    return Foreground(mask, presence, _tracks(mask, area, presence))


def _tracks(mask: Floats, area: Floats, presence: Floats) -> Floats:
    """Centre x, y; spread x, y; log area; lean (cosine and sine of twice the main axis); presence: (n, 8)."""
    _, height, width = mask.shape
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    total = np.maximum(mask.sum(axis=(1, 2)), 1e-3)
    by_x, by_y = mask.sum(axis=1), mask.sum(axis=2)
    center_x, center_y = by_x @ x / total, by_y @ y / total
    variance_x = np.maximum(by_x @ x**2 / total - center_x**2, 1e-5)
    variance_y = np.maximum(by_y @ y**2 / total - center_y**2, 1e-5)
    product = np.einsum("nyx,y,x->n", mask, y, x, optimize=True) / total - center_x * center_y
    ratio = height / width
    lean_x, lean_xy = variance_x - variance_y * ratio**2, 2 * product * ratio
    norm = np.maximum(variance_x + variance_y * ratio**2, 1e-4)
    values = np.stack(
        [
            center_x,
            center_y,
            2 * np.sqrt(variance_x),
            2 * np.sqrt(variance_y),
            0.5 * np.log(np.maximum(area, 1e-4) / 0.03),
            lean_x / norm,
            lean_xy / norm,
            np.ones_like(area),
        ],
        axis=1,
    )
    return np.asarray(values * presence[:, None], dtype=np.float32)


def foreground_look(pictures: Bytes, names: NDArray[np.int64], fore: Foreground) -> dict[str, Floats]:
    """How the foreground looks: `hues` (n, 12), `tone` (n, 3), `place` (n, 16), `outline` and `shading` (n, 49)."""
    total = np.maximum(fore.mask.sum(axis=(1, 2)), 1.0)
    count = len(pictures)
    index = names + (np.arange(count) * len(COLOUR_NAMES))[:, None, None]
    tally = np.bincount(index.ravel(), weights=fore.mask.ravel(), minlength=count * len(COLOUR_NAMES))
    tone = np.einsum("nyxc,nyx->nc", pictures.astype(np.float32), fore.mask, optimize=True)
    outline, shading = _patches(pictures, fore)
    present = fore.presence[:, None]
    return {
        "hues": np.sqrt(tally.reshape(count, -1) / total[:, None]).astype(np.float32) * present,
        "tone": (tone / total[:, None] / 255 - 0.4) * present,
        "place": np.sqrt(cell_means(fore.mask, 4, 4)),
        "outline": outline * present,
        "shading": shading * present,
    }


def _patches(pictures: Bytes, fore: Foreground) -> tuple[Floats, Floats]:
    """The foreground's mask and brightness on a grid that moves and scales with it: twice (n, 49)."""
    count, height, width = fore.mask.shape
    steps = np.linspace(-1, 1, PATCH, dtype=np.float32)
    present = np.maximum(fore.presence, 1e-3)[:, None]
    center_x, center_y, spread_x, spread_y = (fore.tracks[:, [k]] / present for k in range(4))
    reach = np.maximum(spread_x * width, spread_y * height) * 0.55
    columns = np.rint((center_x + 1) / 2 * (width - 1) + reach * steps).astype(np.int64).clip(0, width - 1)
    rows = np.rint((center_y + 1) / 2 * (height - 1) + reach * steps).astype(np.int64).clip(0, height - 1)
    where = (np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :])
    outline = fore.mask[where]
    shading = outline * (brightness(pictures[where]) / 255 - 0.5)
    return outline.reshape(count, -1) - 0.4, shading.reshape(count, -1)


def change_by_cell(grey: Floats) -> Floats:
    """Frame differences and optical flow, by 4 × 4 cells, from each picture to the one before: (n, 48).

    The flow is one step of Lucas and Kanade on half-size pictures; the first row is 0.
    """
    half = (grey[:, ::2, ::2] + grey[:, 1::2, ::2] + grey[:, ::2, 1::2] + grey[:, 1::2, 1::2]) / 4
    across, down = gradients(half)
    change = np.zeros_like(half)
    change[1:] = half[1:] - half[:-1]
    xx, yy, xy = (
        cell_means(part, 4, 4) + bias for part, bias in ((across**2, 8), (down**2, 8), (across * down, 0))
    )
    xt, yt = cell_means(across * change, 4, 4), cell_means(down * change, 4, 4)
    determinant = xx * yy - xy * xy
    flow_x, flow_y = (xy * yt - yy * xt) / determinant, (xy * xt - xx * yt) / determinant
    energy = np.sqrt(cell_means(np.abs(change), 4, 4) / 16)
    return np.concatenate([energy, np.tanh(flow_x), np.tanh(flow_y)], axis=1)


def course_of(tracks: Floats, samples: int) -> Floats:
    """How the tracks run within ± `samples` around each time: drift, activity and spread, (n, 3 · NUM_TRACKS).

    Steps count only where the foreground is there before and after. Presence itself is judged by its plain steps.
    """
    presence = tracks[:, -1]
    plain = tracks / np.maximum(presence, 1e-2)[:, None]
    plain[:, -1] = presence
    steps, both = np.zeros_like(plain), np.zeros_like(plain)
    steps[1:] = np.clip(plain[1:] - plain[:-1], -0.5, 0.5)
    both[1:, :-1] = (presence[1:] * presence[:-1])[:, None]
    both[1:, -1] = 1
    weights = np.repeat(presence[:, None], NUM_TRACKS, axis=1)
    weights[:, -1] = 1
    enough = 0.25 * (2 * samples + 1)
    moved = np.maximum(_window_sums(both, samples), enough)
    seen = np.maximum(_window_sums(weights, samples), enough)
    drift, activity = (
        _window_sums(both * steps, samples) / moved,
        _window_sums(both * np.abs(steps), samples) / moved,
    )
    mean, square = (
        _window_sums(weights * plain, samples) / seen,
        _window_sums(weights * plain**2, samples) / seen,
    )
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return np.concatenate([5 * drift, 5 * activity, 2 * spread], axis=1).astype(np.float32)


def _window_sums(values: Floats, samples: int) -> Floats:
    """Sums over the rows from i - samples to i + samples, (n, width), cut at the ends."""
    count = len(values)
    totals = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    index = np.arange(count)
    sums: Floats = totals[np.minimum(index + samples + 1, count)] - totals[np.maximum(index - samples, 0)]
    return sums.astype(np.float32)


def _local_range(background: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest value within `SWAY_PIXELS` of each pixel, of the shape of `background`."""
    low = high = background
    for axis in (0, 1):
        pad = [(0, 0)] * 3
        pad[axis] = (SWAY_PIXELS, SWAY_PIXELS)
        size = background.shape[axis]
        wide_low, wide_high = np.pad(low, pad, mode="edge"), np.pad(high, pad, mode="edge")
        shifts = range(2 * SWAY_PIXELS + 1)
        low = np.min([np.take(wide_low, range(s, s + size), axis) for s in shifts], axis=0)
        high = np.max([np.take(wide_high, range(s, s + size), axis) for s in shifts], axis=0)
    return low, high


def _smooth(maps: Floats) -> Floats:
    """Mean over 3 × 3 pixels, (n, height, width); the border counts as 0 outside."""
    wide = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9, dtype=np.float32)


SIZE = (64, 48)  # width and height that pictures are scaled to
ROWS_PER_SECOND = 2.0
SAMPLES_PER_SECOND = 4.0  # about; a whole number of samples makes a row
BLOCK = 64  # pictures that are worked on together and share a background
BACKGROUND_REACH = 80  # pictures before and after a block that its background is found from
BACKGROUND_PICTURES = 40  # at most this many are used
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
    """Means of groups of neighbouring rows; a last, incomplete group counts as it is."""
    if not len(samples):
        return samples.astype(np.float32)
    starts = np.arange(0, len(samples), size)
    sizes = np.minimum(size, len(samples) - starts)[:, None]
    rows: FloatRows = (np.add.reduceat(samples, starts, axis=0) / sizes).astype(np.float32)
    return rows
