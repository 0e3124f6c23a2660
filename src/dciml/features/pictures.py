"""What single pictures hold: colours by place, colour names, directions of edges. Plain NumPy, batches of pictures.

`pictures` is always (n, height, width, 3) with height and width multiples of 12 and 16; values 0 to 255.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
