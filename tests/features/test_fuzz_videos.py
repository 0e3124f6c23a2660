"""Damaged files of every kind: each is either extracted whole or refused in plain words; nothing else happens."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dciml.errors import DataError
from dciml.features import extract
from dciml.features.base import num_rows
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.extract import extract_videos
from dciml.features.store import FeatureStore
from dciml.processes import GIBIBYTE
from dciml.service.thumbnails import ThumbnailCache

FORMS = {
    ".mp4": ("libx264", "yuv420p", {}),
    ".mov": ("mpeg4", "yuv420p", {}),
    ".mkv": ("libx264", "yuv420p", {}),
    ".webm": ("libvpx", "yuv420p", {}),
    ".ts": ("mpeg2video", "yuv420p", {}),
    ".avi": ("mjpeg", "yuvj420p", {}),
    ".flv": ("flv1", "yuv420p", {}),
    ".gif": ("gif", "gray", {}),
    ".m4v": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    ".nut": ("ffv1", "yuv420p", {}),
    ".mpg": ("mpeg2video", "yuv420p", {}),
    ".wmv": ("wmv2", "yuv420p", {}),
}


def write_form(suffix: str, folder: Path) -> bytes:
    codec, pixels, options = FORMS[suffix]
    path = folder / f"whole{suffix}"
    rng = np.random.default_rng(1)
    kind = "mp4" if suffix == ".m4v" else None
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        sound = container.add_stream("mp2", rate=32000) if suffix in (".ts", ".mkv", ".mpg") else None
        for index in range(30):
            noise = rng.integers(0, 200, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(noise, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for start in range(0, 64000, 1152) if sound else ():
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            heard.sample_rate, heard.pts, heard.time_base = 32000, start, Fraction(1, 32000)
            container.mux(sound.encode(heard))
    return path.read_bytes()


def damage(content: bytes, rng: np.random.Generator, kind: str) -> bytes:
    """One damaged copy."""
    found = bytearray(content)
    place = int(rng.integers(len(found)))
    if kind == "cut":
        return bytes(found[:place])
    if kind == "head lost":
        return bytes(found[place:])
    if kind == "twice":  # as recordings that were put together, where one may be cut
        return bytes(found[:place]) + bytes(found)
    if kind == "numbers":  # lengths, counts and scales that are absurd
        for at in rng.integers(0, min(900, len(found) - 4), 3):
            number = rng.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x00FFFFFF, int(rng.integers(2**32))])
            found[at : at + 4] = int(number).to_bytes(4, "big" if rng.random() < 0.7 else "little")
        return bytes(found)
    if kind == "hole":
        found[place : place + 400] = bytes(len(found[place : place + 400]))
    else:
        reach = 600 if kind == "head flipped" else len(found)
        for at in rng.integers(0, min(reach, len(found)), int(rng.choice([1, 4, 40]))):
            found[at] ^= 1 << int(rng.integers(8))
    return bytes(found)


KINDS = ("cut", "flipped", "head flipped", "hole", "head lost", "twice", "numbers")


def write_damaged(folder: Path, count: int, seed: int) -> dict[str, Path]:
    """So many files: empty, noise, text, renamed and damaged ones."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    whole = {suffix: write_form(suffix, folder.parent) for suffix in FORMS}
    suffixes = list(FORMS)
    paths: dict[str, Path] = {}
    for number in range(count):
        suffix = suffixes[number % len(suffixes)]
        if number % 10 == 9:
            special = (b"", rng.bytes(3000), b"a text\n" * 200, whole[suffix], whole[suffix] + whole[".mkv"])
            content, suffix = special[number // 10 % 5], suffixes[number // 10 % len(suffixes)]
        else:
            content = damage(whole[suffix], rng, KINDS[number // len(suffixes) % len(KINDS)])
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        paths[str(number)] = path
    return paths


def check(paths: dict[str, Path], store_path: Path) -> None:
    done = extract_videos(paths, BuiltinVisualEncoder(), store_path, 2)
    store = FeatureStore.open(store_path)
    assert set(done.done) | {failure.video_id for failure in done.failures} == set(paths)
    assert sorted(store.video_ids) == sorted(done.done)
    assert store.verify() == []
    for video_id in store.video_ids:
        assert store.num_rows(video_id) == num_rows(store.duration_seconds(video_id), 2.0)
        assert np.isfinite(store.rows(video_id)).all()
    for failure in done.failures:
        message = str(failure.error)
        assert message.startswith(f"{failure.path}: "), message
        assert "To mend it: " in message, message
        assert "unforeseen" not in message, message
        assert "crashed" not in message, message
        assert "no progress" not in message, message
    assert 0.2 < len(done.failures) / len(paths) < 0.9


def check_pictures(paths: dict[str, Path], store: FeatureStore, folder: Path) -> None:
    """What was extracted shows a picture at every time; what was not, may show one or be refused in a sentence."""
    cache = ThumbnailCache(folder, 10**8)
    for video_id, path in paths.items():
        for share in (0.0, 0.6, 1.0):
            known = video_id in store.video_ids
            seconds = share * store.duration_seconds(video_id) if known else share
            with nullcontext() if known else suppress(DataError):
                assert cache.get(path, seconds).startswith(b"\xff\xd8")
    for _, error in cache._failures.values():
        for word in ("unforeseen", "crashed", "longer than"):
            assert word not in str(error)
    cache.close()


def test_a_few_damaged_files(tmp_path: Path) -> None:
    check(write_damaged(tmp_path / "videos", 25, seed=5), tmp_path / "store")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_many_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(extract, "STALL_SECONDS", 30.0)
    monkeypatch.setattr(extract, "share_of_memory", lambda workers: GIBIBYTE)
    paths = write_damaged(tmp_path / "videos", 300, seed)
    check(paths, tmp_path / "store")
    check_pictures(paths, FeatureStore.open(tmp_path / "store"), tmp_path / "pictures")
