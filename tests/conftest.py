"""Makes small batches, stores and folders that several test files use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jaxtyping
import numpy as np
import pytest
import torch

from dciml.method.batch import Batch, QueryBatch, VideoBatch

if TYPE_CHECKING:
    from dciml.config import RunConfig
    from dciml.recipes.home import Home

MOST_SECONDS, MOST_SECONDS_SLOW = 300, 1500


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that stands still ends its process, and so fails by name, instead of holding up all others."""
    if config.pluginmanager.hasplugin(
        "timeout"
    ):  # where only pytest itself is at hand, tests run without a limit
        for item in items:
            seconds = MOST_SECONDS_SLOW if item.get_closest_marker("slow") else MOST_SECONDS
            item.add_marker(pytest.mark.timeout(seconds, method="thread"))


VIDEO_WIDTH, TEXT_WIDTH, STATIC_WIDTH, VOCABULARY = 12, 10, 8, 20


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors on a busy machine are much faster on one thread."""
    torch.set_num_threads(1)


@pytest.fixture
def two_shares() -> Iterator[None]:
    """Work is shared out over two threads."""
    from dciml.threads import set_num_shares

    set_num_shares(2)
    yield
    set_num_shares(None)


@pytest.fixture
def shapes_unchecked() -> Callable[[], AbstractContextManager[None]]:
    """Leaves out the check of shapes where the same work runs again and again: it takes half of a small step."""

    @contextmanager
    def unchecked() -> Iterator[None]:
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            yield
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    return unchecked


def make_batch(
    sentences_per_video: tuple[int, ...] = (2, 1, 3), seed: int = 0, num_clips: int = 8, max_frames: int = 16
) -> Batch:
    """Random features; videos and sentences differ in length."""
    rng = torch.Generator().manual_seed(seed)
    num_videos, num_queries = len(sentences_per_video), sum(sentences_per_video)
    frame_counts = torch.tensor([max_frames - 3 * (i % 4) for i in range(num_videos)])
    word_counts = torch.tensor([7 - (i % 4) for i in range(num_queries)])
    frame_mask = torch.arange(int(frame_counts.max()))[None] < frame_counts[:, None]
    word_mask = torch.arange(int(word_counts.max()))[None] < word_counts[:, None]

    def unit(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, generator=rng), dim=-1)

    videos = VideoBatch(
        tuple(f"v{i}" for i in range(num_videos)),
        unit(num_videos, num_clips, VIDEO_WIDTH),
        ((torch.arange(num_clips) + 0.5) / num_clips).repeat(num_videos, 1),
        unit(*frame_mask.shape, VIDEO_WIDTH) * frame_mask[..., None],
        frame_mask,
    )
    hidden = torch.rand(word_mask.shape, generator=rng) < 0.3
    queries = QueryBatch(
        tuple(f"q{i}" for i in range(num_queries)),
        unit(*word_mask.shape, TEXT_WIDTH) * word_mask[..., None],
        unit(*word_mask.shape, STATIC_WIDTH) * word_mask[..., None],
        word_mask,
        torch.randint(1, VOCABULARY, word_mask.shape, generator=rng) * word_mask,
        hidden & word_mask,
    )
    owner = torch.repeat_interleave(torch.arange(num_videos), torch.tensor(sentences_per_video))
    return Batch(videos, queries, owner)


@pytest.fixture
def batch() -> Batch:
    """Three videos with 2, 1 and 3 sentences."""
    return make_batch()


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    """The batch maker itself."""
    return make_batch


WORDS = ("red", "blue", "green", "dog", "cat", "bird", "runs", "sits", "jumps", "left", "right", "slowly")


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A data folder of 24 training and 8 test videos whose rows carry the words of their sentences."""
    from dciml.datasets.folder import write_data_folder
    from dciml.features.store import FeatureStoreWriter, StoreManifest
    from dciml.types import Query, Video

    rng = np.random.default_rng(0)
    table = rng.standard_normal((len(WORDS), 16)).astype(np.float32)
    videos: list[Video] = []
    queries: dict[str, list[Query]] = {"train": [], "test": []}
    rows_of: dict[str, np.ndarray] = {}
    for number in range(32):
        split = "train" if number < 24 else "test"
        video_id, length = f"{split}{number}", int(rng.integers(12, 30))
        rows = 0.3 * rng.standard_normal((length, 16)).astype(np.float32)
        cut = int(rng.integers(4, length - 4))
        for place, (start, end) in enumerate(((0, cut), (cut, length))):
            words = rng.choice(len(WORDS), size=4, replace=False)
            rows[start:end] += table[words].sum(axis=0)
            sentence = " ".join(WORDS[w] for w in words)
            moment = (float(start), float(end))
            queries[split].append(Query(f"{video_id}-{place}", video_id, sentence, (moment,)))
        videos.append(Video(video_id, float(length), split))
        rows_of[video_id] = rows

    def fill(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("test-encoder", 16, 1.0)) as writer:
            for video in videos:
                writer.append(video.video_id, rows_of[video.video_id], video.duration_seconds)

    folder = tmp_path / "tiny-data"
    write_data_folder(folder, "tiny", queries, videos, fill)
    return folder


@pytest.fixture
def tiny_config(tiny_data: Path) -> Callable[..., RunConfig]:
    """Settings of a run on `tiny_data` that takes a second: 2 epochs of 3 steps, all pathways on in the second."""
    from dciml.config import parse_config

    def make(**changes: Any) -> RunConfig:
        tree: dict[str, Any] = {
            "name": "tiny",
            "data": {"folder": str(tiny_data)},
            "text": {"encoder": "words:16", "max_words": 8},
            "retrieval": {
                "hidden": 16, "heads": 2, "num_clips": 8, "max_frames": 16, "gaussian_widths": [None, 1.0],
                "num_blocks": 1, "hard_negatives_from_epoch": 1,
            },
            "grounding": {"hidden": 16, "heads": 2, "layers": 1, "num_proposals": 3, "num_positions": 8},
            "mutual": {"from_epoch": 1},
            "training": {"epochs": 2, "batch_videos": 8, "threads": 1, "accelerator": "cpu"},
        }  # fmt: skip
        for key, value in changes.items():
            tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
        return parse_config(tree, "test")

    return make


THINGS = ("red", "green", "blue", "yellow", "grey", "purple")
TOLD_SECONDS = 12.0


def make_home(
    folder: Path, num_videos: int = 36, num_told: int | None = None, *, is_known: bool = True
) -> Home:
    """A home of made-up rows, in which a sentence of each video says what its middle third shows.

    The rows tell nothing to the untrained space, so that whatever finds them was taught. All videos have one file.

    Args:
        num_told: how many videos have a sentence; None: all.
        is_known: whether the sentences have to do with the rows.
    """
    from dciml.features import FeatureStore, FeatureStoreWriter
    from dciml.index import ClipIndex
    from dciml.media import write_video
    from dciml.model_folder import load_model
    from dciml.recipes.home import WITHOUT_MODEL, open_home
    from dciml.recipes.index import add_videos
    from dciml.recipes.told import tell

    films, rng = folder / "films", np.random.default_rng(5)
    films.mkdir(parents=True)
    file = films / "0.mp4"
    write_video(file, [np.full((96, 128, 3), 5 * k, dtype=np.uint8) for k in range(48)], 4)
    home = open_home(folder / "films.dciml", [films], WITHOUT_MODEL)
    manifest = FeatureStore.open(home.store).manifest
    seen = manifest.width - 256  # the rest is of words beside the videos, and there are none
    looks = rng.normal(size=(len(THINGS), seen)) * 2
    with FeatureStoreWriter(home.store, manifest, commit_every=num_videos) as writer:
        for number in range(num_videos):
            rows = np.zeros((12, manifest.width), dtype=np.float32)
            rows[:, :seen] = rng.normal(size=(12, seen)) * 0.7
            rows[4:8, :seen] += looks[number % len(THINGS)]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            writer.append(f"films/{number}", rows, TOLD_SECONDS, source=str(file))
    add_videos(ClipIndex.open(home.index), load_model(home.model), home.store)
    for number in range(num_videos if num_told is None else num_told):
        thing = THINGS[number % len(THINGS)] if is_known else f"word{number}"
        tell(home.path, f"films/{number}", 4.0, 8.0, f"a {thing} thing {number}", TOLD_SECONDS)
    return home


@pytest.fixture(scope="session")
def home_of() -> Callable[..., Home]:
    """Makes homes in a folder: `home_of(tmp_path, num_videos, num_told)`."""
    return make_home
