"""Pictures and text that are searched together are told apart on each hit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dciml.config import AnswerConfig
from dciml.features import JointTextEncoder, WordEncoder, sentence_vector
from dciml.features.encoders.text import NO_WORDS, BlankTextEncoder
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.index import ClipIndex
from dciml.method import CosineSpace
from dciml.search import BaselineEngine, Searcher, captions_beside
from dciml.search.apart import BlocksApart

PICTURES, TEXTS = WordEncoder(NO_WORDS, 64, 30), WordEncoder(NO_WORDS, 48, 30)
SENTENCE = "a fox sleeps"
WEIGHT = 0.3


def vector(encoder: WordEncoder, words: str) -> np.ndarray:
    return sentence_vector(encoder.encode([words])[0])


def write_store(path: Path) -> FeatureStore:
    """ "seen" shows the fox in seconds 4 to 8, "said" tells of it in seconds 8 to 12; all else is other things."""
    name = "image:pictures + text:words"
    with FeatureStoreWriter(path, StoreManifest(name, 112, 0.5)) as writer:
        for video_id in ("seen", "said"):
            rows = np.zeros((8, 112), dtype=np.float32)
            rows[:, :64] = vector(PICTURES, "blue curtains")
            if video_id == "seen":
                rows[2:4, :64] = vector(PICTURES, SENTENCE)
            else:
                rows[4:6, 64:] = vector(TEXTS, SENTENCE)
            writer.append(video_id, rows, 16.0)
    return FeatureStore.open(path)


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    store = write_store(tmp_path / "store")
    space = CosineSpace(112, clip_weight=1.0, blocks=((64, 1.0), (48, WEIGHT)))
    encoder = JointTextEncoder([PICTURES, TEXTS])
    engine = BaselineEngine(space, encoder, 8, "apart", store.manifest.encoder)
    index = ClipIndex.create(
        tmp_path / "index",
        num_clips=8,
        width=112,
        fingerprint="apart",
        model_folder=tmp_path,
        store_path=store.path,
    )
    index.add(store.video_ids, engine.fused_clips(store, store.video_ids), [16.0, 16.0])
    return Searcher(engine, index, store, AnswerConfig())


def test_each_kind_of_evidence_says_its_own(searcher: Searcher) -> None:
    hits = searcher.search(SENTENCE, 10)
    told = dict(zip(hits, searcher.evidence_apart(SENTENCE, hits), strict=True))
    first = {video_id: next(hit for hit in hits if hit.video_id == video_id) for video_id in ("seen", "said")}
    seen, said = ({part.kind: part.cosine for part in told[first[video_id]]} for video_id in ("seen", "said"))
    assert seen["picture"] == pytest.approx(1.0, abs=1e-3)
    assert seen["text"] == 0.0
    assert said["text"] == pytest.approx(1.0, abs=1e-3)
    assert said["picture"] < 0.5


def test_the_parts_add_up_to_the_score_of_the_clip(searcher: Searcher) -> None:
    engine = searcher.engine
    query = engine.embed_queries([SENTENCE])[0]
    clip = searcher._clips_in(searcher.search(SENTENCE, 1)[0])[:1]
    apart = BlocksApart.of(engine)
    assert apart is not None
    picture, text = apart.parts(query, clip)
    assert picture.cosine + WEIGHT * text.cosine == pytest.approx(float(clip[0] @ query), abs=1e-5)


def test_evidence_that_knows_no_sentence_says_nothing() -> None:
    encoder = JointTextEncoder([BlankTextEncoder(64, 30), TEXTS])
    space = CosineSpace(112, blocks=((64, 1.0), (48, WEIGHT)))
    engine = BaselineEngine(space, encoder, 8, "x", "builtin-visual-1 + text:words")
    apart = BlocksApart.of(engine)
    assert apart is not None
    query = engine.embed_queries([SENTENCE])[0]
    assert [part.kind for part in apart.parts(query, np.ones((2, 112), np.float32))] == ["text"]


def test_evidence_of_one_kind_is_not_told_apart() -> None:
    engine = BaselineEngine(CosineSpace(48), TEXTS, 8, "x", "text:words")
    assert BlocksApart.of(engine) is None


def test_the_line_that_spoke_is_found_beside_the_video(searcher: Searcher, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.with_suffix(".srt").write_text(
        "1\n00:00:01,000 --> 00:00:03,000\nthe fox sleeps well\n\n"
        "2\n00:00:09,000 --> 00:00:11,000\nmind the stairs\n"
    )
    apart = searcher.apart
    assert apart is not None
    assert apart.line(SENTENCE, video, 0.0, 4.0) == "the fox sleeps well"
    assert apart.line(SENTENCE, video, 8.0, 12.0) is None  # it says something else
    assert apart.line(SENTENCE, video, 4.0, 8.0) is None  # nothing is said


def test_captions_that_cannot_be_read_or_lie_elsewhere_are_none(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    elsewhere = tmp_path / "other" / "real.srt"
    elsewhere.write_text("1\n00:00:01,000 --> 00:00:03,000\nsecret\n")
    (tmp_path / "films").mkdir()
    film = tmp_path / "films" / "a.mp4"
    assert captions_beside(film) == ()
    film.with_suffix(".srt").symlink_to(elsewhere)
    assert captions_beside(film) == ()
    film.with_suffix(".srt").unlink()
    film.with_suffix(".srt").write_text("1\n00:00:03,000 --> 00:00:01,000\nbackwards\n")
    assert captions_beside(film) == ()
