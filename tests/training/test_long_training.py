"""Long videos in training: which windows are seen with which sentences, and that a run goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.errors import ConfigError
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.encoders.words import WordEncoder
from dciml.features.long_videos import WindowedStore, WindowRule, long_windows, parse_window, whole_id
from dciml.features.vocabulary import Vocabulary
from dciml.folders import CHECKPOINT_FILE
from dciml.method.batch import Batch
from dciml.method.mutual import DualBranch
from dciml.model_folder import ModelCard, batch_sizes, build_dual, draw_of, load_model
from dciml.recipes import train as recipe
from dciml.recipes.train import WINDOWS_FILE, train
from dciml.training.checkpoint import load_tensors
from dciml.training.loader import PairData, epoch_groups
from dciml.training.validation import best_windows, choose_windows, random_windows, validate

MakeConfig = Callable[..., RunConfig]
CPU = torch.device("cpu")
LONG = {"window_seconds": 8.0, "overlap_seconds": 4.0}  # videos last 12 to 29 s, so that most are long


@pytest.fixture
def make_data(tiny_config: MakeConfig, tiny_data: Path) -> Callable[..., PairData]:
    folder = DataFolder.open(tiny_data)
    pairs = folder.pairs("train")
    vocabulary = Vocabulary.build([pair.sentence for pair in pairs])
    corpus = EncodedCorpus.build(WordEncoder(vocabulary, 16), [pair.sentence for pair in pairs])
    store = WindowedStore.of(folder.store)

    def make(**changes: object) -> PairData:
        windows = long_windows(store, (pair.video_id for pair in pairs), WindowRule(8.0, 4.0))
        config = tiny_config(**changes)
        return PairData(store, pairs, corpus, vocabulary, batch_sizes(config), draw_of(config), windows)

    return make


@pytest.fixture
def data(make_data: Callable[..., PairData]) -> PairData:
    return make_data()


@pytest.fixture
def model(data: PairData, tiny_config: Callable[..., RunConfig]) -> DualBranch:
    torch.manual_seed(0)
    card = ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, len(data.vocabulary))
    return build_dual(tiny_config(), card)


def test_every_pair_appears_once_with_its_own_video_or_a_window_of_it(data: PairData) -> None:
    chosen = random_windows(data)
    assert 0 < len(data.windows) < len(data.by_video())
    for epoch in range(3):
        batches = epoch_groups(data, epoch, 0, 1, chosen)
        members = [index for batch in batches for _, some in batch for index in some]
        assert sorted(members) == list(range(len(data.pairs)))
        for video_id, some in (group for batch in batches for group in batch):
            assert {data.pairs[index].video_id for index in some} == {whole_id(video_id)}
            if whole_id(video_id) in data.windows:
                assert [chosen[index] for index in some] == [video_id]


def test_windows_of_a_video_are_not_each_other_s_negatives_where_that_can_be(data: PairData) -> None:
    for batch in epoch_groups(data, 1, 0, 1, random_windows(data)):
        wholes = [whole_id(video_id) for video_id, _ in batch]
        assert len(set(wholes)) == len(wholes)


def test_batches_are_as_many_whatever_is_chosen_and_about_equally_large(
    data: PairData, model: DualBranch
) -> None:
    counts = [len(epoch_groups(data, epoch, 0, 1, c)) for epoch, c in enumerate(({}, random_windows(data)))]
    assert counts[0] == counts[1]
    sizes = [len(batch) for batch in epoch_groups(data, 0, 0, 1, best_windows(model, data, CPU))]
    assert max(sizes) <= data.draw.batch_videos
    assert max(sizes) - min(sizes) <= 1


def test_two_processes_share_what_one_sees(make_data: Callable[..., PairData]) -> None:
    whole, half = make_data(training={"batch_videos": 8}), make_data(training={"batch_videos": 4})
    chosen = random_windows(whole)
    together = epoch_groups(whole, 2, 0, 1, chosen)
    parts = [epoch_groups(half, 2, rank, 2, chosen) for rank in (0, 1)]
    assert [a + b for a, b in zip(*parts, strict=True)] == together


def test_a_video_with_more_sentences_than_batches_meets_itself_as_seldom_as_can_be(
    make_data: Callable[..., PairData],
) -> None:
    data = make_data(training={"batch_videos": 100})
    (batch,) = epoch_groups(data, 0, 0, 1, random_windows(data))
    assert len(batch) == sum(len(m) if v in data.windows else 1 for v, m in data.by_video().items())


def test_without_long_videos_batches_are_what_they_were(make_data: Callable[..., PairData]) -> None:
    data = make_data()
    plain = PairData(data.store, data.pairs, data.sentences, data.vocabulary, data.sizes, data.draw)
    for batch in epoch_groups(plain, 0, 0, 1):
        assert all(
            video_id in plain.by_video() and some == plain.by_video()[video_id] for video_id, some in batch
        )
    assert choose_windows(None, plain, CPU, 3) == {}  # type: ignore[arg-type]


@torch.no_grad()
def slow_scores(model: DualBranch, data: PairData, name: str) -> torch.Tensor:
    """The score of every pair's sentence and one video or window, by cosines one after the other."""
    output = model.retrieval(data.collate([(name, list(range(len(data.pairs))))], 0))
    clips = torch.stack([torch.cosine_similarity(output.query, clip, dim=-1) for clip in output.clips[0]])
    frame = torch.cosine_similarity(output.query, output.frames[0:1])
    scores: torch.Tensor = 0.7 * clips.amax(dim=0) + 0.3 * frame
    return scores


def test_the_best_window_is_the_one_that_scores_best(data: PairData, model: DualBranch) -> None:
    chosen = best_windows(model, data, CPU)
    assert model.training
    assert set(chosen) == {i for i, pair in enumerate(data.pairs) if pair.video_id in data.windows}
    model.eval()
    for video_id in list(data.windows)[:6]:
        scores = {window: slow_scores(model, data, window) for window in data.windows[video_id]}
        for index in data.by_video()[video_id]:
            best = max(float(some[index]) for some in scores.values())
            assert float(scores[chosen[index]][index]) == pytest.approx(best, abs=1e-5)


def test_the_first_epoch_draws_and_the_others_choose(data: PairData, model: DualBranch) -> None:
    assert choose_windows(model, data, CPU, 0) == random_windows(data)
    assert choose_windows(model, data, CPU, 1) == best_windows(model, data, CPU)
    drawn = random_windows(data)
    places = {data.windows[data.pairs[i].video_id].index(window) for i, window in drawn.items()}
    assert len(places) > 1


def test_a_held_out_long_video_counts_by_its_best_window(data: PairData, model: DualBranch) -> None:
    """Against the slow definition: every window is a video, and the video has the best score of its windows."""
    model.eval()
    by_video = [
        torch.stack(
            [slow_scores(model, data, part) for part in data.windows.get(video_id, (video_id,))]
        ).amax(dim=0)
        for video_id in data.by_video()
    ]
    own = [list(data.by_video()).index(pair.video_id) for pair in data.pairs]
    scores = torch.stack(by_video, dim=1)
    ranks = [int((row >= row[place]).sum()) for row, place in zip(scores, own, strict=True)]
    expected = sum(100 * sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10, 100))
    values = validate(model, data, CPU)
    assert values["retrieval"] == pytest.approx(expected, abs=2.1)  # a near tie may fall to either side
    assert values["grounding"] < 0


def test_the_loss_sees_windows_of_the_right_videos_only(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    real = recipe.training_step

    def watched(step: Any, batch: Batch, optimizers: Any) -> dict[str, float]:
        owners = batch.video_of_query.tolist()
        seen.extend(
            zip(batch.queries.query_ids, (batch.videos.video_ids[row] for row in owners), strict=True)
        )
        return real(step, batch, optimizers)

    monkeypatch.setattr(recipe, "training_step", watched)
    train(tiny_config(long_videos=LONG), tmp_path / "m", quiet=True)
    windows = {name for _, name in seen if parse_window(name) is not None}
    assert windows
    for query_id, name in seen:
        assert query_id.startswith(f"{whole_id(name)}-")
    facts = json.loads((tmp_path / "m" / "run.json").read_text())["trained_on"]
    assert facts["long_videos"] > 0
    assert facts["max_seconds"] <= 12.0
    assert load_model(tmp_path / "m").windows == WindowRule(8.0, 4.0)


@pytest.mark.slow
def test_a_run_with_long_videos_goes_on_exactly(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(long_videos=LONG, training={"epochs": 2, "checkpoint_every_seconds": 1e-9})
    train(config, tmp_path / "whole", quiet=True)
    real, calls = recipe.training_step, [0]

    def broken(*args: Any) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == 9:  # in the second epoch, whose windows the weights of its beginning have chosen
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "training_step", broken)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "m", quiet=True)
    progress = json.loads(load_tensors(tmp_path / "m" / CHECKPOINT_FILE)[1]["progress"])
    assert progress["epoch"] == 1
    assert progress["step_in_epoch"] > 0
    train(config, tmp_path / "m", resume=True, quiet=True)
    left, right = (load_tensors(tmp_path / name / CHECKPOINT_FILE)[0] for name in ("whole", "m"))
    assert all(torch.equal(value, right[key]) for key, value in left.items())
    assert (tmp_path / "m" / WINDOWS_FILE).read_text() == (tmp_path / "whole" / WINDOWS_FILE).read_text()


def test_windows_overlap_by_less_than_their_length(tiny_config: MakeConfig) -> None:
    for wrong in ({"window_seconds": 5.0, "overlap_seconds": 5.0}, {"overlap_seconds": 1.0}):
        with pytest.raises(ConfigError, match="overlap_seconds must be below"):
            tiny_config(long_videos=wrong)


def test_the_last_weights_are_kept_where_the_settings_say_so(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([{"retrieval": 9.0, "grounding": 9.0}, {"retrieval": 1.0, "grounding": float("nan")}])
    monkeypatch.setattr(recipe, "validate", lambda *_, **__: next(values))
    train(tiny_config(training={"keep": "last"}), tmp_path / "m", quiet=True)
    kept, _ = load_tensors(tmp_path / "m" / "model.safetensors")
    last, facts = load_tensors(tmp_path / "m" / CHECKPOINT_FILE)
    assert all(torch.equal(value, last[f"model/{key}"]) for key, value in kept.items())
    assert dict(json.loads(facts["progress"])["best"]) == {"retrieval": 9.0, "grounding": 9.0}
