"""The limits that SECURITY.md names are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dciml import inputs, strict, video_clock, video_streams, video_track
from dciml.features import extract, store_format
from dciml.features.sources import arrays, hdf5
from dciml.service import adding, clips, convert, cutting, schemas, thumbnails
from dciml.service.settings import Limits

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
LIMITS = Limits()
SET = {
    "annotations, tables, JSON": [inputs.MAX_TEXT_BYTES / MIB],
    "settings of a run": [inputs.MAX_SETTINGS_BYTES / MIB],
    "captions of a video": [inputs.MAX_CAPTION_BYTES / MIB],
    "objects and lists within each other, in JSON": [strict.MAX_DEPTH],
    "features of a video, HDF5 or NumPy": [hdf5.MAX_DATASET_BYTES / GIB],
    "width of feature rows": [store_format.MAX_WIDTH],
    "pixels of a picture": [video_streams.MAX_PIXELS],
    "memory to open a video": [video_streams.OPENING_BYTES / MIB],
    "processor time to decode a video": [
        video_track.DECODING_SECONDS,
        video_track.DECODING_SECONDS_PER_SECOND,
    ],
    "length of a video without sound": [video_clock.STILLS_SECONDS / 3600, video_clock.STILL_SECONDS / 60],
    "silence of a process that extracts features": [extract.STALL_SECONDS],
    "a picture of the page": [thumbnails.DECODING_SECONDS, thumbnails.MEMORY_BYTES / GIB],
    "a moment that is cut out": [
        clips.MOST_SECONDS,
        cutting.CUTTING_SECONDS,
        cutting.MEMORY_BYTES / GIB,
        cutting.CLIP_BYTES / GIB,
    ],
    "JSON body of a request": [LIMITS.body_bytes / MIB],
    "upload": [LIMITS.upload_bytes / MIB, LIMITS.upload_seconds, LIMITS.upload_bytes_per_second / KIB],
    "title of an upload": [adding.MAX_TITLE_CHARS],
    "a converted copy": [
        LIMITS.copy_seconds,
        convert.MEMORY_BYTES / GIB,
        LIMITS.copy_bytes / MIB,
        LIMITS.copies_bytes / MIB,
        LIMITS.queued_copies,
    ],
    "answer": [LIMITS.send_bytes_per_second / KIB],
    "sentence of a search": [schemas.MAX_SENTENCE_CHARS],
    "moments in an answer over HTTP": [schemas.MAX_HITS],
    "searches, players, uploads in progress": [
        LIMITS.running_searches,
        LIMITS.running_streams,
        LIMITS.running_uploads,
    ],
    "players, uploads of a client": [LIMITS.streams_per_client, LIMITS.uploads_per_client],
    "connections, of a client": [LIMITS.connections, LIMITS.connections_per_client],
}


def rows() -> dict[str, str]:
    """What the table says, by what it says it of."""
    lines = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1] for cells in lines[1:]}


def test_every_limit_is_held_to_the_program() -> None:
    assert rows().keys() == SET.keys()
    assert arrays.MAX_ARRAY_BYTES == hdf5.MAX_DATASET_BYTES  # one row for both


@pytest.mark.parametrize("what", SET)
def test_limit_is_that_of_the_program(what: str) -> None:
    numbers = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", rows()[what])]
    assert numbers == SET[what]


def test_page_is_linked() -> None:
    assert "](SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](../SECURITY.md)" in (ROOT / "docs" / "SERVICE.md").read_text(encoding="utf-8")
