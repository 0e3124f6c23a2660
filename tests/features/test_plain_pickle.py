"""Pickles read without unpickling: plain values come back, nothing else is even looked up."""

from __future__ import annotations

import os
import pickle
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.sources.plain_pickle import read_plain_pickle

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@settings(deadline=None, max_examples=60)
@given(VALUES, st.integers(0, 5))
def test_plain_values_come_back(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    file = put(tmp_path_factory.mktemp("pickle") / "x.pkl", pickle.dumps(value, protocol))
    assert read_plain_pickle(file) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array([True, False]),
        np.zeros((0, 4)),
        np.float64(2.5),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_numbers_come_back(tmp_path: Path, protocol: int, array: np.ndarray) -> None:
    # Twice the same array and a third with the same data type: the memo must give the finished objects.
    value = {"one": array, "again": [array], "other": array + array}
    found = read_plain_pickle(put(tmp_path / "x.pkl", pickle.dumps(value, protocol)))
    for key, expected in (("one", array), ("other", array + array)):
        np.testing.assert_array_equal(found[key], expected)
        assert found[key].dtype == expected.dtype
    np.testing.assert_array_equal(found["again"][0], array)


@pytest.mark.parametrize("protocol", range(6))
def test_counters_and_ordered_dicts_become_dicts(tmp_path: Path, protocol: int) -> None:
    value = [Counter("aab"), OrderedDict(x=1)]
    found = read_plain_pickle(put(tmp_path / "x.pkl", pickle.dumps(value, protocol)))
    assert found == [{"a": 2, "b": 1}, {"x": 1}]
    assert [type(item) for item in found] == [dict, dict]


def evil(module: bytes, name: bytes, argument: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n(V" + argument + b"\ntR."


class Reduced:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize(
    ("content", "forbidden"),
    [
        (evil(b"os", b"system", b"touch trap"), "the global os.system"),
        (evil(b"posix", b"system", b"touch trap"), "the global posix.system"),
        (evil(b"builtins", b"eval", b"open('trap', 'w')"), "the global builtins.eval"),
        (evil(b"builtins", b"exec", b"open('trap', 'w')"), "the global builtins.exec"),
        (evil(b"builtins", b"getattr", b"x"), "the global builtins.getattr"),
        (evil(b"subprocess", b"Popen", b"touch trap"), "the global subprocess.Popen"),
        (evil(b"numpy", b"load", b"trap"), "the global numpy.load"),
        (evil(b"numpy.testing._private.utils", b"runstring", b"x"), "the global numpy.testing"),
        (evil(b"collections", b"Counter.__init__", b"x"), "the global collections.Counter.__init__"),
        (evil(b"dciml.files", b"write_text", b"x"), "the global dciml.files.write_text"),
        (pickle.dumps(Reduced(os.system, ("touch trap",)), 4), "the global posix.system"),
        (pickle.dumps([1, Reduced(Path.touch, (Path("trap"),))], 5), "the global pathlib"),
        (b"(S'touch trap'\nios\nsystem\n.", "the operation INST"),
        (b"(cos\nsystem\nS'touch trap'\no.", "the global os.system"),
        (b"(ccollections\nCounter\nS'x'\no.", "the operation OBJ"),
        (b"ccollections\nCounter\n)\x81.", "the operation NEWOBJ"),
        (b"ccollections\nCounter\n(S'x'\ntR.", "a call of collections.Counter"),
        (b"cnumpy\ndtype\n(VO\ntR.", "an array of the type 'O'"),
        (b"cnumpy\ndtype\n(V9999999999f8\ntR.", "an array of the type"),
        (b"cnumpy\nndarray\n(I3\ntR.", "a call of numpy.ndarray"),
        (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "a call of _codecs.encode"),
        (b"Ptrap\n.", "the operation PERSID"),
        (b"\x82\x01.", "the operation EXT1"),
    ],
)
def test_malicious_pickle_is_refused_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, forbidden: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"x\.pkl: the pickle holds {forbidden}.* which is forbidden"):
        read_plain_pickle(put(tmp_path / "x.pkl", content))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b".",
        b"I1\nI2\n.",
        b"\x80\x04]",
        b"t.",
        b"(I1\nd.",
        b"h\x05.",
        b"]]\x85s.",
        b"}]I1\ns.",
        b"cnumpy\ndtype\n)R.",
        b"cnumpy.core.multiarray\n_reconstruct\n)R(I1\n(I3\ntcnumpy\ndtype\n(Vf8\ntR(I3\nV<\ntbI00\nS'x'\ntb.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_damaged_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"x\.pkl: the pickle (is damaged|ends too early)"):
        read_plain_pickle(put(tmp_path / "x.pkl", content))


def test_memo_of_huge_numbers_takes_no_memory(tmp_path: Path) -> None:
    # The C unpickler makes room for all places up to the number.
    assert read_plain_pickle(put(tmp_path / "x.pkl", b"I1\nr\xff\xff\xff\x7f.")) == 1


def test_tuples_in_tuples_without_end_are_no_key(tmp_path: Path) -> None:
    # Their hash would overflow the stack of the process.
    deep = b")" + b"\x85" * 200_000
    with pytest.raises(DataError, match="the pickle is damaged"):
        read_plain_pickle(put(tmp_path / "x.pkl", b"}" + deep + b"I1\ns."))


def test_broken_copies_never_raise_anything_else(tmp_path: Path) -> None:
    whole = pickle.dumps({"w2id": {"a": 0}, "id2vec": [np.ones(3, np.float32)], "counter": Counter("ab")}, 3)
    rng = np.random.default_rng(0)
    for number in range(400):
        broken = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, len(broken), size=number % 4):
            broken[place] = rng.integers(256)
        try:
            read_plain_pickle(put(tmp_path / "x.pkl", bytes(broken)))
        except DataError:
            continue


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_plain_pickle(tmp_path / "x.pkl")
