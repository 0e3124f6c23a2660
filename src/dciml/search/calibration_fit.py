"""Fitting a calibration on sentences whose video is known; no moment is needed.

Each sentence is put to made-up corpora of 1, 2, 4, … videos, once with its video among them and once without. Which
video is the described one, or that there is none, is then a conditional logit (McFadden 1974): convex, a few Newton
steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dciml.search.calibration import Calibration, FloatArray

RIDGE = 1e-3  # keeps the parameters finite where the sentences are told apart without a mistake
MAX_STEPS, MAX_HALVINGS, TOLERANCE = 100, 30, 1e-8
MAX_ODDS = 30.0

Objective = Callable[[FloatArray], tuple[float, FloatArray, FloatArray]]
"""Parameters (P,) → value to minimise, gradient (P,), Hessian (P, P)."""


@dataclass(frozen=True)
class Trials:
    """T questions to corpora of N videos: `scores` (T, N), `levels` (T,) of their queries.

    Where `present` (T,), the described video is in column 0; elsewhere it is not in the corpus.
    """

    scores: FloatArray
    levels: FloatArray
    present: NDArray[np.bool_]


def fit_calibration(
    scores: FloatArray,
    own: NDArray[np.int64],
    query_vectors: NDArray[np.float32],
    reference: FloatArray,
    *,
    fingerprint: str,
    seed: int,
) -> Calibration:
    """Fit to the scores (Q, V) of sentences whose videos are the columns `own` (Q,).

    Args:
        query_vectors: (Q, D). reference: (D,), the mean clip vector of the videos.
        fingerprint: of the model. seed: draws the made-up corpora.
    Raises:
        ValueError: fewer than two videos.
    """
    if scores.shape[1] < 2:
        raise ValueError("a calibration needs two videos at least")
    levels = query_vectors.astype(np.float64) @ reference
    trials = make_trials(scores, own, levels, seed)
    scale, offset, level = fit_choice(trials)
    sizes = [part.scores.shape[1] for part in trials]
    odds = [
        np.logaddexp.reduce(scale * part.scores, axis=1) - (offset + level * part.levels + math.log(size))
        for part, size in zip(trials, sizes, strict=True)
    ]
    temper = fit_temper(
        np.concatenate(odds),
        np.repeat(np.log(sizes), [len(part.present) for part in trials]),
        np.concatenate([part.present for part in trials]),
    )
    return Calibration(
        scale,
        offset,
        level,
        temper,
        tuple(reference.tolist()),
        num_sentences=len(scores),
        num_videos=scores.shape[1],
        fingerprint=fingerprint,
    )


def make_trials(scores: FloatArray, own: NDArray[np.int64], levels: FloatArray, seed: int) -> list[Trials]:
    """Corpora of 1, 2, 4, … V − 1 videos for each sentence, with its own video and without; nested, drawn by the seed.

    Args:
        scores: (Q, V) of all sentences and videos. own: (Q,) column of each sentence's video. levels: (Q,).
    """
    num_queries, num_videos = scores.shape
    others = np.arange(num_videos) != own[:, None]
    wrong = scores[others].reshape(num_queries, num_videos - 1)
    wrong = np.random.default_rng(seed).permuted(wrong, axis=1)
    right = np.take_along_axis(scores, own[:, None], axis=1)
    largest = num_videos - 1
    sizes = sorted({2**power for power in range(largest.bit_length())} | {largest})
    is_there = np.arange(2 * num_queries) < num_queries
    return [
        Trials(
            np.concatenate([np.concatenate([right, wrong[:, : size - 1]], axis=1), wrong[:, :size]]),
            np.tile(levels, 2),
            is_there,
        )
        for size in sizes
    ]


def fit_choice(trials: Sequence[Trials]) -> tuple[float, float, float]:
    """`Calibration`'s scale (at least 0), offset and level, by maximum likelihood with a faint ridge."""
    unit = max(float(np.std(np.concatenate([part.scores.ravel() for part in trials]))), 1e-12)
    parameters = newton(lambda at: _choice_objective(trials, at, unit, uses_scores=True), np.zeros(3))
    if parameters[0] < 0:  # the scores say nothing; better ones must not count against
        parameters = newton(lambda at: _choice_objective(trials, at, unit, uses_scores=False), np.zeros(3))
    scale, offset, level = parameters.tolist()
    return scale / unit, offset, level / unit


def fit_temper(odds: FloatArray, log_sizes: FloatArray, present: NDArray[np.bool_]) -> tuple[float, float]:
    """`Calibration.temper`: logistic regression of `present` (T,) on odds · (t0 + t1 · log N), no intercept."""
    clipped = np.clip(odds, -MAX_ODDS, MAX_ODDS)
    features = np.stack([clipped, clipped * log_sizes], axis=1)
    usual = np.array([1.0, 0.0])

    def objective(at: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        logits = features @ at
        chance = np.exp(-np.logaddexp(0.0, -logits))
        value = np.logaddexp(0.0, np.where(present, -logits, logits)).sum()
        gradient = features.T @ (chance - present)
        hessian = (features * (chance * (1 - chance))[:, None]).T @ features
        return _ridged(float(value), gradient, hessian, at - usual)

    first, second = newton(objective, usual).tolist()
    return first, second


def newton(objective: Objective, start: FloatArray) -> FloatArray:
    """The minimum of a convex function; each step is halved until the value falls."""
    at = start
    value, gradient, hessian = objective(at)
    for _ in range(MAX_STEPS):
        step = np.linalg.solve(hessian, -gradient)
        for _ in range(MAX_HALVINGS):
            new_value, new_gradient, new_hessian = objective(at + step)
            if new_value <= value:
                break
            step = step / 2
        else:
            break
        at, gained = at + step, value - new_value
        value, gradient, hessian = new_value, new_gradient, new_hessian
        if gained <= TOLERANCE * (1 + abs(value)):
            break
    return at


def _choice_objective(
    trials: Sequence[Trials], at: FloatArray, unit: float, *, uses_scores: bool
) -> tuple[float, FloatArray, FloatArray]:
    """Minus the log-likelihood of the conditional logit; scores and levels are measured in `unit`."""
    value, gradient, hessian = 0.0, np.zeros(3), np.zeros((3, 3))
    for part in trials:
        scores = part.scores / unit * uses_scores
        nothing = np.stack(
            [np.zeros(len(scores)), np.ones(len(scores)), part.levels / unit], axis=1
        )  # features of "none"
        utility = nothing @ at + math.log(scores.shape[1])
        videos = at[0] * scores
        total = np.logaddexp(np.logaddexp.reduce(videos, axis=1), utility)
        chance, none = np.exp(videos - total[:, None]), np.exp(utility - total)
        mean = nothing * none[:, None]
        mean[:, 0] = (chance * scores).sum(axis=1)
        chosen = np.where(part.present[:, None], scores[:, :1] * [1.0, 0.0, 0.0], nothing)
        value += float((total - np.where(part.present, videos[:, 0], utility)).sum())
        gradient += (mean - chosen).sum(axis=0)
        hessian += (nothing * none[:, None]).T @ nothing - mean.T @ mean
        hessian[0, 0] += float((chance * scores**2).sum())
    return _ridged(value, gradient, hessian, at)


def _ridged(
    value: float, gradient: FloatArray, hessian: FloatArray, away: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """The same with a faint pull of the parameters towards where `away` is 0."""
    pull = np.eye(len(away)) * RIDGE
    return value + RIDGE * float(away @ away) / 2, gradient + RIDGE * away, hessian + pull
