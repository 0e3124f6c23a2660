"""Settings that the training recipe checks or keeps for the time of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dciml.config import RunConfig
from dciml.errors import ConfigError
from dciml.recipes import train as recipe
from dciml.recipes.train import train


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


def test_zero_shot_weight_without_a_shared_space_is_refused(
    tiny_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = tiny_config()
    config = config.model_copy(
        update={"retrieval": config.retrieval.model_copy(update={"zero_shot_weight": 1.0})}
    )
    with pytest.raises(ConfigError, match="zero_shot_weight needs sentence vectors"):
        train(config, tmp_path / "run", quiet=True)


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
