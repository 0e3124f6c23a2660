"""The validation cut: whole videos, the same each time, never a side left empty."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.datasets.folder import split_off_validation
from dciml.errors import DataError
from dciml.types import Query, TrainingPair


@settings(deadline=None, max_examples=40)
@given(
    num_videos=st.integers(2, 30),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
    order=st.randoms(use_true_random=False),
)
def test_split_is_by_whole_videos_and_ignores_order(
    num_videos: int, fraction: float, seed: int, order: object
) -> None:
    pairs = [TrainingPair(f"q{v}_{i}", f"v{v}", "a dog") for v in range(num_videos) for i in range(1 + v % 3)]
    kept, validation = split_off_validation(pairs, fraction, seed)
    shuffled = pairs.copy()
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    kept_again, validation_again = split_off_validation(shuffled, fraction, seed)
    kept_videos = {pair.video_id for pair in kept}
    assert validation == validation_again
    assert set(kept) == set(kept_again)
    assert kept_videos
    assert validation
    assert kept_videos.isdisjoint(validation)
    assert kept_videos | set(validation) == {pair.video_id for pair in pairs}
    assert list(kept) == [pair for pair in pairs if pair.video_id in kept_videos]
    assert abs(len(validation) - fraction * num_videos) <= 1


def test_seed_changes_the_cut() -> None:
    queries = [Query(f"q{i}", f"v{i}", "a dog") for i in range(40)]
    assert split_off_validation(queries, 0.5, 1)[1] != split_off_validation(queries, 0.5, 2)[1]


def test_one_video_cannot_be_cut() -> None:
    pairs = [TrainingPair(f"q{i}", "v", "a dog") for i in range(5)]
    with pytest.raises(DataError, match="1 video"):
        split_off_validation(pairs, 0.2, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_fraction_outside_the_open_interval_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        split_off_validation([], fraction, 0)
