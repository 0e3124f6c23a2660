"""A corpus of random features and sentences in the shapes of the field's data sets, and an untrained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from shapes import Shape, make_config

from dciml.features import FeatureStore, FeatureStoreWriter, StoreManifest, Vocabulary
from dciml.features.encoders.words import WordEncoder
from dciml.model_folder import MODEL_FORMAT, ModelCard, batch_sizes, build_dual
from dciml.search import DualEngine

SECONDS_PER_ROW = 1.0


def make_store(shape: Shape, num_videos: int, folder: Path) -> FeatureStore:
    """Videos `v0`, `v1`, … of random rows."""
    rng = np.random.default_rng(0)
    low, high = shape.frames
    with FeatureStoreWriter(
        folder, StoreManifest("random", shape.video_width, 1.0), commit_every=256
    ) as writer:
        for number in range(num_videos):
            rows = rng.standard_normal(
                (int(rng.integers(low, high + 1)), shape.video_width), dtype=np.float32
            )
            writer.append(f"v{number}", rows, len(rows) * SECONDS_PER_ROW)
    return FeatureStore.open(folder)


def make_sentences(shape: Shape, count: int) -> list[str]:
    """Sentences of invented words, as long as those of the data set."""
    rng = np.random.default_rng(1)
    mean, deviation = shape.sentence_words
    lengths = np.clip(np.rint(rng.normal(mean, deviation, count)), 3, shape.max_words).astype(int)
    return [" ".join(_word(int(n)) for n in rng.integers(0, shape.vocabulary - 1, k)) for k in lengths]


def make_engine(shape: Shape, sentences: Sequence[str], device: str = "cpu") -> DualEngine:
    """An untrained model of the published sizes with the words of the sentences as its vocabulary."""
    words = [_word(number) for number in range(shape.vocabulary - 1)]
    vocabulary = Vocabulary.build([" ".join(words), *sentences], shape.vocabulary)
    encoder = WordEncoder(vocabulary, 300, shape.max_words)
    config = make_config(shape)
    card = ModelCard(
        kind="dciml",
        format_version=MODEL_FORMAT,
        video_width=shape.video_width,
        text_width=encoder.width,
        static_width=encoder.static_width,
        vocabulary_size=len(vocabulary),
        store_encoder="random",
        text_encoder=encoder.name,
    )
    torch.manual_seed(0)
    dual = build_dual(config, card).eval().to(device)
    return DualEngine(dual, batch_sizes(config), encoder, vocabulary, "benchmark", torch.device(device))


def _word(number: int) -> str:
    """A word of letters only, another one for each number."""
    letters = "abcdefghijklmnopqrst"
    return "w" + "".join(letters[(number // 20**place) % 20] for place in range(4))
