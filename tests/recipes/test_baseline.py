"""Building, training, saving and loading the baselines, on a corpus with planted moments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from dciml.cli import train as commands
from dciml.datasets.folder import DataFolder, write_data_folder
from dciml.errors import DataError, ModelError
from dciml.features.base import EncodedSentence
from dciml.features.long_videos import WindowRule
from dciml.features.pooling import l2_normalize
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.features.vocabulary import Vocabulary, tokenize
from dciml.model_folder import windows_for
from dciml.recipes import baseline as recipe
from dciml.recipes.baseline import (
    CosineConfig,
    SharedSpaceConfig,
    build_cosine,
    load_baseline,
    train_shared_space,
)
from dciml.spans import temporal_iou
from dciml.types import Query, Video

WIDTH, NUM_ROWS = 12, 16
ACTIONS = ("opens the door", "walks a dog", "reads papers", "cooks rice", "plays guitar", "rides horses")
SMALL = SharedSpaceConfig(text="words:32", width=16, num_clips=8, epochs=12, batch_pairs=16, lr=0.01)


def _direction(action: int) -> np.ndarray:
    return np.random.default_rng(action).standard_normal(WIDTH) * 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """Videos of noise with one action of 2 to 6 of 8 equal parts planted; each sentence names its action."""
    draw = np.random.default_rng(0)
    videos, rows, queries = [], {}, {"train": [], "test": []}
    for number in range(60):
        split = "train" if number < 48 else "test"
        video_id, action = f"v{number}", number % len(ACTIONS)
        start, length = int(draw.integers(0, 4)) * 2, int(draw.integers(2, 5)) * 2
        noise = draw.standard_normal((NUM_ROWS, WIDTH))
        noise[start : start + length] += _direction(action)
        rows[video_id] = noise
        videos.append(Video(video_id, 32.0, split))
        moment = (start * 2.0, (start + length) * 2.0)
        queries[split].append(Query(f"q{number}", video_id, f"A person {ACTIONS[action]}.", (moment,)))

    def build_store(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("planted", WIDTH)) as writer:
            for video_id, content in rows.items():
                writer.append(video_id, content, 32.0)

    return write_data_folder(
        tmp_path_factory.mktemp("data") / "planted", "planted", queries, videos, build_store
    )


class PlantedEncoder:
    """A text encoder whose sentence vectors share the space of the planted features."""

    name, width, static_width = "planted text", 4, 4

    def __init__(self, sentence_width: int = WIDTH) -> None:
        self._sentence_width = sentence_width

    def encode(self, sentences: Sequence[str]) -> list[EncodedSentence]:
        encoded = []
        for sentence in sentences:
            words = tokenize(sentence)
            action = next(i for i, action in enumerate(ACTIONS) if action in sentence)
            rows = np.ones((len(words), 4), dtype=np.float32)
            vector = l2_normalize(_direction(action)[: self._sentence_width])
            encoded.append(EncodedSentence(words, rows, rows, vector))
        return encoded


@pytest.fixture
def planted_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(spec: str, vocabulary: Vocabulary, max_words: int, device: str = "cpu") -> PlantedEncoder:
        return PlantedEncoder()

    monkeypatch.setattr(recipe, "create_text_encoder", make)
    monkeypatch.setattr("dciml.model_folder.create_text_encoder", make)


@pytest.fixture(scope="module")
def trained(data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_shared_space(data, tmp_path_factory.mktemp("models") / "shared", SMALL)


def _found_moments(folder: Path, data: DataFolder) -> tuple[float, float]:
    """Share of test queries whose first window has IoU ≥ 0.5, and whose first video shows the right action."""
    engine, queries = load_baseline(folder), data.queries("test")
    video_ids = [query.video_id for query in queries]
    grounding = engine.ground(data.store, [q.sentence for q in queries], video_ids)
    assert grounding.spans_unit.shape == (*grounding.scores.shape, 2)
    assert (np.diff(np.nan_to_num(grounding.scores, neginf=-9)) <= 1e-6).all()
    spans = grounding.spans_unit[:, 0] * 32.0
    overlap = [float(temporal_iou([s], list(q.moments))[0, 0]) for s, q in zip(spans, queries, strict=True)]
    clips, vectors = (
        engine.fused_clips(data.store, video_ids),
        engine.embed_queries([q.sentence for q in queries]),
    )
    scores = np.einsum("qd,vsd->qvs", vectors, clips).max(axis=2)
    action = np.array([int(q.query_id[1:]) % len(ACTIONS) for q in queries])
    return float(np.mean(np.array(overlap) >= 0.5)), float(np.mean(action[scores.argmax(axis=1)] == action))


def test_shared_space_learns_to_find_planted_moments(trained: Path, data: DataFolder) -> None:
    moments, videos = _found_moments(trained, data)
    assert moments >= 0.8
    assert videos >= 0.8


def test_cosine_finds_planted_moments_without_training(
    planted_text: None, data: DataFolder, tmp_path: Path
) -> None:
    folder = build_cosine(data, tmp_path / "cosine", CosineConfig(num_clips=8))
    moments, videos = _found_moments(folder, data)
    assert moments >= 0.8
    assert videos >= 0.8


def test_training_lowers_the_loss_and_reports_each_epoch(data: DataFolder, tmp_path: Path) -> None:
    seen: list[tuple[int, float]] = []
    config = SMALL.model_copy(update={"epochs": 3})
    train_shared_space(data, tmp_path / "m", config, report=lambda epoch, loss: seen.append((epoch, loss)))
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert seen[2][1] < seen[0][1]


def test_training_is_a_function_of_the_seed(data: DataFolder, tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"epochs": 2})
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(len(weights))  # what the caller drew before does not count
        train_shared_space(data, tmp_path / name, config.model_copy(update={"seed": seed}))
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_training_reads_no_moments(data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: DataFolder, split: str) -> tuple[Query, ...]:
        raise AssertionError("training asked for moments")

    monkeypatch.setattr(DataFolder, "queries", refuse)
    train_shared_space(data, tmp_path / "m", SMALL.model_copy(update={"epochs": 1}))


def test_loaded_engine_answers_alike_and_has_the_folder_s_fingerprint(
    trained: Path, data: DataFolder, tmp_path: Path
) -> None:
    one, two = load_baseline(trained), load_baseline(trained)
    assert one.fingerprint == two.fingerprint
    assert (one.num_clips, one.vector_width, one.store_encoder) == (8, 16, "planted")
    sentence = ["a person walks a dog", "somebody plays"]
    np.testing.assert_array_equal(one.embed_queries(sentence), two.embed_queries(sentence))
    np.testing.assert_allclose(one.embed_queries(sentence[:1]), one.embed_queries(sentence)[:1], atol=1e-6)
    assert one.embed_queries([]).shape == (0, 16)
    assert one.fused_clips(data.store, []).shape == (0, 8, 16)
    with pytest.raises(DataError, match="no word"):
        one.embed_queries(["?"])
    with pytest.raises(DataError, match="nowhere"):
        one.fused_clips(data.store, ["nowhere"])


def test_the_folder_tells_how_an_index_splits_longer_videos(trained: Path) -> None:
    assert windows_for(trained) == WindowRule(32.0, 16.0)


def test_sentence_of_unknown_words_is_legal_in_search(trained: Path) -> None:
    vectors = load_baseline(trained).embed_queries(["zzyzx qwerty"])
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("sentence_width", [4, WIDTH - 1])
def test_cosine_needs_a_shared_space(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sentence_width: int
) -> None:
    monkeypatch.setattr(recipe, "create_text_encoder", lambda *_: PlantedEncoder(sentence_width))
    with pytest.raises(DataError, match=f"vectors of width {sentence_width}, the features are {WIDTH} wide"):
        build_cosine(data, tmp_path / "m")
    monkeypatch.undo()
    with pytest.raises(DataError, match="no sentence vectors"):
        build_cosine(data, tmp_path / "m", CosineConfig(text="words"))


def test_an_existing_model_is_not_overwritten(trained: Path, data: DataFolder) -> None:
    with pytest.raises(ModelError, match="holds a model already"):
        train_shared_space(data, trained, SMALL)
    with pytest.raises(ModelError, match="holds a model already"):
        build_cosine(data, trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_clips": 0}, "num_clips"),
        ({"extra": 1}, "extra"),
        ({"format_version": 2}, "format_version"),
        ({"text_encoder": "another"}, "trained|built with the text encoder another"),
        ({"width": 3}, r"model\.safetensors: does not fit"),
    ],
)
def test_damaged_model_folders_are_explained(
    trained: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    card = tmp_path / "model.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(ModelError, match=message):
        load_baseline(tmp_path)


def test_command_trains_the_shared_space(data: DataFolder, tmp_path: Path) -> None:
    app = typer.Typer()
    commands.register(app)
    app.command("other")(lambda: None)
    arguments = ["baseline", "shared-space", str(data.path), "--out", str(tmp_path / "m"), "--epochs", "1"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "epoch 1/1: info_nce" in result.output
    assert load_baseline(tmp_path / "m").vector_width == 256


def test_command_builds_the_cosine(planted_text: None, data: DataFolder, tmp_path: Path) -> None:
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, ["baseline", "cosine", str(data.path), "--out", str(tmp_path / "m")])
    assert result.exit_code == 0
    assert load_baseline(tmp_path / "m").vector_width == WIDTH
