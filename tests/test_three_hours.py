"""A video of three hours: features and index in bounded memory, and a planted event of eight seconds is found.

The model is that of a finished demo where DCIML_DEMO_MODEL names its folder; else a small one is trained first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dciml.demo.corpus import CorpusSize, make_data_folder, make_videos, plan_corpus
from dciml.demo.long_video import PlantedEvent, write_long_video
from dciml.demo.story import Actor
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import probe

pytestmark = pytest.mark.slow

HOURS = 3
PLANTED = PlantedEvent(Actor("ball", "red"), "spins", 7234.0, "beach")
MAX_EXTRACT_MB, MAX_INDEX_MB = 400, 1000  # its pictures alone, as they are decoded, would be 3,200
# A small process between: the peak of a process counts from the size of the one that started it.
RUN = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "dciml", *sys.argv[1:]]).returncode
print("peak MB", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, flush=True)
sys.exit(code)
"""


def run_measured(*words: str | Path) -> tuple[str, int]:
    """Run a dciml command as a process of its own: what it prints, and the peak of its memory in MB."""
    command = [sys.executable, "-c", RUN, *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    printed, _, peak = done.stdout.rpartition("peak MB")
    return printed, int(peak)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("three-hours")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    """The features of the long video, extracted by the command; its memory is checked here."""
    video = folder / "day.mp4"
    write_long_video(video, HOURS * 60, PLANTED)
    assert probe(video).duration_seconds == pytest.approx(HOURS * 3600, abs=1)
    _, peak = run_measured("extract", video, "--out", folder / "store", "--workers", "1")
    assert peak < MAX_EXTRACT_MB
    return folder / "store"


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A model folder that knows the demo's world."""
    named = os.environ.get("DCIML_DEMO_MODEL")
    if named:
        return Path(named)
    from dciml.recipes.baseline import SharedSpaceConfig, train_shared_space

    stories = plan_corpus(CorpusSize(train=40, test=1), seed=7)
    make_videos(stories, folder / "videos", workers=1)
    data = make_data_folder(stories, folder / "videos", folder / "data", BuiltinVisualEncoder(), workers=1)
    train_shared_space(data, folder / "model", SharedSpaceConfig(epochs=20))
    return folder / "model"


def test_three_hours_are_extracted_in_bounded_memory(store: Path) -> None:
    from dciml.features.store import FeatureStore

    opened = FeatureStore.open(store)
    assert opened.num_rows("day") == HOURS * 3600 * 2


def test_the_planted_event_is_found_to_within_two_seconds(folder: Path, store: Path, model: Path) -> None:
    from dciml import open_index

    said, peak = run_measured("index", model, store, "--window-seconds", "60", "--out", folder / "index")
    assert "1 video (359 with windows of long ones) indexed" in " ".join(said.split())
    assert peak < MAX_INDEX_MB
    searcher = open_index(folder / "index")
    query = PLANTED.query("day")
    start, end = query.moments[0]
    for sentence in (query.sentence, "a red ball spins"):
        first = searcher.search(sentence, 5)[0]
        assert first.video_id == "day"
        assert first.start_seconds == pytest.approx(start, abs=2)
        assert first.end_seconds == pytest.approx(end, abs=2)
