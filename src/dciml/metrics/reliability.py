"""Does "90 % sure" mean right nine times in ten? Bins of stated confidence, and the expected calibration error.

Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015; bins of equal width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Bin:
    """The `count` answers whose confidence lies in [low, high): its mean, and the share of them that is right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability_bins(confidence: ArrayLike, right: ArrayLike, num_bins: int = 10) -> tuple[Bin, ...]:
    """Sort answers into bins of equal width; empty bins are left out, and 1.0 belongs to the last one.

    Args:
        confidence: (N,), in 0 … 1. right: (N,), whether each was right.

    >>> [(b.low, b.count, b.confidence, b.right) for b in reliability_bins([0.25, 0.25, 1.0], [True, False, True], 2)]
    [(0.0, 2, 0.25, 0.5), (0.5, 1, 1.0, 1.0)]
    """
    stated, outcome = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if stated.shape != outcome.shape or stated.ndim != 1:
        raise ValueError(f"{stated.shape} confidences for {outcome.shape} answers")
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("a confidence does not lie between 0 and 1")
    place = np.minimum((stated * num_bins).astype(np.int64), num_bins - 1)
    return tuple(
        Bin(
            number / num_bins,
            (number + 1) / num_bins,
            int(members.sum()),
            float(stated[members].mean()),
            float(outcome[members].mean()),
        )
        for number in range(num_bins)
        if (members := place == number).any()
    )


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of confidence and truth over the bins, weighted by their counts; 0 is best.

    >>> expected_calibration_error(reliability_bins([0.25, 0.25, 1.0, 1.0], [True, False, True, False]))
    0.375
    """
    total = sum(own.count for own in bins)
    return sum(own.count * abs(own.confidence - own.right) for own in bins) / total
