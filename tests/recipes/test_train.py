"""A run from start to end: exact resumption, refusals, what lies in the folder, odd data, precision."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dciml.config import RunConfig, dump_config, load_config
from dciml.datasets.folder import write_data_folder
from dciml.errors import DataError, ModelError
from dciml.features.store import FeatureStoreWriter, StoreManifest
from dciml.folders import CHECKPOINT_FILE, TRAINED_ON_FILE, WEIGHTS_FILE
from dciml.locks import LOCK_FILE, hold
from dciml.method.batch import Batch
from dciml.recipes import train as recipe
from dciml.recipes.train import train
from dciml.training.checkpoint import load_tensors
from dciml.training.progress import Stopped
from dciml.types import Query, Video

MakeConfig = Callable[..., RunConfig]
Tensors = dict[str, torch.Tensor]


def assert_same_run(one: Path, two: Path) -> None:
    for name in (CHECKPOINT_FILE, WEIGHTS_FILE):
        (left, left_facts), (right, right_facts) = load_tensors(one / name), load_tensors(two / name)
        assert left.keys() == right.keys()
        assert all(torch.equal(value, right[key]) for key, value in left.items()), name
        assert left_facts == right_facts
    for name in ("model.json", "vocabulary.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def after_steps(monkeypatch: pytest.MonkeyPatch, count: int, action: Callable[[], None]) -> None:
    """Do something in the middle of step `count` (from 0), when one side has moved and the other has not."""
    from dciml.training import steps

    real, calls = steps.grounding_step, [0]

    def hooked(*args: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == count + 1:
            action()
        return real(*args)

    monkeypatch.setattr(steps, "grounding_step", hooked)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "whole"


@pytest.fixture
def whole(tiny_config: MakeConfig, kept_folder: Path, tmp_path: Path) -> Path:
    """A run that nothing stopped; trained once, and each test has its own copy."""
    if not kept_folder.exists():
        train(tiny_config(), kept_folder, quiet=True)
    shutil.copytree(kept_folder, tmp_path / "whole")
    return tmp_path / "whole"


@pytest.mark.parametrize(("at_step", "checkpoint_every_seconds"), [(1, 1e-9), (4, 1e-9), (4, 1e9)])
def test_run_interrupted_in_a_step_resumes_exactly(
    tiny_config: MakeConfig,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at_step: int,
    checkpoint_every_seconds: float,
) -> None:
    often = tiny_config(training={"checkpoint_every_seconds": checkpoint_every_seconds})
    with monkeypatch.context() as patch:
        after_steps(patch, at_step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(often, tmp_path / "m", quiet=True)
    train(tiny_config(), tmp_path / "m", resume=True, quiet=True)
    assert_same_run(whole, tmp_path / "m")


@pytest.mark.parametrize(("number", "at_step"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_signal_stops_after_the_step_and_saves(
    tiny_config: MakeConfig,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    at_step: int,
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        after_steps(patch, at_step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(Stopped, match=rf"after {at_step + 1} steps.*saved in .*--resume"):
            train(tiny_config(), tmp_path / "m", quiet=True)
    assert signal.getsignal(number) == before
    progress = json.loads(load_tensors(tmp_path / "m" / CHECKPOINT_FILE)[1]["progress"])
    assert progress["step"] == at_step + 1
    train(tiny_config(), tmp_path / "m", resume=True, quiet=True)
    assert_same_run(whole, tmp_path / "m")


def test_second_interrupt_stops_at_once(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    after_steps(monkeypatch, 0, twice)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tiny_config(), tmp_path / "m", quiet=True)
    assert not isinstance(caught.value, Stopped)
    progress = json.loads(load_tensors(tmp_path / "m" / CHECKPOINT_FILE)[1]["progress"])
    assert progress["step"] == 0  # what was written before the first step


@pytest.mark.parametrize("place", ["_validate_and_keep", "save_tensors"])
def test_run_stopped_at_the_end_of_an_epoch_resumes_exactly(
    tiny_config: MakeConfig, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Before validation of the first epoch; and between the weights of the second epoch and its checkpoint."""
    real, calls = getattr(recipe, place), [0]

    def hooked(*args: Any) -> None:
        calls[0] += 1
        if place == "_validate_and_keep":
            interrupt()
        real(*args)
        if calls[0] == 2:
            interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(recipe, place, hooked)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config(training={"checkpoint_every_seconds": 1e-9}), tmp_path / "m", quiet=True)
    train(tiny_config(), tmp_path / "m", resume=True, quiet=True)
    assert_same_run(whole, tmp_path / "m")


def test_joint_run_resumes_exactly(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(training={"mode": "joint"})
    train(config, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        from dciml.training import steps

        real = steps.joint_step
        patch.setattr(steps, "joint_step", lambda s, *a: os.kill(os.getpid(), 15) or real(s, *a))
        with pytest.raises(Stopped):
            train(config, tmp_path / "m", quiet=True)
    train(config, tmp_path / "m", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "m")


def test_finished_run_resumes_to_itself(tiny_config: MakeConfig, whole: Path) -> None:
    before = (whole / WEIGHTS_FILE).read_bytes(), (whole / CHECKPOINT_FILE).read_bytes()
    train(tiny_config(), whole, resume=True, quiet=True)
    assert before == ((whole / WEIGHTS_FILE).read_bytes(), (whole / CHECKPOINT_FILE).read_bytes())


def test_seed_decides_the_weights(tiny_config: MakeConfig, whole: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what was drawn before does not count
    np.random.seed(99)  # noqa: NPY002
    train(tiny_config(), tmp_path / "same", quiet=True)
    assert_same_run(whole, tmp_path / "same")
    train(tiny_config(seed=1), tmp_path / "other", quiet=True)
    assert (whole / WEIGHTS_FILE).read_bytes() != (tmp_path / "other" / WEIGHTS_FILE).read_bytes()


def test_existing_run_is_not_overwritten(tiny_config: MakeConfig, whole: Path) -> None:
    with pytest.raises(ModelError, match=r"holds a run already; go on with --resume"):
        train(tiny_config(), whole, quiet=True)
    (whole / CHECKPOINT_FILE).unlink()
    for resume in (False, True):
        with pytest.raises(ModelError, match="holds a model whose training cannot go on"):
            train(tiny_config(), whole, resume=resume, quiet=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"training": {"epochs": 3}}, "training.epochs was 2 and is 3"),
        ({"retrieval": {"dropout": 0.3}}, "retrieval.dropout was 0.2 and is 0.3"),
        ({"grounding": {"dropout": 0.3}, "seed": 1}, "seed was 9527 and is 1; grounding.dropout was 0.2"),
        ({"weights": {"match_clip": 0.0}}, "weights.match_clip was 0.4 and is 0.0"),
        (
            {"retrieval": {"gaussian_widths": [None, 2.0]}},
            r"retrieval.gaussian_widths was \[None, 1.0\] and is \[None, 2.0\]",
        ),
    ],
)
def test_resuming_with_other_settings_is_refused(
    tiny_config: MakeConfig, whole: Path, changes: dict[str, Any], named: str
) -> None:
    before = contents(whole)
    base = tiny_config().model_dump(exclude_defaults=True)
    merged = {
        key: {**base.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    with pytest.raises(ModelError, match=named):
        train(tiny_config(**merged), whole, resume=True, quiet=True)
    assert contents(whole) == before  # a refusal leaves the run as it is


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, which says who had the folder last."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != LOCK_FILE)
    return {path.name: path.read_bytes() for path in files}


def test_settings_that_decide_nothing_may_change(tiny_config: MakeConfig, whole: Path) -> None:
    config = tiny_config(training={"checkpoint_every_seconds": 5.0, "threads": None}, name="renamed")
    train(config, whole, resume=True, quiet=True)


def test_resuming_with_other_data_is_refused(tiny_config: MakeConfig, whole: Path, tiny_data: Path) -> None:
    file = tiny_data / "train.jsonl"
    file.write_text(file.read_text().replace("dog", "cat", 1))
    with pytest.raises(ModelError, match="content of the data folder was"):
        train(tiny_config(), whole, resume=True, quiet=True)


def test_resuming_from_a_damaged_checkpoint_is_explained(tiny_config: MakeConfig, whole: Path) -> None:
    content = (whole / CHECKPOINT_FILE).read_bytes()
    (whole / CHECKPOINT_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: the file is damaged"):
        train(tiny_config(), whole, resume=True, quiet=True)
    (whole / CHECKPOINT_FILE).write_bytes((whole / WEIGHTS_FILE).read_bytes())
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors: this is no checkpoint"):
        train(tiny_config(), whole, resume=True, quiet=True)


def test_resuming_where_nothing_was_saved_yet_starts(tiny_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "m"
    out.mkdir()
    (out / f".{CHECKPOINT_FILE}.abc").write_bytes(b"half a file of a killed run")
    train(tiny_config(training={"epochs": 1}), out, resume=True, quiet=True)
    assert [path.name for path in out.glob(".*")] == [LOCK_FILE]


def test_run_folder_is_complete(tiny_config: MakeConfig, whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "config.yaml", "model.json", "vocabulary.json", "run.json", "tensorboard", CHECKPOINT_FILE, WEIGHTS_FILE,
        TRAINED_ON_FILE, LOCK_FILE,
    }  # fmt: skip
    written = load_config(whole / "config.yaml")
    assert written.model_copy(update={"data": tiny_config().data}) == tiny_config()
    facts = json.loads((whole / "run.json").read_text())
    assert facts["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["packages"]["dciml"]
    assert facts["python"]
    assert "git_revision" in facts
    assert list((whole / "tensorboard").glob("events.*"))


@pytest.mark.parametrize(("held_out", "chosen"), [(12, 0), (9, 1)])
def test_kept_weights_are_of_each_side_s_best_epoch_or_the_last_where_few_videos_are_held_out(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_out: int, chosen: int
) -> None:
    values = iter([{"retrieval": 1.0, "grounding": -3.0}, {"retrieval": 0.5, "grounding": -2.0}])
    weights: list[Tensors] = []

    def fake(model: torch.nn.Module, *_: object, **__: object) -> dict[str, float]:
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        return next(values)

    monkeypatch.setattr(recipe, "validate", fake)
    train(tiny_config(data={"validation_fraction": held_out / 24}), tmp_path / "m", quiet=True)
    kept, _ = load_tensors(tmp_path / "m" / WEIGHTS_FILE)
    assert kept.keys() == weights[0].keys()
    for key, value in kept.items():
        epoch = chosen if key.startswith(("retrieval.", "to_retrieval.")) else 1
        assert torch.equal(value, weights[epoch][key]), key


def test_bf16_trains_on_the_cpu(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, float]] = []
    real = recipe.training_step

    def noted(step: Any, batch: Batch, optimizers: Any) -> dict[str, float]:
        seen.append(real(step, batch, optimizers))
        return seen[-1]

    monkeypatch.setattr(recipe, "training_step", noted)
    config = tiny_config(training={"precision": "bf16-mixed", "epochs": 1}, mutual={"from_epoch": 0})
    train(config, tmp_path / "m", quiet=True)
    assert len(seen) == 3
    assert len(seen[0]) == 18
    assert np.isfinite([list(values.values()) for values in seen]).all()
    assert all(
        value.dtype == torch.float32 for value in load_tensors(tmp_path / "m" / WEIGHTS_FILE)[0].values()
    )


def test_half_precision_can_clip(tiny_config: MakeConfig) -> None:
    """A fused optimiser unscales by itself, and Fabric refuses to clip then."""
    from dciml.method.mutual import DualBranch

    model = DualBranch.__new__(DualBranch)
    torch.nn.Module.__init__(model)
    model.retrieval, model.grounding = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    for optimizer in recipe.make_optimizers(tiny_config(training={"precision": "16-mixed"}), model).values():
        assert not getattr(optimizer, "_step_supports_amp_scaling", False)


def test_side_whose_weights_are_all_zero_stays(tiny_config: MakeConfig, tmp_path: Path) -> None:
    names = tiny_config().weights.model_dump()
    retrieval = (
        "nce",
        "triplet",
        "query",
        "explicit_to_retrieval",
        "modulated_clip",
        "modulated_frame",
        "match_c",
    )
    zero = {name: 0.0 for name in names if name.startswith((*retrieval, "match_frame"))}
    config = tiny_config(weights=zero, training={"epochs": 1, "weight_decay": 0.0, "batch_videos": 8})
    out = train(config, tmp_path / "m", quiet=True)
    again = train(config.model_copy(update={"seed": 9527}), tmp_path / "n", quiet=True)
    assert_same_run(out, again)
    optimizer_keys = [key for key in load_tensors(out / CHECKPOINT_FILE)[0] if key.startswith("optimizer/")]
    assert optimizer_keys
    assert not [key for key in optimizer_keys if key.startswith("optimizer/retrieval.")]


def make_data(folder: Path, rows_of: dict[str, int], sentences: dict[str, list[str]]) -> Path:
    rng = np.random.default_rng(3)
    videos = [Video(video_id, float(count), "train") for video_id, count in rows_of.items()]
    queries = [
        Query(f"{video_id}-{place}", video_id, sentence)
        for video_id, several in sentences.items()
        for place, sentence in enumerate(several)
    ]

    def fill(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("test-encoder", 16, 1.0)) as writer:
            for video_id, count in rows_of.items():
                writer.append(video_id, rng.standard_normal((count, 16)), float(count))

    write_data_folder(folder, "odd", {"train": queries}, videos, fill)
    return folder


def test_one_row_videos_and_one_word_sentences_train(tiny_config: MakeConfig, tmp_path: Path) -> None:
    rows_of = {"a": 1, "b": 1, "c": 40, "d": 1, "e": 2}
    sentences = {
        "a": ["dog"],
        "b": ["cat", "dog"],
        "c": ["a dog runs past a cat"],
        "d": ["bird"],
        "e": ["dog"],
    }
    data = make_data(tmp_path / "odd", rows_of, sentences)
    for number, size in enumerate((1, 3)):
        config = tiny_config(
            data={"folder": str(data)}, training={"batch_videos": size, "epochs": 2, "accelerator": "cpu"},
            mutual={"from_epoch": 0},
        )  # fmt: skip
        out = train(config, tmp_path / f"m{number}", quiet=True)
        assert all(value.isfinite().all() for value in load_tensors(out / WEIGHTS_FILE)[0].values())


def test_corpus_of_one_video_is_refused(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = make_data(tmp_path / "one", {"a": 5}, {"a": ["a dog runs", "a cat sits"]})
    with pytest.raises(
        DataError, match=r"validation part cannot be cut off from 1 video.*at least two training"
    ):
        train(tiny_config(data={"folder": str(data)}), tmp_path / "m", quiet=True)
    assert not (tmp_path / "m").exists()


KILLED_BEFORE_THE_FIRST_STEP = """
import os, signal, sys
from pathlib import Path
import dciml.recipes.train as recipe
from dciml.config import load_config
at = sys.argv[3]
whole = getattr(recipe, at)
def killed(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
setattr(recipe, at, killed)
recipe.train(load_config(Path(sys.argv[1])), Path(sys.argv[2]), quiet=True)
"""


@pytest.mark.parametrize("at", ["_write_folder", "save_checkpoint", "_epochs"])
def test_run_killed_before_its_first_step_can_be_resumed(
    tiny_config: MakeConfig, whole: Path, tmp_path: Path, at: str
) -> None:
    (tmp_path / "c.yaml").write_text(dump_config(tiny_config()))
    out = tmp_path / "m"
    command = [sys.executable, "-c", KILLED_BEFORE_THE_FIRST_STEP, str(tmp_path / "c.yaml"), str(out), at]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    train(tiny_config(), out, resume=True, quiet=True)
    assert_same_run(whole, out)


def test_second_training_into_one_folder_is_refused_and_told_who_trains(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    out = tmp_path / "m"
    out.mkdir()
    with (
        hold(out, "training a model"),
        pytest.raises(DataError, match=rf"in use by process {os.getpid()} \(training a model"),
    ):
        train(tiny_config(), out, quiet=True)
    assert [path.name for path in out.iterdir()] == [LOCK_FILE]


def test_training_writes_into_no_folder_of_another_kind(tiny_config: MakeConfig, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "config.yaml").write_text("of something else")
    for resume in (False, True):
        with pytest.raises(DataError, match="not a model folder"):
            train(tiny_config(), out, resume=resume, quiet=True)
    assert [path.name for path in out.iterdir()] == ["config.yaml"]
