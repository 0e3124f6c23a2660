"""Teaching a home: what is better beyond chance is kept, all else leaves the home as it was."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import load_config
from dciml.datasets import DataFolder
from dciml.errors import DataError, DcimlError
from dciml.features import FeatureStore, FeatureStoreWriter, Vocabulary
from dciml.index import ClipIndex
from dciml.locks import take
from dciml.method import CosineSpace, LocalScale
from dciml.method.batch import QueryBatch, VideoBatch
from dciml.model_folder import load_model, open_searcher
from dciml.recipes import teach as recipe
from dciml.recipes.home import SERVING_LOCK, Home, read_home
from dciml.recipes.index import add_videos
from dciml.recipes.teach import (
    NEEDED_VIDEOS,
    Corpus,
    Verdict,
    collected,
    expected_reciprocal_rank,
    report_of,
    settings_of,
    teach,
    undo,
)
from dciml.recipes.told import read_told, tell

FEW = ["training.epochs=8", "training.local_lr=1.0e-3"]


def content_of(home: Home) -> dict[str, bytes]:
    """All files but locks."""
    files = [
        path
        for path in home.path.rglob("*")
        if path.is_file() and "lock" not in path.name and path.name != SERVING_LOCK
    ]
    return {str(path.relative_to(home.path)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def taught(home_of: Callable[..., Home], tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Verdict]:
    """A home that was taught; a test that changes it copies it first."""
    home = home_of(tmp_path_factory.mktemp("taught"))
    return home, teach(home, FEW)


@pytest.fixture
def own(taught: tuple[Home, Verdict], tmp_path: Path) -> Home:
    """A copy of the taught home."""
    shutil.copytree(taught[0].path.parent, tmp_path / "copy")
    return Home(tmp_path / "copy" / "films.dciml", (tmp_path / "copy" / "films",), taught[0].encoders)


def test_a_taught_home_finds_what_it_was_not_taught(taught: tuple[Home, Verdict]) -> None:
    home, verdict = taught
    assert verdict.is_better
    assert verdict.trained_on == (24, 24)
    assert verdict.held_out == (12, 12)
    assert verdict.corpus == 36
    by_chance = float(np.mean(1 / np.arange(1, 37)))
    assert verdict.untrained["mean reciprocal rank"] == pytest.approx(100 * by_chance)  # it knows nothing
    assert verdict.gain.value == pytest.approx(
        verdict.trained["mean reciprocal rank"] - verdict.untrained["mean reciprocal rank"]
    )
    assert verdict.lines()[-1].startswith("Kept: on 12 sentences")
    assert home.taught == home.path / "taught-1"
    assert home.present_index == home.path / "taught-1" / "index"
    assert report_of(home) == json.loads(json.dumps(verdict.to_json()))
    assert Verdict.from_json(report_of(home) or {}) == verdict
    assert not (home.path / "teaching").exists()
    held = set(ClipIndex.open(home.index).video_ids)
    assert set(ClipIndex.open(home.present_index).video_ids) == held
    searcher = open_searcher(home.present_index)
    hits = searcher.search("a purple thing", 6)
    assert sum(int(hit.video_id.rpartition("/")[2]) % 6 == 5 for hit in hits) >= 4
    middle = [(hit.start_seconds + hit.end_seconds) / 2 for hit in hits[:3]]
    assert all(4 <= seconds <= 8 for seconds in middle)  # of moments it was told nothing


def test_the_first_step_starts_at_the_untrained_space(home_of: Callable[..., Home], tmp_path: Path) -> None:
    """Of rows of pictures beside rows of words, of which some videos have none."""
    rng = np.random.default_rng(0)
    blocks = ((6, 1.0), (4, 0.3))
    clips = rng.normal(size=(3, 5, 10)).astype(np.float32)
    clips[1, :, 6:] = 0
    clips[2, 2:4, 6:] = 0
    sentences = rng.normal(size=(2, 10)).astype(np.float32)
    scale = LocalScale(
        video_width=10, text_width=7, width=10, shared=True, blocks=blocks, clip_weight=0.7, propagation=0.25
    ).eval()
    words = torch.from_numpy(rng.normal(size=(2, 3, 7)).astype(np.float32))
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    queries = QueryBatch(
        ("p", "q"), words, words, ~nothing, nothing.long(), nothing, torch.from_numpy(sentences)
    )
    centers = torch.zeros(3, 5)
    frames = torch.from_numpy(clips)
    videos = VideoBatch(("a", "b", "c"), frames, centers, frames, torch.ones(3, 5, dtype=torch.bool))
    mine = torch.nn.functional.normalize(scale.encode_queries(queries), dim=-1)
    theirs = torch.nn.functional.normalize(scale.encode_clips(videos), dim=-1)
    assert mine.shape[-1] == theirs.shape[-1] == scale.width == 11
    found = torch.einsum("qd,vcd->qvc", mine, theirs).detach().numpy()

    space = CosineSpace(10, 0.7, 0.25, blocks=blocks)
    fused = space.embed_clips(clips)
    weighed = [
        weight * part / np.linalg.norm(part, axis=1, keepdims=True)
        for part, (_, weight) in zip(np.split(sentences, [6], axis=1), blocks, strict=True)
    ]
    untrained = np.einsum("qd,vcd->qvc", np.concatenate(weighed, axis=1), fused)
    assert np.allclose(found, untrained / (np.hypot(1, 0.3) * np.sqrt(2)), atol=1e-6)


def test_too_few_sentences_change_nothing(home_of: Callable[..., Home], tmp_path: Path) -> None:
    home = home_of(tmp_path, NEEDED_VIDEOS, NEEDED_VIDEOS - 1)
    tell(home.path, "gone", 0.0, 1.0, "a red thing")
    before = content_of(home)
    with pytest.raises(
        DataError, match=r"24 different videos are needed, and there are 23 .* for 23, .*1 more video"
    ):
        teach(home)
    assert content_of(home) == before
    assert collected(home).missing_videos == 1


def test_what_is_not_better_leaves_no_trace(home_of: Callable[..., Home], tmp_path: Path) -> None:
    home = home_of(tmp_path, NEEDED_VIDEOS, is_known=False)
    before = content_of(home)
    verdict = teach(home, ["training.epochs=3"])
    assert not verdict.is_better
    assert verdict.sentence.startswith("Not kept: on 8 sentences that it was not taught")
    assert content_of(home) == before
    assert home.taught is None


def test_undo_goes_back_and_takes_what_came_meanwhile_along(own: Home) -> None:
    manifest = FeatureStore.open(own.store).manifest
    rows = np.eye(12, manifest.width, dtype=np.float32)
    with FeatureStoreWriter(own.store, manifest) as writer:
        writer.append("films/new", rows, 12.0)
        writer.append("films/3", rows, 12.0, replace=True)
    index = ClipIndex.open(own.present_index)
    add_videos(
        index, load_model(index.model_folder()), own.store, only=["films/new", "films/3"], replace=True
    )
    index.remove(["films/5"])
    assert undo(own)
    assert own.present_index == own.index
    back = ClipIndex.open(own.index)
    assert set(back.video_ids) == set(index.video_ids)
    assert back.video("films/3").checksum == index.video("films/3").checksum
    engine = load_model(own.model).engine
    now = np.stack([match.clip_scores for match in _all(back, engine)])
    assert np.allclose(
        now,
        engine.fused_clips(FeatureStore.open(own.store), [m.video_id for m in _all(back, engine)])
        @ _query(engine),
    )
    assert not undo(own)
    assert len(read_told(own.path)) == 36


def _query(engine: Any) -> Any:
    rng = np.random.default_rng(0)
    return rng.normal(size=engine.vector_width).astype(np.float32)


def _all(index: ClipIndex, engine: Any) -> list[Any]:
    return index.search(_query(engine)[None], len(index))[0]


@pytest.mark.slow
def test_teaching_again_takes_the_next_place(own: Home) -> None:
    teach(own, FEW)
    assert own.taught == own.path / "taught-2"
    with recipe.teaching(own):  # the next one sweeps what gave way
        assert not (own.path / "taught-1").exists()
    assert own.taught is not None


@pytest.mark.parametrize(
    "content", ["", "[]", '{"in_use": "../../elsewhere"}', '{"in_use": "taught-9"}', '{"in_use": 1}']
)
def test_a_pointer_that_leads_nowhere_leaves_the_untrained(own: Home, content: str) -> None:
    (own.path / "taught.json").write_text(content)
    assert own.taught is None
    assert own.present_index == own.index


def test_a_kill_between_two_steps_leaves_the_home_working(
    home_of: Callable[..., Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(tmp_path, NEEDED_VIDEOS)
    verdict = Verdict((1, 1), 0, (1, 1), 1, {}, {}, recipe.Interval(1, 1, 1))
    steps = ("train", "_compare", "bring_over", "sync_folder", "write_json")
    for step in steps:
        real = getattr(recipe, step)

        def killed(*arguments: Any, real: Any = real, **options: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(recipe, step, killed)
        # What a kill leaves: no clean-up runs.
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
        if step != "_compare":
            monkeypatch.setattr(recipe, "_compare", lambda *_: verdict)
        if step != "train":
            monkeypatch.setattr(recipe, "train", lambda config, out, **_: shutil.copytree(home.model, out))
        with pytest.raises(KeyboardInterrupt):
            teach(home)
        monkeypatch.undo()
        assert home.taught is None
        assert (
            open_searcher(home.present_index).search("a red thing", 1) == []
        )  # it knows nothing, and answers
        shutil.rmtree(home.path / "teaching", ignore_errors=True)
    (home.path / "teaching").mkdir()
    (home.path / "taught-7").mkdir()
    with recipe.teaching(home) as folder:
        assert list(folder.iterdir()) == []
        assert not (home.path / "taught-7").exists()


def test_among_equal_scores_breaking_ties_gains_nothing() -> None:
    rng = np.random.default_rng(0)
    by_chance = np.mean([expected_reciprocal_rank(rng.normal(size=8), 3) for _ in range(4000)])
    assert expected_reciprocal_rank(np.zeros(8), 3) == pytest.approx(by_chance, abs=0.02)
    assert expected_reciprocal_rank(np.array([0.1, 0.5, 0.1, 0.9]), 0) == pytest.approx((1 / 3 + 1 / 4) / 2)


def test_moments_never_reach_training(
    home_of: Callable[..., Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(tmp_path, NEEDED_VIDEOS)
    seen: list[tuple[str, set[str]]] = []

    def look(config: Any, out: Path, **_: Any) -> None:
        folder = Path(config.data.folder)
        text = "".join(path.read_text() for path in folder.glob("*.json*"))
        seen.append((text, {pair.video_id for pair in DataFolder.open(folder).pairs("train")}))
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe, "train", look)
    with pytest.raises(KeyboardInterrupt):
        teach(home)
    text, videos = seen[0]
    assert "moments" not in text
    assert "start_seconds" not in text
    assert len(videos) == 16  # a third is set aside


def test_text_beside_the_videos_is_learned_from_but_for_those_set_aside(
    home_of: Callable[..., Home], tmp_path: Path
) -> None:
    home = home_of(tmp_path, 4, 0)
    (tmp_path / "films" / "0.srt").write_text(
        "".join(
            f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{said}\n\n"
            for n, said in enumerate(
                [
                    "we cut onions",
                    "oh",
                    "now the pan is hot",
                    "we cut onions",
                    "put it in now",
                    "and stir it well",
                    "it is ready now",
                ],
                1,
            )
        )
    )
    corpus = Corpus.of(home)
    pairs = recipe._captions(corpus, frozenset({"films/1"}))
    assert {pair.video_id for pair in pairs} == {"films/0", "films/2", "films/3"}
    assert len(pairs) == 3 * recipe.CAPTIONS_PER_VIDEO
    assert "oh" not in {pair.sentence for pair in pairs}


def test_settings_fit_the_untrained_model(taught: tuple[Home, Verdict], tmp_path: Path) -> None:
    config = settings_of(taught[0], tmp_path / "data", ["training.epochs=3"])
    assert config.training.epochs == 3
    assert config.retrieval.local_weight == 1.0
    assert [weight for _, weight in config.retrieval.local_blocks] == [1.0, 0.3]
    assert config.text.encoder.endswith(" + words:256")
    assert config.answer == load_model(taught[0].model).answer.model_copy(update={"blank_videos": True})
    assert (
        load_config(taught[0].path / "taught-1" / "model" / "config.yaml").retrieval.local_clip_weight == 0.7
    )


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "dciml", "teach", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def said_by(*arguments: object) -> str:
    """What the command prints, or says is wrong."""
    result = CliRunner().invoke(app, ["teach", *map(str, arguments)])
    return str(result.exception) if isinstance(result.exception, DcimlError) else result.stdout


def test_a_taught_home_names_words_that_it_was_not_taught(taught: tuple[Home, Verdict]) -> None:
    home, _ = taught
    vocabulary = Vocabulary.load(home.present_index.parent / "model" / "vocabulary.json")
    known = next(word for word in vocabulary.words[1:] if len(word) > 4)
    said = " ".join(open_searcher(home.present_index).notes(f"{known} xyzzy {known[:-1]}"))
    assert f"Unknown words count by their letters only: xyzzy, {known[:-1]} ({known}?)" in said
    assert open_searcher(home.index).notes("xyzzy") == ()  # untrained, it knows no word, only letters


def test_the_command_says_what_is_missing(home_of: Callable[..., Home], tmp_path: Path) -> None:
    home = home_of(tmp_path, 3)
    few = said_by(home.path)
    assert "24 different videos are needed, and there are 3 sentence(s) for 3" in few
    assert "tell of 21 more video(s)" in few
    assert "there are 3 sentence(s) for 3" in said_by(tmp_path / "films")  # its home lies beside it
    (tmp_path / "other").mkdir()
    assert "this is not the home of a folder of videos" in said_by(tmp_path / "other")
    assert "there is no such folder" in said_by(tmp_path / "nowhere")
    lock = take(home.index, "serving", name=SERVING_LOCK)
    try:
        used = said_by(home.path)
    finally:
        lock.close()
    assert "it is in use by process" in used
    assert "the button Teach" in used
    assert said_by(home.path, "--undo") == "No taught model is in use; nothing was changed.\n"


@pytest.mark.slow
def test_the_command_teaches_and_undoes(home_of: Callable[..., Home], tmp_path: Path) -> None:
    home = home_of(tmp_path)
    done = command(home.path, "--quiet")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (
        lines[0]
        == "trained on 24 sentences of 24 videos; compared on 12 sentences of 12 other videos, among 36"
    )
    assert any(line.startswith("mean reciprocal rank") and "untrained" in line for line in lines)
    assert lines[-2].startswith("Kept: ")
    assert f"`dciml serve {home.path}`" in lines[-1]
    assert read_home(home.path).taught is not None
    undone = command(home.path, "--undo", "--json")
    assert json.loads(undone.stdout) == {"undone": True}
    assert read_home(home.path).taught is None


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_leaves_the_home_working(
    home_of: Callable[..., Home], tmp_path: Path, number: signal.Signals
) -> None:
    home = home_of(tmp_path)
    before = content_of(home)
    words = [
        sys.executable,
        "-m",
        "dciml",
        "teach",
        str(home.path),
        "--set",
        "training.epochs=2000",
        "--quiet",
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not (home.path / "teaching" / "model" / "checkpoint.safetensors").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert "stopped; nothing was changed" in said
        assert content_of(home) == before
    assert home.taught is None
    assert open_searcher(home.present_index).search("a red thing", 1) == []
    verdict = teach(home, FEW)  # what it left is no obstacle
    assert verdict.is_better
    assert home.taught is not None
