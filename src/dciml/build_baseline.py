"""Baselines as model folders: the same three files as a trained model, told apart by `kind`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from dciml.config import Settings
from dciml.errors import ModelError
from dciml.features.text import create_text_encoder
from dciml.features.vocabulary import Vocabulary
from dciml.files import read_json, write_json
from dciml.method.baselines.cosine import CosineSpace
from dciml.method.baselines.shared_space import SharedSpace
from dciml.search.baseline_engine import BaselineEngine, Space
from dciml.training.checkpoint import WEIGHTS_FILE, load_tensors, save_tensors
from dciml.training.sizes import refuse_misfit

CARD_FILE, VOCABULARY_FILE = "model.json", "vocabulary.json"


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
        return CosineSpace(card.video_width, card.clip_weight)
    return SharedSpace(card.text_width, card.video_width, card.width)


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CARD_FILE, VOCABULARY_FILE, WEIGHTS_FILE):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
