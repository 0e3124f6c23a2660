"""BigFile folders of the PRVR releases, and the dict in them, which is read as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.sources.bigfile import BigFileSource, read_literal_dict
from dciml.features.sources.source import open_features, write_store

VIDEOS = {"v_a": ["v_a_0", "v_a_1"], "v_b": ["v_b_0"]}
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


def make_bigfile(folder: Path, **changes: str | bytes) -> Path:
    """A folder of two videos; `changes` replaces the content of a file, named without its ending."""
    folder.mkdir()
    content: dict[str, str | bytes] = {
        "feature": ROWS[[2, 0, 1]].astype("<f4").tobytes(),
        "shape": "3 4\n",
        "id": "v_b_0 v_a_0\nv_a_1 ",
        "video2frames": repr(VIDEOS),
    } | changes
    for name, value in content.items():
        file = folder / f"{name}.{'bin' if name == 'feature' else 'txt'}"
        file.write_bytes(value if isinstance(value, bytes) else value.encode())
    return folder


def test_rows_come_by_name_in_the_order_of_the_frames(tmp_path: Path) -> None:
    source = open_features(make_bigfile(tmp_path / "i3d"), "x", "i3d")
    assert isinstance(source, BigFileSource)
    assert source.video_ids == ("v_a", "v_b")
    assert [rows.tolist() for rows in source.read(["v_b", "v_a"])] == [ROWS[2:].tolist(), ROWS[:2].tolist()]
    store = write_store(source, tmp_path / "s", source.video_ids, {"v_a": 4.0, "v_b": 2.0})
    np.testing.assert_array_equal(store.rows("v_a"), ROWS[:2])
    assert (store.manifest.encoder, store.source("v_a")) == ("i3d", "i3d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": "3\n"}, r"shape\.txt, line 1: '3' is not the number of rows and their width"),
        ({"shape": "3 -4"}, r"shape\.txt, line 1"),
        ({"shape": "3 9"}, r"feature\.bin: the file has 48 bytes, but 3 rows of 9 float32 numbers take 108"),
        ({"id": "v_a_0 v_a_1"}, r"id\.txt: there are 2 names, but shape\.txt says 3 rows"),
        ({"id": "v_a_0 v_a_0 v_b_0"}, r"id\.txt: the row name 'v_a_0' comes twice"),
        ({"video2frames": "{'v': ['w']}"}, r"video2frames\.txt, field v: the row 'w' is not in id\.txt"),
        ({"video2frames": "{'v': []}"}, r"video2frames\.txt, field v: the video has no rows"),
        ({"video2frames": "{}"}, r"video2frames\.txt: the file names no video"),
        ({"feature": b"abc"}, r"feature\.bin: the file has 3 bytes"),
    ],
)
def test_damaged_folder_is_refused_by_file(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        BigFileSource(make_bigfile(tmp_path / "f", **changes), "e", None)


@pytest.mark.parametrize("name", ["feature.bin", "shape.txt", "id.txt", "video2frames.txt"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = make_bigfile(tmp_path / "f")
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: there is no such file"):
        open_features(folder, "x")


def test_nan_in_a_row_names_the_video(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[1, 2] = np.nan
    source = BigFileSource(make_bigfile(tmp_path / "f", feature=rows.tobytes()), "e", None)
    with pytest.raises(DataError, match=r"feature\.bin, field v_a: .*row 0, column 2: a value is nan"):
        write_store(source, tmp_path / "s", ["v_a"], {"v_a": 1.0})


def literal(path: Path, text: str) -> dict[str, list[str]]:
    path.write_text(text, encoding="utf-8")
    return dict(read_literal_dict(path))


STRINGS = st.text(st.characters(codec="ascii", exclude_characters="\r\n\t\x00"), max_size=8).filter(
    str.isprintable
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(STRINGS, st.lists(STRINGS, max_size=4), min_size=1, max_size=5))
def test_what_python_prints_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, list[str]]
) -> None:
    path = tmp_path_factory.mktemp("literal") / "d.txt"
    assert literal(path, repr(value)) == value
    assert literal(path, repr({key: tuple(items) for key, items in value.items()})) == value


def test_python_2_strings_line_breaks_and_last_commas_are_read(tmp_path: Path) -> None:
    text = "{u'a': [u'x',\n 'y', ],\n \"b\\\\c\": ('it\\'s', '\\x41\\u00e9'),\n}\n"
    assert literal(tmp_path / "d.txt", text) == {"a": ["x", "y"], "b\\c": ["it's", "Aé"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('touch broken')", "line 1: .__import__.*is neither a string nor a bracket"),
        ("{'a': __import__('os').listdir('.')}", "line 1: .__import__"),
        ("{'a':\n ['x' for _ in range(9)]}", "line 2: 'for _ in"),
        ("{'a': [1, 2]}", "line 1: '1, 2"),
        ("{'a': 'x'}", r"line 1: expected a list, found \"'x'\""),
        ("{'a': [['x']]}", "line 1: expected a string, found '\\['"),
        ("{'a': ['x' 'y']}", "line 1: expected ',' or ']'"),
        ("{'a': ['x']\n'b': ['y']}", "line 2: expected ',' or '}'"),
        ("{'a': ['x'],\n 'a': ['y']}", "line 2: the key 'a' comes twice"),
        ("{'a': ['x']", "line 1: expected ',' or '}', found ''"),
        ("{'a': ['x'", "line 1: expected ',' or ']'"),
        ("{'a': ['x'],", "line 1: expected a string, found 'the end of the file'"),
        ("{'a': ['x']} + {}", "line 1: '\\+ {}' is neither"),
        ("{'a': ['x']} {}", "line 1: expected 'the end'"),
        ("['a']", "line 1: expected '{'"),
        ("{'a': ['\\N{DIGIT ONE}']}", "line 1: the string .* has an escape"),
        ("{'a': ['x\n']}", "line 1: .* is neither a string"),
        ("{f'a': ['x']}", "line 1: .* is neither a string"),
    ],
)
def test_anything_but_a_dict_of_lists_of_strings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"d\.txt, {message}"):
        literal(tmp_path / "d.txt", text)
    assert not (tmp_path / "broken").exists()
