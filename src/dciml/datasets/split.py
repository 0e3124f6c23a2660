"""Cutting a validation part off the training data, by whole videos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from dciml.errors import DataError
from dciml.types import Query, TrainingPair

Item = TypeVar("Item", TrainingPair, Query)


def split_off_validation(
    items: Sequence[Item], fraction: float, seed: int
) -> tuple[tuple[Item, ...], tuple[str, ...]]:
    """Set whole videos aside, so that no sentence of a validation video is trained on.

    Which videos depends on the seed and their ids alone, not on the order of the items.

    Args:
        items: pairs or queries.
        fraction: of the videos, above 0 and below 1; at least one video goes to either side.
    Returns: the items that stay for training, in order, and the sorted ids of the validation videos.
    Raises:
        DataError: fewer than two videos.
        ValueError: the fraction is not between 0 and 1.

    >>> pairs = [TrainingPair(f"q{i}", f"v{i % 4}", "a dog runs") for i in range(8)]
    >>> kept, validation = split_off_validation(pairs, 0.25, seed=1)
    >>> len(kept), len(validation)
    (6, 1)
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction must lie between 0 and 1, not {fraction}")
    videos = sorted({item.video_id for item in items}, key=lambda video_id: _draw(seed, video_id))
    if len(videos) < 2:
        raise DataError(
            f"a validation part cannot be cut off from {len(videos)} video(s)",
            mend="give at least two training videos, or name a validation split",
        )
    count = min(max(round(fraction * len(videos)), 1), len(videos) - 1)
    validation = frozenset(videos[:count])
    return tuple(item for item in items if item.video_id not in validation), tuple(sorted(validation))


def _draw(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}:{video_id}".encode()).digest()
