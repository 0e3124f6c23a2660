"""The fit: against plain gradient descent on the written-out likelihood, and on corpora whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from dciml.search.calibration import (
    RIDGE,
    Calibration,
    Trials,
    fit_calibration,
    fit_choice,
    fit_temper,
    make_trials,
    newton,
)


def planted(num_queries: int, num_videos: int, seed: int, gap: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Scores of independent videos: wrong ones N(0, 0.1), right ones N(gap, 0.1)."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, 0.1, (num_queries, num_videos))
    own = rng.integers(num_videos, size=num_queries)
    scores[np.arange(num_queries), own] += gap
    return scores, own


def fitted(scores: np.ndarray, own: np.ndarray) -> Calibration:
    vectors = np.zeros((len(own), 2), dtype=np.float32)
    return fit_calibration(scores, own, vectors, np.zeros(2), fingerprint="f", seed=1)


def test_trials_hold_the_own_video_first_or_not_at_all() -> None:
    scores = np.arange(5 * 7, dtype=np.float64).reshape(5, 7)
    own = np.array([0, 3, 6, 2, 2])
    levels = np.arange(5.0)
    trials = make_trials(scores, own, levels, seed=3)
    assert [part.scores.shape[1] for part in trials] == [1, 2, 4, 6]
    for part in trials:
        assert part.present.tolist() == [True] * 5 + [False] * 5
        np.testing.assert_array_equal(part.levels, np.tile(levels, 2))
        for row, values in enumerate(part.scores):
            query, mine = row % 5, scores[row % 5, own[row % 5]]
            assert len(set(values)) == len(values)
            assert set(values) <= set(scores[query])
            assert (values[0] == mine) == part.present[row]
            assert (mine in values) == part.present[row]
    again = make_trials(scores, own, levels, seed=3)
    for one, other in zip(trials, again, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)


def slow_loss(trials: Sequence[Trials], scale: float, offset: float, level: float, unit: float) -> float:
    """Minus the log-likelihood, one question after the other, with the ridge on parameters in units of the scores."""
    total = RIDGE * ((scale * unit) ** 2 + offset**2 + (level * unit) ** 2) / 2
    for part in trials:
        for scores, own_level, present in zip(part.scores, part.levels, part.present, strict=True):
            nothing = len(scores) * math.exp(offset + level * own_level)
            weights = [math.exp(scale * score) for score in scores]
            total -= math.log((weights[0] if present else nothing) / (sum(weights) + nothing))
    return total


def test_fit_is_the_minimum_of_the_written_out_likelihood() -> None:
    scores, own = planted(25, 6, seed=5)
    trials = make_trials(scores, own, np.random.default_rng(1).normal(0, 0.1, 25), seed=2)
    unit = float(np.std(np.concatenate([part.scores.ravel() for part in trials])))
    best = fit_choice(trials)
    least = slow_loss(trials, *best, unit)
    for place in range(3):
        for step in (-0.05, 0.05):
            moved = list(best)
            moved[place] += step / unit
            assert slow_loss(trials, *moved, unit) > least
    numeric = [
        (
            slow_loss(trials, *(v + h * (i == place) for i, v in enumerate(best)), unit)
            - slow_loss(trials, *(v - h * (i == place) for i, v in enumerate(best)), unit)
        )
        / (2 * h)
        for place, h in ((0, 1e-4), (1, 1e-5), (2, 1e-4))
    ]
    np.testing.assert_allclose(numeric, 0, atol=2e-3)


def test_fit_finds_the_likelihood_ratio_of_independent_videos() -> None:
    """The log ratio of N(0.3, 0.1) and N(0, 0.1) is 30 s − 4.5; half of the corpora hold the video."""
    found = fitted(*planted(1500, 32, seed=7))
    assert found.scale == pytest.approx(30, rel=0.1)
    assert found.offset == pytest.approx(4.5, rel=0.12)
    assert found.temper_at(32) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("num_videos", [4, 200])
def test_stated_probabilities_hold_in_corpora_of_other_sizes(num_videos: int) -> None:
    found = fitted(*planted(600, 40, seed=11))
    scores, own = planted(800, num_videos + 1, seed=12)
    stated, right, present, there = [], [], [], []
    for row, place in zip(scores, own, strict=True):
        others = np.delete(np.arange(num_videos + 1), place)
        for corpus in (np.append(others[1:], place), others):
            order = corpus[np.argsort(-row[corpus])][:100]
            known = found.probabilities(
                np.zeros((1, 2), np.float32), row[order][None].astype("f"), num_videos
            )
            stated.append(known.videos[0, 0])
            right.append(order[0] == place)
            present.append(known.present[0])
            there.append(place in corpus)
    for confidence, truth in ((stated, right), (present, there)):
        bins = (np.array(confidence) * 4).astype(int).clip(0, 3)
        for number in range(4):
            members = bins == number
            if members.sum() > 100:
                gap = np.mean(np.array(confidence)[members]) - np.mean(np.array(truth)[members])
                assert abs(gap) < 0.08, (number, gap)


def test_scores_that_mislead_get_no_say() -> None:
    scores, own = planted(100, 12, seed=3, gap=-0.4)
    found = fitted(scores, own)
    assert found.scale == 0.0
    known = found.probabilities(np.zeros((1, 2), np.float32), np.array([[0.9, 0.1]], np.float32), 2)
    assert known.videos[0, 0] == pytest.approx(known.videos[0, 1])


def test_sentences_told_apart_without_a_mistake_give_finite_numbers() -> None:
    scores, own = planted(30, 12, seed=3, gap=100.0)
    found = fitted(scores, own)
    assert np.isfinite([found.scale, found.offset, *found.temper]).all()
    known = found.probabilities(np.zeros((1, 2), np.float32), np.array([[100.0, 0.0]], np.float32), 12)
    assert known.videos[0, 0] > 0.99


def test_unit_of_the_scores_does_not_matter() -> None:
    scores, own = planted(80, 12, seed=4)
    one, other = fitted(scores, own), fitted(scores * 1000, own)
    assert other.scale == pytest.approx(one.scale / 1000, rel=1e-4)
    assert other.offset == pytest.approx(one.offset, rel=1e-4)


def test_one_video_is_too_few() -> None:
    with pytest.raises(ValueError, match="two videos"):
        fitted(np.zeros((3, 1)), np.zeros(3, dtype=np.int64))


def test_temper_weakens_odds_that_claim_too_much() -> None:
    rng = np.random.default_rng(0)
    odds, sizes = rng.normal(0, 2, 4000), rng.choice([1.0, 100.0], 4000)
    factor = np.where(sizes == 1, 1.0, 0.4)
    present = rng.random(4000) < 1 / (1 + np.exp(-factor * odds))
    first, second = fit_temper(odds, np.log(sizes), present)
    assert first == pytest.approx(1.0, abs=0.1)
    assert first + second * math.log(100) == pytest.approx(0.4, abs=0.08)


def test_newton_halves_steps_that_go_too_far() -> None:
    """log cosh is almost linear far out, so that a whole Newton step from 3 flies off."""

    def objective(at: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        slope = np.tanh(at)
        return float(np.logaddexp(at, -at)[0]), slope, np.diag(1 - slope**2 + 1e-12)

    assert abs(newton(objective, np.array([3.0]))[0]) < 1e-3


def test_it_says_up_to_which_size_scores_tell_whether_the_video_is_there() -> None:
    clear, faint, nothing = (fitted(*planted(60, 41, seed=5, gap=gap)) for gap in (0.5, 0.15, 0.0))
    assert clear.tells_up_to == 40
    assert clear.tells_presence(41)
    assert clear.tells_presence(10_000)  # as before, where it was not measured
    assert faint.tells_up_to is not None
    assert 1 <= faint.tells_up_to < 40
    assert faint.tells_presence(1)
    assert not faint.tells_presence(40)
    assert nothing.tells_up_to == 0
    assert not nothing.tells_presence(1)
