"""Rows of zeros, rows that float16 loses, rows that are all alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.row_checks import RowsSeen, lost_rows, scale_hint
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest


@settings(deadline=None, max_examples=100)
@given(
    exponent=st.integers(-44, 4),
    spread=st.integers(0, 12),
    seed=st.integers(0, 1000),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_a_row_is_lost_when_its_float16_form_points_elsewhere(
    exponent: int, spread: int, seed: int, kind: type
) -> None:
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(64) * 10.0 ** (exponent - rng.uniform(0, spread, 64))).astype(kind)
    half = row.astype(np.float16).astype(np.longdouble)
    wide = row.astype(np.longdouble)
    norms = np.sqrt((wide * wide).sum()) * np.sqrt((half * half).sum())
    cosine = float((wide * half).sum() / norms) if norms > 0 else 0.0
    if abs(cosine - 0.999) > 1e-6:
        assert lost_rows(row[None])[0] == (wide.any() and cosine < 0.999)


def test_the_hint_brings_the_numbers_into_reach() -> None:
    rows = np.random.default_rng(0).standard_normal((4, 32)) * 3e-9
    factor = float(scale_hint(rows).split(", ")[-1].split(" ")[0])
    scaled = rows * factor
    assert not lost_rows(scaled).any()
    assert np.isfinite(scaled.astype(np.float16)).all()


def test_a_store_refuses_a_video_of_which_float16_keeps_nothing(tmp_path: Path) -> None:
    tiny = np.zeros((4, 3), dtype=np.float32)
    tiny[2:] = 3e-9
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("x", 3)) as writer:
        with pytest.raises(
            DataError, match=r"video 'a', row 2: its largest number, 3e-09, .*multiply all features"
        ):
            writer.append("a", tiny, 4.0)
        writer.append(
            "b", np.vstack([tiny, np.ones((1, 3))]), 4.0
        )  # next to nothing beside a row of something
        writer.append("silent", np.zeros((2, 3)), 4.0)
        writer.append("a", tiny * 1e9, 4.0)
    assert FeatureStore.open(tmp_path / "s").video_ids == ("b", "silent", "a")


def test_what_was_seen_is_said_with_its_first_place() -> None:
    seen = RowsSeen()
    rows = np.random.default_rng(0).standard_normal((5, 3))
    seen.add("good", rows)
    seen.add("one row", rows[:1])
    assert seen.warnings() == []
    rows[1], rows[3:] = 0, 1e-9
    seen.add("mixed", rows)
    seen.add("silent", np.zeros((2, 3)))
    seen.add("still", np.ones((7, 3)))
    lost, zero, alike = seen.warnings()
    assert lost.startswith("rows so small that float16 loses their direction: 2 rows of 1 video")
    assert "(the first: video 'mixed', row 3). To mend it: multiply all features" in lost
    assert zero.startswith("rows all zeros, which is evidence of nothing: 3 rows of 2 videos")
    assert zero.endswith("(the first: video 'mixed', row 1)")
    assert alike.startswith("all rows are the same in 1 video (the first: 'still')")
    captions = RowsSeen(silence_is_known=True)
    captions.add("silent", np.zeros((2, 3)))
    assert captions.warnings() == []
