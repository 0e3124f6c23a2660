"""Models in the form of the Hugging Face Hub, without a network: a folder, and the cache that a download leaves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError, ModelError
from dciml.hub import HubModel
from dciml.model_folder import Model, load_model
from dciml.recipes.baseline import SharedSpaceConfig, train_shared_space
from dciml.recipes.train import train

SENTENCE = "red dog runs left"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tiny_config: Callable[..., RunConfig], tmp_path: Path) -> Model:
    return load_model(train(tiny_config(training={"epochs": 1}), tmp_path / "private" / "mine", quiet=True))


def same_model(one: Model, other: Model) -> bool:
    vectors = [own.engine.embed_queries([SENTENCE]).tolist() for own in (one, other)]
    return one.engine.fingerprint == other.engine.fingerprint and vectors[0] == vectors[1]


def test_a_saved_model_is_the_same_and_its_card_tells_what_run_json_does(
    model: Model, tmp_path: Path
) -> None:
    assert HubModel(model).save_pretrained(tmp_path / "shared") is None
    again = HubModel.from_pretrained(tmp_path / "shared").model
    assert same_model(model, again)
    assert again.windows == model.windows
    assert again.calibration == model.calibration
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.library_name == "dciml"
    assert "video-moment-retrieval" in card.data.tags
    for said in ("# mine\n", "| sentences | 44 |", "| data | tiny-data |", "`test-encoder`", "torch 2."):
        assert said in card.text
    assert "## Warnings" in card.text
    for file in (tmp_path / "shared").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), f"{file.name} says where things lie"
    assert not (tmp_path / "shared" / "checkpoint.safetensors").exists()
    assert (tmp_path / "shared" / "trained_on.safetensors").exists()


def test_a_baseline_is_saved_too(tiny_data: Path, tmp_path: Path) -> None:
    config = SharedSpaceConfig(text="words:16", width=8, num_clips=8, epochs=1, batch_pairs=16)
    baseline = load_model(train_shared_space(DataFolder.open(tiny_data), tmp_path / "private", config))
    HubModel(baseline).save_pretrained(tmp_path / "shared")
    assert str(tmp_path) not in (tmp_path / "shared" / "run.json").read_text(encoding="utf-8")
    assert same_model(baseline, HubModel.from_pretrained(tmp_path / "shared").model)


def test_a_download_is_loaded_from_the_cache(model: Model, tmp_path: Path) -> None:
    """As huggingface_hub lays its cache out: files by their hashes, and links to them for each commit."""
    HubModel(model).save_pretrained(tmp_path / "shared")
    folder = tmp_path / "cache" / "models--someone--mine"
    snapshot = folder / "snapshots" / COMMIT
    for part in (snapshot, folder / "blobs", folder / "refs"):
        part.mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted((tmp_path / "shared").iterdir())):
        file.rename(folder / "blobs" / f"blob{number}")
        (snapshot / file.name).symlink_to(os.path.relpath(folder / "blobs" / f"blob{number}", snapshot))
    loaded = HubModel.from_pretrained("someone/mine", cache_dir=tmp_path / "cache", local_files_only=True)
    assert same_model(model, loaded.model)
    HubModel(loaded.model).save_pretrained(tmp_path / "again")
    assert same_model(model, load_model(tmp_path / "again"))


def test_nothing_is_written_over_and_what_is_missing_is_told(model: Model, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("somebody's")
    with pytest.raises(DataError, match="there is something here already"):
        HubModel(model).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken" / "config.json").read_text() == "somebody's"
    for name in ("someone/nothing", "no/such/name"):
        with pytest.raises(ModelError, match="no such model could be had from the hub"):
            HubModel.from_pretrained(name, cache_dir=tmp_path / "cache", local_files_only=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no model here"):
        HubModel.from_pretrained(tmp_path / "empty")


def test_what_keeps_a_model_from_the_hub_is_told(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    own = HubModel(model)
    with pytest.raises(ModelError, match=r"^me/model: the model cannot be put on the hub .*hf auth login"):
        own.push_to_hub("me/model", token="no such token")
    with pytest.raises(ModelError, match=r"^me/no such: the model cannot be put"):
        own.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="me/no such", token="no such token")
    assert HubModel.from_pretrained(tmp_path / "saved").model.kind == model.kind  # what was saved stays
