"""A model evaluated by mteb itself, on a task made here of real video files."""

from __future__ import annotations

import logging
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dciml.errors import ConfigError, DataError
from dciml.features import create_encoder
from dciml.media import write_video
from dciml.model_folder import load_model
from dciml.recipes.home import WITHOUT_MODEL, Home, open_home

if TYPE_CHECKING:
    from dciml.mteb import MtebModel

pytestmark = [
    pytest.mark.slow,  # mteb takes long to load
    pytest.mark.skipif(find_spec("mteb") is None, reason="mteb is not installed (the extra `mteb`)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
THINGS = ("red kite", "dog", "cat", "boat", "tree")


def task_of(category: str, films: Path, *, embedded: bool = False) -> Any:
    """Sentences and the videos that they describe, as a task of mteb.

    Args:
        category: t2v or v2t.
        embedded: the data set holds the videos, and not only where their files are.
    """
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    from datasets import Dataset, Video

    class Things(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Things{category.upper()}",
            description="Made-up videos whose subtitles say what is seen.",
            dataset={"path": "made/here", "revision": "1"},
            type="Any2AnyRetrieval",
            category=category,
            modalities=["text"] if category == "t2t" else ["text", "video"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, *_: Any, **__: Any) -> None:
            ids = [f"number {number}" for number in range(len(THINGS))]
            paths = [films / f"{number}.mp4" for number in range(len(THINGS))]
            held = [
                {
                    "path": path.name if embedded else str(path),
                    "bytes": path.read_bytes() if embedded else None,
                }
                for path in paths
            ]
            sentences = Dataset.from_dict({"id": ids, "text": [f"a {thing}" for thing in THINGS]})
            videos = Dataset.from_dict({"id": ids, "video": held}).cast_column("video", Video())
            asked, searched = (sentences, videos) if category == "t2v" else (videos, sentences)
            relevant = {name: {name: 1} for name in ids}
            split = RetrievalSplitData(
                queries=asked, corpus=searched, relevant_docs=relevant, top_ranked=None
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Things()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Videos with subtitles, which the built-in encoder compares with sentences; its index stays empty."""
    films = tmp_path_factory.mktemp("mteb") / "films"
    films.mkdir()
    for number, thing in enumerate(THINGS):
        pictures = [np.full((32, 48, 3), (40 * number + 9 * k) % 250, dtype=np.uint8) for k in range(24)]
        write_video(films / f"{number}.mp4", pictures, 4)
        (films / f"{number}.srt").write_text(f"1\n00:00:02,000 --> 00:00:04,000\na {thing}\n")
    return open_home(films.with_name("films.dciml"), [films], WITHOUT_MODEL)


@pytest.fixture
def wrapped(home: Home, tmp_path: Path) -> MtebModel:
    from dciml.mteb import MtebModel

    return MtebModel(load_model(home.model), home.encoder, folder=tmp_path / "rows", workers=1)


def scores(model: MtebModel, task: Any) -> dict[str, Any]:
    import mteb

    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    assert result.model_name == "dciml/model"
    found: dict[str, Any] = result.task_results[0].scores["test"][0]
    return found


@pytest.mark.parametrize("category", ["t2v", "v2t"])
def test_mteb_measures_what_the_model_finds(wrapped: MtebModel, home: Home, category: str) -> None:
    from mteb.models import SearchProtocol

    assert isinstance(wrapped, SearchProtocol)
    found = scores(wrapped, task_of(category, home.folders[0]))
    assert found["ndcg_at_10"] == found["recall_at_1"] == 1.0


def test_what_cannot_be_read_is_told_and_found_by_nothing(
    wrapped: MtebModel, home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it could be read before, and its rows were kept."""
    films = tmp_path / "films"
    shutil.copytree(home.folders[0], films)
    assert scores(wrapped, task_of("t2v", films))["recall_at_1"] == 1.0
    (films / "2.mp4").write_bytes(b"junk")
    with caplog.at_level(logging.WARNING, "dciml"):
        found = scores(wrapped, task_of("t2v", films))
    assert found["recall_at_1"] == pytest.approx(4 / 5)
    assert "1 of 5 videos could not be read: number 2 (" in caplog.text
    for number in range(len(THINGS)):
        (films / f"{number}.mp4").write_bytes(b"junk")
    with pytest.raises(DataError, match="5 of 5 videos could not be read"):
        scores(wrapped, task_of("t2v", films))


def test_videos_inside_a_data_set_are_read_too(home: Home) -> None:
    """Without their subtitles, which are files beside them; and only what may be found is."""
    from dciml.mteb import MtebModel

    model = MtebModel(load_model(home.model), home.encoder, name="someone/thing", workers=1)
    task = task_of("t2v", home.folders[0], embedded=True)
    task.load_data()
    split = task.dataset["default"]["test"]
    model.index(split["corpus"], task_metadata=task.metadata, hf_split="test", hf_subset="default")
    allowed = {query: ["number 1", "number 4"] for query in split["queries"]["id"]}
    found = model.search(split["queries"], top_k=3, top_ranked=allowed)
    assert [set(own) for own in found.values()] == [{"number 1", "number 4"}] * len(THINGS)
    assert model.mteb_model_meta.name == "someone/thing"


def test_other_tasks_and_encoders_are_refused(wrapped: MtebModel, home: Home) -> None:
    from dciml.mteb import MtebModel

    task = task_of("t2t", home.folders[0])
    task.load_data()
    corpus = task.dataset["default"]["test"]["corpus"]
    with pytest.raises(ConfigError, match="ThingsT2T is a task of text to text"):
        wrapped.index(corpus, task_metadata=task.metadata, hf_split="test", hf_subset="default")
    with pytest.raises(ConfigError, match="give the encoder of the model"):
        MtebModel(load_model(home.model), create_encoder(("builtin",), 1.0, "cpu"))
