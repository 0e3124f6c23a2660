"""From scores to probabilities: the formula, its monotony and range, the file, and what is refused."""

from __future__ import annotations

import json
import math
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import ModelError
from dciml.folders import CALIBRATION_FILE
from dciml.search.calibration import (
    MIN_TEMPER,
    Calibration,
    read_calibration,
)

KNOWN = Calibration(20.0, 4.0, 3.0, (1.0, -0.1), (0.5, 0.0, -0.5), 100, 50, "fingerprint")
VECTORS = np.array([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]], dtype=np.float32)
NUMBERS = st.floats(-1, 1, allow_nan=False, width=32)


def slow(calibration: Calibration, vector: np.ndarray, scores: np.ndarray, num_searched: int) -> np.ndarray:
    """The formula of the module: probabilities of the videos, and that there is one, untempered."""
    level = float(vector @ np.array(calibration.reference))
    usual = math.exp(calibration.offset + calibration.level * level)
    weights = [math.exp(calibration.scale * float(score)) for score in scores]
    rest = (num_searched - len(scores)) * min(weights[-1], usual)
    total = sum(weights) + rest + num_searched * usual
    return np.array([*(weight / total for weight in weights), (sum(weights) + rest) / total])


@pytest.mark.parametrize("num_searched", [3, 50, 100_000])
def test_probabilities_equal_the_slow_formula(num_searched: int) -> None:
    scores = np.array([[0.4, 0.2, 0.1], [0.3, 0.3, -0.2]], dtype=np.float32)
    plain = replace(KNOWN, temper=(1.0, 0.0))
    found = plain.probabilities(VECTORS, scores, num_searched)
    for row in range(2):
        expected = slow(KNOWN, VECTORS[row], scores[row], num_searched)
        np.testing.assert_allclose(found.videos[row], expected[:-1], rtol=1e-5)
        assert found.present[row] == pytest.approx(expected[-1], rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    scores=st.lists(NUMBERS, min_size=1, max_size=6),
    raised=st.floats(0, 1, width=32),
    more=st.integers(0, 10**7),
    scale=st.floats(0, 200),
    temper=st.tuples(st.floats(-2, 2), st.floats(-1, 1)),
)
def test_a_better_first_score_never_makes_it_less_likely(
    scores: list[float], raised: float, more: int, scale: float, temper: tuple[float, float]
) -> None:
    known = replace(KNOWN, scale=scale, temper=temper)
    row = -np.sort(-np.array([scores], dtype=np.float32), axis=1)
    better = row.copy()
    better[0, 0] += np.float32(raised)
    before, after = (known.probabilities(VECTORS[:1], each, len(scores) + more) for each in (row, better))
    for found in (before, after):
        assert (found.videos >= 0).all()
        assert found.videos.sum() <= 1 + 1e-9
        assert 0 <= found.present[0] <= 1
        assert found.present[0] >= found.videos.max()
        assert (np.diff(found.videos[0]) <= 1e-12).all()
    assert after.videos[0, 0] >= before.videos[0, 0] - 1e-12
    assert after.present[0] >= before.present[0] - 1e-12


@settings(deadline=None, max_examples=40)
@given(scores=st.lists(NUMBERS, min_size=1, max_size=5), fewer=st.integers(0, 50), more=st.integers(1, 1000))
def test_more_searched_videos_never_make_the_first_more_likely(
    scores: list[float], fewer: int, more: int
) -> None:
    row = -np.sort(-np.array([scores], dtype=np.float32), axis=1)
    few, many = (
        KNOWN.probabilities(VECTORS[:1], row, len(scores) + extra).videos[0, 0]
        for extra in (fewer, fewer + more)
    )
    assert many <= few + 1e-12


def test_videos_that_were_not_handed_on_change_little() -> None:
    rng = np.random.default_rng(0)
    scores = -np.sort(-rng.normal(0.0, 0.1, (2, 3000)).astype(np.float32), axis=1)
    scores[:, 0] = 0.6
    whole = KNOWN.probabilities(VECTORS, scores, 3000)
    first = KNOWN.probabilities(VECTORS, scores[:, :100], 3000)
    np.testing.assert_allclose(first.videos, whole.videos[:, :100], rtol=0.35)


def test_extreme_scores_and_no_video_give_probabilities() -> None:
    steep = replace(KNOWN, scale=1e6)
    scores = np.array([[1e3, -1e3], [-1e3, -1e3]], dtype=np.float32)
    found = steep.probabilities(VECTORS, scores, 2)
    np.testing.assert_allclose(found.videos, [[1, 0], [0, 0]], atol=1e-12)
    np.testing.assert_allclose(found.present, [1, 0], atol=1e-12)
    nothing = KNOWN.probabilities(VECTORS, np.empty((2, 0), dtype=np.float32), 0)
    assert nothing.videos.shape == (2, 0)
    assert nothing.present.tolist() == [0, 0]


def test_temper_falls_with_the_videos_but_not_to_zero() -> None:
    assert KNOWN.temper_at(1) == 1.0
    assert KNOWN.temper_at(100) == pytest.approx(1 - 0.1 * math.log(100))
    assert KNOWN.temper_at(10**9) == MIN_TEMPER


def test_file_comes_back_and_absence_is_no_error(tmp_path: Path) -> None:
    assert read_calibration(tmp_path, "fingerprint") is None
    KNOWN.write(tmp_path)
    assert read_calibration(tmp_path, "fingerprint") == KNOWN
    assert json.loads((tmp_path / CALIBRATION_FILE).read_text())["num_videos"] == 50


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "other weights"}, "belongs to another model"),
        ({"format_version": 9}, "the format is 9"),
        ({"scale": -1.0}, "damaged"),
        ({"scale": "steep"}, "damaged"),
        ({"reference": []}, "damaged"),
        ({"surplus": 1}, "damaged"),
    ],
)
def test_file_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    KNOWN.write(tmp_path)
    file = tmp_path / CALIBRATION_FILE
    content = json.loads(file.read_text()) | change
    del content["checksum"]
    checksum = zlib.crc32(json.dumps(content, sort_keys=True).encode())
    file.write_text(json.dumps(content | {"checksum": checksum}))
    with pytest.raises(ModelError, match=message) as error:
        read_calibration(tmp_path, "fingerprint")
    assert "dciml calibrate" in str(error.value)


def test_no_bit_can_change_unseen(tmp_path: Path) -> None:
    KNOWN.write(tmp_path)
    file = tmp_path / CALIBRATION_FILE
    whole = file.read_bytes()
    for bit in range(0, 8 * len(whole), 3):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        with suppress(ModelError):
            assert read_calibration(tmp_path, "fingerprint") == KNOWN  # white space
    file.write_bytes(whole.replace(b'"num_videos": 50', b'"num_videos": 51'))
    with pytest.raises(ModelError, match=r"calibration\.json: damaged.*checksum.*dciml calibrate"):
        read_calibration(tmp_path, "fingerprint")


def test_file_of_the_format_before_is_read(tmp_path: Path) -> None:
    KNOWN.write(tmp_path)
    file = tmp_path / CALIBRATION_FILE
    content = json.loads(file.read_text()) | {"format_version": 1}
    del content["checksum"]
    file.write_text(json.dumps(content))
    assert read_calibration(tmp_path, "fingerprint") == KNOWN


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / CALIBRATION_FILE).write_text('{"scale": 1.0,')
    with pytest.raises(ModelError, match="damaged"):
        read_calibration(tmp_path, "fingerprint")
    (tmp_path / CALIBRATION_FILE).write_text("[1, 2]")
    with pytest.raises(ModelError, match="the format is None"):
        read_calibration(tmp_path, "fingerprint")


@pytest.mark.parametrize("scale", [math.nan, math.inf, -0.1])
def test_numbers_that_make_no_calibration_are_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        replace(KNOWN, scale=scale)
