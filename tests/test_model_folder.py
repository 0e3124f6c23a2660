"""Model folders: loading, what is damaged is named, fingerprints, the store check."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import dciml
from dciml.config import RunConfig, without_later_settings
from dciml.datasets.folder import DataFolder
from dciml.errors import ModelError
from dciml.features.encoders.words import WordEncoder
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.features.vocabulary import Vocabulary
from dciml.folders import WEIGHTS_FILE
from dciml.model_folder import load_model, make_text_encoder
from dciml.recipes.train import train
from dciml.search.engines import DualEngine
from dciml.training.checkpoint import (
    load_tensors,
    save_tensors,
)

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model") / "m"


@pytest.fixture
def folder(tiny_config: MakeConfig, trained_once: Path, tmp_path: Path) -> Path:
    """A copy of a model that was trained for an epoch."""
    if not trained_once.exists():
        train(tiny_config(training={"epochs": 1}), trained_once, quiet=True)
    for path in trained_once.iterdir():
        if path.is_file():
            (tmp_path / "m").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "m")
    return tmp_path / "m"


def test_text_encoder_runs_where_the_model_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[str] = []

    def create(spec: str, vocabulary: Vocabulary, max_words: int, device: str) -> WordEncoder:
        devices.append(device)
        return WordEncoder(vocabulary, 16, max_words)

    monkeypatch.setattr("dciml.model_folder.create_text_encoder", create)
    monkeypatch.setattr("dciml.model_folder.check_device", lambda device: None)
    load_model(folder)
    load_model(folder, "meta")  # stands for a GPU: every torch has it
    assert devices == ["cpu", "meta"]


def test_folder_loads_and_answers(folder: Path, tiny_data: Path) -> None:
    model = dciml.load(folder)
    assert (model.kind, model.store_encoder) == ("dciml", "test-encoder")
    store = DataFolder.open(tiny_data).store
    model.check_store(store)
    assert model.engine.fused_clips(store, ["test24"]).shape == (1, 8, 16)
    assert isinstance(model.engine, DualEngine)
    assert not model.engine.dual.training
    kept, _ = load_tensors(folder / WEIGHTS_FILE)
    for key, value in model.engine.dual.state_dict().items():
        assert torch.equal(value, kept[key])


def test_checkpoint_is_not_needed_to_answer(folder: Path) -> None:
    for name in ("checkpoint.safetensors", "run.json"):
        (folder / name).unlink()
    load_model(folder)


@pytest.mark.parametrize("name", ["model.json", "config.yaml", "vocabulary.json", WEIGHTS_FILE])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "other"])
def test_file_that_is_missing_or_damaged_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        other = b"- 1\n" if name == "config.yaml" else b"[1, 2]"
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 3], "other": other}[damage])
    if damage == "cut" and name == "config.yaml":
        path.write_text("name: [")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "model format is 99, this version reads 1"),
        ({"video_width": "wide"}, r"damaged or incomplete \(video_width\)"),
        ({"video_width": 17}, r"model\.safetensors: does not fit the settings"),
        ({"text_encoder": "roberta"}, "trained with the text encoder roberta, but here it is words-v1"),
        ({"kind": "another"}, r"model\.json, field kind"),
    ],
)
def test_card_that_does_not_fit_is_explained(folder: Path, change: dict[str, object], message: str) -> None:
    card = json.loads((folder / "model.json").read_text()) | change
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_missing_field_of_the_card_is_named(folder: Path) -> None:
    card = json.loads((folder / "model.json").read_text())
    del card["store_encoder"]
    (folder / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"model\.json: damaged or incomplete \(store_encoder\)"):
        load_model(folder)


def test_weights_that_lack_one_are_refused(folder: Path) -> None:
    tensors, metadata = load_tensors(folder / WEIGHTS_FILE)
    tensors.pop("grounding.start_word")
    save_tensors(folder / WEIGHTS_FILE, tensors, metadata)
    with pytest.raises(ModelError, match=r"model\.safetensors: does not fit.*grounding\.start_word"):
        load_model(folder)


def test_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model here.*dciml train"):
        dciml.load(tmp_path)


def test_fingerprint_changes_with_what_decides_the_answers(folder: Path) -> None:
    seen = [load_model(folder).engine.fingerprint]
    assert load_model(folder).engine.fingerprint == seen[0]
    tensors, metadata = load_tensors(folder / WEIGHTS_FILE)
    tensors[next(iter(tensors))].flatten()[0] += 1e-3
    save_tensors(folder / WEIGHTS_FILE, tensors, metadata)
    seen.append(load_model(folder).engine.fingerprint)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("clip_weight: 0.7", "clip_weight: 0.5"))
    seen.append(load_model(folder).engine.fingerprint)
    assert len(set(seen)) == 3
    settings = config.read_text()
    assert "video_weight: 3.0" in settings
    config.write_text(settings.replace("video_weight: 3.0", "video_weight: 5.0"))
    assert load_model(folder).engine.fingerprint == seen[2]  # how spans are ranked is asked at search time


def test_settings_that_came_later_leave_the_fingerprints_of_earlier_models(tiny_config: MakeConfig) -> None:
    """A new setting that vectors depend on belongs into LATER_SETTINGS, or all indexes are of other models."""
    tree = without_later_settings(tiny_config().model_dump(mode="json"))
    assert (len(tree["retrieval"]), len(tree["grounding"])) == (23, 15)
    changed = tiny_config(retrieval={"local": "linear", "whitening": True}, grounding={"content_weight": 4.0})
    kept = without_later_settings(changed.model_dump(mode="json"))
    assert kept["retrieval"]["whitening"] is True
    assert kept["grounding"]["content_weight"] == 4.0


def test_store_of_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    with FeatureStoreWriter(tmp_path / "s", StoreManifest("another-encoder", 16, 1.0)) as writer:
        writer.append("v", [[1.0] * 16], 1.0)
    with pytest.raises(ModelError, match=r"reads features of test-encoder, but .* of another-encoder"):
        load_model(folder).check_store(FeatureStore.open(tmp_path / "s"))


def test_encoder_gives_as_many_words_as_the_branches_read(tiny_config: MakeConfig) -> None:
    vocabulary = Vocabulary.build(["dog"])
    sentence = " ".join(["dog"] * 60)
    for most, expected in ((50, 50), (8, 30)):
        encoder = make_text_encoder(tiny_config(text={"max_words": most}), vocabulary)
        assert len(encoder.encode([sentence])[0].words) == expected
