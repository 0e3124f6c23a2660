"""Bins of stated confidence and the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.metrics.intervals import Bootstrap
from dciml.metrics.reliability import expected_calibration_error, reliability_bins
from dciml.types import Query

ANSWERS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(answers=ANSWERS, num_bins=st.integers(1, 12))
def test_error_equals_the_slow_sum(answers: list[tuple[float, bool]], num_bins: int) -> None:
    bins = reliability_bins(*zip(*answers, strict=True), num_bins)
    assert sum(own.count for own in bins) == len(answers)
    expected = 0.0
    for number in range(num_bins):
        members = [pair for pair in answers if min(int(pair[0] * num_bins), num_bins - 1) == number]
        expected += abs(sum(stated - right for stated, right in members)) / len(answers)
    assert expected_calibration_error(bins) == pytest.approx(expected, abs=1e-9)
    assert 0 <= expected_calibration_error(bins) <= 1


def test_confidence_that_holds_has_little_error() -> None:
    stated = np.random.default_rng(0).uniform(size=20_000)
    right = np.random.default_rng(1).uniform(size=20_000) < stated
    assert expected_calibration_error(reliability_bins(stated, right)) < 0.02
    assert expected_calibration_error(reliability_bins(stated**3, right)) > 0.15


def test_what_is_no_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability_bins([1.2], [True])
    with pytest.raises(ValueError, match="between 0 and 1"):
        reliability_bins([np.nan], [True])
    with pytest.raises(ValueError, match="confidences"):
        reliability_bins([0.2, 0.3], [True])


def test_ratio_of_sums_is_drawn_by_videos() -> None:
    queries = [Query(f"q{n}", f"v{n // 2}", "a dog") for n in range(40)]
    below = {query.query_id: float(n % 4 < 2) for n, query in enumerate(queries)}
    above = {query.query_id: float(n % 4 == 0) for n, query in enumerate(queries)}
    found = Bootstrap(queries, 300).ratio(above, below)
    assert found is not None
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)  # one of two in each video that counts
    uneven = {query.query_id: float(n % 8 == 0) for n, query in enumerate(queries)}
    spread = Bootstrap(queries, 300).ratio(uneven, below)
    assert spread is not None
    assert spread.low < spread.value == 0.25 < spread.high
    assert Bootstrap(queries, 10).ratio(above, dict.fromkeys(above, 0.0)) is None
