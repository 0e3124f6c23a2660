"""From scores to probabilities that mean the same in a corpus of ten videos and in one of ten thousand.

The described video is one of the N that are searched, or none of them. With independent videos Bayes gives

    P(video i) = exp(a · s_i) / Z,    P(none) = N · exp(b + c · ⟨query, reference⟩) / Z,    Z: the sum of all these,

where s_i is a video's score. Only what is searched decides: more videos, and other good ones, make one less certain.
The reference is the mean clip vector of the videos calibrated on; it says how high this query scores everywhere. Alike
videos are not independent, and the more there are, the more P(none) is overrated on both sides; so its log-odds are
tempered by a factor that falls with log N (`Calibration.temper`), fitted too. `calibration_fit` fits all of it.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dciml.errors import DataError, ModelError
from dciml.files import read_json, write_json

CALIBRATION_FILE = "calibration.json"
CALIBRATION_FORMAT = 2
UNSEALED_FORMAT = 1  # without a checksum; still read
MIN_TEMPER = (
    0.05  # however many videos, a better score must never make it less likely that there is an answer
)

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
