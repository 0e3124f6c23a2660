"""Caption files as they are found: SubRip, WebVTT and JSON lines; what is wrong is named with its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.errors import DataError
from dciml.features.encoders import captions
from dciml.features.encoders.captions import Caption, find_captions, read_captions

PLAIN = [Caption(1.0, 2.5, "A man opens a door."), Caption(3661.25, 3662.0, "He sits down")]
SRT = "1\n00:00:01,000 --> 00:00:02,500\nA man opens\na door.\n\n2\n01:01:01,250 --> 01:01:02,000\nHe sits down\n"
VTT = """WEBVTT - a title

NOTE by
somebody

STYLE
::cue { color: red }

first
00:01.000 --> 00:02.500 align:start position:10%
<v Bob>A man <00:01.500><c.yellow>opens</c>
a <i>door</i>.

01:01:01.250 --> 01:01:02.000
He&nbsp;sits down

NOTE the end
"""
JSON = """{"start": 1, "end": 2.5, "text": "A man opens a door.", "speaker": "Bob"}

{"start": 3661.25, "end": 3662, "text": "He sits down"}
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("name", "content"), [("a.srt", SRT), ("a.vtt", VTT), ("a.jsonl", JSON)])
def test_each_form_is_read(tmp_path: Path, name: str, content: str) -> None:
    assert read_captions(write(tmp_path, name, content)) == PLAIN
    for lines in (content.replace("\n", "\r\n"), content.replace("\n", "\r"), content.rstrip("\n")):
        assert read_captions(write(tmp_path, name, lines)) == PLAIN
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_captions(write(tmp_path, name, content.encode(encoding))) == PLAIN


RUSSIAN = "Собака бежит через двор. Мужчина открывает холодильник и берёт молоко. Потом он идёт домой."
GERMAN = "Der Hund läuft über die Straße. Wir müssen später noch größere Bücher für die Schüler kaufen."


@pytest.mark.parametrize(("text", "encoding"), [(RUSSIAN, "koi8-r"), (GERMAN, "cp1252")])
def test_encoding_is_told_by_the_letters_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, encoding: str
) -> None:
    path = write(tmp_path, "a.srt", f"00:01,0 --> 00:02,0\n{text}".encode(encoding))
    assert read_captions(path) == [Caption(1, 2, text)]
    assert "a.srt: not UTF-8; read as " in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        "naïve café\n\n00:03,0 --> 00:04,0\nbad ".encode() + b"\xe9 byte",
        "Собака бежит".encode("cp1251"),
        "Un café “noir”".encode("cp1252"),
        "狗跑过院子".encode("gbk"),
        "犬が庭を走る".encode("shift_jis"),
        "Hunden springer över gården. En man öppnar kylskåpet och tar fram mjölk.".encode("cp850"),
        "El niño corrió detrás del camión y después salió al jardín.".encode("mac_roman"),
    ],
)
def test_unclear_encoding_is_refused_instead_of_wrong_letters(tmp_path: Path, body: bytes) -> None:
    path = write(tmp_path, "a.srt", b"00:01,0 --> 00:02,0\n" + body)
    with pytest.raises(
        DataError, match=r"a\.srt: the text's encoding cannot be told: line .*save it as UTF-8"
    ):
        read_captions(path)


def test_line_of_one_blank_does_not_end_a_cue(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.vtt",
        "WEBVTT\n\n00:00.000 --> 00:04.000 align:start\n \nwatch<00:00:01.000><c> the</c>\n\n"
        "00:04.000 --> 00:05.000\ndog\n \n",
    )
    assert read_captions(path) == [Caption(0, 4, "watch the"), Caption(4, 5, "dog")]


def test_captions_are_found_whatever_way_accents_are_written(tmp_path: Path) -> None:
    video, captions = tmp_path / "cafe\u0301.mp4", tmp_path / "caf\u00e9.srt"
    video.touch()
    captions.write_text("00:01,0 --> 00:02,0\nx")
    assert find_captions(video) == captions
    (tmp_path / "cafe\u0301.srt").write_text("00:01,0 --> 00:02,0\ny")
    with pytest.raises(DataError, match="two names look the same"):
        find_captions(video)


@pytest.mark.parametrize(
    "content",
    [
        SRT.replace("1\n00:", "00:", 1).replace("2\n01", "01"),  # no index numbers
        SRT.replace("\n\n2\n", "\n2\n"),  # no blank line
        SRT.replace("\n\n2\n", "\n\n\n\n7\n"),
        SRT.replace("A man opens", "{\\an8}<font color=red>A man</font> opens"),
        SRT.replace("02,500\n", "02,500  X1:10 X2:20\n").replace(",", "."),
        SRT.replace("A man opens\n", "A man opens\n\n"),  # a blank line inside a caption
        SRT + "\n3\n01:01:05,000 --> 01:01:06,000\n\n",  # a caption without text
    ],
)
def test_untidy_subrip_is_read(tmp_path: Path, content: str) -> None:
    assert read_captions(write(tmp_path, "a.srt", content)) == PLAIN


def test_numbers_signs_and_overlaps_stay(tmp_path: Path) -> None:
    text = "1\n00:00:05,000 --> 00:00:09,000\n42\n\n2\n00:00:01,000 --> 00:00:06,000\n1 < 2 <3 and 3 > 2\n"
    expected = [Caption(1, 6, "1 < 2 <3 and 3 > 2"), Caption(5, 9, "42")]
    assert read_captions(write(tmp_path, "a.srt", text)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.srt",
            "1\n00:00:02,000 --> 00:00:01,000\nx",
            r"a\.srt, line 2: the caption ends before it starts",
        ),
        ("a.srt", "\n\n1\n-00:00:02,000 --> 00:00:01,000\nx", r"line 4: a time is negative \(-2 s"),
        ("a.srt", "1\n00:00:02,000 -->\nx", "line 2: this is not a timing line"),
        ("a.srt", "1\n00:61:02,000 --> 02:00:00,0\nx", "line 2: a time has 61 minutes"),
        ("a.srt", "just text", "the file holds no caption"),
        ("a.srt", " \n", "the file is empty"),
        ("a.vtt", "WEBVTT\n\n0:a.000 --> 00:02.000\nx", "line 3: this is not a timing line"),
        ("a.jsonl", '{"start": 1, "end": 2}', "line 1, field text: missing, or not a text"),
        (
            "a.jsonl",
            '\n{"start": "1", "end": 2, "text": "x"}',
            "line 2, field start: missing, or not a number",
        ),
        ("a.jsonl", '{"start": 1, "end": NaN, "text": "x"}', "line 1, field end: the number is NaN"),
        (
            "a.jsonl",
            '{"start": 1, "end": 1e999, "text": "x"}',
            "line 1, field end: the number 1e999 is out of range",
        ),
        ("a.jsonl", '{"start": -1, "end": 2, "text": "x"}', "line 1: a time is negative"),
        ("a.jsonl", '{"start": 3, "end": 2, "text": "x"}', "line 1: the caption ends before it starts"),
        ("a.jsonl", "[1, 2]", "line 1: this is not a JSON object"),
        ("a.jsonl", '{"start": 1,', "line 1: .*not valid JSON"),
        ("a.jsonl", "[" * 100_000, "line 1: objects and lists are nested"),
        ("a.srt", b"\x00\x01\x02\xff", "this is not a text file"),
        ("a.srt", b"\xff\xfe\x00", "not whole utf-16"),
    ],
)
def test_bad_captions_are_named_with_their_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_captions(write(tmp_path, name, content))


def test_halves_of_characters_do_not_reach_the_encoder(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"start": 0, "end": 1, "text": "a \\ud800 dog \\ud83d\\ude00"}')
    assert read_captions(path) == [Caption(0, 1, "a ? dog \U0001f600")]


def test_an_empty_webvtt_file_holds_no_caption(tmp_path: Path) -> None:
    assert read_captions(write(tmp_path, "a.vtt", "WEBVTT\n")) == []


@settings(deadline=None, max_examples=60)
@given(
    content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    suffix=st.sampled_from(["srt", "vtt", "jsonl"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("fuzz"), f"a.{suffix}", content + b"\n00:01,0 --> 00:02,0\nx")
    try:
        captions = read_captions(path)
    except DataError:
        return
    assert all(0 <= caption.start_seconds <= caption.end_seconds for caption in captions)


def test_captions_are_found_beside_the_video(tmp_path: Path) -> None:
    video = tmp_path / "my [1] film.mp4"
    for name in ("my [1] film.mp4", "my [1] film 2.srt", "other.srt", "my [1] film.notes-of-mine.srt"):
        write(tmp_path, name, SRT)
    assert find_captions(video) is None
    german = write(tmp_path, "my [1] film.de.srt", SRT)
    assert find_captions(video) == german
    write(tmp_path, "my [1] film.fr.srt", SRT)
    with pytest.raises(DataError, match=r"captions in several languages \(de, fr\)"):
        find_captions(video)
    english = write(tmp_path, "my [1] film.en-GB.VTT", VTT)
    assert find_captions(video) == english
    plain = write(tmp_path, "my [1] film.vtt", VTT)
    assert find_captions(video) == plain
    lines = write(tmp_path, "my [1] film.jsonl", JSON)
    assert find_captions(video) == lines


def test_a_folder_is_listed_once_for_all_its_videos_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    plain = captions.os.scandir
    monkeypatch.setattr(captions.os, "scandir", lambda folder: listed.append(folder) or plain(folder))
    videos = [tmp_path / f"{number}.mp4" for number in range(5)]
    write(tmp_path, "3.srt", SRT)
    long_ago = 1_000_000_000.0

    os.utime(tmp_path, (long_ago, long_ago))
    assert [video.stem for video in videos if find_captions(video)] == ["3"]
    assert listed == [tmp_path]
    write(tmp_path, "4.srt", SRT)  # just now: the listing is not kept, so that no change can be missed
    assert [video.stem for video in videos if find_captions(video)] == ["3", "4"]
    (tmp_path / "3.srt").unlink()
    assert [video.stem for video in videos if find_captions(video)] == ["4"]
    listed.clear()
    os.utime(tmp_path, (long_ago + 1, long_ago + 1))
    assert [video.stem for video in videos if find_captions(video)] == ["4"]
    assert listed == [tmp_path]


def test_notes_names_and_signatures_are_no_captions(tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text(
        "WEBVTT\n\nNOTE\nout for now:\n00:09.000 --> 00:10.000\ncommented out\n\nSTYLE\n::cue { color: red }\n\n"
        "1\n00:01.000 --> 00:02.000\nhi\n2\n00:03.000 --> 00:04.000\nyou\n\nNOTE a last word\n"
    )
    assert [caption.text for caption in read_captions(tmp_path / "a.vtt")] == ["hi", "you"]
    (tmp_path / "b.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nhi\n\n2\n00:00:03,000 --> 00:00:04,000\nyou\nthere\n \nSubtitles by X\n"
    )
    assert [caption.text for caption in read_captions(tmp_path / "b.srt")] == ["hi", "you there"]
