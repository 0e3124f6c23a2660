"""`dciml search` and `dciml similar` as a user types them, on an index of a planted engine with a calibration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import dciml.model_folder
from dciml.cli.app import app
from dciml.config import AnswerConfig
from dciml.errors import DataError
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.model_folder import Model
from dciml.recipes.index import build_index
from dciml.search.calibration import Calibration
from dciml.search.engines import Grounding

WIDTH = 8
CALIBRATION = Calibration(40.0, 20.0, 0.0, (1.0, 0.0), (0.0,) * WIDTH, 100, 50, "planted")


class PlantedEngine:
    """A clip is the mean of its rows; a sentence asks for the direction that its last word numbers, half as strong
    when it begins with "perhaps"."""

    fingerprint, num_clips, vector_width = "planted", 4, WIDTH

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> NDArray[np.float32]:
        parts = [np.array_split(store.rows(video_id).astype(np.float32), 4) for video_id in video_ids]
        return np.array([[part.mean(axis=0) for part in own] for own in parts], dtype=np.float32)

    def embed_queries(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = [
            np.eye(WIDTH)[int(words.split()[-1])] * (0.4 if words.startswith("perhaps") else 1.0)
            for words in sentences
        ]
        return np.array(rows, dtype=np.float32)

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        return Grounding(np.tile([0.0, 0.5], (len(sentences), 1, 1)), np.full((len(sentences), 1), -1.0))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five videos of 80 s; the third quarter of video n, and the first of the next one, point along axis n."""
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("rows", WIDTH, 0.1)) as writer:
        for number in range(5):
            rows = np.zeros((8, WIDTH), dtype=np.float32)
            rows[4:6, number] = 1.0
            rows[0:2, (number - 1) % 5] = 0.9
            writer.append(f"video{number}", rows, 80.0)
    (tmp_path / "model").mkdir()
    model = Model(tmp_path / "model", "fake", PlantedEngine(), AnswerConfig(), "rows", CALIBRATION)
    monkeypatch.setattr(dciml.model_folder, "load_model", lambda folder, device="cpu": model)
    build_index(model, tmp_path / "store", tmp_path / "index")
    return tmp_path / "index"


def command(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_search_says_how_sure_it_is(index: Path) -> None:
    output = command("search", index, "find 2").output
    assert "sure" in output
    assert "00:40–01:00" in output
    assert "100% sure that there is such a video." in output


def test_nothing_found_hides_the_nearest_moments_unless_asked(index: Path) -> None:
    plain = command("search", index, "perhaps 2").stdout
    assert plain.startswith("Nothing found. ")
    assert plain.endswith("See the nearest moments with --all.\n")
    assert "video2" not in plain
    shown = command("search", index, "perhaps 2", "--all").output
    assert "video2" in shown
    assert "Nothing found; these are the nearest moments." in shown


def test_json_holds_the_hits_also_where_nothing_was_found(index: Path) -> None:
    sure, unsure = (
        json.loads(command("search", index, f"{word} 2", "--json").stdout) for word in ("find", "perhaps")
    )
    assert list(sure) == ["sentence", "found", "confidence", "hits", "notes"]
    assert sure["notes"] == ["Numbers hardly count: the things are found, not how many there are."]
    assert (sure["found"], unsure["found"]) == (True, False)
    assert 0 <= unsure["confidence"] < 0.33 < sure["confidence"] <= 1
    assert sure["hits"][0]["video_id"] == unsure["hits"][0]["video_id"] == "video2"
    assert 0.4 < sure["hits"][0]["confidence"] <= sure["confidence"]


def test_without_a_calibration_there_is_no_confidence(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dciml.model_folder.load_model(Path())
    monkeypatch.setattr(
        dciml.model_folder, "load_model", lambda folder, device="cpu": replace(known, calibration=None)
    )
    output = command("search", index, "perhaps 2").output
    assert "video2" in output
    assert "sure" not in output
    found = json.loads(command("search", index, "perhaps 2", "--json").output)
    assert (found["found"], found["confidence"], found["hits"][0]["confidence"]) == (True, None, None)


def test_similar_finds_the_like_moment_of_another_video(index: Path) -> None:
    output = command("similar", index, "video1", 40, 60, "-k", 1).output
    assert "video2" in output
    assert "00:00–00:20" in output
    found = json.loads(command("similar", index, "video1", "40", "60", "--json").output)
    assert list(found) == ["video_id", "start_seconds", "end_seconds", "found", "confidence", "hits"]
    assert (found["found"], found["confidence"]) == (True, None)
    for hit in found["hits"]:
        assert hit["video_id"] != "video1" or hit["end_seconds"] <= 40 or hit["start_seconds"] >= 60


def test_similar_says_what_is_wrong(index: Path) -> None:
    with pytest.raises(DataError, match="does not hold the video 'vide1'") as error:
        command("similar", index, "vide1", 40, 60)
    assert "did you mean 'video" in str(error.value)
    with pytest.raises(DataError, match="between 0 and 80 seconds"):
        command("similar", index, "video1", 70, 99)
    assert command("similar", index, "video1", -3, 5).exit_code == 2


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("stored", "asked"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_a_video_is_found_whatever_way_its_accents_are_written(
    index: Path, tmp_path: Path, stored: str, asked: str
) -> None:
    def store_of(name: str, video_id: str, axis: int) -> Path:
        with FeatureStoreWriter(tmp_path / name, StoreManifest("rows", WIDTH, 0.1)) as writer:
            rows = np.zeros((8, WIDTH), dtype=np.float32)
            rows[4:6, axis] = 1.0
            writer.append(video_id, rows, 80.0)
        return tmp_path / name

    command("index-add", index, store_of("one", stored, 6))
    found = json.loads(command("search", index, "find 6", "--video", asked, "--json").output)
    assert {hit["video_id"] for hit in found["hits"]} == {stored}
    assert stored in command("similar", index, asked, 40, 60, "-k", 3).output
    again = store_of("two", asked, 6)
    assert "0 videos added" in command("index-add", index, again).output
    changed = store_of("three", asked, 7)
    assert "1 video added or replaced" in command("index-add", index, changed, "--replace").output
    assert "6 videos" in command("index-verify", index).output
    assert "1 video removed" in command("index-remove", index, stored).output
    with pytest.raises(DataError, match="does not hold the video"):
        command("search", index, "find 6", "--video", asked)


def test_moments_are_printed_by_video_without_what_is_far_below(index: Path) -> None:
    output = command("search", index, "find 2").output
    rows = [line.split() for line in output.splitlines() if "–" in line]
    named = [row[1] for row in rows if row[1].startswith("video")]
    assert named == ["video2", "video3"]  # each video once, its best moment first
    assert rows[0][:3] == ["1", "video2", "00:40–01:00"]
    assert "left out, far below the best; --all takes them too." in output
    everything = command("search", index, "find 2", "--all").output
    assert "left out" not in everything
    lines = [line for line in everything.splitlines() if "–" in line]
    assert sum("video2" in line for line in lines) == 1
    assert len(lines) == 10
    found = json.loads(command("search", index, "find 2", "--json").stdout)["hits"]
    assert len(found) == 10  # programs get all of them, marked
    assert [hit["far_below"] for hit in found[:2]] == [False, False]
    assert sum(hit["far_below"] for hit in found) == 10 - len(rows)
    ranks = {hit["video_id"]: hit["video_rank"] for hit in found}
    assert (ranks["video2"], ranks["video3"]) == (1, 2)
