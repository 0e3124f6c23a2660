"""Inspection of each kind of folder, whole and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig
from dciml.errors import DataError
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.features.store_format import ROWS_FILE
from dciml.recipes.inspect import inspect, recognise


@pytest.fixture
def small_store(tmp_path: Path) -> Path:
    """Two videos, of 4 and 6 rows at 2 rows a second; one row of zeros."""
    path = tmp_path / "store"
    rows = np.ones((6, 3), dtype=np.float32)
    rows[2] = 0
    with FeatureStoreWriter(path, StoreManifest("enc", 3, 2.0)) as writer:
        writer.append("a", np.ones((4, 3)), 2.0)
        writer.append("b", rows, 3.0)
    return path


def test_a_store_is_counted(small_store: Path) -> None:
    found = inspect(small_store).to_json()
    assert found["kind"] == "store"
    assert (
        found["store"] | {"encoder": "enc", "width": 3, "videos": 2, "rows": 10, "bytes": 60}
        == found["store"]
    )
    assert found["durations"] == {
        "min_seconds": 2.0, "median_seconds": 2.5, "max_seconds": 3.0, "total_seconds": 5.0,
    }  # fmt: skip
    assert found["rows"] == {"rows_without_norm": 1, "rows_not_finite": 0, "videos_with_wrong_checksum": 0}
    assert len(found["findings"]) == 1
    assert "'b'" in found["findings"][0]


def test_damaged_rows_are_found(small_store: Path) -> None:
    with (small_store / ROWS_FILE).open("r+b") as file:
        file.write(np.array([np.nan], dtype="<f2").tobytes())
    found = inspect(small_store).to_json()
    assert found["rows"] == {"rows_without_norm": 1, "rows_not_finite": 1, "videos_with_wrong_checksum": 1}
    assert any("checksum" in sentence for sentence in found["findings"])
    assert any("NaN" in sentence for sentence in found["findings"])


def test_silence_between_captions_is_no_fault(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("text:words", 3)) as writer:
        writer.append("v", np.eye(4, 3), 4.0)
    found = inspect(tmp_path / "store")
    assert (found.to_json()["rows"]["rows_without_norm"], list(found.findings)) == (1, [])


def test_rows_that_do_not_fit_their_length_are_found(tmp_path: Path) -> None:
    for name, rate in (("timed", 1.0), ("untimed", None)):
        with FeatureStoreWriter(tmp_path / name, StoreManifest("enc", 3, rate)) as writer:
            writer.append("right", np.ones((4, 3)), 4.0)
            writer.append("wrong", np.ones((9, 3)), 4.0)
    (finding,) = inspect(tmp_path / "timed").findings
    assert finding.startswith("rows, rows per second and length do not agree in 1 video(s), 'wrong' first")
    assert inspect(tmp_path / "untimed").findings == ()


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("enc", 3)):
        pass
    assert "no video" in inspect(tmp_path / "store").findings[0]


def test_a_data_folder_is_counted_by_split(tiny_data: Path) -> None:
    found = inspect(tiny_data).to_json()
    assert found["kind"] == "data"
    assert found["splits"]["videos"] == {"train": 24, "test": 8}
    assert found["splits"]["sentences"] == {"train": 48, "test": 16}
    assert found["splits"]["known_words_share"]["train"] == 1.0
    assert found["data"]["features_without_sentences"] == 0
    assert found["findings"] == []


def test_words_that_training_lacks_lower_the_share_of_known_words(tiny_data: Path) -> None:
    line = {"query_id": "new", "video_id": "test24", "sentence": "zebras quarrel"}
    (tiny_data / "test.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    found = inspect(tiny_data).to_json()
    assert found["splits"]["known_words_share"] == {"train": 1.0, "test": 0.0}
    assert found["splits"]["videos_without_sentences"]["test"] == 7
    assert found["data"]["features_without_sentences"] == 7


def test_sentences_without_features_are_counted_and_not_an_end(tiny_data: Path) -> None:
    with (tiny_data / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"query_id": "x", "video_id": "gone", "sentence": "a dog runs"}) + "\n")
    with (tiny_data / "videos.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"video_id": "gone", "duration_seconds": 9.0, "split": "train"}) + "\n")
    found = inspect(tiny_data).to_json()
    assert found["splits"]["sentences_without_features"] == {"train": 1, "test": 0}
    assert any("do not fit together" in sentence for sentence in found["findings"])


def test_a_model_and_its_index_are_described(
    tmp_path: Path, tiny_data: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    from dciml.model_folder import load_model
    from dciml.recipes.index import build_index
    from dciml.recipes.train import train

    folder = train(tiny_config(), tmp_path / "model", quiet=True)
    model = inspect(folder).to_json()
    loaded = load_model(folder)
    assert model["kind"] == "model"
    assert model["settings"]["training.epochs"] == 2
    assert model["parameters"]["all"] == sum(p.numel() for p in loaded.engine.dual.parameters())  # type: ignore[attr-defined]
    assert model["parameters"]["retrieval"] < model["parameters"]["all"]
    build_index(loaded, tiny_data, tmp_path / "index", split="test")
    index = inspect(tmp_path / "index").to_json()
    assert index["index"]["videos"] == 8
    assert index["index"]["vectors"] == 8 * 8
    assert index["model"]["still_there"] is True
    assert index["features"]["videos_without_features"] == 0
    assert index["findings"] == []
    folder.rename(tmp_path / "elsewhere")
    moved = inspect(tmp_path / "index").to_json()
    assert moved["model"]["still_there"] is False
    assert any("--model" in sentence for sentence in moved["findings"])


def test_a_folder_of_another_kind_is_refused_and_folders_inside_are_named(small_store: Path) -> None:
    with pytest.raises(DataError, match=r"name one of its folders: store"):
        recognise(small_store.parent)
    with pytest.raises(DataError, match="no such folder"):
        recognise(small_store / "nothing")


def test_the_command_prints_tables_and_json(small_store: Path) -> None:
    shown = CliRunner().invoke(app, ["inspect", str(small_store)])
    assert shown.exit_code == 0
    assert "rows without norm" in shown.output
    assert "! 1 row(s)" in shown.output
    printed = CliRunner().invoke(app, ["inspect", str(small_store), "--json"])
    assert json.loads(printed.output) == inspect(small_store).to_json()


def test_a_data_folder_that_lost_its_features_says_so(tiny_data: Path) -> None:
    (tiny_data / "features" / "index.jsonl").unlink()
    found = inspect(tiny_data)
    assert "the store holds no video: extract or import features" in found.findings
    assert any("the parts do not fit together" in sentence for sentence in found.findings)
