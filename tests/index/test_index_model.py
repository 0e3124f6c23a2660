"""The index against a plain dictionary and a slow search, through changes in any order."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dciml.errors import DataError
from dciml.index import ClipIndex, IndexOptions, VideoDetails, VideoFilter, verify_index

CLIPS, WIDTH = 2, 4
NAMES = st.lists(st.sampled_from([*"abcdefgh", "é", "日本", "a b'c"]), min_size=1, max_size=4, unique=True)
TAGS = st.lists(st.sampled_from(["red", "blue", "it's"]), max_size=2)
SEEDS = st.integers(0, 1000)


@dataclass(frozen=True)
class Kept:
    """What the dictionary holds of a video."""

    vectors: np.ndarray
    seconds: float
    title: str
    tags: tuple[str, ...]


State = dict[str, Kept]


class IndexMachine(RuleBasedStateMachine):
    """Rules change the index and the dictionary alike; what is read must be the same."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.state: State = {}
        self.copies = 0

    def teardown(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)

    @initialize(exact_videos=st.sampled_from([10_000, 3]), dtype=st.sampled_from(["float32", "float16"]))
    def make(self, exact_videos: int, dtype: str) -> None:
        """Make an index, with or without codes, and a reader that looks at its first state."""
        options = IndexOptions(dtype=dtype, exact_videos=exact_videos, code_bytes=1)  # type: ignore[arg-type]
        self.index = ClipIndex.create(
            self.folder / "index", num_clips=CLIPS, width=WIDTH, fingerprint="f", model_folder=self.folder,
            store_path=self.folder, options=options,
        )  # fmt: skip
        self.reader, self.reader_state = ClipIndex.open(self.index.path), dict(self.state)

    def enter(self, names: list[str], seed: int, tags: list[str], gone: list[str]) -> None:
        """Add videos in the place of others, to both."""
        dice = np.random.default_rng(seed)
        vectors = dice.integers(-3, 4, (len(names), CLIPS, WIDTH)).astype(np.float32)
        seconds = [float(dice.integers(1, 100)) for _ in names]
        details = [VideoDetails(title=f"{name} {seed}", tags=tuple(tags)) for name in names]
        self.index.add(names, vectors, seconds, None, details, replaces=gone)
        for name in gone:
            del self.state[name]
        for name, array, length, told in zip(names, vectors, seconds, details, strict=True):
            self.state[name] = Kept(array, length, told.title or "", tuple(sorted(set(tags))))

    @rule(names=NAMES, seed=SEEDS, tags=TAGS)
    def add(self, names: list[str], seed: int, tags: list[str]) -> None:
        """Add videos; where one is held, nothing is added."""
        if self.state.keys() & set(names):
            with pytest.raises(DataError, match="in the index already"):
                self.enter(names, seed, tags, [])
        else:
            self.enter(names, seed, tags, [])

    @precondition(lambda self: self.state)
    @rule(names=NAMES, seed=SEEDS, tags=TAGS, data=st.data())
    def replace(self, names: list[str], seed: int, tags: list[str], data: st.DataObject) -> None:
        """Add videos where others give way, under their names or others."""
        other = data.draw(st.sampled_from(sorted(self.state)))
        self.enter(names, seed, tags, sorted({other, *(name for name in names if name in self.state)}))

    @rule(names=NAMES)
    def remove(self, names: list[str]) -> None:
        """Remove videos; where one is unknown, none goes."""
        if set(names) <= self.state.keys():
            self.index.remove(names)
            self.state = {name: kept for name, kept in self.state.items() if name not in names}
        else:
            with pytest.raises(DataError, match="does not hold"):
                self.index.remove(names)

    @rule()
    def compact(self) -> None:
        """Compacting changes nothing that is seen."""
        self.index.compact()

    @rule()
    def reopen(self) -> None:
        """Go on with an index opened anew."""
        self.index = ClipIndex.open(self.index.path)

    @rule()
    def back_up(self) -> None:
        """Go on with a copy; the one before must stay as it is."""
        self.copies += 1
        before, target = self.index, self.folder / f"copy{self.copies}"
        before.back_up(target)
        self.index = ClipIndex.open(target)
        self.compare(before, self.state)
        self.reader, self.reader_state = before, dict(self.state)

    @rule()
    def refresh_reader(self) -> None:
        """A reader shows the state that it opened, until it is refreshed; what it shows of a copy stays."""
        self.compare(self.reader, self.reader_state)
        if self.reader.path == self.index.path:
            changed = self.reader.generation != self.index.generation
            assert self.reader.refresh() == changed
            self.reader_state = dict(self.state)

    @rule()
    def verify(self) -> None:
        """Nothing is ever damaged, and no file is left over."""
        assert self.index.verify() == verify_index(self.index.path) == []

    @rule(
        seed=SEEDS,
        number=st.integers(1, 12),
        tag=st.sampled_from([None, "red", "it's"]),
        least=st.integers(0, 60),
    )
    def search(self, seed: int, number: int, tag: str | None, least: int) -> None:
        """The best videos of those that a filter lets through."""
        wanted = VideoFilter(tag=tag, min_duration_seconds=least)
        chosen = [
            name
            for name, kept in self.state.items()
            if (tag is None or tag in kept.tags) and kept.seconds >= least
        ]
        assert list(self.index.select(wanted)) == chosen
        query = np.random.default_rng(seed).integers(-3, 4, WIDTH).astype(np.float32)
        found = self.index.search(query[None], number, chosen)[0]
        scores = {name: float((self.state[name].vectors @ query).max()) for name in chosen}
        best = sorted(chosen, key=lambda name: (-scores[name], name))[:number]
        assert [(match.video_id, match.score) for match in found] == [(name, scores[name]) for name in best]

    def compare(self, index: ClipIndex, state: State) -> None:
        """An index holds what the dictionary holds."""
        assert index.video_ids == tuple(state)
        assert index.durations_seconds.tolist() == [kept.seconds for kept in state.values()]
        query = np.arange(1, WIDTH + 1, dtype=np.float32)
        scores = index.pair_scores(np.tile(query, (len(state), 1)), list(state))
        assert scores.tolist() == [(kept.vectors @ query).tolist() for kept in state.values()]

    @rule()
    def look(self) -> None:
        """All that is told of the videos."""
        self.compare(self.index, self.state)
        for name, kept in self.state.items():
            video = self.index.video(name)
            assert (video.title, video.tags, video.duration_seconds) == (kept.title, kept.tags, kept.seconds)


@pytest.mark.parametrize(("examples", "steps"), [(5, 10), pytest.param(150, 40, marks=pytest.mark.slow)])
def test_index_equals_a_dictionary_through_any_changes(examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        IndexMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=examples < 100,
        ),
    )
