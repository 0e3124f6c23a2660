"""Several features of the same videos, side by side: QVHighlights is mostly used with SlowFast and CLIP rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, Where
from dciml.features.pooling import l2_normalize

if TYPE_CHECKING:
    from dciml.features.source import FeatureSource


class JoinedSource:
    """Rows of several sources on one time grid: each scaled to length 1, then joined, (T, D1 + D2 + …).

    Where the sources differ by a row or two, as released ones do, the longer are cut at the shortest (as in
    moment_detr and lighthouse). The videos are those that all sources hold.

    Raises:
        DataError: no video is in all of them.
    """

    encoder_specs: tuple[str, ...] = ()

    def __init__(
        self, parts: Sequence[FeatureSource], encoder: str | None, rows_per_second: float | None
    ) -> None:
        self._parts = parts
        self.path: Path = parts[0].path
        self.encoder = encoder or "+".join(part.encoder for part in parts)
        rates = {part.rows_per_second for part in parts}
        self.rows_per_second = rows_per_second or (rates.pop() if len(rates) == 1 else None)
        others = [frozenset(part.video_ids) for part in parts[1:]]
        self.video_ids = tuple(v for v in parts[0].video_ids if all(v in other for other in others))
        if not self.video_ids:
            names = ", ".join(str(part.path) for part in parts)
            raise DataError(
                "no video is in all of these features", where=names, mend="check the names of the videos"
            )
        self.durations = {v: s for part in reversed(parts) for v, s in part.durations.items()}
        self.splits = {v: s for part in reversed(parts) for v, s in part.splits.items()}

    def place(self, video_id: str) -> Where:
        """The video's rows in the first source."""
        return self._parts[0].place(video_id)

    def origin(self, video_id: str) -> str | None:
        """As the first source says."""
        return self._parts[0].origin(video_id)

    def num_rows(self, video_id: str) -> int:
        """Rows of a video: those that all sources have."""
        return self.shape(video_id)[0]

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video, those that all sources have, and their width together."""
        shapes = [part.shape(video_id) for part in self._parts]
        return min(rows for rows, _ in shapes), sum(width for _, width in shapes)

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The joined rows of these videos.

        Raises:
            DataError: the sources differ by more than 2 rows and by more than 5 %: they are not on one grid.
        """
        readers = [part.read(video_ids) for part in self._parts]
        for video_id, *rows in zip(video_ids, *readers, strict=True):
            counts = [len(part) for part in rows]
            if max(counts) - min(counts) > max(2, 0.05 * max(counts)):
                what = (
                    f"the video {video_id!r} has {' and '.join(map(str, counts))} rows in the joined features"
                )
                mend = "join features with the same number of rows a second, each written as [rows, width]"
                raise DataError(what, where=self.place(video_id), mend=mend)
            yield np.concatenate([l2_normalize(part[: min(counts)]) for part in rows], axis=1)
