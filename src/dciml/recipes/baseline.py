"""Build the two baselines, from the same records and features as the real model, each as a model folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from dciml import cautions
from dciml.config import Settings
from dciml.datasets import DataFolder
from dciml.errors import DataError, ModelError, TrainingError
from dciml.features import (
    JOINT,
    NO_WORDS,
    EncodedCorpus,
    EncodedSentence,
    FeatureStore,
    TextEncoder,
    Vocabulary,
    create_text_encoder,
    same_space,
)
from dciml.files import atomic_folder, refuse_taken, write_json
from dciml.folders import CARD_FILE, RUN_FILE
from dciml.method import SharedSpace, info_nce, pad_words, soft_max_pool
from dciml.model_folder import (
    BaselineCard,
    lengths,
    load_baseline,
    made_with,
    make_space,
    save_baseline,
)
from dciml.recipes.trained_on import TrainedOn
from dciml.search import pooled_clips
from dciml.types import TrainingPair

__all__ = ["CosineConfig", "SharedSpaceConfig", "build_cosine", "load_baseline", "train_shared_space"]

Report = Callable[[int, float], None]  # epoch from 1, mean loss


class BaselineConfig(Settings):
    """What both baselines share."""

    text: str = Field("words", description="text encoder, as in a run's `text.encoder`")
    train_split: str = "train"
    max_words: int = Field(30, ge=1)
    vocabulary_size: int = Field(8000, ge=1)
    num_clips: int = Field(32, ge=1)


class CosineConfig(BaselineConfig):
    """The untrained baseline; its text encoder must give vectors in the space of the features."""

    text: str = Field("minilm", description="of a store with several encoders, parts with ` + ` between them")
    block_weights: tuple[float, ...] = Field(
        (), description="of the cosines of several encoders side by side, in their order; none: 1 each"
    )
    clip_weight: float = Field(0.7, ge=0, le=1, description="of a clip; its video's mean has the rest")
    propagation: float = Field(
        0.0, ge=0, lt=1, description="share of a clip that comes from clips of its video which look alike"
    )


class SharedSpaceConfig(BaselineConfig):
    """The trained baseline. The numbers are usual ones, not tuned on any corpus."""

    width: int = Field(256, ge=1, description="of the shared space")
    epochs: int = Field(10, ge=1, le=1_000_000)
    batch_pairs: int = Field(128, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    pool_temperature: float = Field(0.1, gt=0, description="of the soft maximum over clips, in cosine")
    temperature: float = Field(0.05, gt=0, description="of InfoNCE, in cosine")
    seed: int = Field(9527, ge=0, lt=2**32)


def build_cosine(features: DataFolder | FeatureStore, out: Path, config: CosineConfig | None = None) -> Path:
    """Write the untrained baseline as a model folder, of a data folder or of nothing but a store.

    Raises:
        DataError: the text encoder has no sentence vector of the width of the features.
        ModelError: `out` holds a model already.
    """
    config = config or CosineConfig()
    _refuse_existing(out)
    if isinstance(features, DataFolder):
        store, (pairs, vocabulary, encoder) = features.store, _text(features, config)
    else:
        store, pairs, vocabulary = features, (), NO_WORDS
        encoder = create_text_encoder(config.text, vocabulary, config.max_words)
    sentence = encoder.encode([pairs[0].sentence if pairs else "a sentence"])[0].sentence
    width, found = store.manifest.width, 0 if sentence is None else len(sentence)
    made_by = store.manifest.encoder
    if found != width or (JOINT not in config.text and same_space(made_by, encoder.name) is False):
        has = f"sentence vectors of width {found}" if found else "no sentence vectors"
        raise DataError(
            f"queries and videos share no space: {encoder.name} gives {has}, "
            f"the features are {width} wide, of {made_by}",
            where=features.path,
            mend="use a text encoder that belongs to the features, or the trained baseline shared-space",
        )
    card = _card("cosine", store, config, encoder, width)
    with atomic_folder(out) as folder:
        _write_run(folder, store, pairs, source=features.path)
        TrainedOn().write(folder)  # it learned nothing of them
        save_baseline(folder, card, vocabulary, make_space(card))
    return out


def text_of(store: FeatureStore) -> str:
    """The text encoder that belongs to the rows of a store, by what the store says of their encoder.

    Raises:
        DataError: it does not say, or no text encoder belongs to it.
    """
    from dciml.features import encoder_of, text_spec_of  # which load the video libraries

    specs = store.manifest.encoder_specs
    if specs and len(specs) == 1 and specs[0].startswith("image:"):
        return text_spec_of(specs, encoder_of(store.manifest, "cpu"))
    raise DataError(
        f"no text encoder is known that shares a space with {store.manifest.encoder}",
        where=store.path,
        mend="name it with --text, or extract with --encoder image:MODEL",
    )


def train_shared_space(
    data: DataFolder, out: Path, config: SharedSpaceConfig | None = None, report: Report | None = None
) -> Path:
    """Train the shared linear space by InfoNCE over soft-max-pooled clips and write it as a model folder.

    On one machine the same seed gives the same weights.

    Args:
        report: called with the mean loss of each epoch.
    Raises:
        DataError: the data folder cannot be used.
        ModelError: `out` holds a model already.
        TrainingError: the loss is not finite.
    """
    config = config or SharedSpaceConfig()
    _refuse_existing(out)
    pairs, vocabulary, encoder = _text(data, config)
    sentences = EncodedCorpus.build(encoder, [pair.sentence for pair in pairs])
    video_ids = list(dict.fromkeys(pair.video_id for pair in pairs))
    row_of_video = {video_id: row for row, video_id in enumerate(video_ids)}
    video_of_pair = np.array([row_of_video[pair.video_id] for pair in pairs])
    clips = _clip_bank(data, video_ids, config.num_clips)

    alone = (
        "one single video is trained on, with no other to tell it from, so nothing is learned: train on more"
    )
    told = cautions.tell([alone] if len(video_ids) == 1 else [])
    card = _card("shared_space", data.store, config, encoder, config.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        space = SharedSpace(card.text_width, card.video_width, card.width)
        optimizer = torch.optim.AdamW(space.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        for epoch in range(config.epochs):
            order = np.random.default_rng((config.seed, epoch)).permutation(len(pairs))
            losses = []
            for batch in np.array_split(order, -(-len(order) // config.batch_pairs)):
                videos, owner = np.unique(video_of_pair[batch], return_inverse=True)
                encoded = [sentences.get(int(index)) for index in batch]
                loss = _loss(space, encoded, clips[videos], torch.from_numpy(owner), config)
                _check_finite(loss, [pairs[index].query_id for index in batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                losses.append(float(loss.detach()))
            if report:
                report(epoch + 1, float(np.mean(losses)))
    with atomic_folder(out) as folder:
        _write_run(folder, data.store, pairs, told, source=data.path)
        TrainedOn.of(data.store, pairs).write(folder)
        save_baseline(folder, card, vocabulary, space)
    return out


def _write_run(
    out: Path,
    store: FeatureStore,
    pairs: Sequence[TrainingPair],
    warnings: Sequence[str] = (),
    *,
    source: Path,
) -> None:
    """What the baseline was made from and with; its index splits videos that are longer than these."""
    videos = list(dict.fromkeys(pair.video_id for pair in pairs))
    made_from = {"data": str(source), "sentences": len(pairs), "videos": len(videos)}
    trained_on = made_from | (lengths(store, videos) if videos else {})
    write_json(out / RUN_FILE, made_with() | {"trained_on": trained_on, "warnings": list(warnings)})


def _loss(
    space: SharedSpace,
    sentences: Sequence[EncodedSentence],
    clips: torch.Tensor,
    owner: torch.Tensor,
    config: SharedSpaceConfig,
) -> torch.Tensor:
    """InfoNCE of sentences against the clips (V, S, width) of V videos; `owner` says which is whose."""
    similarity = space.similarity(space.encode_words(*pad_words(sentences)), space.encode_clips(clips))
    pooled = soft_max_pool(similarity, config.pool_temperature)  # (queries, videos)
    return info_nce(pooled / config.temperature, owner)


def _refuse_existing(out: Path) -> None:
    if (out / CARD_FILE).exists():
        raise ModelError(f"{out}: holds a model already; choose another --out")
    refuse_taken(out)


def _text(
    data: DataFolder, config: BaselineConfig
) -> tuple[tuple[TrainingPair, ...], Vocabulary, TextEncoder]:
    pairs = data.pairs(config.train_split)
    if not pairs:
        raise DataError(f"the split {config.train_split!r} has no queries", where=data.path)
    vocabulary = Vocabulary.build([pair.sentence for pair in pairs], config.vocabulary_size)
    return pairs, vocabulary, create_text_encoder(config.text, vocabulary, config.max_words)


def _card(
    kind: str, store: FeatureStore, config: BaselineConfig, encoder: TextEncoder, width: int
) -> BaselineCard:
    return BaselineCard.model_validate(
        {
            "kind": kind,
            "text_spec": config.text,
            "text_encoder": encoder.name,
            "store_encoder": store.manifest.encoder,
            "max_words": config.max_words,
            "text_width": encoder.width,
            "video_width": store.manifest.width,
            "num_clips": config.num_clips,
            "width": width,
            "clip_weight": config.clip_weight if isinstance(config, CosineConfig) else 1.0,
            "propagation": config.propagation if isinstance(config, CosineConfig) else 0.0,
            "blocks": _blocks(store, config) if isinstance(config, CosineConfig) else (),
        }
    )


def _blocks(store: FeatureStore, config: CosineConfig) -> tuple[tuple[int, float], ...]:
    if JOINT not in config.text:
        return ()
    from dciml.features import encoder_of, widths_of

    widths = widths_of(encoder_of(store.manifest, "cpu"))
    return tuple(zip(widths, config.block_weights or (1.0,) * len(widths), strict=True))


def _clip_bank(data: DataFolder, video_ids: list[str], num_clips: int) -> torch.Tensor:
    """All training videos pooled to clips, (videos, S, width), in half precision to keep a large corpus small."""
    bank = np.empty((len(video_ids), num_clips, data.store.manifest.width), dtype=np.float16)
    for row, video_id in enumerate(video_ids):
        bank[row] = pooled_clips(data.store, [video_id], num_clips)[0]
    return torch.from_numpy(bank)


def _check_finite(loss: torch.Tensor, query_ids: list[str]) -> None:
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss info_nce is {float(loss)} for the queries {', '.join(query_ids)}")
