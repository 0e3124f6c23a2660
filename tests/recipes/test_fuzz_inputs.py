"""Damaged annotation and feature files of every form: each is read or refused in a sentence, soon, within bounds.

A process of its own reads them, so that one that it dies of is seen too.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CASES, SECONDS, MEMORY = 300, 20, 2 << 30
IDS = [f"v{number:02d}" for number in range(6)]


def write_all(folder: Path) -> dict[str, Path]:
    """A whole file of each form; the features go with the records."""
    rng = np.random.default_rng(0)
    rows = {video_id: rng.standard_normal((8, 4)).astype(np.float32) for video_id in IDS}
    with h5py.File(folder / "f.h5", "w") as file:
        for video_id, own in rows.items():
            file.create_dataset(video_id, data=own, compression="gzip").attrs["duration"] = 8.0
    (folder / "npy").mkdir()
    for video_id, own in rows.items():
        np.save(folder / "npy" / f"{video_id}.npy", own)
    (folder / "npz").mkdir()
    for video_id, own in rows.items():
        np.savez_compressed(folder / "npz" / f"{video_id}.npz", features=own)
    big = folder / "big"
    big.mkdir()
    np.concatenate(list(rows.values())).tofile(big / "feature.bin")
    (big / "shape.txt").write_text("48 4")
    (big / "id.txt").write_text(" ".join(f"{video_id}_{row}" for video_id in IDS for row in range(8)))
    (big / "video2frames.txt").write_text(
        repr({video_id: [f"{video_id}_{row}" for row in range(8)] for video_id in IDS})
    )
    records = [
        {
            "query_id": f"q{n}",
            "video_id": v,
            "sentence": "a dog runs",
            "duration": 8.0,
            "moments": [[1.0, 4.5]],
        }
        for n, v in enumerate(IDS)
    ]
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    (folder / "r.csv").write_text("video,sentence,start,end\n" + "".join(f"{v},A dog.,1,4\n" for v in IDS))
    captions = {v: {"duration": 8.0, "timestamps": [[1.0, 4.5]], "sentences": ["a dog runs"]} for v in IDS}
    (folder / "an.json").write_text(json.dumps(captions))
    (folder / "charades.txt").write_text("".join(f"{v} 1.0 4.5##a dog runs\n" for v in IDS))
    (folder / "words.pkl").write_bytes(pickle.dumps({"word": rows["v00"], "list": [1, "a", (2.5, None)]}, 2))
    (folder / "c.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nhi\n\n2\n00:00:03,000 --> 00:00:04,000\nyou\n"
    )
    (folder / "c.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhi <c>there</c>\n\nNOTE x\n")
    (folder / "c.jsonl").write_text('{"start": 1.0, "end": 2.5, "text": "hi"}\n')
    (folder / "c.yaml").write_text("name: x\ndata:\n  folder: d\ntraining:\n  epochs: 2\n")
    return {path.name: path for path in folder.iterdir()}


def read(path: Path, whole: Path, out: Path) -> None:
    """What a command would do with a file."""
    from dciml.config import load_config
    from dciml.datasets.readers import read_activitynet, read_charades_sta
    from dciml.features.encoders.captions import read_captions
    from dciml.features.sources.plain_pickle import read_plain_pickle
    from dciml.recipes.prepare import ImportOptions, prepare_records

    def prepare(records: Path, features: Path) -> object:
        return prepare_records({"train": records}, features, out, "n", ImportOptions(rows_per_second=1.0))

    readers: dict[str, Callable[[Path], object]] = {
        "r.jsonl": lambda p: prepare(p, whole / "f.h5"),
        "r.csv": lambda p: prepare(p, whole / "f.h5"),
        "an.json": lambda p: read_activitynet(p, "train", past_end="clip"),
        "charades.txt": lambda p: read_charades_sta(p, "train", dict.fromkeys(IDS, 8.0), past_end="clip"),
        "words.pkl": read_plain_pickle,
        "c.yaml": load_config,
    }
    reader = readers.get(path.name)
    if reader is None:
        reader = read_captions if path.name.startswith("c.") else lambda p: prepare(whole / "r.jsonl", p)
    reader(path)


def damage(path: Path, rng: random.Random) -> None:
    """Change a file, or one file of a folder, in one of the ways that files go wrong."""
    if path.is_dir():
        path = rng.choice(sorted(path.iterdir()))
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, kind = rng.randrange(max(len(content), 1)), rng.randrange(7)
        if kind == 0 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content = content[:at]
        elif kind == 2:
            content[at:at] = rng.choice(
                [b"\x00", b"\xff\xfe", b"1e999", b"-1", b"NaN", b"[" * 3000, b'"', b"\n\n", b"9" * 5000]
            )
        elif kind == 3:
            content[at : at + 8] = rng.randbytes(8)
        elif kind == 4:
            content[at : at + rng.randrange(40)] = b""
        elif kind == 5:
            other = rng.randrange(max(len(content), 1))
            content[at : at + 16] = content[other : other + 16]
        else:
            content[at:at] = content[at : at + 200]
    path.write_bytes(content)


def serve(pipe: Connection, whole: Path) -> None:
    """Read what comes, and say what is wrong with how that ended; nothing where it was read or refused."""
    from dciml.cli.app import app as _  # loads all before the limit holds
    from dciml.errors import DcimlError

    del _
    limit = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, limit))
    for path, out in iter(pipe.recv, None):
        signal.alarm(SECONDS)
        try:
            read(path, whole, out)
            said = ""
        except DcimlError as error:
            said = "" if len(str(error)) < 2000 else f"too long: {error}"
        except Exception:
            said = traceback.format_exc()
        signal.alarm(0)
        pipe.send(said)


def test_damaged_files_are_read_or_refused_soon(tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0"))
    whole = tmp_path / "whole"
    whole.mkdir()
    forms = sorted(write_all(whole))
    context, worker, pipe = get_context("spawn"), None, None
    bad: list[tuple[Any, ...]] = []
    for number in range(CASES):
        rng = random.Random(seed * CASES + number)
        form = forms[number % len(forms)]
        place = tmp_path / f"{number}"
        place.mkdir()
        path = place / form
        (shutil.copytree if (whole / form).is_dir() else shutil.copyfile)(whole / form, path)
        damage(path, rng)
        if worker is None or not worker.is_alive():
            pipe, theirs = context.Pipe()
            worker = context.Process(target=serve, args=(theirs, whole), daemon=True)
            worker.start()
            theirs.close()
        assert pipe is not None
        pipe.send((path, place / "out"))
        try:
            said = pipe.recv()
        except EOFError:
            worker.join()
            said = f"the process died ({worker.exitcode})"
        if said:
            bad.append((number, form, said))
    assert worker is not None
    worker.kill()
    assert not bad, "\n".join(f"{number} {form}: …{said[-300:]}" for number, form, said in bad)


def test_whole_files_are_read(tmp_path: Path) -> None:
    sys.setrecursionlimit(1000)
    for number, path in enumerate(write_all(tmp_path).values()):
        read(path, tmp_path, tmp_path / f"out{number}")
