"""A deterministic engine whose answers can be worked out by hand: planted vectors, hashed proposals."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dciml.config import AnswerConfig, RunConfig
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.pooling import l2_normalize, mean_pool
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.vocabulary import Vocabulary
from dciml.index import ClipIndex
from dciml.model_folder import ModelCard, batch_sizes, build_dual, make_text_encoder
from dciml.search.engines import DualEngine, Grounding
from dciml.search.searcher import Searcher


def _random(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))


class FakeEngine:
    """A clip's vector is the direction of the mean of its rows; a sentence's vector is random but always the same.

    `planted` maps a sentence to its vector.
    """

    fingerprint = "fake engine"
    num_clips = 8

    def __init__(self, width: int = 6, num_proposals: int = 3) -> None:
        self.vector_width, self.num_proposals = width, num_proposals
        self.planted: dict[str, NDArray[np.float32]] = {}
        self.grounded: list[tuple[str, str]] = []

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        return l2_normalize(
            np.stack([mean_pool(store.rows(video_id), self.num_clips) for video_id in video_ids])
        )

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        if any(not any(c.isalnum() for c in sentence) for sentence in sentences):
            raise DataError("the sentence has no words")
        vectors = [
            self.planted.get(sentence, _random(sentence).standard_normal(self.vector_width))
            for sentence in sentences
        ]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.vector_width)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        spans, scores = [], []
        for sentence, video_id in zip(sentences, video_ids, strict=True):
            store.rows(video_id)
            self.grounded.append((sentence, video_id))
            random = _random(f"{sentence}|{video_id}")
            spans.append(np.sort(random.uniform(size=(self.num_proposals, 2)), axis=1))
            scores.append(np.sort(-random.uniform(1, 3, size=self.num_proposals))[::-1])
        return Grounding(np.array(spans), np.array(scores))


@pytest.fixture(scope="session")
def fake_engine() -> type[FakeEngine]:
    """To make engines of other widths and numbers of clips."""
    return FakeEngine


@dataclass
class Corpus:
    """A searcher with all that it is made of; videos differ in length and duration."""

    engine: FakeEngine
    store: FeatureStore
    index: ClipIndex

    def searcher(self, **settings: Any) -> Searcher:
        """A searcher with these answer settings."""
        return Searcher(
            self.engine,
            self.index,
            self.store,
            AnswerConfig(**{"nms_iou": None, "reconstruction_weight": 1.0, **settings}),
        )


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Seven videos of random rows, v0 … v6."""
    rng = np.random.default_rng(5)
    engine = FakeEngine()
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("fake", engine.vector_width)) as writer:
        for number in range(7):
            rows = rng.standard_normal((9 + 3 * number, engine.vector_width)).astype(np.float32)
            writer.append(f"v{number}", rows, 10.0 + number)
    store = FeatureStore.open(tmp_path / "store")
    index = ClipIndex.create(
        tmp_path / "index",
        num_clips=engine.num_clips,
        width=engine.vector_width,
        fingerprint=engine.fingerprint,
        model_folder=tmp_path / "model",
        store_path=store.path,
    )
    ids = store.video_ids
    index.add(ids, engine.fused_clips(store, ids), [store.duration_seconds(video_id) for video_id in ids])
    return Corpus(engine, store, index)


@pytest.fixture
def engine(tiny_config: Callable[..., RunConfig], tiny_data: Path) -> DualEngine:
    """The real engine with its first, random weights, for the features of `tiny_data`."""
    config = tiny_config()
    vocabulary = Vocabulary.build([pair.sentence for pair in DataFolder.open(tiny_data).pairs("train")])
    encoder = make_text_encoder(config, vocabulary)
    torch.manual_seed(0)
    card = ModelCard("dciml", 1, "test-encoder", encoder.name, 16, 16, 16, len(vocabulary))
    return DualEngine(
        build_dual(config, card).eval(),
        batch_sizes(config),
        encoder,
        vocabulary,
        "fingerprint",
        torch.device("cpu"),
    )
