"""The two baseline spaces and the soft maximum over clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.features.base import EncodedSentence
from dciml.method.baselines import CosineSpace, SharedSpace, pad_words
from dciml.method.losses import soft_max_pool


def _sentence(
    num_words: int, width: int = 5, seed: int = 0, sentence_width: int | None = None
) -> EncodedSentence:
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((num_words, width)).astype(np.float32)
    vector = None if sentence_width is None else draw.standard_normal(sentence_width).astype(np.float32)
    return EncodedSentence(tuple(f"w{i}" for i in range(num_words)), rows, rows, vector)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_cosine_score_is_the_weighted_sum_of_clip_and_video_cosines() -> None:
    draw = np.random.default_rng(3)
    clips = draw.standard_normal((2, 4, 6)).astype(np.float32) * 5
    query = _sentence(3, sentence_width=6)
    assert query.sentence is not None
    space = CosineSpace(6, clip_weight=0.7)
    scores = space.embed_clips(clips) @ space.embed_sentences([query])[0]
    for video in range(2):
        unit = [clip / np.linalg.norm(clip) for clip in clips[video]]
        whole = np.mean(unit, axis=0)
        for clip in range(4):
            expected = 0.7 * _cosine(query.sentence, clips[video, clip]) + 0.3 * _cosine(
                query.sentence, whole
            )
            assert scores[video, clip] == pytest.approx(expected, abs=1e-5)


def test_cosine_refuses_encoders_without_a_fitting_sentence_vector() -> None:
    space = CosineSpace(6)
    for sentence in (_sentence(2), _sentence(2, sentence_width=5)):
        with pytest.raises(ValueError, match="width 6"):
            space.embed_sentences([sentence])
    with pytest.raises(ValueError, match="clip_weight"):
        CosineSpace(6, clip_weight=1.5)


def test_shared_space_ignores_padding_and_batch_mates() -> None:
    space = SharedSpace(5, 7, 4).eval()
    with torch.no_grad():
        space.word_score.weight.normal_()
    sentences = [_sentence(n, seed=n) for n in (1, 6, 3)]
    together = space.embed_sentences(sentences)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for sentence, vector in zip(sentences, together, strict=True):
        np.testing.assert_allclose(space.embed_sentences([sentence])[0], vector, atol=1e-6)


def test_shared_space_pools_words_by_their_mean_at_first() -> None:
    space = SharedSpace(5, 7, 4).eval()
    sentence = _sentence(3)
    vector = space.text(torch.from_numpy(sentence.contextual.mean(axis=0))).detach().numpy()
    np.testing.assert_allclose(
        space.embed_sentences([sentence])[0], vector / np.linalg.norm(vector), atol=1e-5
    )


def test_shared_space_similarity_is_the_cosine_of_each_pair() -> None:
    space = SharedSpace(5, 7, 4).eval()
    queries, clips = torch.randn(2, 4), torch.randn(3, 6, 4)
    found = space.similarity(queries, clips)
    assert found.shape == (2, 3, 6)
    assert float(found[1, 2, 5]) == pytest.approx(float(queries[1] @ clips[2, 5]), abs=1e-5)


def test_shared_space_clips_do_not_depend_on_the_scale_of_the_rows() -> None:
    space = SharedSpace(5, 7, 4).eval()
    clips = np.random.default_rng(0).standard_normal((2, 3, 7)).astype(np.float32)
    np.testing.assert_allclose(space.embed_clips(clips), space.embed_clips(clips * 9), atol=1e-5)


def test_every_weight_of_the_shared_space_has_a_gradient() -> None:
    space = SharedSpace(5, 7, 4).eval()
    words, mask = pad_words([_sentence(2, seed=1), _sentence(4, seed=2)])
    similarity = space.similarity(space.encode_words(words, mask), space.encode_clips(torch.randn(2, 3, 7)))
    torch.autograd.backward(soft_max_pool(similarity, 0.1)[0, 1])
    for name, parameter in space.named_parameters():
        if name != "word_score.bias":  # the same for every word of a softmax
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=8),
    st.floats(0.01, 1.0),
)
@settings(deadline=None, max_examples=50)
def test_soft_max_pool_lies_between_the_maximum_and_its_bound(
    values: list[float], temperature: float
) -> None:
    similarity = torch.tensor(values, dtype=torch.float64)[None, None]
    pooled = float(soft_max_pool(similarity, temperature))
    slow = temperature * np.log(np.sum(np.exp(np.array(values) / temperature)))
    assert pooled == pytest.approx(slow, abs=1e-6)
    assert max(values) - 1e-9 <= pooled <= max(values) + temperature * np.log(len(values)) + 1e-9
