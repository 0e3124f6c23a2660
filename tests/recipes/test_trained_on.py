"""What a model was trained on is known again: under another id, in another case, by every command that measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig, dump_config
from dciml.datasets.folder import DataFolder, write_data_folder
from dciml.errors import ModelError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.folders import TRAINED_ON_FILE
from dciml.model_folder import load_model
from dciml.recipes.calibrate import KnownPairs, calibrate
from dciml.recipes.trained_on import (
    Overlap,
    TrainedOn,
    known_already,
    read_trained_on,
    shared_with_training,
)
from dciml.search.calibration import read_calibration
from dciml.types import Query, TrainingPair, Video

RUNNER = CliRunner()


def store_of(folder: Path, rows: Mapping[str, int]) -> FeatureStore:
    """Each video has rows of one number; the same number makes the same rows."""
    with FeatureStoreWriter(folder, StoreManifest("net", 2, 1.0)) as writer:
        for video_id, number in rows.items():
            writer.append(video_id, np.full((3, 2), number, np.float16), 3.0)
    return FeatureStore.open(folder)


def test_videos_are_known_by_id_and_by_rows_and_sentences_by_their_words(tmp_path: Path) -> None:
    before = store_of(tmp_path / "before", {"caf\u00e9": 1, "b": 2, "held": 3})
    pairs = [TrainingPair("q1", "caf\u00e9", "A dog  runs."), TrainingPair("q2", "b", "it sleeps")]
    known = TrainedOn.of(before, pairs, ["held"])
    now = store_of(tmp_path / "now", {"cafe\u0301": 7, "renamed": 2, "held": 8, "new": 9})
    sentences = ["a dog, runs", "a dog runs far", "It sleeps!"]
    assert known.overlap(now, now.video_ids, sentences) == Overlap(4, 3, 2, 1, 2)
    assert known.overlap(now, ["new"], ["a cat"]).cautions("x", "y") == []
    assert TrainedOn().overlap(now, now.video_ids, sentences) == Overlap(4, 3, 0, 0, 0)
    known.write(tmp_path)
    assert read_trained_on(tmp_path) == known


def test_cautions_say_how_much_and_what_follows() -> None:
    assert Overlap(12, 20, 11, 1, 13).cautions("it", "evaluate on others") == [
        "11 of 12 videos and 13 of 20 sentences of it were trained on: evaluate on others",
        "1 of 12 videos of it were held out in training, to choose the weights and to calibrate by: what they show is "
        "a little too good",
    ]
    (words,) = Overlap(12, 20, 0, 0, 13).cautions("it", "evaluate on others")
    assert words.startswith("13 of 20 sentences of it stand word for word among those that were trained on")
    assert Overlap(12, 0, 3, 0, 0).cautions("it", "then") == ["3 of 12 videos of it were trained on: then"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(kept: Path, tiny_config: Callable[..., RunConfig], tmp_path: Path) -> tuple[Path, Path]:
    """A model and its data; trained once, by the command line."""
    config = tiny_config()
    if not (kept / "run").exists():
        (kept / "tiny.yaml").write_text(dump_config(config))
        line = ["train", str(kept / "tiny.yaml"), "--out", str(kept / "run"), "--set", "training.epochs=1"]
        assert RUNNER.invoke(app, [*line, "--quiet"]).exit_code == 0
    shutil.copytree(kept / "run", tmp_path / "run")
    return tmp_path / "run", Path(config.data.folder)


def evaluated(run: Path, data: Path, split: str, *more: str) -> tuple[list[str], str, str]:
    """The warnings of the report, what was printed, and what was said on standard error."""
    file = run / "report.json"
    line = ["evaluate", str(run), "--data", str(data), "--split", split, "--json", str(file), *more]
    result = RUNNER.invoke(app, line)
    assert result.exit_code == 0, result.output
    return json.loads(file.read_text())["warnings"], result.stdout, result.stderr


def test_evaluation_on_training_videos_is_told_kept_and_printed(run: tuple[Path, Path]) -> None:
    folder, data = run
    warnings, printed, said = evaluated(folder, data, "train")
    assert warnings[0].startswith(
        "22 of 24 videos and 44 of 48 sentences of the split 'train' were trained on: "
    )
    assert warnings[1].startswith("2 of 24 videos of the split 'train' were held out in training")
    assert f"Warning: {warnings[0]}." in printed.replace("\n", " ").replace("  ", " ")
    assert [line for line in said.splitlines() if "warning" in line] == [
        f"dciml: warning: {text}" for text in warnings
    ]
    compared = RUNNER.invoke(app, ["compare", str(folder)]).stdout
    assert "Warning: run: 22 of 24 videos" in compared
    assert evaluated(folder, data, "test")[0] == []  # these it never saw


def test_rows_beside_the_model_are_looked_at_too(run: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = run
    space = tmp_path / "space"
    assert (
        RUNNER.invoke(
            app, ["baseline", "shared-space", str(data), "--out", str(space), "--epochs", "1"]
        ).exit_code
        == 0
    )
    warnings, _, _ = evaluated(folder, data, "train", "--beside", f"space={space}", "--queries", "4")
    assert warnings[-1].startswith("row space: 24 of 24 videos and 4 of 4 sentences of the split 'train'")
    assert evaluated(folder, data, "test", "--beside", f"space={space}", "--queries", "4")[0] == []


def test_calibration_on_training_videos_is_told_and_kept(run: tuple[Path, Path]) -> None:
    folder, data = run
    result = RUNNER.invoke(app, ["calibrate", str(folder), "--data", str(data), "--split", "train"])
    warning = "22 of 24 videos of what it is calibrated on were trained on: the model will seem surer"
    assert result.stderr.startswith(f"dciml: warning: {warning}")
    model = load_model(folder)
    assert model.calibration is not None
    assert model.calibration.warnings[0].startswith(warning)
    assert evaluated(folder, data, "test")[0] == list(model.calibration.warnings)
    folder_of_data = DataFolder.open(data)
    held_out = KnownPairs.of_split(folder_of_data, "train")
    unseen = [pair for pair in held_out.pairs if not _is_trained(folder, folder_of_data, pair.video_id)]
    known = KnownPairs(held_out.store, tuple(unseen) * 10, held_out.video_ids)
    assert calibrate(model, known).warnings == ()
    assert read_calibration(folder, model.engine.fingerprint) is not None


def _is_trained(folder: Path, data: DataFolder, video_id: str) -> bool:
    known = read_trained_on(folder)
    assert known is not None
    return bool(known.overlap(data.store, [video_id], ()).trained_videos)


def test_model_that_does_not_say_is_not_taken_for_a_stranger(run: tuple[Path, Path]) -> None:
    folder, data = run
    (folder / TRAINED_ON_FILE).unlink()
    (warning,) = evaluated(folder, data, "test")[0]
    assert "does not say what it was trained on" in warning


def test_damaged_record_is_an_error(run: tuple[Path, Path]) -> None:
    folder, data = run
    file = folder / TRAINED_ON_FILE
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{TRAINED_ON_FILE}.*checksum"):
        known_already(folder, DataFolder.open(data).store, [], what="it", then="then")
    (folder / "model.safetensors").replace(file)
    with pytest.raises(ModelError, match="does not say what was trained on"):
        read_trained_on(folder)


def data_of(folder: Path, videos: Mapping[str, Sequence[str]]) -> DataFolder:
    """Videos by split; the first letter of an id makes its rows."""
    rows = {name: ord(name[0]) for names in videos.values() for name in names}
    return write_data_folder(
        folder,
        "d",
        {
            split: [Query(f"{split}-{name}", name, "a dog", ()) for name in names]
            for split, names in videos.items()
        },
        [Video(name, 3.0, split) for split, names in videos.items() for name in names],
        lambda path: store_of(path, rows),
    )


def test_videos_in_training_and_test_are_told_at_the_import(tmp_path: Path) -> None:
    shared = data_of(
        tmp_path / "d", {"train": ["a", "b", "c"], "val": ["e"], "test": ["a", "b copied", "d", "e"]}
    )
    (warning,) = shared_with_training(shared)
    assert warning.startswith("2 of 4 videos of the split 'test' are in 'train' too")
    assert shared_with_training(data_of(tmp_path / "e", {"train": ["a"], "test": ["b"]})) == []
