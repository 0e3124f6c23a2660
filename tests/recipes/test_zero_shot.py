"""The zero-shot row exists exactly where sentences and video rows share a space."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from dciml.features.base import EncodedSentence
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.method.baselines import CosineSpace
from dciml.recipes.evaluate import zero_shot_engine
from dciml.search.engines import BaselineEngine

WIDTH = 6


class FakeText:
    """A sentence vector per sentence, or none."""

    width, static_width = 3, 3

    def __init__(self, sentence_width: int | None, name: str = "fake") -> None:
        self.sentence_width, self.name = sentence_width, name

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        words = np.eye(1, 3, dtype=np.float32)
        vector = None if self.sentence_width is None else np.eye(1, self.sentence_width, dtype=np.float32)[0]
        return [EncodedSentence(("word",), words, words, vector) for _ in sentences]


class TrainedSpace:
    """Stands for a space that was trained."""

    vector_width = 3


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("e", WIDTH)) as writer:
        writer.append("v", np.ones((4, WIDTH)), 4.0)
    return FeatureStore.open(tmp_path / "store")


def trained(sentence_width: int | None) -> BaselineEngine:
    return BaselineEngine(TrainedSpace(), FakeText(sentence_width), 2, "trained", "e")  # type: ignore[arg-type]


def test_zero_shot_uses_the_text_encoder_and_clips_of_the_model(store: FeatureStore) -> None:
    engine = zero_shot_engine(trained(WIDTH), store)
    assert engine is not None
    assert (engine.num_clips, engine.vector_width) == (2, WIDTH)
    assert engine.fingerprint == "zero-shot fake"
    # All rows are alike, so each clip's cosine with the first axis is 1/√6.
    scores = engine.fused_clips(store, ["v"])[0] @ engine.embed_queries(["a word"])[0]
    np.testing.assert_allclose(scores, 1 / np.sqrt(WIDTH), rtol=1e-3)


@pytest.mark.parametrize("sentence_width", [None, WIDTH + 1])
def test_zero_shot_is_left_out_without_a_shared_space(
    store: FeatureStore, sentence_width: int | None
) -> None:
    assert zero_shot_engine(trained(sentence_width), store) is None


def test_zero_shot_is_left_out_where_names_tell_of_different_spaces(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "clip", StoreManifest("image:clip@0123456789ab", WIDTH)) as writer:
        writer.append("v", np.ones((4, WIDTH)), 4.0)
    store = FeatureStore.open(tmp_path / "clip")
    for name, shared in (("clip@0123456789ab-layer-1x30", True), ("clip@ffffffffffff-layer-1x30", False)):
        engine = BaselineEngine(TrainedSpace(), FakeText(WIDTH, name), 2, "trained", "e")  # type: ignore[arg-type]
        assert (zero_shot_engine(engine, store) is not None) is shared


def test_zero_shot_of_the_untrained_cosine_would_be_itself(store: FeatureStore) -> None:
    cosine = BaselineEngine(CosineSpace(WIDTH, 0.7), FakeText(WIDTH), 2, "cosine", "e")
    assert zero_shot_engine(cosine, store) is None
