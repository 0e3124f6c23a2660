"""Text features that come with releases: RoBERTa's query features, GloVe vectors."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features.encoders.query_features import (
    QUERY_FEATURES_FILE,
    QueryFeatureEncoder,
    write_query_features,
)
from dciml.features.encoders.text import create_text_encoder
from dciml.features.encoders.word_vectors import WordVectorEncoder, read_cpl_vectors, write_word_vectors
from dciml.features.vocabulary import Vocabulary

GLOVE = Path(__file__).resolve().parents[2].parent / "shared/data/annotations/cpl_charades/glove.pkl"
VOCABULARY = Vocabulary.build(["a dog runs", "a cat sits down"])
QUERIES = [("v#enc#0", "A dog runs."), ("v#enc#1", "a cat sits down"), ("w#enc#0", "A dog runs.")]


def make_released(path: Path, **rows: np.ndarray) -> Path:
    rng = np.random.default_rng(0)
    content = {
        "v#enc#0": rng.standard_normal((6, 8)),
        "v#enc#1": rng.standard_normal((3, 8)),
        "w#enc#0": np.ones((2, 8)),
    } | rows
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file.create_dataset(name, data=values.astype(np.float32))
    return path


def test_token_rows_become_one_row_a_word_in_order(tmp_path: Path) -> None:
    released = make_released(tmp_path / "r.hdf5")
    assert write_query_features(released, tmp_path / QUERY_FEATURES_FILE, QUERIES) == (2, 8)
    encoder = create_text_encoder(f"released:{tmp_path}", VOCABULARY)
    assert isinstance(encoder, QueryFeatureEncoder)
    dog, cat = encoder.encode(["A dog runs.", "a cat sits down"])
    assert (dog.words, dog.contextual.shape, encoder.width) == (("a", "dog", "runs"), (3, 8), 8)
    with h5py.File(released) as file:
        tokens = file["v#enc#0"][...]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    expected = tokens.reshape(3, 2, 8).mean(axis=1)  # two tokens a word
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(dog.contextual, expected, atol=2e-3)
    assert cat.contextual.shape == (4, 8)  # fewer tokens than words: one is repeated
    np.testing.assert_allclose(np.linalg.norm(cat.contextual, axis=1), 1, atol=1e-6)


def test_static_rows_know_nothing_of_the_released_ones(tmp_path: Path) -> None:
    for name, value in (("one", 1.0), ("two", -1.0)):
        (tmp_path / name).mkdir()
        released = make_released(tmp_path / f"{name}.hdf5", **{"v#enc#0": np.full((6, 8), value)})
        write_query_features(released, tmp_path / name / QUERY_FEATURES_FILE, QUERIES)
    one, two = (
        QueryFeatureEncoder(tmp_path / name, VOCABULARY).encode(["A dog runs."])[0] for name in ("one", "two")
    )
    np.testing.assert_array_equal(one.static, two.static)
    assert not np.allclose(one.contextual, two.contextual)


def test_words_past_the_longest_sentence_are_dropped_with_their_rows(tmp_path: Path) -> None:
    rows = np.eye(8)[[0, 1, 2, 3]]
    released = make_released(tmp_path / "r.hdf5", **{"v#enc#1": rows})
    write_query_features(released, tmp_path / QUERY_FEATURES_FILE, QUERIES)
    encoded = QueryFeatureEncoder(tmp_path, VOCABULARY, max_words=2).encode(["a cat sits down"])[0]
    assert encoded.words == ("a", "cat")
    np.testing.assert_allclose(encoded.contextual, rows[:2], atol=1e-3)
    assert encoded.static.shape[0] == 2


def test_name_follows_the_content(tmp_path: Path) -> None:
    names = set()
    for number in range(2):
        released = make_released(
            tmp_path / f"{number}.hdf5", **{"v#enc#0": np.full((2, 8), number + 0.5) + np.eye(8)[:2]}
        )
        write_query_features(released, tmp_path / f"{number}.h5", QUERIES)
        names.add(QueryFeatureEncoder(tmp_path / f"{number}.h5", VOCABULARY).name)
    assert len(names) == 2


def test_sentence_that_was_not_released_is_refused(tmp_path: Path) -> None:
    write_query_features(make_released(tmp_path / "r.hdf5"), tmp_path / QUERY_FEATURES_FILE, QUERIES)
    with pytest.raises(DataError, match=r"'a bird' is none of the 2 whose features .*text.encoder=minilm"):
        QueryFeatureEncoder(tmp_path, VOCABULARY).encode(["a bird"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(8), r"field v#enc#1: the array has the shape \(8,\)"),
        (np.ones((2, 5)), "field v#enc#1: the features are 5 wide, those before are 8"),
        (np.full((2, 8), np.nan), "field v#enc#1: a value is not finite"),
    ],
)
def test_bad_query_features_are_refused_by_id(tmp_path: Path, rows: np.ndarray, message: str) -> None:
    released = make_released(tmp_path / "r.hdf5", **{"v#enc#1": rows})
    with pytest.raises(DataError, match=rf"r\.hdf5, {message}"):
        write_query_features(released, tmp_path / QUERY_FEATURES_FILE, QUERIES)
    assert not (tmp_path / QUERY_FEATURES_FILE).exists()


def test_missing_query_foreign_file_and_missing_file_are_refused(tmp_path: Path) -> None:
    released = make_released(tmp_path / "r.hdf5")
    with pytest.raises(DataError, match="field z#enc#0: there are no features of this query"):
        write_query_features(released, tmp_path / "x.h5", [("z#enc#0", "a dog")])
    with pytest.raises(DataError, match="no query features of a data folder"):
        QueryFeatureEncoder(released, VOCABULARY)
    with pytest.raises(DataError, match=r"there are no query features here.*dciml import prvr"):
        QueryFeatureEncoder(tmp_path / "nothing", VOCABULARY)
    (tmp_path / "bad.h5").write_text("text")
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        QueryFeatureEncoder(tmp_path / "bad.h5", VOCABULARY)


def glove(path: Path, **changes: object) -> Path:
    content = {
        "w2id": {"<PAD>": 0, "a": 1, "dog": 2},
        "id2vec": [np.zeros(4), np.array([3.0, 4, 0, 0]), np.array([0.0, 0, 1, 0])],
        "counter": Counter(a=2, dog=1),
    }
    path.write_bytes(pickle.dumps(content | changes, 3))
    return path


def test_glove_vectors_become_static_and_contextual_rows(tmp_path: Path) -> None:
    words, vectors = read_cpl_vectors(glove(tmp_path / "glove.pkl"))
    write_word_vectors(tmp_path / "word_vectors.safetensors", words, vectors)
    encoder = create_text_encoder(f"vectors:{tmp_path}", VOCABULARY)
    assert isinstance(encoder, WordVectorEncoder)
    encoded = encoder.encode(["A dog flies."])[0]
    np.testing.assert_allclose(encoded.static[:2], [[0.6, 0.8, 0, 0], [0, 0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(encoded.static, axis=1), 1, atol=1e-6
    )  # an unknown word has a row too
    assert encoded.contextual is encoded.static
    assert (encoder.width, encoder.static_width) == (4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"w2id": 3}, "w2id is not a dict"),
        ({"w2id": {"dog": 9}}, "field id2vec of 'dog': there is no vector"),
        (
            {"id2vec": [np.zeros(4), np.zeros(3), np.zeros(4)]},
            r"field id2vec of 'a': the vector has the shape \(3,\)",
        ),
        ({"id2vec": [np.zeros(4), np.full(4, np.inf), np.zeros(4)]}, "or is not finite"),
        ({"id2vec": [np.zeros(4), "x", np.zeros(4)]}, "field id2vec of 'a': there is no vector"),
    ],
)
def test_glove_of_another_form_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=rf"glove\.pkl.*{message}"):
        read_cpl_vectors(glove(tmp_path / "glove.pkl", **changes))


def test_missing_and_foreign_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no word vectors here"):
        WordVectorEncoder(tmp_path, VOCABULARY)
    (tmp_path / "x.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(DataError, match="this is no table of word vectors"):
        WordVectorEncoder(tmp_path / "x.safetensors", VOCABULARY)


def test_released_glove_is_read() -> None:
    if not GLOVE.exists():
        pytest.skip("the CPL release is not here")
    words, vectors = read_cpl_vectors(GLOVE)
    assert (len(words), vectors.shape, words[:3]) == (1146, (1146, 300), ("<PAD>", "a", "person"))
    rows = dict(
        zip(words, vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), strict=True)
    )
    assert rows["door"] @ rows["window"] > rows["door"] @ rows["eating"]
