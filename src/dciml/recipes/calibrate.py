"""Calibrate a model: sentences whose video is known → scores → the fit → `calibration.json` in the model folder.

`dciml train` does it at its end, on the videos that it held out; the training videos stand beside them in the corpus,
as wrong answers. No moment is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dciml import cautions
from dciml.config import RunConfig
from dciml.datasets import DataFolder, split_off_validation
from dciml.errors import DataError
from dciml.features import FeatureStore, WindowedStore, WindowRule, windows_of
from dciml.folders import SETTINGS_FILE
from dciml.recipes.trained_on import known_already
from dciml.search import Calibration, Engine, fit_calibration
from dciml.types import TrainingPair

if TYPE_CHECKING:
    from dciml.model_folder import Model

MIN_SENTENCES, MIN_VIDEOS = 20, 10
MAX_SENTENCES, MAX_VIDEOS = 500, 1000
VIDEOS_AT_ONCE = 64
SEED = 9527


@dataclass(frozen=True)
class KnownPairs:
    """Sentences whose video is known, and a corpus that holds all of these videos."""

    store: FeatureStore
    pairs: tuple[TrainingPair, ...]
    video_ids: tuple[str, ...]

    @classmethod
    def of_split(cls, data: DataFolder, split: str) -> KnownPairs:
        """The pairs and the corpus of a split. Raises DataError for an unknown one."""
        return cls(data.store, data.pairs(split), tuple(video.video_id for video in data.videos(split)))

    @classmethod
    def held_out(cls, data: DataFolder, config: RunConfig) -> KnownPairs:
        """The training pairs that a run did not train on, in the corpus of the whole training split."""
        pairs = data.pairs(config.data.train_split)
        _, held_out = split_off_validation(pairs, config.data.validation_fraction, config.seed)
        ours = frozenset(held_out)
        some = tuple(pair for pair in pairs if pair.video_id in ours)
        videos = tuple(video.video_id for video in data.videos(config.data.train_split))
        return cls(data.store, some, videos)

    def drawn(self) -> KnownPairs:
        """At most 500 sentences and 1,000 videos, drawn by a hash of their ids."""
        pairs = sorted(self.pairs, key=lambda pair: _hash(pair.query_id))[:MAX_SENTENCES]
        own = dict.fromkeys(pair.video_id for pair in pairs)
        others = sorted((name for name in self.video_ids if name not in own), key=_hash)
        videos = [*own, *others[: max(0, MAX_VIDEOS - len(own))]]
        return KnownPairs(self.store, tuple(pairs), tuple(videos))


def calibrate(model: Model, known: KnownPairs) -> Calibration:
    """Fit a calibration and write it into the model's folder.

    Args:
        known: must not have been trained on, or the model will seem surer than it may be.
    Raises:
        DataError: fewer than 20 sentences or 10 videos.
        ModelError: the model reads other features.
    """
    model.check_store(known.store)
    told = known_already(
        model.folder,
        known.store,
        tuple(dict.fromkeys(pair.video_id for pair in known.pairs)),
        what="what it is calibrated on",
        then="the model will seem surer than it may be; calibrate on others",
        held_out_too=False,  # that is what they were held out for
    )
    calibration = replace(fit(model.engine, known, model.windows), warnings=cautions.tell(told))
    calibration.write(model.folder)
    return calibration


def calibrate_run(folder: Path, data: DataFolder, device: str = "cpu") -> Calibration:
    """Calibrate a trained model on what its run held out. Raises as `calibrate`, or DataError: not such a model."""
    from dciml.config import load_config
    from dciml.model_folder import load_model

    model = load_model(folder, device, calibrated=False)
    settings = folder / SETTINGS_FILE
    if not settings.is_file():
        raise DataError(
            "this model does not say which videos it was not trained on",
            where=folder,
            mend="name pairs that it was not trained on: a split of the data folder, with --split",
        )
    return calibrate(model, KnownPairs.held_out(data, load_config(settings)))


def fit(engine: Engine, known: KnownPairs, windows: WindowRule | None = None) -> Calibration:
    """The calibration of an engine; errors as `calibrate`. A long video scores as its best window."""
    known = known.drawn()
    if len(known.pairs) < MIN_SENTENCES or len(known.video_ids) < MIN_VIDEOS:
        raise DataError(
            f"{len(known.pairs)} sentences and {len(known.video_ids)} videos are too few to calibrate on",
            mend=f"use {MIN_SENTENCES} sentences and {MIN_VIDEOS} videos at least",
        )
    column = {video_id: place for place, video_id in enumerate(known.video_ids)}
    right = np.array([column[pair.video_id] for pair in known.pairs], dtype=np.int64)
    queries = engine.embed_queries([pair.sentence for pair in known.pairs])
    store = WindowedStore.of(known.store)
    scores, sums, num_clips = [], np.zeros(engine.vector_width), 0
    for some in _parts(known.video_ids, VIDEOS_AT_ONCE):
        parts = [windows_of(store, video_id, windows) for video_id in some]
        clips = engine.fused_clips(store, [part for own in parts for part in own])
        flat = clips.reshape(-1, clips.shape[-1])
        sums += flat.sum(axis=0, dtype=np.float64)
        num_clips += len(flat)
        firsts = np.cumsum([0, *(len(own) for own in parts[:-1])]) * engine.num_clips
        scores.append(np.maximum.reduceat(queries @ flat.T, firsts, axis=1))
    return fit_calibration(
        np.concatenate(scores, axis=1).astype(np.float64),
        right,
        queries,
        sums / num_clips,
        fingerprint=engine.fingerprint,
        seed=SEED,
    )


def _parts(names: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (names[start : start + size] for start in range(0, len(names), size))


def _hash(name: str) -> tuple[str, str]:
    return hashlib.sha256(name.encode()).hexdigest(), name
