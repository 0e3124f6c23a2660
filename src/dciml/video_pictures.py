"""Decoded pictures → arrays as they are shown: upright, their pixels square, on a white ground."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

RGBFrame = NDArray[np.uint8]
"""A picture, (height, width, 3), red, green, blue."""
GROUND = 255  # transparent pictures are laid on white, as an animated GIF stands on a page
ROWS_AT_ONCE = 256  # of a transparent picture


Orientation = tuple[bool, bool, bool]
"""How pictures become upright: whether rows and columns change places, then whether each is turned round.

The second is for rows (what is above comes below), the third for columns (left comes right).
"""


def shown_size(frame: Any, aspect: float, turned: Orientation) -> tuple[int, int]:
    """Width and height of a frame as shown.

    Args:
        aspect: width of a pixel by its height; it is made square by widening.
        turned: how the frame becomes upright.
    """
    aspect = aspect if 0.1 < aspect < 10 else 1.0
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (height, width) if turned[0] else (width, height)


def orientation(frame: Any) -> Orientation:
    """How a frame says that it becomes upright.

    A matrix that turns by something else than a multiple of 90 degrees counts as the nearest of the eight.
    """
    found = frame.side_data.get(Type.DISPLAYMATRIX)
    if found is None:
        return False, False, False
    matrix = [int(value) for value in np.frombuffer(bytes(found), np.int32)]
    if len(matrix) < 9:
        return False, False, False
    # Column x and row y come to the column a·x + c·y and the row b·x + d·y.
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


class Scaler:
    """Turns decoded pictures into arrays; keeps the scaling context between pictures of a file.

    Args:
        aspect: as for `shown_size`.
        size: (width, height) to scale to; None keeps the size that the first picture is shown at.
        within: without a size: (width, height) that the picture must fit into, its sides in proportion.
    """

    def __init__(
        self, aspect: float, size: tuple[int, int] | None, within: tuple[int, int] | None = None
    ) -> None:
        self._aspect, self._size, self._within = aspect, size, within
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Any, turned: Orientation) -> RGBFrame:
        """The picture, (height, width, 3), turned upright."""
        # The size of the first picture holds for those after it, whatever theirs is.
        self._size = self._size or self._fitted(*shown_size(frame, self._aspect, turned))
        is_swapped, rows_turned, columns_turned = turned
        width, height = self._size[::-1] if is_swapped else self._size
        # One thread: starting more costs several times the work of scaling a small picture.
        scaled = self._reformatter.reformat(
            _on_ground(frame), width, height, "rgb24", interpolation=Interpolation.AREA, threads=1
        )
        picture: Any = scaled.to_ndarray()
        picture = picture.swapaxes(0, 1) if is_swapped else picture
        picture = picture[:: -1 if rows_turned else 1, :: -1 if columns_turned else 1]
        upright: RGBFrame = np.ascontiguousarray(picture)
        return upright

    def _fitted(self, width: int, height: int) -> tuple[int, int]:
        if self._within is None:
            return width, height
        scale = min(self._within[0] / width, self._within[1] / height)
        return max(2, round(width * scale)), max(2, round(height * scale))


def _on_ground(frame: Any) -> Any:
    """The frame itself, or where it has transparent parts, what is seen of it on the ground."""
    if not _may_be_transparent(frame.format.name):
        return frame
    rgba = frame.reformat(format="rgba", threads=1).to_ndarray()
    picture = np.ascontiguousarray(rgba[..., :3])
    for start in range(0, len(picture), ROWS_AT_ONCE):
        rows, cover = picture[start : start + ROWS_AT_ONCE], rgba[start : start + ROWS_AT_ONCE, :, 3:]
        seen = rows.astype(np.uint32) * cover + GROUND * (255 - cover.astype(np.uint32))
        rows[...] = (seen + 127) // 255
    return av.VideoFrame.from_ndarray(picture, format="rgb24")


@lru_cache(maxsize=64)
def _may_be_transparent(pixels: str) -> bool:
    form = av.VideoFormat(pixels)
    return bool(form.has_palette) or any(component.is_alpha for component in form.components)
