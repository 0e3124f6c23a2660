from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dciml.config import load_config
from dciml.datasets.csv_records import read_csv_queries
from dciml.datasets.records import read_queries
from dciml.errors import DataError
from dciml.features.encoders.captions import read_captions
from dciml.features.sources.hdf5 import scan_hdf5
from dciml.files import read_json
from dciml.inputs import read_decoded, read_input

READERS = [read_json, read_queries, read_csv_queries, scan_hdf5, read_captions, load_config]


@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_are_read(tmp_path: Path, read: object) -> None:
    assert callable(read)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="this is a pipe, not a regular file"):
        read(tmp_path / "pipe")
    with pytest.raises(DataError, match="this is a device, not a regular file"):
        read(Path("/dev/zero"))
    with pytest.raises(DataError, match="this is a folder, not a file"):
        read(tmp_path)
    with pytest.raises(DataError, match="there is no such file"):
        read(tmp_path / "none")


def test_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("s")
        with pytest.raises(DataError, match="this is a socket"):
            read_input(Path("s"))


def test_too_large_file_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    os.truncate(tmp_path / "a.yaml", 1 << 40)
    with pytest.raises(DataError, match=r"1,099,511,627,776 bytes; at most 4,194,304 are read"):
        load_config(tmp_path / "a.yaml")


def test_marked_text_is_read_and_cut_text_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("Собака".encode("utf-16"))
    assert read_decoded(file) == "Собака"
    file.write_bytes("Собака".encode("utf-16")[:-1])
    with pytest.raises(DataError, match="not whole utf-16"):
        read_decoded(file)


def test_table_in_an_unclear_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("video,sentence\na,Un café noir\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv: the text's encoding cannot be told: line 2 is not UTF-8"):
        read_csv_queries(file)
