"""`dciml cut` and `dciml export` as a user types them, on real videos of several frame rates with a planted engine."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import xml.etree
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import opentimelineio as otio
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import dciml.model_folder
from dciml.cli.app import app
from dciml.config import AnswerConfig
from dciml.datasets.annotations import read_annotations
from dciml.errors import ConfigError, DataError
from dciml.features.encoders.captions import read_captions
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.media import frame_at, probe, write_video
from dciml.model_folder import Model
from dciml.recipes.cut import clip_name
from dciml.recipes.index import build_index
from dciml.search.calibration import Calibration
from dciml.search.engines import Grounding
from dciml.types import SearchHit

WIDTH, SECONDS = 8, 8
CALIBRATION = Calibration(40.0, 20.0, 0.0, (1.0, 0.0), (0.0,) * WIDTH, 100, 50, "planted")
RATES = (Fraction(25), Fraction(30000, 1001), Fraction(24), Fraction(12), Fraction(24000, 1001))
SENTENCE = "find 2"  # the third quarter of video2, then the first one of video3


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


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos of eight seconds, whose grey is that of the second: 40, 60, 80, …"""
    folder = tmp_path_factory.mktemp("videos")
    for number, rate in enumerate(RATES):
        levels = (int(40 + 20 * (index / rate // 1)) for index in range(int(SECONDS * rate)))
        pictures = (np.full((32, 48, 3), level, np.uint8) for level in levels)
        write_video(folder / f"it's {number}.mp4", pictures, float(rate))
    return folder


@pytest.fixture
def index(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The third quarter of video n, and the first of the next one, point along axis n."""
    monkeypatch.chdir(tmp_path)
    with FeatureStoreWriter(tmp_path / "store", StoreManifest("rows", WIDTH, 1.0)) as writer:
        for number in range(len(RATES)):
            rows = np.zeros((SECONDS, WIDTH), dtype=np.float32)
            rows[4:6, number] = 1.0
            rows[0:2, (number - 1) % len(RATES)] = 0.9
            writer.append(f"room/video{number}", rows, SECONDS, source=str(videos / f"it's {number}.mp4"))
    (tmp_path / "model").mkdir()
    model = Model(tmp_path / "model", "fake", PlantedEngine(), AnswerConfig(nms_iou=0.1), "rows", CALIBRATION)
    monkeypatch.setattr(dciml.model_folder, "load_model", lambda folder, device="cpu": model)
    build_index(model, tmp_path / "store", tmp_path / "index")
    return tmp_path / "index"


def command(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def hits_of(index: Path, k: int = 2) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(command("search", index, SENTENCE, "-k", k, "--json").output)[
        "hits"
    ]
    assert [(hit["video_id"], hit["start_seconds"], hit["end_seconds"]) for hit in found[:2]] == [
        ("room/video2", 4.0, 6.0),
        ("room/video3", 0.0, 2.0),
    ]
    return found


def level_at(path: Path, seconds: float) -> float:
    return float(frame_at(path, seconds).mean())


def test_cut_writes_the_best_moments_under_names_that_say_which(index: Path) -> None:
    output = command("cut", index, SENTENCE, "-k", 2, "--out", "clips", "--exact").output
    names = sorted(path.name for path in Path("clips").iterdir())
    assert names == ["01_room_video2_00m04s-00m06s.mp4", "02_room_video3_00m00s-00m02s.mp4"]
    assert "clips/01_room_video2_00m04s-00m06s.mp4: 00:04–00:06 of room/video2, encoded, no sound" in output
    for name, first in zip(names, (120, 40), strict=True):
        assert probe(Path("clips") / name).duration_seconds == pytest.approx(2.0, abs=0.05)
        assert level_at(Path("clips") / name, 0.0) == pytest.approx(first, abs=3)
        assert level_at(Path("clips") / name, 1.9) == pytest.approx(first + 20, abs=3)


def test_cut_says_how_much_earlier_a_copied_clip_begins(index: Path) -> None:
    """Each change of grey is a key picture; half a second of padding begins between two of them."""
    padded = ("cut", index, SENTENCE, "-k", 2, "--padding", 0.5)
    printed = command(*padded, "--out", "clips").output.splitlines()
    assert printed[0].endswith("of room/video2, copied, begins 1.0 s earlier, no sound")
    assert printed[1].endswith("of room/video3, copied, no sound")
    found = json.loads(command(*padded, "--out", "json", "--json").output)
    assert list(found) == ["sentence", "found", "confidence", "clips", "failed"]
    (early, whole), failed = found["clips"], found["failed"]
    assert (early["pictures"], early["early_seconds"]) == ("copied", pytest.approx(1.0, abs=0.05))
    assert (whole["early_seconds"], whole["sound"], failed) == (0.0, None, [])
    assert level_at(Path(early["file"]), 0.5) == pytest.approx(100, abs=3)
    assert level_at(Path(early["file"]), 1.5) == pytest.approx(120, abs=3)


def test_cut_pads_as_far_as_the_video_goes(index: Path) -> None:
    run = command("cut", index, SENTENCE, "-k", 2, "--out", "c", "--exact", "--padding", 1.5, "--json")
    (inside, at_start) = json.loads(run.output)["clips"]
    assert (inside["clip_start_seconds"], at_start["clip_start_seconds"]) == (2.5, 0.0)
    assert inside["clip_end_seconds"] == pytest.approx(7.5, abs=0.05)
    assert at_start["clip_end_seconds"] == pytest.approx(3.5, abs=0.1)
    assert command("cut", index, SENTENCE, "--out", "d", "--padding", "nan").exit_code == 2


def test_cut_never_writes_over_a_file(index: Path) -> None:
    Path("clips").mkdir()
    Path("clips/02_room_video3_00m00s-00m02s.mp4").write_text("mine")
    with pytest.raises(DataError, match=r"a file of this name already.*name another folder with --out"):
        command("cut", index, SENTENCE, "-k", 2, "--out", "clips")
    assert [path.read_text() for path in Path("clips").iterdir()] == ["mine"]
    with pytest.raises(DataError, match="not a folder"):
        command("cut", index, SENTENCE, "--out", "store/manifest.json")


def test_a_video_whose_file_is_gone_is_named_and_the_others_go_on(
    index: Path, videos: Path, tmp_path: Path
) -> None:
    with FeatureStoreWriter(tmp_path / "other", StoreManifest("rows", WIDTH, 1.0)) as writer:
        rows = np.zeros((SECONDS, WIDTH), dtype=np.float32)
        rows[4:6, 2] = 1.5
        writer.append("lost", rows, SECONDS, source=str(tmp_path / "lost.mp4"))
        writer.append("unknown", rows * 2, SECONDS)
    shutil.copy(videos / "it's 2.mp4", tmp_path / "lost.mp4")
    command("index-add", index, tmp_path / "other")
    (tmp_path / "lost.mp4").unlink()
    run = command("cut", index, SENTENCE, "-k", 8, "--out", "clips")
    assert run.exit_code == 1
    assert "the file of the video 'lost' is gone" in run.stderr
    assert "the index knows no file of the video 'unknown'" in run.stderr
    names = " ".join(path.name for path in Path("clips").iterdir())
    assert "room_video2_00m04s-00m06s" in names
    assert "room_video3_00m00s-00m02s" in names
    assert "lost" not in names
    run = command("export", index, SENTENCE, "-k", 8, "--format", "fcpxml", "--out", "cut.fcpxml")
    assert run.exit_code == 1
    assert "'lost' is gone" in run.stderr
    assert len(Path("cut.fcpxml").read_text().split("<asset-clip ")) - 1 == names.count(".mp4")
    assert command("export", index, SENTENCE, "--format", "csv", "--out", "-").exit_code == 0


def test_nothing_found_writes_nothing_unless_all_is_asked_for(index: Path) -> None:
    for arguments in (("cut", index, "perhaps 2"), ("export", index, "perhaps 2", "--format", "csv")):
        with pytest.raises(DataError, match="nothing was found"):
            command(*arguments, "--out", "out")
        assert not Path("out").exists()
    assert command("cut", index, "perhaps 2", "-k", 1, "--out", "out", "--all").exit_code == 0


def test_names_are_safe_and_not_too_long() -> None:
    hit = SearchHit(1, "../" + "ü" * 300 + "/\n:*", 3725.0, 3800.0, 1.0)
    name = clip_name(hit)
    assert name.startswith("01_")
    assert name.endswith("_1h02m05s-1h03m20s.mp4")
    assert len(name.encode()) < 200
    assert not set("/\\:*\n") & set(name)


def exported(index: Path, form: str, *more: object, name: str = "out") -> str:
    command("export", index, SENTENCE, "-k", 2, "--format", form, "--out", f"{name}.{form}", *more)
    return Path(f"{name}.{form}").read_text(encoding="utf-8")


def test_csv_and_json_hold_the_hits(index: Path, videos: Path) -> None:
    hits = hits_of(index)
    rows = list(csv.DictReader(io.StringIO(exported(index, "csv"))))
    assert [(row["video"], float(row["start"]), float(row["end"])) for row in rows] == [
        (hit["video_id"], hit["start_seconds"], hit["end_seconds"]) for hit in hits
    ]
    assert rows[0]["file"] == str(videos / "it's 2.mp4")
    content = json.loads(exported(index, "json"))
    assert [
        {**hit, "file": one["file"], "title": one["title"]}
        for hit, one in zip(hits, content["hits"], strict=True)
    ] == content["hits"]
    printed = command("export", index, SENTENCE, "-k", 2, "--format", "json", "--out", "-").stdout
    assert json.loads(printed) == content


def test_chapters_are_read_back_as_captions(index: Path) -> None:
    command("export", index, SENTENCE, "-k", 2, "--format", "vtt", "--out", "chapters")
    assert sorted(path.name for path in Path("chapters").iterdir()) == ["it_s_2.vtt", "it_s_3.vtt"]
    (cue,) = read_captions(Path("chapters/it_s_2.vtt"))
    assert (cue.start_seconds, cue.end_seconds, cue.text) == (4.0, 6.0, SENTENCE)
    command(
        "export",
        index,
        "a --> b\n<i>&amp; 2",
        "--format",
        "vtt",
        "--out",
        "one.vtt",
        "--video",
        "room/video2",
    )
    cues = read_captions(Path("one.vtt"))
    assert {cue.text for cue in cues} == {"a --> b <i>&amp; 2"}
    assert [cue.start_seconds for cue in cues] == sorted(cue.start_seconds for cue in cues)
    with pytest.raises(DataError, match="in 2 videos"):
        exported(index, "vtt")


def frames_and_seconds(timeline: Any) -> list[tuple[Fraction, float, float]]:
    """Of each clip: the frame rate, and start and end in seconds."""
    spans = [clip.source_range for clip in timeline.find_clips()]
    return [
        (
            Fraction(span.start_time.rate).limit_denominator(1001),
            span.start_time.to_seconds(),
            span.end_time_exclusive().to_seconds(),
        )
        for span in spans
    ]


def assert_times_agree(read: list[tuple[Fraction, float, float]], hits: list[dict[str, Any]]) -> None:
    assert len(read) == len(hits)
    for (rate, start, end), hit in zip(read, hits, strict=True):
        assert start == pytest.approx(hit["start_seconds"], abs=float(1 / rate))
        assert end == pytest.approx(hit["end_seconds"], abs=float(1 / rate))


def test_otio_is_read_back_to_the_frame(index: Path, videos: Path) -> None:
    hits = hits_of(index, 4)
    command("export", index, SENTENCE, "-k", 4, "--format", "otio", "--out", "cut.otio")
    timeline = otio.adapters.read_from_file("cut.otio")
    read = frames_and_seconds(timeline)
    assert_times_agree(read, hits)
    assert [rate for rate, _, _ in read] == [RATES[int(hit["video_id"][-1])] for hit in hits]
    clip = next(iter(timeline.find_clips()))
    assert unquote(urlsplit(clip.media_reference.target_url).path) == str((videos / "it's 2.mp4").resolve())
    assert clip.metadata["dciml"]["start_seconds"] == hits[0]["start_seconds"]


@pytest.mark.parametrize("number", range(5))
def test_edl_is_read_back_to_the_frame(index: Path, number: int) -> None:
    sentence = f"find {number}"
    hits = json.loads(command("search", index, sentence, "-k", 3, "--json").output)["hits"]
    command("export", index, sentence, "-k", 3, "--format", "edl", "--out", "cut.edl")
    rate = {3: Fraction(24)}.get(number, RATES[number])  # there is no timecode for twelve pictures a second
    text = Path("cut.edl").read_text()
    timeline = otio.adapters.read_from_string(text, "cmx_3600", rate=float(rate))
    assert_times_agree(frames_and_seconds(timeline), hits)
    assert f"COMMENT: {sentence} (rank 1" in text
    reels = [line.split()[1] for line in text.splitlines() if line[:3].isdecimal()]
    assert len(set(reels)) == len({hit["video_id"] for hit in hits})


def test_fcpxml_is_whole_frames_and_is_read_back(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = hits_of(index)
    text = exported(index, "fcpxml")
    root = ElementTree.fromstring(text)
    durations = {form.get("id"): form.get("frameDuration") for form in root.iter("format")}
    rates = {name: 1 / Fraction(text.rstrip("s")) for name, text in durations.items()}
    form_of = {asset.get("id"): asset.get("format") for asset in root.iter("asset")}
    sequence = next(root.iter("sequence"))
    place = Fraction(0)
    for clip, hit in zip(root.iter("asset-clip"), hits, strict=True):
        own, edit = rates[form_of[clip.get("ref")]], rates[sequence.get("format")]
        start, offset, duration = (
            Fraction(clip.get(name).rstrip("s")) for name in ("start", "offset", "duration")
        )
        assert own == RATES[int(hit["video_id"][-1])]
        assert (start * own).denominator == (offset * edit).denominator == (duration * edit).denominator == 1
        assert offset == place
        assert float(start) == pytest.approx(hit["start_seconds"], abs=float(1 / own))
        assert float(start + duration) == pytest.approx(hit["end_seconds"], abs=float(2 / own))
        assert clip.find("note").text.startswith(SENTENCE)
        place += duration
    # The adapter was written for a name that Python has dropped.
    monkeypatch.setattr(xml.etree, "cElementTree", ElementTree, raising=False)
    read = otio.adapters.read_from_string(text, "fcpx_xml")
    assert_times_agree([span for timeline in read for span in frames_and_seconds(timeline)], hits)


def test_label_studio_is_read_back_as_records(index: Path, tmp_path: Path) -> None:
    hits = hits_of(index)
    tasks = json.loads(exported(index, "labelstudio"))
    assert [task["data"]["fps"] for task in tasks] == [24.0, 12.0]
    assert tasks[0]["data"]["video"].startswith("/data/local-files/?d=")
    ranges = [task["predictions"][0]["result"][0]["value"]["ranges"] for task in tasks]
    assert ranges == [[{"start": 97, "end": 144}], [{"start": 1, "end": 24}]]
    run = command(
        "export", index, SENTENCE, "--format", "labelstudio", "--out", "-", "--media-url", "https://x/v/"
    )
    assert json.loads(run.stdout)[0]["data"]["video"] == "https://x/v/it%27s%202.mp4"
    setup = ElementTree.fromstring(run.stderr[run.stderr.index("<View>") :].strip())
    assert setup.find("TimelineLabels/Label").get("value") == SENTENCE
    for task in tasks:  # somebody agrees with all of them
        task["annotations"] = task.pop("predictions")
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    queries = read_annotations(tmp_path / "project.json").queries
    assert [(query.video_id, query.sentence, query.moments) for query in queries] == [
        (hit["video_id"], SENTENCE, ((hit["start_seconds"], hit["end_seconds"]),)) for hit in hits
    ]


def test_fiftyone_is_read_back_as_records(index: Path, videos: Path) -> None:
    hits = hits_of(index)
    content = json.loads(exported(index, "fiftyone", name="labels"))
    assert content["classes"] is None
    assert list(content["labels"]) == [str(videos / "it's 2.mp4"), str(videos / "it's 3.mp4")]
    Path("labels.json").write_text(json.dumps(content))
    queries = read_annotations("labels.json").queries
    assert [(query.video_id, query.moments) for query in queries] == [
        (hit["video_id"], ((hit["start_seconds"], hit["end_seconds"]),)) for hit in hits
    ]


def test_a_missing_package_is_named_with_its_extra(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    for form in ("otio", "edl"):
        with pytest.raises(ConfigError, match=r"pip install 'dciml\[export\]'"):
            exported(index, form)
    for form in ("csv", "json", "fcpxml", "labelstudio", "fiftyone"):
        assert exported(index, form)


def test_export_never_writes_over_a_file(index: Path) -> None:
    for form in ("csv", "json", "otio", "edl", "fcpxml", "labelstudio", "fiftyone"):
        Path("mine").write_text("mine")
        with pytest.raises(DataError, match=r"a file of this name already.*name another file"):
            command(
                "export", "nowhere", SENTENCE, "--format", form, "--out", "mine"
            )  # before anything is read
    Path("chapters").mkdir()
    Path("chapters/mine").write_text("mine")
    with pytest.raises(DataError, match="something here already"):
        command("export", index, SENTENCE, "--format", "vtt", "--out", "chapters")
    assert Path("mine").read_text() == Path("chapters/mine").read_text() == "mine"
