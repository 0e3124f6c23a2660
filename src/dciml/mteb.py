"""A model as one that mteb (the Massive Text Embedding Benchmark) evaluates on its tasks of text and video.

Videos are read from their files as for every other index, so that what mteb measures is what `dciml search` ranks by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models import ModelMeta
from mteb.types import PromptType
from numpy.typing import NDArray

from datasets import Dataset, Video
from dciml.cautions import tell
from dciml.errors import ConfigError, DataError
from dciml.features import (
    Failure,
    FeatureStore,
    FeatureStoreWriter,
    StoreManifest,
    VideoEncoder,
    WindowedStore,
    extract_videos,
    split_long,
    whole_id,
)
from dciml.model_folder import Model

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

VIDEOS_AT_ONCE = 256
"""Whose files are written to disk at the same time, where a data set holds the videos themselves."""

Vectors = NDArray[np.float32]


class MtebModel:
    """What `mteb.evaluate` takes: it ranks videos for sentences (t2v), and sentences for videos (v2t).

    A video is scored as everywhere in dciml: by the largest inner product of the sentence with one of its clips. A
    video that cannot be read is found by nothing, and is told of.

    Args:
        model: as `dciml.load` gives it.
        encoder: what makes the rows that the model reads of a video file.
        folder: keeps these rows, so that no video is read twice; None: they are made anew in each evaluation.
        name: OWNER/NAME, by which mteb calls the model; None: dciml/ and the name of the model's folder.
        workers: processes that read videos.
    Raises:
        ConfigError: `encoder` is not the one that the model was made for.
    """

    def __init__(
        self,
        model: Model,
        encoder: VideoEncoder,
        *,
        folder: str | Path | None = None,
        name: str | None = None,
        workers: int = 2,
    ) -> None:
        if model.store_encoder != encoder.name:
            raise ConfigError(
                f"{model.folder} reads features of {model.store_encoder}, and the encoder is {encoder.name}. "
                "To mend it: give the encoder of the model."
            )
        self.model, self.encoder, self.workers = model, encoder, workers
        self._folder = None if folder is None else Path(folder)
        self._name = name or f"dciml/{model.folder.resolve().name}"
        self._corpus: tuple[Any, str] | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside the results; `revision` is the fingerprint of the model."""
        return ModelMeta(
            loader=None,
            name=self._name,
            revision=self.model.engine.fingerprint[:40],
            release_date=None,
            languages=None,
            n_parameters=None,
            memory_usage_mb=None,
            max_tokens=None,
            embed_dim=self.model.engine.vector_width,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=None,
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "video"],
        )

    def index(
        self, corpus: Dataset, *, task_metadata: TaskMetadata, hf_split: str, hf_subset: str, **_: Any
    ) -> None:
        """Keep what is searched until `search`; mteb calls the two one after the other.

        Raises:
            ConfigError: the task is not one of sentences and videos.
        """
        asked, searched = (
            tuple(task_metadata.get_modalities(kind)) for kind in (PromptType.query, PromptType.document)
        )
        if {asked, searched} != {("text",), ("video",)}:
            raise ConfigError(
                f"{task_metadata.name} is a task of {' and '.join(asked)} to {' and '.join(searched)}. "
                "To mend it: take a task of text to video (t2v) or video to text (v2t)."
            )
        self._corpus = corpus, re.sub(r"\W", "_", f"{task_metadata.name}-{hf_subset}-{hf_split}")

    def search(
        self,
        queries: Dataset,
        *,
        top_k: int,
        top_ranked: Mapping[str, Sequence[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """The `top_k` documents of each query with their scores, by id.

        Args:
            top_ranked: of each query, the documents that may be found; None: all.
        Raises:
            DataError: no video could be read, or a sentence has no words.
        """
        if self._corpus is None:
            raise ConfigError("nothing was indexed. To mend it: call `index` before `search`.")
        corpus, place = self._corpus
        if "video" in corpus.column_names:
            scores = self._scores(_texts(queries), corpus, place)
        else:
            scores = self._scores(_texts(corpus), queries, place).T
        ids = np.array([str(name) for name in corpus["id"]])
        found: dict[str, dict[str, float]] = {}
        for query, row in zip(queries["id"], scores, strict=True):
            allowed = None if top_ranked is None else set(top_ranked[query])
            order = [
                int(column)
                for column in np.argsort(-row, kind="stable")
                if np.isfinite(row[column]) and (allowed is None or ids[column] in allowed)
            ]
            found[str(query)] = {str(ids[column]): float(row[column]) for column in order[:top_k]}
        return found

    def _scores(self, sentences: Sequence[str], videos: Dataset, place: str) -> Vectors:
        """Of each sentence with each video, (sentences, videos); -inf for videos that cannot be read."""
        asked = self.model.engine.embed_queries(sentences)
        scores = np.full((len(sentences), len(videos)), -np.inf, dtype=np.float32)
        with TemporaryDirectory(prefix="dciml-") as temporary:
            place_of_rows = (self._folder or Path(temporary)) / place
            numbers = self._read(videos, place_of_rows, Path(temporary))
            store = FeatureStore.open(place_of_rows)
            parts = split_long(store, numbers, self.model.windows)
            windowed = WindowedStore.of(store)
            for start in range(0, len(parts), VIDEOS_AT_ONCE):
                some = parts[start : start + VIDEOS_AT_ONCE]
                clips = self.model.engine.fused_clips(windowed, some)  # (parts, S, D)
                best = np.einsum("pcd,qd->qpc", clips, asked).max(axis=2)
                for column, part in zip(best.T, some, strict=True):
                    number = int(whole_id(part))
                    scores[:, number] = np.maximum(scores[:, number], column)
        return scores

    def _read(self, videos: Dataset, place: Path, temporary: Path) -> list[str]:
        """Make the rows of videos, which are called by their numbers, as ids may be anything. Returns: who has some."""
        encoder = self.encoder
        FeatureStoreWriter(place, StoreManifest(encoder.name, encoder.width, encoder.rows_per_second)).close()
        files = videos.cast_column("video", Video(decode=False))
        failed: dict[str, Failure] = {}
        for start in range(0, len(files), VIDEOS_AT_ONCE):
            some = range(start, min(start + VIDEOS_AT_ONCE, len(files)))
            with TemporaryDirectory(dir=temporary) as written:
                paths = {str(n): _file_of(files[n]["video"], Path(written) / str(n)) for n in some}
                done = extract_videos(paths, encoder, place, workers=self.workers)
                failed |= {failure.video_id: failure for failure in done.failures}
        if failed:
            names = [f"{videos['id'][int(number)]} ({failed[number].error})" for number in failed]
            more = f", and {len(names) - 3} more" if len(names) > 3 else ""
            what = f"{len(names)} of {len(videos)} videos could not be read: {', '.join(names[:3])}{more}"
            if len(names) == len(videos):
                raise DataError(what, mend="look at the data set")
            tell([what])
        return [str(number) for number in range(len(videos)) if str(number) not in failed]


def _texts(dataset: Dataset) -> list[str]:
    """The sentences of queries or documents, the latter with their titles, as mteb joins them."""
    titles = dataset["title"] if "title" in dataset.column_names else [""] * len(dataset)
    return [f"{title or ''} {text}".strip() for title, text in zip(titles, dataset["text"], strict=True)]


def _file_of(video: Mapping[str, Any], written: Path) -> Path:
    """The file of a video, written where the data set holds the video itself."""
    path, content = video["path"], video["bytes"]
    if content is None:
        return Path(path)
    file = written.with_suffix(Path(path or "").suffix or ".mp4")
    file.write_bytes(content)
    return file
