"""The zero-shot row: nothing trained, the sentence's own vector against the video rows, where both share a space."""

from __future__ import annotations

from dciml.features.query_features import QueryFeatureEncoder
from dciml.features.spaces import same_space
from dciml.features.store import FeatureStore
from dciml.method.baselines.cosine import CosineSpace
from dciml.search.baseline_engine import BaselineEngine
from dciml.search.dual_engine import DualEngine
from dciml.search.engine import Engine
from dciml.search.residual_engine import ResidualEngine


def zero_shot_engine(engine: Engine, store: FeatureStore) -> BaselineEngine | None:
    """The untrained cosine with the text encoder of a trained engine.

    Returns: None when the features are known to be of another space, when the encoder has no sentence vector of
        their width, or when the engine is itself an untrained cosine.
    """
    if isinstance(engine, ResidualEngine):
        return engine.untrained
    if not isinstance(engine, DualEngine | BaselineEngine):
        return None
    if isinstance(engine, BaselineEngine) and isinstance(engine.space, CosineSpace):
        return None
    if isinstance(engine.text_encoder, QueryFeatureEncoder):
        return None  # it has no sentence vectors, and knows no sentence but those of its release
    sentence = engine.text_encoder.encode(["a video"])[0].sentence
    width = store.manifest.width
    if same_space(store.manifest.encoder, engine.text_encoder.name) is False:
        return None
    if sentence is None or len(sentence) != width:
        return None
    fingerprint = f"zero-shot {engine.text_encoder.name}"
    space = CosineSpace(width)
    return BaselineEngine(space, engine.text_encoder, engine.num_clips, fingerprint, store.manifest.encoder)
