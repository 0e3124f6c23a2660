"""From scores to probabilities that mean the same in a corpus of ten videos and in one of ten thousand.

The described video is one of the N that are searched, or none of them. With independent videos Bayes gives

    P(video i) = exp(a · s_i) / Z,    P(none) = N · exp(b + c · ⟨query, reference⟩) / Z,    Z: the sum of all these,

where s_i is a video's score. Only what is searched decides: more videos, and other good ones, make one less certain.
The reference is the mean clip vector of the videos calibrated on; it says how high this query scores everywhere. Alike
videos are not independent, and the more there are, the more P(none) is overrated on both sides; so its log-odds are
tempered by a factor that falls with log N (`Calibration.temper`), fitted too. `calibration_fit` fits all of it.

Fitting a calibration on sentences whose video is known; no moment is needed.

Each sentence is put to made-up corpora of 1, 2, 4, … videos, once with its video among them and once without. Which
video is the described one, or that there is none, is then a conditional logit (McFadden 1974): convex, a few Newton
steps.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dciml.errors import DataError, ModelError
from dciml.files import read_json, write_json
from dciml.folders import CALIBRATION_FILE

CALIBRATION_FORMAT = 2
UNSEALED_FORMAT = 1  # without a checksum; still read
MIN_TEMPER = (
    0.05  # however many videos, a better score must never make it less likely that there is an answer
)

LEAST_SKILL = 0.05
"""Of the doubt of an even chance, how much the scores must take away to say whether the described video is there."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Probabilities:
    """Of Q queries: `videos` (Q, K), that video k is the described one; `present` (Q,), that any searched one is."""

    videos: FloatArray
    present: FloatArray


@dataclass(frozen=True)
class Calibration:
    """What turns the scores of a model into probabilities; see the module.

    `scale` is a ≥ 0, `offset` is b, `level` is c; `temper` (t0, t1) gives the factor t0 + t1 · log N. The other fields
    say what it was fitted on, `warnings` why it may be too sure, and `fingerprint` to which model it belongs.
    `tells_up_to` is the largest of the made-up corpora in which the scores said more than chance of whether the
    described video is there, 0 where in none; None: that was not measured.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    scale: float
    offset: float
    level: float
    temper: tuple[float, float]
    reference: tuple[float, ...]
    num_sentences: int
    num_videos: int
    fingerprint: str
    format_version: int = CALIBRATION_FORMAT
    warnings: tuple[str, ...] = ()
    tells_up_to: int | None = None

    def __post_init__(self) -> None:
        numbers = (self.scale, self.offset, self.level, *self.temper, *self.reference)
        if not all(math.isfinite(number) for number in numbers) or self.scale < 0 or not self.reference:
            raise ValueError("a calibration needs finite numbers, a scale of at least 0 and a reference")

    def levels(self, query_vectors: NDArray[np.float32]) -> FloatArray:
        """How high each query scores everywhere: (Q, D) → (Q,)."""
        return np.asarray(query_vectors.astype(np.float64) @ np.asarray(self.reference))

    def probabilities(
        self, query_vectors: NDArray[np.float32], scores: NDArray[np.float32], num_searched: int
    ) -> Probabilities:
        """How likely each found video is the described one, and that there is one at all.

        Args:
            query_vectors: (Q, D).
            scores: (Q, K) of the K best videos, best first.
            num_searched: N ≥ K; the others are taken to score like the last found one, or as usual if that is less.

        >>> known = Calibration(20.0, 4.0, 0.0, (1.0, 0.0), (0.0,), 100, 50, "")
        >>> few = known.probabilities(np.zeros((1, 1)), np.array([[0.4, 0.1]]), 2)
        >>> many = known.probabilities(np.zeros((1, 1)), np.array([[0.4, 0.1]]), 2000)
        >>> few.videos.round(2).tolist(), many.videos.round(2).tolist()
        ([[0.96, 0.0]], [[0.02, 0.0]])
        """
        if not scores.shape[1]:
            return Probabilities(np.zeros(scores.shape), np.zeros(len(scores)))
        utilities = self.scale * scores.astype(np.float64)
        usual = self.offset + self.level * self.levels(query_vectors)
        found = np.logaddexp.reduce(utilities, axis=1)
        num_others = num_searched - scores.shape[1]
        if num_others > 0:
            found = np.logaddexp(found, np.log(num_others) + np.minimum(utilities[:, -1], usual))
        nothing = math.log(num_searched) + usual
        videos = np.exp(utilities - np.logaddexp(found, nothing)[:, None])
        present = _logistic(self.temper_at(num_searched) * (found - nothing))
        return Probabilities(videos, np.maximum(present, videos.max(axis=1)))

    def tells_presence(self, num_searched: int) -> bool:
        """Whether scores say more than chance about whether the described video is among so many at all.

        Beyond the largest corpus of the calibration it is taken to be as in that.

        >>> weak = Calibration(12.0, 1.0, 9.0, (1.1, -0.26), (0.0,), 83, 50, "", tells_up_to=4)
        >>> weak.tells_presence(3), weak.tells_presence(50)
        (True, False)
        """
        most = self.tells_up_to
        return most is None or num_searched <= most or most >= self.num_videos - 1

    def temper_at(self, num_searched: int) -> float:
        """What the log-odds of "there is one" are multiplied by."""
        return max(MIN_TEMPER, self.temper[0] + self.temper[1] * math.log(num_searched))

    def write(self, model_folder: Path) -> None:
        """Put it into a model folder, atomically; the model's fingerprint stays as it is."""
        content = asdict(self)
        write_json(model_folder / CALIBRATION_FILE, content | {"checksum": _checksum(content)})


def read_calibration(model_folder: Path, fingerprint: str) -> Calibration | None:
    """The calibration of a model folder, None where there is none.

    Raises:
        ModelError: damaged, of another format version, or of a model with another fingerprint.
    """
    file = model_folder / CALIBRATION_FILE
    if not file.exists():
        return None
    mend = f"calibrate again with `dciml calibrate {model_folder} --data DATA`, or delete the file"
    try:
        content = read_json(file)
        version = content.get("format_version") if isinstance(content, dict) else None
        if version not in (CALIBRATION_FORMAT, UNSEALED_FORMAT):
            raise ModelError(
                f"{file}: the format is {version}, this version reads {CALIBRATION_FORMAT}; {mend}"
            )
        if version == CALIBRATION_FORMAT and content.pop("checksum", None) != _checksum(content):
            raise ModelError(f"{file}: damaged, it does not match its checksum; {mend}")
        content["format_version"] = CALIBRATION_FORMAT
        calibration = TypeAdapter(Calibration).validate_python(content)
    except (DataError, ValidationError) as error:
        raise ModelError(f"{file}: damaged; {mend}") from error
    if calibration.fingerprint != fingerprint:
        raise ModelError(f"{file}: belongs to another model than the one beside it; {mend}")
    return calibration


def _checksum(content: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def _logistic(odds: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -odds)))


RIDGE = 1e-3  # keeps the parameters finite where the sentences can be separated without a mistake
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
        tells_up_to=_tells_up_to(trials, odds, temper),
    )


def _tells_up_to(trials: Sequence[Trials], odds: Sequence[FloatArray], temper: tuple[float, float]) -> int:
    """See `Calibration`.

    Args:
        trials: of corpora of growing size. odds: of "it is there" in each, before they are tempered.
    """
    largest = 0
    for part, own in zip(trials, odds, strict=True):
        size = part.scores.shape[1]
        logits = np.clip(own, -MAX_ODDS, MAX_ODDS) * max(MIN_TEMPER, temper[0] + temper[1] * math.log(size))
        doubt = np.logaddexp(0.0, np.where(part.present, -logits, logits)).mean()
        if doubt > (1 - LEAST_SKILL) * math.log(2):
            break
        largest = size
    return largest


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
