"""An index whose files are damaged, or made to do harm: it is refused or reported, in one sentence."""

from __future__ import annotations

import random
import shutil
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import DataError, DcimlError, ModelError
from dciml.index import ClipIndex, IndexOptions, VideoDetails, VideoFilter, segments, verify_index
from dciml.index.tables import seal_facts, seal_videos

CLIPS, WIDTH = 2, 8


def make_index(folder: Path, exact_videos: int = 4) -> ClipIndex:
    index = ClipIndex.create(
        folder / "index",
        num_clips=CLIPS,
        width=WIDTH,
        fingerprint="abc",
        model_folder=folder / "model",
        store_path=folder / "store",
        options=IndexOptions(exact_videos=exact_videos, code_bytes=2),
    )
    details = [
        VideoDetails(
            f"A title {n}", folder / "videos" / f"film{n}.mp4", (f"tag{n}", "all"), 1.7e9 + n, "c" * 8
        )
        for n in range(12)
    ]
    vectors = np.random.default_rng(0).standard_normal((12, CLIPS, WIDTH))
    index.add([f"video{n}" for n in range(12)], vectors, np.arange(12) + 10.5, None, details)
    return index


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_index(tmp_path_factory.mktemp("whole")).path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "index"))


@contextmanager
def catalogue(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path / "catalogue.sqlite")) as connection, connection:
        yield connection


def seen(index: ClipIndex) -> list[object]:
    """All that an index says."""
    matches = index.search(np.ones((1, WIDTH)), 100)[0]
    scores = [(match.video_id, match.score, match.duration_seconds) for match in matches]
    return [
        scores,
        [index.video(video_id) for video_id in index.video_ids],
        index.select(VideoFilter(tag="all")),
    ]


def flip(file: Path, bit: int) -> None:
    content = bytearray(file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


@pytest.mark.parametrize("text", ["A title 3", "film7.mp4", "tag5", "video9", "abc", "float32", "cccccccc"])
def test_every_bit_of_what_is_told_of_a_video_counts(copy: Path, text: str) -> None:
    file = copy / "catalogue.sqlite"
    content = file.read_bytes()
    places, start = [], content.find(text.encode())
    while start >= 0:
        places.append(start)
        start = content.find(text.encode(), start + 1)
    assert places
    for place in places[:3]:
        for bit in range(8 * place, 8 * (place + len(text)), 3):
            flip(file, bit)
            assert verify_index(copy) != [], (place, bit)
            file.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE videos SET duration_seconds = duration_seconds + 0.0001 WHERE video_id = 'video3'",
        "UPDATE videos SET date_unix = date_unix + 1 WHERE video_id = 'video3'",
        "UPDATE videos SET media_absolute = '/etc/passwd' WHERE video_id = 'video3'",
        "UPDATE videos SET added_unix = added_unix + 1 WHERE video_id = 'video3'",
        "DELETE FROM tags WHERE tag = 'tag3'",
        "UPDATE meta SET value = '/elsewhere' WHERE name = 'model_absolute'",
        "UPDATE stores SET absolute = '/elsewhere'",
        "UPDATE segments SET codes_crc = codes_crc + 1",
        "DELETE FROM meta WHERE name = 'facts_crc'",
    ],
)
def test_a_changed_catalogue_is_named(copy: Path, change: str) -> None:
    with catalogue(copy) as connection:
        connection.execute(change)
    (damage,) = verify_index(copy)
    assert "does not match its checksum" in damage
    assert ("'video3'" in damage) == ("videos" in change or "tags" in change)
    with pytest.raises(ModelError, match="does not match its checksum"):
        ClipIndex.open(copy)


def test_a_damaged_entry_of_a_large_index_is_refused_when_it_is_asked_for(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dciml.index.catalogue.CHECKED_VIDEOS", 5)
    with catalogue(copy) as connection:
        connection.execute("UPDATE videos SET title = 'other' WHERE video_id = 'video3'")
    index = ClipIndex.open(copy)
    assert index.video("video2").title == "A title 2"
    with pytest.raises(ModelError, match="the entry of the video 'video3' is damaged"):
        index.video("video3")
    assert index.verify() == ["video 'video3': its entry does not match its checksum"]
    index.back_up(copy.parent / "backup")  # which does not make it look whole
    assert verify_index(copy.parent / "backup") == index.verify()
    index.remove(["video3"])
    index.compact()
    assert index.verify() == []


@pytest.mark.parametrize("tries", [60, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_damage_passes_unseen_or_crashes(copy: Path, tries: int) -> None:
    """A bit anywhere, a file cut short, missing, of another kind: `verify_index` tells, or nothing has changed."""
    dice, before = random.Random(tries), seen(ClipIndex.open(copy))
    for number in range(tries):
        file = dice.choice(sorted(copy.iterdir()))
        content, kind = file.read_bytes(), number % 6
        if kind < 3:
            flip(file, dice.randrange(8 * len(content)))
        elif kind == 3:
            file.write_bytes(content[: dice.randrange(len(content))])
        elif kind == 4:
            file.write_bytes(dice.randbytes(len(content)))
        else:
            file.unlink()
            if dice.random() < 0.5:
                file.mkdir()
        said = f"try {number}, kind {kind}, {file.name}"
        try:
            damages = verify_index(copy)
        except DataError:
            damages = ["no catalogue"]
        if not damages:
            assert kind < 3, said
            assert seen(ClipIndex.open(copy)) == before, said
        else:
            with suppress(DcimlError, sqlite3.Error):
                seen(ClipIndex.open(copy))
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)
    assert verify_index(copy) == []


def spoil(path: Path, value: float, row: int = 5) -> None:
    """Put a number into the vectors of a video, with a checksum that fits."""
    file = path / "segment-1.vectors"
    vectors = np.fromfile(file, dtype=np.float32).reshape(-1, CLIPS, WIDTH)
    vectors[row, 1, 3] = value
    vectors.tofile(file)
    with catalogue(path) as connection:
        connection.execute(
            "UPDATE videos SET vectors_crc = ? WHERE segment_row = ?", (zlib.crc32(vectors[row].data), row)
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -70_000.0])
def test_a_number_that_cannot_be_is_refused_on_opening(copy: Path, value: float) -> None:
    spoil(copy, value)
    with pytest.raises(ModelError, match="NaN or out of range"):
        ClipIndex.open(copy)
    assert verify_index(copy) == ["video 'video5': its vectors hold a number that is NaN or out of range"]


def test_a_number_that_cannot_be_in_a_large_index_is_refused_when_it_is_read(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "CHECKED_BYTES", 0)
    spoil(copy, np.nan)
    index, query = ClipIndex.open(copy), np.ones((1, WIDTH))
    for call in (
        lambda: index.search(query, 100),
        lambda: index.search(query, 1, ["video5"]),
        lambda: index.pair_scores(query, ["video5"]),
    ):
        with pytest.raises(ModelError, match="NaN or out of range"):
            call()
    assert index.search(query, 1, ["video4"])[0][0].video_id == "video4"


def test_half_precision_is_looked_at_too(tmp_path: Path) -> None:
    index = ClipIndex.create(
        tmp_path / "index", num_clips=CLIPS, width=WIDTH, fingerprint="f", model_folder=tmp_path,
        store_path=tmp_path, options=IndexOptions(dtype="float16"),
    )  # fmt: skip
    index.add(["a"], np.full((1, CLIPS, WIDTH), -65_504.0), [1.0])
    assert ClipIndex.open(index.path).verify() == []
    file = index.path / "segment-1.vectors"
    for value in (np.inf, np.nan):
        np.full((1, CLIPS, WIDTH), value, dtype=np.float16).tofile(file)
        with pytest.raises(ModelError, match="NaN or out of range"):
            ClipIndex.open(index.path)


def test_damaged_codes_are_refused_on_opening(copy: Path) -> None:
    flip(copy / "segment-1-1.codes", 77)
    with pytest.raises(ModelError, match="codes do not match their checksum"):
        ClipIndex.open(copy)


def test_damaged_vectors_do_not_get_a_checksum_that_fits(copy: Path) -> None:
    flip(copy / "segment-1.vectors", 8 * 4 * CLIPS * WIDTH * 5)
    index = ClipIndex.open(copy)
    index.remove(["video0"])
    with pytest.raises(ModelError, match="the vectors of the video 'video5' do not match"):
        index.compact()
    index.remove(["video5"])
    index.compact()
    assert index.verify() == []


HOSTILE = {
    "a view": "ALTER TABLE tags RENAME TO t; CREATE VIEW tags AS SELECT * FROM t",
    "another view": "CREATE VIEW v AS SELECT 1",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON videos BEGIN DELETE FROM videos; END",
    "a table": "CREATE TABLE more (a)",
    "a virtual table": "CREATE VIRTUAL TABLE more USING fts5(a)",
    "an index that computes": "CREATE INDEX more ON videos (lower(title))",
    "a column": "ALTER TABLE videos ADD COLUMN more TEXT DEFAULT 'x'",
    "a computed column": "ALTER TABLE videos ADD COLUMN more AS (lower(title))",
}


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_a_catalogue_with_more_than_our_tables_is_refused(copy: Path, script: str) -> None:
    with catalogue(copy) as connection:
        connection.executescript(script)
    with pytest.raises(ModelError, match="not the catalogue of a dciml index"):
        ClipIndex.open(copy)
    assert len(verify_index(copy)) == 1


OUT_OF_RANGE = [
    "UPDATE meta SET value = '1000000000' WHERE name = 'num_clips'",
    "UPDATE meta SET value = '-1' WHERE name = 'width'",
    f"UPDATE meta SET value = '{'9' * 5000}' WHERE name = 'width'",
    "UPDATE meta SET value = '1.5' WHERE name = 'generation'",
    f"UPDATE meta SET value = '{'[' * 5000}' WHERE name = 'options'",
    """UPDATE meta SET value = '{"code_bytes": 1e9}' WHERE name = 'options'""",
    """UPDATE meta SET value = '{"dtype": "O"}' WHERE name = 'options'""",
    "UPDATE videos SET segment_row = 1000000000 WHERE video_id = 'video1'",
    "UPDATE videos SET segment_row = -1 WHERE video_id = 'video1'",
    "UPDATE videos SET segment_row = 'x' WHERE video_id = 'video1'",
    "UPDATE videos SET segment_key = 9 WHERE video_id = 'video1'",
    "UPDATE videos SET segment_row = NULL WHERE video_id = 'video1'",
    "UPDATE videos SET segment_row = 0 WHERE video_id = 'video1'",
    "UPDATE videos SET duration_seconds = 9e999 WHERE video_id = 'video1'",
    "UPDATE videos SET duration_seconds = 'long' WHERE video_id = 'video1'",
    "UPDATE videos SET video_id = x'ff' WHERE video_id = 'video1'",
    "UPDATE videos SET video_id = '' WHERE video_id = 'video1'",
    "UPDATE videos SET store_key = 7 WHERE video_id = 'video1'",
    "UPDATE videos SET video_key = 9007199254740993 WHERE video_id = 'video1'",
    "UPDATE segments SET num_videos = 1000000000000",
    "UPDATE segments SET num_videos = -12",
    "UPDATE segments SET num_videos = 'x'",
    "UPDATE segments SET coder = 2",
    "DELETE FROM stores",
]


@pytest.mark.parametrize("change", OUT_OF_RANGE, ids=range(len(OUT_OF_RANGE)))
def test_numbers_out_of_range_are_refused_though_all_checksums_fit(copy: Path, change: str) -> None:
    with catalogue(copy) as connection:
        connection.execute(change)
        seal_videos(connection)
        seal_facts(connection)
    with pytest.raises(ModelError):
        ClipIndex.open(copy)
    assert verify_index(copy) != []


def to_coder(change: Callable[[dict[str, np.ndarray]], None]) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        with np.load(file) as arrays:
            content = dict(arrays)
        change(content)
        np.savez(file, **content)

    return write


@pytest.mark.parametrize(
    "write",
    [
        to_coder(lambda arrays: arrays.update(mean=np.zeros(3, np.float32))),
        to_coder(lambda arrays: arrays.update(axes=arrays["axes"] * np.float32(np.nan))),
        to_coder(lambda arrays: arrays.update(centroids=arrays["centroids"].astype(object))),
        lambda file: np.zeros(300).tofile(file),
        lambda file: file.write_bytes(b"x" * 10_000_000),
    ],
)
def test_a_coder_that_does_not_fit_is_refused(copy: Path, write: Callable[[Path], object]) -> None:
    write(copy / "coder-1.npz")
    with pytest.raises(ModelError, match="the coder file is damaged"):
        ClipIndex.open(copy)


@pytest.mark.parametrize(
    "name", ["catalogue.sqlite", "segment-1.vectors", "segment-1-1.codes", "coder-1.npz"]
)
def test_a_link_out_of_the_folder_is_refused_and_one_inside_is_not(copy: Path, name: str) -> None:
    file = copy / name
    file.rename(copy.parent / "outside")
    file.symlink_to(copy.parent / "outside")
    with pytest.raises(ModelError, match="leads out of the index folder"):
        ClipIndex.open(copy)
    assert "leads out of the index folder" in verify_index(copy)[0]
    (copy.parent / "outside").rename(copy / "inside")
    file.unlink()
    file.symlink_to("inside")
    assert verify_index(copy) == []


def test_reading_leaves_the_catalogue_alone(copy: Path) -> None:
    """Also where the folder cannot be written."""
    before = (copy / "catalogue.sqlite").read_bytes()
    (copy / "catalogue.sqlite").chmod(0o444)
    seen(ClipIndex.open(copy))
    assert verify_index(copy) == []
    assert (copy / "catalogue.sqlite").read_bytes() == before


def test_an_index_of_the_version_before_opens_and_gets_checksums_by_a_change(copy: Path) -> None:
    before = seen(ClipIndex.open(copy))
    with catalogue(copy) as connection:
        connection.execute("ALTER TABLE videos DROP COLUMN entry_crc")
        connection.execute("DELETE FROM meta WHERE name IN ('facts_crc', 'coder_crc')")
        connection.execute("UPDATE meta SET value = '3' WHERE name = 'format_version'")
    old = ClipIndex.open(copy)
    assert seen(old) == before
    assert old.verify() == []
    old.back_up(copy.parent / "backup")
    assert seen(ClipIndex.open(copy.parent / "backup"))[0] == before[0]
    old.compact()
    assert seen(old) == before
    assert old.verify() == []
    with catalogue(copy) as connection:
        connection.execute("UPDATE videos SET title = 'other' WHERE video_id = 'video3'")
    assert verify_index(copy) == ["video 'video3': its entry does not match its checksum"]
