"""PRVR releases: import, and two steps of training with the published settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.folders import CHECKPOINT_FILE
from dciml.recipes.prepare import ImportOptions
from dciml.recipes.prepare_prvr import prepare_prvr
from dciml.training.checkpoint import load_tensors

MakePrvr = Callable[..., Path]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIDEOS = {"train": [f"v_{i}" for i in range(20)], "val": [f"v_{i}" for i in range(100, 104)]}
SMALL = (
    "retrieval.hidden=16", "retrieval.num_blocks=1", "retrieval.max_frames=16", "retrieval.num_clips=8",
    "grounding.hidden=16", "grounding.layers=1", "grounding.num_positions=8",
    "training.epochs=1", "training.threads=1", "training.accelerator=cpu", "mutual.from_epoch=0",
)  # fmt: skip


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def activitynet_annotations(path: Path) -> Path:
    sentences = ["A person opens the door.", " The dog runs across a field."]
    entry = {"duration": 40.0, "timestamps": [[0, 10], [12, 39]], "sentences": sentences}
    path.write_text(json.dumps({video: entry for ids in VIDEOS.values() for video in ids}))
    return path


def charades_annotations(folder: Path) -> list[Path]:
    ids = [video for ids in VIDEOS.values() for video in ids]
    (folder / "charades_sta_all.txt").write_text(
        "".join(f"{video} 1.0 9.5##a person opens the door.\n" for video in ids)
    )
    (folder / "Charades_v1_all.csv").write_text("id,length\n" + "".join(f"{video},30.5\n" for video in ids))
    return [folder / "charades_sta_all.txt", folder / "Charades_v1_all.csv"]


def test_release_becomes_a_data_folder_with_moments_of_the_annotations(
    prvr_release: MakePrvr, tmp_path: Path
) -> None:
    release = prvr_release(tmp_path / "activitynet", "activitynet", VIDEOS)
    annotations = activitynet_annotations(tmp_path / "all.json")
    result = run(
        "import", "prvr", release, "--annotations", annotations, "--out", tmp_path / "d", "--encoder", "i3d"
    )
    folder = DataFolder.open(tmp_path / "d")
    assert (folder.name, folder.splits) == ("activitynet", ("train", "val"))
    assert [query.query_id for query in folder.queries("val")][:2] == ["v_100#enc#0", "v_100#enc#1"]
    assert [query.moments for query in folder.queries("train")][:3] == [((0, 10),), ((12, 39),), ()]
    assert folder.store.duration_seconds("v_0") == 40.0
    assert "should have 9,043 videos, 33,721 sentences; found 20 videos, 60 sentences" in (
        result.stderr.replace("\n", " ")
    )
    with h5py.File(tmp_path / "d/text/query_features.h5") as file:
        assert list(file["sentences"].asstr()) == [
            "a person opens the door.",
            "the dog runs across a field.",
            "she slowly drinks some water.",
        ]


@pytest.mark.parametrize(
    ("name", "collection"), [("activitynet", "activitynet"), ("charades_sta", "charades")]
)
def test_published_settings_train_two_steps_on_a_release(
    prvr_release: MakePrvr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, collection: str
) -> None:
    monkeypatch.chdir(tmp_path)
    release = prvr_release(tmp_path / "raw", collection, VIDEOS)
    annotations = (
        [activitynet_annotations(tmp_path / "all.json")]
        if collection == "activitynet"
        else charades_annotations(tmp_path)
    )
    named = [part for path in annotations for part in ("--annotations", path)]
    run("import", "prvr", release, *named, "--out", f"data/{name}")
    settings = [part for setting in SMALL for part in ("--set", setting)]
    # 18 videos are left after the held-out ones: with the published 16 a batch that is two steps.
    run("train", CONFIGS / f"{name}.yaml", "--quiet", "--out", "run", *settings)
    _, facts = load_tensors(Path("run") / CHECKPOINT_FILE)
    assert json.loads(facts["progress"])["step"] == 2
    result = run("evaluate", "run", "--data", f"data/{name}", "--split", "val")
    assert "SumR" in result.output


def test_lengths_come_from_the_rows_where_there_are_no_annotations(
    prvr_release: MakePrvr, tmp_path: Path
) -> None:
    release = prvr_release(tmp_path / "r", "mine", VIDEOS)
    with pytest.raises(DataError, match=r"feature\.bin, field v_0: the duration of the video is not known"):
        prepare_prvr(release, tmp_path / "d", ImportOptions(allow_extra=True))
    folder = prepare_prvr(
        release, tmp_path / "d", ImportOptions(allow_extra=True, rows_per_second=2.0)
    ).folder
    assert folder.store.duration_seconds("v_0") == folder.store.num_rows("v_0") / 2


def test_release_without_query_features_has_no_text_folder(prvr_release: MakePrvr, tmp_path: Path) -> None:
    release = prvr_release(tmp_path / "r", "mine", VIDEOS)
    (release / "TextData/roberta_mine_query_feat.hdf5").unlink()
    prepare_prvr(release, tmp_path / "d", ImportOptions(rows_per_second=2.0))
    assert not (tmp_path / "d/text").exists()


def test_incomplete_and_ambiguous_releases_are_refused(prvr_release: MakePrvr, tmp_path: Path) -> None:
    release, options = prvr_release(tmp_path / "r", "mine", VIDEOS), ImportOptions(rows_per_second=2.0)
    with pytest.raises(DataError, match="there is no TextData here"):
        prepare_prvr(tmp_path, tmp_path / "d", options)
    (release / "FeatureData/other").mkdir()
    (release / "FeatureData/other/shape.txt").write_text("1 1")
    with pytest.raises(DataError, match=r"several features here \(i3d, other\).*--feature NAME"):
        prepare_prvr(release, tmp_path / "d", options)
    assert prepare_prvr(release, tmp_path / "d", options, feature="i3d").folder.name == "mine"
    (release / "TextData/otherval.caption.txt").write_text("v#enc#0 a dog")
    with pytest.raises(DataError, match="one collection's captions must be here"):
        prepare_prvr(release, tmp_path / "e", options, feature="i3d")


def test_annotations_of_another_form_are_refused(prvr_release: MakePrvr, tmp_path: Path) -> None:
    release = prvr_release(tmp_path / "r", "mine", VIDEOS)
    (tmp_path / "x.xml").write_text("<a/>")
    with pytest.raises(DataError, match=r"x\.xml: annotations of this form are not known"):
        prepare_prvr(release, tmp_path / "d", ImportOptions(), [tmp_path / "x.xml"])
