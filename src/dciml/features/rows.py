"""Arrays of released feature files → rows [T, D], or an error that names the place."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from dciml.errors import DataError, Where


def as_rows(values: NDArray[Any], place: Where) -> NDArray[Any]:
    """The array as rows (T, D); axes of length 1 between the two, as extractors leave them, are dropped.

    Raises:
        DataError: any other shape, or an empty axis.

    >>> import numpy as np
    >>> as_rows(np.zeros((7, 1, 1, 1024)), Where("a.npy")).shape
    (7, 1024)
    """
    return values.reshape(rows_shape(values.shape, place))


def rows_shape(shape: tuple[int, ...], place: Where) -> tuple[int, int]:
    """(T, D) of an array of this shape. Raises DataError as `as_rows`."""
    if len(shape) >= 2 and all(length == 1 for length in shape[1:-1]):
        if 0 in shape:
            what = f"it has no rows (its shape is {shape})"
            raise DataError(what, where=place, mend="extract the video again, or leave it out")
        return shape[0], shape[-1]
    raise DataError(
        f"the array has the shape {shape}, not [T, D]",
        where=place,
        mend="write rows × width, a row a time step",
    )
