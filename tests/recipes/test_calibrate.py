"""Calibrating a model: on the videos that training held out, on a split, and what is refused."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import AnswerConfig, RunConfig, dump_config
from dciml.datasets.folder import DataFolder, split_off_validation, write_data_folder
from dciml.errors import DataError, ModelError
from dciml.features.long_videos import WindowRule
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.folders import CALIBRATION_FILE
from dciml.metrics.intervals import Bootstrap
from dciml.model_folder import Model, load_model
from dciml.recipes.answers import index_corpus
from dciml.recipes.calibrate import KnownPairs, calibrate, calibrate_run, fit
from dciml.recipes.evaluate import NOTHING_FOUND, EvaluateOptions, evaluate, make_task, nothing_found
from dciml.search.calibration import Calibration
from dciml.search.engines import Grounding
from dciml.search.searcher import Searcher
from dciml.types import Query, Video

WIDTH, CLIPS = 12, 4


class NoisyEngine:
    """A video is the direction of its rows in one clip and noise in the others; a sentence is its video's direction
    with noise, drawn by a hash of the sentence."""

    fingerprint, num_clips, vector_width = "noisy", CLIPS, WIDTH
    name = "noisy"

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        pooled = [
            [part.astype(np.float32).mean(axis=0) for part in np.array_split(store.rows(video_id), CLIPS)]
            for video_id in video_ids
        ]
        return np.array(pooled, dtype=np.float32).reshape(-1, CLIPS, WIDTH)

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = [_direction(sentence.split()[-1]) + 0.35 * _direction(sentence) for sentence in sentences]
        return np.array(rows, dtype=np.float32).reshape(-1, WIDTH)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        return Grounding(np.tile([0.0, 0.5], (len(sentences), 1, 1)), np.full((len(sentences), 1), -1.0))


def _direction(text: str) -> NDArray[np.float64]:
    vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(WIDTH)
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """60 training and 30 test videos with two sentences each, which name their video."""
    videos = [Video(f"v{n}", 8.0, "train" if n < 60 else "test") for n in range(90)]
    queries: dict[str, list[Query]] = {"train": [], "test": []}
    for video in videos:
        for number in range(2):
            sentence = f"take {number} of {video.video_id}"
            queries[video.split].append(Query(f"{video.video_id}-{number}", video.video_id, sentence))

    def fill(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("rows", WIDTH, 1.0)) as writer:
            for video in videos:
                rows = 0.4 * np.random.default_rng(zlib.crc32(video.video_id.encode())).standard_normal(
                    (8, WIDTH)
                )
                rows[2:4] += _direction(video.video_id)
                writer.append(video.video_id, rows.astype(np.float32), 8.0)

    folder = tmp_path_factory.mktemp("calibrate") / "data"
    write_data_folder(folder, "named", queries, videos, fill)
    return DataFolder.open(folder)


def model_in(folder: Path) -> Model:
    return Model(folder, "fake", NoisyEngine(), AnswerConfig(), "rows")


def test_calibration_is_written_beside_the_model(data: DataFolder, tmp_path: Path) -> None:
    found = calibrate(model_in(tmp_path), KnownPairs.of_split(data, "train"))
    assert (found.num_sentences, found.num_videos, found.fingerprint) == (120, 60, "noisy")
    assert found.scale > 1
    assert [file.name for file in tmp_path.iterdir()] == [CALIBRATION_FILE]
    content = json.loads((tmp_path / CALIBRATION_FILE).read_text())
    clips = NoisyEngine().fused_clips(data.store, [video.video_id for video in data.videos("train")])
    np.testing.assert_allclose(content["reference"], clips.reshape(-1, WIDTH).mean(axis=0), atol=1e-6)
    assert calibrate(model_in(tmp_path), KnownPairs.of_split(data, "train")) == found


def test_held_out_pairs_stand_in_the_whole_training_corpus(
    data: DataFolder, tiny_config: Callable[..., RunConfig]
) -> None:
    config = tiny_config()
    known = KnownPairs.held_out(data, config)
    _, ours = split_off_validation(data.pairs("train"), config.data.validation_fraction, config.seed)
    assert {pair.video_id for pair in known.pairs} == set(ours)
    assert len(known.video_ids) == 60


def test_drawing_keeps_the_videos_of_the_sentences(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import dciml.recipes.calibrate as recipe

    monkeypatch.setattr(recipe, "MAX_SENTENCES", 25)
    monkeypatch.setattr(recipe, "MAX_VIDEOS", 30)
    whole = KnownPairs.of_split(data, "train")
    drawn = whole.drawn()
    assert (len(drawn.pairs), len(drawn.video_ids)) == (25, 30)
    assert {pair.video_id for pair in drawn.pairs} <= set(drawn.video_ids)
    turned = replace(whole, pairs=whole.pairs[::-1], video_ids=whole.video_ids[::-1]).drawn()
    assert turned.pairs == drawn.pairs
    assert set(turned.video_ids) == set(drawn.video_ids)


def test_long_video_scores_as_its_best_window(data: DataFolder) -> None:
    """8 s in windows of 4 s: the same rows in other clips, so another score and the same mean clip."""
    known = KnownPairs.of_split(data, "train")
    whole, windowed = fit(NoisyEngine(), known), fit(NoisyEngine(), known, WindowRule(4.0, 0.0))
    assert windowed.num_videos == whole.num_videos
    assert windowed.scale != whole.scale
    np.testing.assert_allclose(windowed.reference, whole.reference, atol=1e-4)


@pytest.mark.parametrize("windows", [None, WindowRule(4.0, 0.0)], ids=["whole", "windows"])
def test_stated_confidence_is_what_search_says_with_the_video_taken_out(
    data: DataFolder, tmp_path: Path, windows: WindowRule | None
) -> None:
    engine, task = NoisyEngine(), make_task(data, "test", windows=windows)
    calibration = fit(engine, KnownPairs.of_split(data, "train"), windows)
    answer = AnswerConfig(candidates="windows", min_confidence=0.5)
    found = nothing_found(engine, task, calibration, answer, Bootstrap(task.queries, 50))
    index = index_corpus(engine, task, task.fused_clips(engine), tmp_path / "index")
    assert len(index) == 30 if windows is None else 60
    searcher = Searcher(engine, index, task.store, answer, calibration)
    with_it = searcher.answer_batch([query.sentence for query in task.queries], 1)
    wrongly, missed = sum(not answer.found for answer in with_it), 0
    for video_id in task.video_ids:
        others = [other for other in task.video_ids if other != video_id]
        asked = [query.sentence for query in task.queries if query.video_id == video_id]
        missed += sum(answer.found for answer in searcher.answer_batch(asked, 1, within=others))
    row = found.table.rows["model"]
    num = len(task.queries)
    assert row["wrongly"].value == pytest.approx(100 * wrongly / num)
    assert row["recall"].value == pytest.approx(100 * (num - missed) / num)
    assert row["precision"].value == pytest.approx(100 * (num - missed) / (num - missed + wrongly))
    assert sum(own.count for own in found.answers) == 2 * num
    assert row["recall"].value > row["wrongly"].value + 30  # it tells them apart
    assert row["ECE of answers"].value < 15
    assert set(found.table.rows) == {"model", "model, 10 videos"}


def test_evaluation_has_the_table_where_there_is_a_calibration(data: DataFolder) -> None:
    engine = NoisyEngine()
    calibration = fit(engine, KnownPairs.of_split(data, "train"))
    options = EvaluateOptions(num_resamples=20, calibration=calibration)
    with_it = evaluate(engine, data, "test", AnswerConfig(candidates="windows"), options=options)
    without = evaluate(
        engine, data, "test", AnswerConfig(candidates="windows"), options=replace(options, calibration=None)
    )
    assert with_it.table(NOTHING_FOUND).num_queries == 60
    assert with_it.tables[:-1] == without.tables


def test_too_few_and_wrong_features_are_refused(data: DataFolder, tmp_path: Path) -> None:
    known = KnownPairs.of_split(data, "train")
    with pytest.raises(DataError, match="5 sentences and 60 videos are too few"):
        calibrate(model_in(tmp_path), replace(known, pairs=known.pairs[:5]))
    with pytest.raises(ModelError, match="reads features of other"):
        calibrate(replace(model_in(tmp_path), store_encoder="other"), known)
    with pytest.raises(DataError, match="no split 'val'"):
        KnownPairs.of_split(data, "val")
    assert list(tmp_path.iterdir()) == []


def test_command_calibrates_reports_and_the_model_takes_it_up(
    data: DataFolder, tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """The end of `dciml train` does what `dciml calibrate` does; a damaged file is written anew."""
    config = tiny_config(data={"folder": str(data.path), "validation_fraction": 0.4}, training={"epochs": 1})
    (tmp_path / "named.yaml").write_text(dump_config(config))
    model, runner = tmp_path / "model", CliRunner()
    done = runner.invoke(app, ["train", str(tmp_path / "named.yaml"), "--out", str(model)])
    assert done.exit_code == 0, done.output
    assert "calibrated on 48 held-out sentences in a corpus of 60 videos" in done.stderr
    file = model / CALIBRATION_FILE
    written = file.read_bytes()
    loaded = load_model(model)
    assert isinstance(loaded.calibration, Calibration)
    fingerprint = loaded.engine.fingerprint
    file.write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        load_model(model)
    done = runner.invoke(app, ["calibrate", str(model), "--data", str(data.path), "--report", "test"])
    assert done.exit_code == 0, done.output
    assert "calibrated on 48 sentences in a corpus of 60 videos" in done.output
    assert "There is such a video" in done.output
    assert "Nothing found  (60 queries)" in done.output
    assert file.read_bytes() == written
    assert load_model(model).engine.fingerprint == fingerprint
    done = runner.invoke(app, ["calibrate", str(model), "--data", str(data.path), "--split", "train"])
    assert "calibrated on 120 sentences in a corpus of 60 videos" in done.output


def test_model_that_names_no_held_out_videos_asks_for_a_split(data: DataFolder, tmp_path: Path) -> None:
    from dciml.recipes.baseline import SharedSpaceConfig, train_shared_space

    out = train_shared_space(data, tmp_path / "shared", SharedSpaceConfig(epochs=1, width=8))
    with pytest.raises(DataError, match="--split"):
        calibrate_run(out, data)
    assert load_model(out).calibration is None
