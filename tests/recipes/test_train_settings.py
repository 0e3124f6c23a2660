"""Settings that the training recipe checks or keeps for the time of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dciml.config import RunConfig, load_config
from dciml.datasets.folder import DataFolder, split_off_validation
from dciml.errors import ConfigError
from dciml.features.store import FeatureStore
from dciml.folders import WEIGHTS_FILE
from dciml.method.batch import collate_videos
from dciml.model_folder import Model, ModelCard, build_dual, load_model, open_searcher
from dciml.recipes import train as recipe
from dciml.recipes.index import build_index
from dciml.recipes.train import train
from dciml.search.engines import DualEngine
from dciml.search.searcher import Searcher
from dciml.training.checkpoint import load_tensors
from dciml.training.validation import LOCAL_WEIGHTS


def test_training_on_a_cpu_uses_repeatable_algorithms_and_puts_the_switch_back(
    tiny_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    step = recipe.training_step

    def watched(*arguments: Any) -> dict[str, float]:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(*arguments)

    monkeypatch.setattr(recipe, "training_step", watched)
    train(tiny_config(), tmp_path / "run", quiet=True)
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()


def test_moments_choose_the_checkpoint_only_where_there_are_some(
    tiny_config: Callable[..., RunConfig], tiny_data: Path, tmp_path: Path
) -> None:
    def config(data: Path) -> RunConfig:
        return tiny_config(data={"folder": str(data), "validation_moments": True}, training={"epochs": 1})

    train(config(tiny_data), tmp_path / "run", quiet=True)
    without = tmp_path / "without"
    shutil.copytree(tiny_data, without)
    file = without / "train.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        "".join(json.dumps({k: v for k, v in r.items() if k != "moments"}) + "\n" for r in records)
    )
    with pytest.raises(ConfigError, match=r"no held-out query of the split 'train' in .* has a moment"):
        train(config(without), tmp_path / "other", quiet=True)


def test_shared_local_scale_without_a_shared_space_is_refused(
    tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match=r"retrieval\.local: shared needs sentence vectors.* set it to linear"
    ):
        train(tiny_config(retrieval={"local": "shared"}), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("form", ["distribution", "fused"])
def test_a_distribution_needs_its_teacher(tiny_config: Callable[..., RunConfig], form: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"to_retrieval_form: {form} needs a teacher, so set retrieval\.local"
    ):
        tiny_config(mutual={"to_retrieval_form": form})


def test_a_run_with_a_local_scale_is_loaded_and_answers_by_all_three_scales(
    tiny_config: Callable[..., RunConfig], tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        retrieval={"local": "linear", "local_width": 12, "local_propagation": 0.5},
        mutual={"from_epoch": 0, "to_retrieval_form": "distribution", "to_grounding_form": "windows"},
        training={"epochs": 2, "keep": "last"},
    )
    out = train(config, tmp_path / "run", quiet=True)
    weights, _ = load_tensors(out / WEIGHTS_FILE)
    assert float(weights["retrieval.local_weight"]) in [pytest.approx(weight) for weight in LOCAL_WEIGHTS]
    assert not torch.equal(
        weights["retrieval.local.video.weight"], build_dual_of(out)["retrieval.local.video.weight"]
    )
    model, store = load_model(out), DataFolder.open(tiny_data).store
    width = config.retrieval.hidden + 12
    assert model.engine.embed_queries(["red dog runs"]).shape == (1, width)
    assert model.engine.fused_clips(store, ["test24"]).shape == (1, config.retrieval.num_clips, width)
    searcher = searcher_over(model, store, tmp_path / "index")
    assert searcher.search("red dog runs", k=3)


def test_whitening_is_of_the_training_data_and_kept_with_the_weights(
    tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_config(
        retrieval={"local": "linear", "local_width": 12, "whitening": True}, training={"epochs": 1}
    )
    out = train(config, tmp_path / "run", quiet=True)
    weights, _ = load_tensors(out / WEIGHTS_FILE)
    data = DataFolder.open(Path(config.data.folder))
    training, _ = split_off_validation(data.pairs("train"), config.data.validation_fraction, config.seed)
    videos = list(dict.fromkeys(pair.video_id for pair in training))
    clips = collate_videos(data.store, videos, num_clips=config.retrieval.num_clips, max_frames=4).clips
    mean = weights["retrieval.whiten.mean"]
    torch.testing.assert_close(mean, clips.flatten(0, 1).mean(dim=0), atol=1e-5, rtol=1e-4)
    matrix = weights["retrieval.whiten.matrix"]
    assert not torch.equal(matrix, torch.eye(len(matrix)))
    loaded = load_model(out).engine
    assert isinstance(loaded, DualEngine)
    assert loaded.dual.retrieval.whiten is not None
    assert torch.equal(loaded.dual.retrieval.whiten.matrix, matrix)
    with pytest.raises(ConfigError, match=r"retrieval\.whitening would leave the shared space"):
        tiny_config(retrieval={"local": "shared", "whitening": True})


def build_dual_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that the run began with."""
    config = load_config(folder / "config.yaml")
    recipe.seed_everything(config.seed)
    return dict(build_dual(config, ModelCard.read(folder / "model.json")).state_dict())


def searcher_over(model: Model, store: FeatureStore, folder: Path) -> Searcher:
    build_index(model, store.path, folder)
    return open_searcher(folder)
