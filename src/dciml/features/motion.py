"""What moves before a background that is still or sways a little: where, how large, in which colours, how it goes on.

The background is the median over some time around; what lies outside its local range of brightness (so that a
swaying camera does not count) is foreground. Plain NumPy; pictures are (n, height, width, 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dciml.features.pictures import COLOUR_NAMES, Bytes, Floats, brightness, cell_means, gradients

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
