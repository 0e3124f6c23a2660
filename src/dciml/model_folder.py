"""Turns settings and model folders into objects; the only place that does, for the method and the baselines."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from pydantic import Field, TypeAdapter, ValidationError

from dciml.config import AnswerConfig, IndexConfig, RunConfig, Settings, load_config, without_later_settings
from dciml.errors import ConfigError, DataError, ModelError
from dciml.features import (
    FeatureStore,
    TextEncoder,
    Vocabulary,
    WindowRule,
    check_device,
    create_text_encoder,
)
from dciml.files import read_json, write_json
from dciml.folders import CARD_FILE, RUN_FILE, SETTINGS_FILE, VOCABULARY_FILE, WEIGHTS_FILE
from dciml.homes import index_in_use
from dciml.index import ClipIndex
from dciml.method import (
    PATHWAY_TERMS,
    BatchSizes,
    CosineSpace,
    DualBranch,
    GroundingBranch,
    GroundingLosses,
    LocalScale,
    RetrievalBranch,
    RetrievalLosses,
    SharedSpace,
)
from dciml.search import BaselineEngine, Calibration, DualEngine, Engine, Searcher, Space, read_calibration
from dciml.training import (
    Draw,
    Objective,
    PairData,
    Step,
    easiness,
    hard_pool_size,
    load_tensors,
    loss_weights,
    refuse_misfit,
    save_tensors,
)

PACKAGES = ("dciml", "torch", "numpy", "lightning-fabric", "transformers", "safetensors")


def describe_run(
    config: RunConfig, training: PairData, held_out: PairData, warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of `run.json`; nothing of it decides how the model answers, but for the lengths of the videos."""
    return made_with() | {"trained_on": trained_on(config, training, held_out), "warnings": list(warnings)}


def made_with() -> dict[str, Any]:
    """Git revision, Python and packages."""
    return {
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def trained_on(config: RunConfig, data: PairData, held_out: PairData) -> dict[str, Any]:
    """What and how much; the lengths are those of what the model saw as one video."""
    seen = [name for video_id in data.by_video() for name in data.windows.get(video_id, (video_id,))]
    return {
        "data": config.data.folder,
        "sentences": len(data.pairs),
        "videos": len(data.by_video()),
        "long_videos": len(data.windows),
        "held_out_videos": len(held_out.by_video()),
        **lengths(data.store, seen),
    }


def lengths(store: FeatureStore, seen: Sequence[str]) -> dict[str, float]:
    """Of the videos that a model saw; the longest decides how an index splits longer ones."""
    seconds = np.array([store.duration_seconds(name) for name in seen])
    return {
        "min_seconds": float(seconds.min()),
        "median_seconds": float(np.median(seconds)),
        "max_seconds": float(seconds.max()),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError):
        return None


class BaselineCard(Settings):
    """What model.json says: how the baseline is built and what it must be fed with."""

    kind: Literal["cosine", "shared_space"]
    format_version: Literal[1] = 1
    text_spec: str = Field(description="as `create_text_encoder` reads it")
    text_encoder: str = Field(description="name of the encoder, its weights included; checked on load")
    store_encoder: str
    max_words: int = Field(ge=1)
    text_width: int = Field(ge=1)
    video_width: int = Field(ge=1)
    num_clips: int = Field(ge=1)
    width: int = Field(ge=1, description="of the space of comparison")
    clip_weight: float = Field(1.0, ge=0, le=1, description="of a clip against its video's mean; cosine only")
    propagation: float = Field(0.0, ge=0, lt=1, description="see `propagate`; cosine only")
    blocks: tuple[tuple[int, float], ...] = Field(
        (), description="widths and weights of rows of several encoders side by side; cosine only"
    )


def save_baseline(folder: Path, card: BaselineCard, vocabulary: Vocabulary, space: Space) -> None:
    """Write a model folder; model.json comes last, so that a folder that has it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(space.state_dict()) if isinstance(space, SharedSpace) else {}
    save_tensors(folder / WEIGHTS_FILE, tensors, {"kind": card.kind})
    vocabulary.save(folder / VOCABULARY_FILE)
    write_json(folder / CARD_FILE, card.model_dump(mode="json"))


def load_baseline(folder: Path, device: str = "cpu") -> BaselineEngine:
    """Load what `save_baseline` wrote.

    Raises:
        ModelError: the folder is incomplete or damaged, or its text encoder has other weights by now.
    """
    try:
        card = BaselineCard.model_validate(read_json(folder / CARD_FILE))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{folder / CARD_FILE}, field {place}: {first['msg']}; build the baseline again"
        ) from error
    vocabulary = Vocabulary.load(folder / VOCABULARY_FILE)
    encoder = create_text_encoder(card.text_spec, vocabulary, card.max_words, device)
    if encoder.name != card.text_encoder:
        raise ModelError(
            f"{folder}: built with the text encoder {card.text_encoder}, but here it is {encoder.name}; "
            "install or name the same weights"
        )
    if card.kind == "shared_space":
        refuse_misfit(
            folder / WEIGHTS_FILE, lambda: SharedSpace(card.text_width, card.video_width, card.width)
        )
    space = make_space(card)
    if isinstance(space, SharedSpace):
        tensors, _ = load_tensors(folder / WEIGHTS_FILE)
        try:
            space.load_state_dict(tensors)
        except RuntimeError as error:
            raise ModelError(
                f"{folder / WEIGHTS_FILE}: does not fit model.json; build the baseline again"
            ) from error
        space.eval().to(device)
    return BaselineEngine(space, encoder, card.num_clips, _fingerprint(folder), card.store_encoder)


def make_space(card: BaselineCard) -> CosineSpace | SharedSpace:
    """The space that a card describes; a trained one with fresh weights."""
    if card.kind == "cosine":
        blocks = card.blocks or None
        try:
            return CosineSpace(card.video_width, card.clip_weight, card.propagation, blocks=blocks)
        except ValueError as error:
            raise ModelError(f"model.json describes no space ({error}); build the baseline again") from error
    return SharedSpace(card.text_width, card.video_width, card.width)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CARD_FILE, VOCABULARY_FILE, WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


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
    local = None
    if r.local != "none":
        local = LocalScale(
            video_width=card.video_width,
            text_width=card.text_width,
            width=card.video_width if r.local == "shared" else r.local_width,
            dropout=r.local_dropout,
            shared=r.local == "shared",
            propagation=r.local_propagation,
            reach_unit=r.local_reach_unit,
            blocks=r.local_blocks,
            clip_weight=r.local_clip_weight,
        )
    retrieval = RetrievalBranch(
        text_width=card.text_width,
        hidden=r.hidden,
        heads=r.heads,
        num_clips=r.num_clips,
        max_frames=r.max_frames,
        gaussian_widths=r.gaussian_widths,
        num_blocks=r.num_blocks,
        dropout=r.dropout,
        clip_weight=r.clip_weight,
        local=local,
        local_weight=r.local_weight,
        whitened=r.whitening,
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
        content_weight=g.content_weight,
        negatives=g.negatives,
        dropout=g.dropout,
        anchored=g.anchors,
        anchor_floor=g.anchor_floor,
        **shared,
    )
    return DualBranch(retrieval, grounding, r.hidden)


def batch_sizes(config: RunConfig) -> BatchSizes:
    """How much of a video and of a sentence the model reads."""
    return BatchSizes(config.retrieval.num_clips, config.retrieval.max_frames, config.text.max_words)


def draw_of(config: RunConfig) -> Draw:
    """What decides which pairs meet in a batch."""
    t = config.training
    return Draw(t.batch_videos, t.max_sentences_per_video, config.seed)


def build_losses(config: RunConfig) -> tuple[RetrievalLosses, GroundingLosses]:
    """The losses of both sides."""
    r, g, mutual = config.retrieval, config.grounding, config.mutual
    retrieval = RetrievalLosses(
        margin=r.margin,
        nce_temperature=r.nce_temperature,
        clip_pool_temperature=r.clip_pool_temperature,
        diversity_alpha=r.diversity_alpha,
        diversity_delta=r.diversity_delta,
        local_temperature=r.local_temperature,
        place_form=mutual.to_retrieval_form,
        temperature=mutual.temperature,
        distribution_temperature=mutual.distribution_temperature,
        modulation_margin=mutual.retrieval_margin,
    )
    grounding = GroundingLosses(
        reference_margin=g.reference_margin,
        negative_margin=g.negative_margin,
        diversity_lambda=g.diversity_lambda,
        modulation_margin=mutual.grounding_margin,
    )
    return retrieval, grounding


def has_fixed_shapes(config: RunConfig, device: torch.device) -> bool:
    """Does a training step on this device work with fixed shapes?"""
    wanted = config.training.fixed_shapes
    return device.type == "cuda" if wanted is None else wanted


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
        grounding_updates=config.training.grounding_updates,
        num_windows=g.num_proposals if config.mutual.to_grounding_form == "windows" else None,
        clip_norm=config.training.clip_norm,
        epoch=epoch,
        generator=generator,
        fixed_shapes=has_fixed_shapes(config, fabric.device),
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
    settings = load_config(folder / SETTINGS_FILE).long_videos if (folder / SETTINGS_FILE).exists() else None
    if settings is not None and settings.window_seconds:
        return WindowRule.of(settings.window_seconds, settings.overlap_seconds)
    run = read_json(folder / RUN_FILE) if (folder / RUN_FILE).exists() else {}
    longest = run.get("trained_on", {}).get("max_seconds")
    return WindowRule.of(float(longest or UNKNOWN_WINDOW_SECONDS))


def _load_kind(folder: Path, device: str) -> Model:
    if not os.path.exists(folder / CARD_FILE):  # also for names that no file system takes
        raise ModelError(f"{folder}: no model here (there is no model.json); train one with `dciml train`")
    with _as_model_error(folder):
        content = read_json(folder / CARD_FILE)
    if not isinstance(content, dict):
        raise ModelError(f"{folder / 'model.json'}: damaged, it does not describe a model; train again")
    kind = content.get("kind")
    if kind == "dciml":
        with _as_model_error(folder):
            return _load_dual(folder, torch.device(device))  # which `load_model` has checked
    engine = load_baseline(folder, device)
    # Its proposals are the windows of best contrast themselves.
    answer = AnswerConfig(candidates="windows", ground_videos=0, blank_videos=False)
    return Model(folder, str(kind), engine, answer, engine.store_encoder)


def _load_dual(folder: Path, device: torch.device) -> Model:
    card = ModelCard.read(folder / CARD_FILE)
    config = load_config(folder / SETTINGS_FILE)
    vocabulary = Vocabulary.load(folder / VOCABULARY_FILE)
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
    engine = DualEngine(
        dual, batch_sizes(config), encoder, vocabulary, folder_fingerprint(folder, config), device
    )
    return Model(folder, "dciml", engine, config.answer, card.store_encoder, index=config.index)


@contextmanager
def _as_model_error(folder: Path) -> Iterator[None]:
    """What is wrong with a file of a model is wrong with the model; the file is named by the error itself."""
    try:
        yield
    except (DataError, ConfigError) as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error


def make_text_encoder(config: RunConfig, vocabulary: Vocabulary, device: str = "cpu") -> TextEncoder:
    """The text encoder that the settings name; it encodes at least as many words as the branches read."""
    return create_text_encoder(config.text.encoder, vocabulary, max(30, config.text.max_words), device)


def folder_fingerprint(folder: Path, config: RunConfig) -> str:
    """SHA-256 of what decides a model's vectors and spans: weights, card, vocabulary, and the settings of both."""
    tree = config.model_dump(mode="json", include={"text", "retrieval", "grounding"})
    settings = without_later_settings(tree)
    if not settings["grounding"]["anchors"]:  # as before there was such a setting
        del settings["grounding"]["anchors"], settings["grounding"]["anchor_floor"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in (CARD_FILE, VOCABULARY_FILE, WEIGHTS_FILE):
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
        folder: of the index; or a home, or videos with a home beside them: then the index that is in use there.
        model_folder, store_path, vector_store: where the model, the features, and the database of the vectors
            (`milvus:URI`) are now, if they have moved since the index was built.
    Raises:
        ModelError: the folder holds no index, or its model changed since it was built.
        DataError: the features are gone; the home is damaged, or has no index yet.
    """
    place = index_in_use(folder)
    index = ClipIndex.open(place, store=vector_store)
    if place != folder and not len(index):
        mend = f"call `dciml serve {folder}`, which reads them, and search while it works"
        raise DataError("the home holds no video yet that was read", where=folder, mend=mend)
    model = load_model(model_folder or index.model_folder(), device)
    store = FeatureStore.open(store_path or index.store_path())
    return Searcher(model.engine, index, store, model.answer, model.calibration)
