"""Turns configuration and model folders into objects; the only place that does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import TypeAdapter, ValidationError

from dciml.build_baseline import load_baseline
from dciml.config import AnswerConfig, IndexConfig, RunConfig, load_config
from dciml.errors import ConfigError, DataError, ModelError
from dciml.features.base import TextEncoder
from dciml.features.devices import check_device
from dciml.features.long_videos import WindowRule
from dciml.features.store import FeatureStore
from dciml.features.vocabulary import Vocabulary
from dciml.files import read_json
from dciml.index import ClipIndex
from dciml.method.grounding import GroundingBranch
from dciml.method.losses import GroundingLosses, RetrievalLosses
from dciml.method.mutual import DualBranch
from dciml.method.retrieval import RetrievalBranch
from dciml.method.terms import PATHWAY_TERMS
from dciml.search.calibration import Calibration, read_calibration
from dciml.search.dual_engine import DualEngine
from dciml.search.engine import Engine
from dciml.search.residual_engine import ResidualEngine
from dciml.search.searcher import Searcher
from dciml.training.checkpoint import WEIGHTS_FILE, load_tensors
from dciml.training.schedule import easiness, hard_pool_size, loss_weights
from dciml.training.sizes import refuse_misfit
from dciml.training.steps import Step
from dciml.training.validation import Objective

MODEL_FORMAT = 1
UNKNOWN_WINDOW_SECONDS = 120.0  # of a model that does not say what it was trained on


@dataclass(frozen=True)
class ModelCard:
    """What a model folder's model.json says: the kind, and what the model must be fed with."""

    kind: str
    format_version: int
    store_encoder: str
    text_encoder: str
    video_width: int
    text_width: int
    static_width: int
    vocabulary_size: int

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> ModelCard:
        """Read a model.json of this kind. Raises ModelError: of another format version, or damaged."""
        content = read_json(path)
        version = content.get("format_version")
        if version != MODEL_FORMAT:
            raise ModelError(f"{path}: the model format is {version}, this version reads {MODEL_FORMAT}")
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            fields = ", ".join(str(e["loc"][0]) for e in error.errors())
            raise ModelError(
                f"{path}: damaged or incomplete ({fields}); restore it or train again"
            ) from error


@dataclass(frozen=True)
class Model:
    """A loaded model: its engine answers; `answer` says how candidate spans are ranked.

    `calibration` turns its scores into probabilities; None where the folder has none. `windows` says how longer videos
    are indexed; None: whole. `index` says how an index of its vectors is kept and searched.
    """

    folder: Path
    kind: str
    engine: Engine
    answer: AnswerConfig
    store_encoder: str
    calibration: Calibration | None = None
    windows: WindowRule | None = None
    index: IndexConfig = field(default_factory=IndexConfig)

    def check_store(self, store: FeatureStore) -> None:
        """Refuse features that the model was not trained on.

        Raises:
            ModelError: the store's encoder is another one.
        """
        if store.manifest.encoder != self.store_encoder:
            raise ModelError(
                f"the model in {self.folder} reads features of {self.store_encoder}, but {store.path} holds features "
                f"of {store.manifest.encoder}; extract or import the features with the same encoder"
            )


def build_dual(config: RunConfig, card: ModelCard) -> DualBranch:
    """Both branches and their modulators, with fresh weights from torch's present random state."""
    shared = {"max_words": config.text.max_words, "video_width": card.video_width}
    r, g = config.retrieval, config.grounding
    retrieval = RetrievalBranch(
        text_width=card.text_width,
        hidden=r.hidden,
        heads=r.heads,
        num_clips=r.num_clips,
        max_frames=r.max_frames,
        gaussian_widths=r.windows,
        num_blocks=r.num_blocks,
        dropout=r.dropout,
        clip_weight=r.clip_weight,
        **shared,
    )
    grounding = GroundingBranch(
        static_width=card.static_width,
        vocabulary_size=card.vocabulary_size,
        hidden=g.hidden,
        heads=g.heads,
        layers=g.layers,
        num_proposals=g.num_proposals,
        num_positions=g.num_positions,
        gaussian_sigma=g.gaussian_sigma,
        label_smoothing=g.label_smoothing,
        dropout=g.dropout,
        **shared,
    )
    return DualBranch(retrieval, grounding, r.hidden)


def build_losses(config: RunConfig) -> tuple[RetrievalLosses, GroundingLosses]:
    """The losses of both sides."""
    r, g, mutual = config.retrieval, config.grounding, config.mutual
    retrieval = RetrievalLosses(
        margin=r.margin,
        nce_temperature=r.nce_temperature,
        clip_pool_temperature=r.clip_pool_temperature,
        diversity_alpha=r.diversity_alpha,
        diversity_delta=r.diversity_delta,
        temperature=mutual.temperature,
        modulation_margin=mutual.retrieval_margin,
    )
    grounding = GroundingLosses(
        reference_margin=g.reference_margin,
        negative_margin=g.negative_margin,
        diversity_lambda=g.diversity_lambda,
        modulation_margin=mutual.grounding_margin,
    )
    return retrieval, grounding


def build_step(
    config: RunConfig, fabric: Fabric, model: DualBranch, epoch: int, generator: torch.Generator
) -> Step:
    """A training step of an epoch: what the schedule says of it, and the losses."""
    r, g = config.retrieval, config.grounding
    retrieval_losses, grounding_losses = build_losses(config)
    weights = loss_weights(
        config.weights.model_dump(),
        switches={pathway: getattr(config.mutual, pathway) for pathway in PATHWAY_TERMS},
        from_epoch=config.mutual.from_epoch,
        epoch=epoch,
    )
    return Step(
        fabric=fabric,
        model=model,
        retrieval_losses=retrieval_losses,
        grounding_losses=grounding_losses,
        weights=weights,
        easiness=easiness(epoch, epochs=g.easiness_epochs, exponent=g.easiness_exponent),
        hard_pool_size=hard_pool_size(epoch, from_epoch=r.hard_negatives_from_epoch, size=r.hard_pool_size),
        grounding_queries=config.training.grounding_queries,
        clip_norm=config.training.clip_norm,
        epoch=epoch,
        generator=generator,
    )


def build_objective(config: RunConfig) -> Objective:
    """By what held-out pairs judge grounding."""
    _, losses = build_losses(config)
    return Objective(losses, config.weights.model_dump())


def load_model(folder: Path, device: str = "cpu", *, calibrated: bool = True) -> Model:
    """Load a model folder of any kind: a trained DCIML model or a baseline.

    Args:
        calibrated: with the calibration of the folder, where it has one.
    Raises:
        ModelError: the folder holds no model, is incomplete, or its text encoder is another one by now; or its
            calibration is damaged or belongs to other weights.
        ConfigError: there is no such device.
    """
    check_device(device)
    model = replace(_load_kind(folder, device), windows=windows_for(folder))
    if not calibrated:
        return model
    return replace(model, calibration=read_calibration(folder, model.engine.fingerprint))


def windows_for(folder: Path) -> WindowRule | None:
    """How a model's index splits long videos: by its settings, else by the longest video that it was trained on."""
    settings = load_config(folder / "config.yaml").long_videos if (folder / "config.yaml").exists() else None
    if settings is not None and settings.window_seconds:
        return WindowRule.of(settings.window_seconds, settings.overlap_seconds)
    run = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    longest = run.get("trained_on", {}).get("max_seconds")
    return WindowRule.of(float(longest or UNKNOWN_WINDOW_SECONDS))


def _load_kind(folder: Path, device: str) -> Model:
    if not (folder / "model.json").exists():
        raise ModelError(f"{folder}: no model here (there is no model.json); train one with `dciml train`")
    with _as_model_error(folder):
        content = read_json(folder / "model.json")
    if not isinstance(content, dict):
        raise ModelError(f"{folder / 'model.json'}: damaged, it does not describe a model; train again")
    kind = content.get("kind")
    if kind == "dciml":
        with _as_model_error(folder):
            return _load_dual(folder, torch.device(device))  # which `load_model` has checked
    engine = load_baseline(folder, device)
    # Its proposals are the windows of best contrast themselves.
    answer = AnswerConfig(candidates="windows", ground_videos=0)
    return Model(folder, str(kind), engine, answer, engine.store_encoder)


def _load_dual(folder: Path, device: torch.device) -> Model:
    card = ModelCard.read(folder / "model.json")
    config = load_config(folder / "config.yaml")
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    encoder = make_text_encoder(config, vocabulary, str(device))
    if encoder.name != card.text_encoder:
        raise ModelError(
            f"{folder}: trained with the text encoder {card.text_encoder}, but here it is {encoder.name}; "
            "install or name the same weights"
        )
    refuse_misfit(folder / WEIGHTS_FILE, lambda: build_dual(config, card))
    dual = build_dual(config, card)
    tensors, _ = load_tensors(folder / WEIGHTS_FILE)
    try:
        dual.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{folder / WEIGHTS_FILE}: does not fit the settings beside it ({reason}); restore the folder"
        ) from error
    dual.eval().to(device)
    engine = DualEngine(dual, config, encoder, vocabulary, folder_fingerprint(folder, config), device)
    if not config.retrieval.zero_shot_weight:
        return Model(folder, "dciml", engine, config.answer, card.store_encoder, index=config.index)
    residual = ResidualEngine.around(
        engine, card.video_width, card.store_encoder, config.retrieval.zero_shot_weight
    )
    return Model(folder, "dciml", residual, config.answer, card.store_encoder, index=config.index)


@contextmanager
def _as_model_error(folder: Path) -> Iterator[None]:
    """What is wrong with a file of a model is wrong with the model; the file is named by the error itself."""
    try:
        yield
    except (DataError, ConfigError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error


def make_text_encoder(config: RunConfig, vocabulary: Vocabulary, device: str = "cpu") -> TextEncoder:
    """The text encoder that the settings name; it encodes at least as many words as the branches read."""
    from dciml.features.text import create_text_encoder

    return create_text_encoder(config.text.encoder, vocabulary, max(30, config.text.max_words), device)


def folder_fingerprint(folder: Path, config: RunConfig) -> str:
    """SHA-256 of what decides a model's vectors and spans: weights, card, vocabulary, and the settings of both."""
    settings = config.model_dump(mode="json", include={"text", "retrieval", "grounding"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in ("model.json", "vocabulary.json", WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def open_searcher(
    folder: Path,
    device: str = "cpu",
    *,
    model_folder: Path | None = None,
    store_path: Path | None = None,
    vector_store: str | None = None,
) -> Searcher:
    """Open an index with the model and the features that it names.

    Args:
        model_folder, store_path, vector_store: where the model, the features, and the database of the vectors
            (`milvus:URI`) are now, if they have moved since the index was built.
    Raises:
        ModelError: the folder holds no index, or its model changed since it was built.
        DataError: the features are gone.
    """
    index = ClipIndex.open(folder, store=vector_store)
    model = load_model(model_folder or index.model_folder(), device)
    store = FeatureStore.open(store_path or index.store_path())
    return Searcher(model.engine, index, store, model.answer, model.calibration)
