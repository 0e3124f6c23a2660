from pathlib import Path

import numpy as np

from dciml.datasets.folder import DataFolder
from dciml.features.base import EncodedSentence
from dciml.search.engines import BaselineEngine, DualEngine, ResidualEngine


class RandomSpace:
    """Any vectors will do: only the sum of the two scores is looked at."""

    vector_width = 4

    def embed_sentences(self, sentences: list[EncodedSentence]) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((len(sentences), 4)).astype(np.float32)

    def embed_clips(self, clips: np.ndarray) -> np.ndarray:
        return np.random.default_rng(1).standard_normal((*clips.shape[:2], 4)).astype(np.float32)


def test_score_is_the_learned_one_plus_the_weighted_untrained_one(
    engine: DualEngine, tiny_data: Path
) -> None:
    untrained = BaselineEngine(RandomSpace(), engine.text_encoder, engine.num_clips, "random", "test-encoder")
    both = ResidualEngine(engine, untrained, weight=0.5)
    store, ids, sentences = DataFolder.open(tiny_data).store, ["test24", "test25"], ["red dog runs"]

    def products(part: ResidualEngine | DualEngine | BaselineEngine) -> np.ndarray:
        return part.fused_clips(store, ids) @ part.embed_queries(sentences)[0]

    np.testing.assert_allclose(products(both), products(engine) + 0.5 * products(untrained), atol=1e-5)
    assert both.vector_width == engine.vector_width + 4
