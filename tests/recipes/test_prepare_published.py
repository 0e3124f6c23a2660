"""Published data sets through their commands, in the forms of their releases, on small files."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from dciml.cli.data import app
from dciml.datasets.folder import DataFolder
from dciml.errors import DataError
from dciml.features.encoders.text import create_text_encoder
from dciml.features.vocabulary import Vocabulary


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def write_h5(path: Path, names: list[str], dataset: str = "", width: int = 3, **attributes: float) -> Path:
    with h5py.File(path, "w") as file:
        for name in names:
            item = file.create_dataset(
                f"{name}/{dataset}" if dataset else name, data=np.ones((4, width), np.float32)
            )
            item.attrs.update(attributes)
    return path


def write_json(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def entry(**changes: Any) -> dict[str, Any]:
    return {"duration": 20.0, "timestamps": [[0, 5], [4, 9]], "sentences": ["A dog.", " It runs."]} | changes


def test_activitynet_with_c3d_keeps_both_validation_files_apart(tmp_path: Path) -> None:
    raw = write_json(tmp_path / "raw", train={"v_a": entry()}, val_1={"v_b": entry()}, val_2={"v_b": entry()})
    c3d = write_h5(tmp_path / "sub_activitynet_v1-3.c3d.hdf5", ["v_a", "v_b", "v_unused"], "c3d_features")
    result = run("activitynet", raw, "--features", c3d, "--out", tmp_path / "d", "--encoder", "c3d")
    folder = DataFolder.open(tmp_path / "d")
    assert folder.splits == ("train", "val_1", "val_2")
    assert [query.query_id for query in folder.queries("val_2")] == [
        f"activitynet_val_2_v_b_{i}" for i in (0, 1)
    ]
    assert (folder.store.video_ids, folder.store.manifest.encoder) == (("v_a", "v_b"), "c3d")
    assert "1 video(s) of the features are in no split" in result.stdout
    assert (
        "warning: the split 'train' should have 10,009 videos, 37,421 sentences; found 1 videos, 2 sente"
        in (result.stderr.replace("\n", " "))
    )


def test_strict_counts_refuse_and_leave_nothing_behind(tmp_path: Path) -> None:
    raw = write_json(tmp_path / "raw", train={"v_a": entry()})
    features = write_h5(tmp_path / "x.h5", ["v_a"])
    with pytest.raises(
        DataError, match=r"train\.json: the split 'train' should have 10,009 videos, 37,421 sentences"
    ):
        run("activitynet", raw, "--features", features, "--out", tmp_path / "d", "--strict-counts")
    assert not (tmp_path / "d").exists()


def test_chosen_splits_only_and_unknown_ones_refused(tmp_path: Path) -> None:
    raw = write_json(tmp_path / "raw", train={"v_a": entry()}, val_1={"v_b": entry()})
    features = write_h5(tmp_path / "x.h5", ["v_a", "v_b"])
    arguments = ("activitynet", raw, "--features", features, "--out", tmp_path / "d", "--split")
    with pytest.raises(DataError, match=r"no file of the split 'val_2'.*put val_2\.json there"):
        run(*arguments, "val_2")
    with pytest.raises(DataError, match=r"no file of the split 'test'.*choose one of train, val_1, val_2"):
        run(*arguments, "test")
    run(*arguments, "train")
    assert DataFolder.open(tmp_path / "d").splits == ("train",)


def charades(folder: Path) -> Path:
    folder.mkdir()
    (folder / "charades_sta_train.txt").write_text("AAAAA 0.0 6.9##a person reads.\n")
    (folder / "charades_sta_test.txt").write_text("BBBBB 1.0 31.0##person runs.\n")
    (folder / "Charades_v1_train.csv").write_text("id,length\nAAAAA,33.67\n")
    (folder / "Charades_v1_test.csv").write_text("id,length\nBBBBB,30.5\n")
    return folder


def test_charades_sta_with_a_folder_of_npy(tmp_path: Path) -> None:
    raw, features = charades(tmp_path / "raw"), tmp_path / "i3d_finetuned"
    features.mkdir()
    for video_id in ("AAAAA", "BBBBB"):
        np.save(features / f"{video_id}.npy", np.ones((7, 1, 1, 4), np.float32))
    run("charades-sta", raw, "--features", features, "--out", tmp_path / "d")
    folder = DataFolder.open(tmp_path / "d")
    assert folder.queries("test")[0].moments == ((1.0, 30.5),)
    assert (folder.store.duration_seconds("BBBBB"), folder.store.rows("BBBBB").shape) == (30.5, (7, 4))


def test_charades_sta_of_another_cut_or_without_its_csv_is_refused(tmp_path: Path) -> None:
    raw = charades(tmp_path / "raw")
    features = write_h5(tmp_path / "x.h5", ["AAAAA", "BBBBB"], duration=50.0)
    arguments = ("charades-sta", raw, "--features", features, "--out", tmp_path / "d")
    with pytest.raises(
        DataError, match=r"train\.txt, line 1, field video_id: the video 'AAAAA' lasts 33.67 s here"
    ):
        run(*arguments)
    (raw / "Charades_v1_test.csv").unlink()
    with pytest.raises(DataError, match=r"Charades_v1_test\.csv: there is no such file"):
        run(*arguments)


def test_qvhighlights_joins_slowfast_and_clip(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = {
        "qid": 7,
        "query": "A dog.",
        "duration": 150,
        "vid": "v_0.0_150.0",
        "relevant_windows": [[0, 4], [10, 12]],
    }
    for name in ("highlight_train_release", "highlight_val_release", "highlight_test_with_gt"):
        (raw / f"{name}.jsonl").write_text(json.dumps(rows) + "\n")
    for name, count, width in (("slowfast_features", 75, 6), ("clip_features", 74, 4)):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "v_0.0_150.0.npz", features=np.ones((count, width), np.float32))
    features = ("--features", tmp_path / "slowfast_features", "--features", tmp_path / "clip_features")
    run("qvhighlights", raw, *features, "--rows-per-second", 0.5, "--out", tmp_path / "d")
    folder = DataFolder.open(tmp_path / "d")
    assert folder.splits == ("train", "val", "test")
    assert folder.queries("test")[0].moments == ((0.0, 4.0), (10.0, 12.0))
    assert folder.store.rows("v_0.0_150.0").shape == (74, 10)
    assert folder.store.manifest.encoder == "imported:slowfast_features+imported:clip_features"


def test_tacos_videos_are_found_without_their_media_ending(tmp_path: Path) -> None:
    video = {"timestamps": [[30, 90]], "sentences": ["He cuts."], "fps": 30.0, "num_frames": 300}
    raw = write_json(tmp_path / "raw", train={"s1-d2.avi": video}, val={"s3-d4.avi": video})
    run(
        "tacos",
        raw,
        "--features",
        write_h5(tmp_path / "x.h5", ["s1-d2", "s3-d4.avi"]),
        "--out",
        tmp_path / "d",
    )
    folder = DataFolder.open(tmp_path / "d")
    assert folder.store.video_ids == ("s1-d2.avi", "s3-d4.avi")
    assert folder.queries("train")[0].moments == ((1.0, 3.0),)


def test_tvr_missing_features_are_counted_and_an_example_named(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [
        json.dumps(
            {"vid_name": f"v{i}", "duration": 60.0, "ts": [1, 7], "desc": "A dog.", "type": "v", "desc_id": i}
        )
        for i in range(3)
    ]
    (raw / "tvr_val_release.jsonl").write_text("\n".join(lines))
    arguments = ("tvr", raw, "--features", write_h5(tmp_path / "x.h5", ["v1"]), "--out", tmp_path / "d")
    with pytest.raises(
        DataError, match=r"line 1, field video_id: the video 'v0' has no features .*nor have 1 others"
    ):
        run(*arguments)
    result = run(*arguments, "--allow-missing")
    assert "found 1 videos, 1 sentences" in result.stderr.replace("\n", " ")
    assert [query.query_id for query in DataFolder.open(tmp_path / "d").queries("val")] == ["1"]
    other = write_h5(tmp_path / "y.h5", ["other_names"])
    with pytest.raises(
        DataError, match=r"none of the videos .* name the videos as .*y\.h5 does.*'other_names'"
    ):
        run("tvr", raw, "--features", other, "--out", tmp_path / "e")


def test_didemo_takes_true_lengths_where_the_features_know_them(tmp_path: Path) -> None:
    row = {
        "annotation_id": 1,
        "video": "v.mov",
        "description": "A dog.",
        "num_segments": 6,
        "times": [[4, 5], [0, 0]],
    }
    raw = write_json(tmp_path / "raw", val_data=[row], test_data=[row | {"annotation_id": 2}])
    run("didemo", raw, "--features", write_h5(tmp_path / "x.h5", ["v"]), "--out", tmp_path / "d")
    assert DataFolder.open(tmp_path / "d").queries("val")[0].moments == ((20.0, 30.0), (0.0, 5.0))
    run(
        "didemo",
        raw,
        "--features",
        write_h5(tmp_path / "y.h5", ["v"], duration=27.5),
        "--out",
        tmp_path / "e",
    )
    folder = DataFolder.open(tmp_path / "e")
    assert folder.queries("test")[0].moments == ((20.0, 27.5), (0.0, 5.0))
    assert folder.store.duration_seconds("v.mov") == 27.5


def test_cpl_brings_its_word_vectors_along(tmp_path: Path) -> None:
    raw = write_json(
        tmp_path / "raw",
        train=[["AAAAA", 33.67, [0.0, 6.9], "a person reads."]],
        test=[["BBBBB", 30.5, [1.0, 6.0], "a dog runs."]],
    )
    vectors = {"w2id": {"<PAD>": 0, "a": 1, "dog": 2}, "id2vec": list(np.eye(3)), "counter": Counter(a=2)}
    (raw / "glove.pkl").write_bytes(pickle.dumps(vectors, 3))
    result = run(
        "cpl", raw, "--features", write_h5(tmp_path / "i3d.hdf5", ["AAAAA", "BBBBB"]), "--out", tmp_path / "d"
    )
    assert "Text features of the release" in result.stdout
    encoder = create_text_encoder(f"vectors:{tmp_path / 'd/text'}", Vocabulary.build(["a dog runs"]))
    assert encoder.encode(["a dog runs."])[0].static[1].tolist() == [0, 0, 1]
    (raw / "glove.pkl").write_bytes(b"cos\nsystem\n(S'touch trap'\ntR.")
    with pytest.raises(DataError, match=r"glove\.pkl: the pickle holds the global os\.system"):
        run("cpl", raw, "--features", tmp_path / "i3d.hdf5", "--out", tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_own_table_and_features_without_lengths(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(
        "video,sentence,start,end\nkitchen.mp4,a man opens the fridge,0.5,3\nkitchen.mp4,he drinks,,\n"
    )
    features = write_h5(tmp_path / "x.h5", ["kitchen"])
    arguments = ("records", "--split", f"train={table}", "--features", features, "--out", tmp_path / "d")
    with pytest.raises(DataError, match=r"the duration of the video is not known.*--rows-per-second"):
        run(*arguments)
    run(*arguments, "--rows-per-second", 2)  # four rows: 2 s
    folder = DataFolder.open(tmp_path / "d")
    assert [query.moments for query in folder.queries("train")] == [((0.5, 2.0),), ()]
    # The features' own name, so that an index of them and one of the data folder have the same ids.
    assert (folder.store.video_ids, folder.store.duration_seconds("kitchen")) == (("kitchen",), 2.0)
    assert {query.video_id for query in folder.queries("train")} == {"kitchen"}


def test_own_table_may_name_a_video_in_two_ways_but_not_two_videos_in_one(tmp_path: Path) -> None:
    features = write_h5(tmp_path / "x.h5", ["kitchen", "v_hall"])
    table = tmp_path / "mine.csv"
    lines = ["video,sentence,duration", "kitchen.mp4,he drinks,2", "kitchen,she eats,", "hall,a dog runs,2"]
    table.write_text("\n".join(lines))
    arguments = ("records", "--split", f"train={table}", "--features", features)
    run(*arguments, "--out", tmp_path / "d")
    folder = DataFolder.open(tmp_path / "d")
    assert [query.video_id for query in folder.queries("train")] == ["kitchen", "kitchen", "v_hall"]
    table.write_text("\n".join([*lines, "kitchen.avi,a cat sleeps,2"]))
    with pytest.raises(DataError, match=r"mine\.csv, line 2, .*'kitchen\.mp4' has no features"):
        run(*arguments, "--out", tmp_path / "e")
