"""Teach a home from the sentences that people wrote for moments of its videos.

The story: set whole videos aside; train residuals on the untrained vectors on (video, sentence) pairs of the others;
let the untrained and the trained model rank the videos for the sentences set aside; draw these videos anew, often. Only
where the trained model ranks them better beyond chance is it kept, with an index of its own. What is in use changes in
one rename, so that a kill at any time leaves the home as it was, or taught.

HOME/teaching/    a model on its way; removed in the end, or by the next attempt
HOME/taught-N/    model/, index/ and report.json of one that was kept; HOME/taught.json says which is in use
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.config import RunConfig, load_config
from dciml.datasets import split_off_validation, write_data_folder
from dciml.errors import DataError
from dciml.features import (
    FeatureStore,
    FeatureStoreWriter,
    StoreManifest,
    find_captions,
    parse_window,
    read_captions,
    tokenize,
)
from dciml.files import read_json, sync_folder, write_json
from dciml.folders import CALIBRATION_FILE, CARD_FILE, CHECKPOINT_FILE
from dciml.homes import TAUGHT_FILE, TAUGHT_NAME
from dciml.index import ClipIndex, IndexOptions, VideoDetails
from dciml.locks import take
from dciml.metrics import Bootstrap, FloatArray, Interval, PerQuery
from dciml.model_folder import BaselineCard, Model, load_model, windows_for
from dciml.recipes.calibrate import MIN_SENTENCES, MIN_VIDEOS, SEED
from dciml.recipes.home import Home
from dciml.recipes.index import BATCH_VIDEOS
from dciml.recipes.told import Told, pairs_of, read_told
from dciml.recipes.train import train
from dciml.search import VideoStores, WindowedIds, contrast_windows, fit_calibration
from dciml.spans import temporal_iou
from dciml.types import Query, TrainingPair, Video

SETTINGS = Path("configs") / "teach.yaml"
TEACH_LOCK = ".teaching.lock"
TEACHING = "teaching"
NEEDED_VIDEOS = 24
"""With a sentence each. Fewer leave fewer than eight to be set aside, which tell nothing beyond chance."""
HELD_OUT_FRACTION = 1 / 3
MAX_CORPUS = 1000
CAPTIONS_PER_VIDEO = 4
MIN_CAPTION_WORDS = 3
NUM_RESAMPLES = 2000
MIN_IOU = 0.5
SHARE_OF_TRAINING = 0.8
NOT_ENOUGH_MEND = "open the video in the page at a moment, and write what it is (This is …)"

Tell = Callable[[float, str], None]
"""Hears how far teaching is, 0 to 1, and what is being done."""


@dataclass(frozen=True)
class Collected:
    """What was told of videos that the home has. Sentences that come twice for a video count once."""

    told: tuple[Told, ...]
    pairs: tuple[TrainingPair, ...]

    @cached_property
    def video_ids(self) -> tuple[str, ...]:
        """The videos with a sentence."""
        return tuple(dict.fromkeys(pair.video_id for pair in self.pairs))

    @property
    def missing_videos(self) -> int:
        """How many more videos need a sentence before anything can be learned."""
        return max(0, NEEDED_VIDEOS - len(self.video_ids))

    def check(self) -> None:
        """Raise DataError where there is too little to learn from: how much there is, and how much it takes."""
        if self.missing_videos:
            raise DataError(
                f"sentences for {NEEDED_VIDEOS} different videos are needed, and there are {len(self.pairs)} "
                f"sentence(s) for {len(self.video_ids)}, so nothing was changed",
                mend=f"tell of {self.missing_videos} more video(s): {NOT_ENOUGH_MEND}",
            )


def collected(home: Home, video_ids: Sequence[str] | None = None) -> Collected:
    """What there is to learn from.

    Args:
        video_ids: the whole videos of the home's present index; None: they are looked up.
    Raises:
        DataError: what was told is damaged.
    """
    told = read_told(home.path)
    if video_ids is None:
        video_ids = WindowedIds(ClipIndex.open(home.present_index).video_ids).whole_videos
    held = frozenset(video_ids)
    known = tuple(each for each in told if each.video_id in held)
    return Collected(known, pairs_of(known, held))


@dataclass(frozen=True)
class Verdict:
    """Both models on the sentences set aside, in per cent.

    Attributes:
        trained_on, held_out: sentences and videos of each part. `captions`: sentences from text beside the videos,
            which were trained on, too.
        corpus: videos that were ranked.
        untrained, trained: by the name of a measure.
        gain: of the mean reciprocal rank, in points, with its 95 % interval; videos are drawn, and both models see the
            same draws.
    """

    trained_on: tuple[int, int]
    captions: int
    held_out: tuple[int, int]
    corpus: int
    untrained: dict[str, float]
    trained: dict[str, float]
    gain: Interval

    @property
    def is_better(self) -> bool:
        """Whether the trained model is better beyond chance."""
        return self.gain.low > 0

    def to_json(self) -> dict[str, Any]:
        """As the report is written."""
        return asdict(self) | {"is_better": self.is_better}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Verdict:
        """What `to_json` gave."""
        fields = {key: value for key, value in content.items() if key != "is_better"}
        pairs = {key: (int(fields[key][0]), int(fields[key][1])) for key in ("trained_on", "held_out")}
        return cls(**{**fields, **pairs, "gain": Interval(**fields["gain"])})

    def lines(self) -> list[str]:
        """What came of it, in words."""
        captions = f", and {self.captions} from text beside the videos" if self.captions else ""
        lines = [
            f"trained on {self.trained_on[0]} sentences of {self.trained_on[1]} videos{captions}; compared on "
            f"{self.held_out[0]} sentences of {self.held_out[1]} other videos, among {self.corpus}"
        ]
        width = max(map(len, self.untrained))
        lines += [
            f"{name:<{width}}  untrained {value:5.1f}   trained {self.trained[name]:5.1f}"
            for name, value in self.untrained.items()
        ]
        lines.append(
            f"gain of the mean reciprocal rank: {self.gain.value:+.1f} points "
            f"(95 % interval {self.gain.low:+.1f} to {self.gain.high:+.1f})"
        )
        return [*lines, self.sentence]

    @property
    def sentence(self) -> str:
        """The same in one sentence."""
        if self.is_better:
            return (
                f"Kept: on {self.held_out[0]} sentences that it was not taught, the taught model finds videos better "
                f"({self.gain.value:+.1f} points)."
            )
        return (
            f"Not kept: on {self.held_out[0]} sentences that it was not taught, the taught model is not better beyond "
            f"chance ({self.gain.value:+.1f} points, between {self.gain.low:+.1f} and {self.gain.high:+.1f}). Nothing "
            "was changed; more sentences may help."
        )


def teach(
    home: Home, overrides: Sequence[str] = (), tell: Tell = lambda share, doing: None, *, quiet: bool = True
) -> Verdict:
    """Train, compare, and keep the model if it is better; the whole of it.

    Args:
        overrides: of the settings in configs/teach.yaml, as `training.epochs=3`.
        quiet: without the bar of training.
    Raises:
        DataError: too few sentences; another process teaches this home.
        Stopped: SIGINT or SIGTERM came; nothing was changed.
    """
    with teaching(home) as folder:
        verdict = attempt(home, folder, overrides, tell, quiet=quiet)
        if verdict.is_better:
            tell(SHARE_OF_TRAINING + 0.1, "indexing the videos")
            adopt(home, folder, verdict)
    return verdict


@contextmanager
def teaching(home: Home) -> Iterator[Path]:
    """A folder for a model on its way. In the end, and before, nothing is left that is not in use.

    Raises:
        DataError: another process teaches this home, or it cannot be written.
    """
    lock = take(home.path, "teaching", name=TEACH_LOCK)
    try:
        sweep(home)
        folder = home.path / TEACHING
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.close()


def sweep(home: Home) -> None:
    """Remove what killed attempts left, and taught models that gave way; for who holds the lock of `teaching`."""
    in_use = home.taught
    for entry in os.scandir(home.path):
        is_ours = entry.name == TEACHING or TAUGHT_NAME.fullmatch(entry.name)
        if is_ours and not entry.is_symlink() and (in_use is None or entry.name != in_use.name):
            shutil.rmtree(entry.path, ignore_errors=True)


def attempt(
    home: Home,
    folder: Path,
    overrides: Sequence[str] = (),
    tell: Tell = lambda share, doing: None,
    *,
    quiet: bool = True,
) -> Verdict:
    """Train a model in `folder`/model and compare it with the untrained one; the home stays as it is.

    Args:
        folder: an empty one in the home, see `teaching`.
    Raises:
        DataError: too few sentences, or features that cannot be read. Stopped: a signal came.
    """
    tell(0.0, "reading what was told")
    corpus = Corpus.of(home)
    known = collected(home, corpus.windowed.whole_videos)
    known.check()
    config = settings_of(home, folder / "data", overrides)
    taught, held_out = split_off_validation(known.pairs, HELD_OUT_FRACTION, config.seed)
    captions = _captions(corpus, exclude=frozenset(held_out))
    _write_data(folder / "data", corpus, (*taught, *captions))
    tell(0.05, "training")
    epochs = config.training.epochs

    def on_epoch(done: int) -> None:
        tell(0.05 + (SHARE_OF_TRAINING - 0.05) * done / epochs, f"training, {done} of {epochs} rounds")

    train(config, folder / "model", quiet=quiet, on_epoch=on_epoch)
    (folder / "model" / CHECKPOINT_FILE).unlink(missing_ok=True)  # nobody goes on with it
    for done_with in (folder / "data", folder / "model" / "tensorboard"):
        shutil.rmtree(done_with, ignore_errors=True)
    tell(SHARE_OF_TRAINING, "comparing with the untrained model")
    ours = frozenset(held_out)
    distinct = {pair.query_id for pair in known.pairs}
    held = [each for each in known.told if each.video_id in ours and each.told_id in distinct]
    return _compare(home, folder / "model", corpus, held, taught, len(captions))


def settings_of(home: Home, data: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of configs/teach.yaml, fitted to what the home's untrained model compares."""
    package = Path(__file__).parents[1]  # an installed one holds them, a checkout has them beside src/
    places = [root / SETTINGS for root in (package, package.parents[1])]
    config = load_config(next((file for file in places if file.is_file()), places[0]), overrides)
    card = BaselineCard.model_validate(read_json(home.model / CARD_FILE))
    rule = windows_for(home.model)
    given: dict[str, dict[str, Any]] = {
        "data": {"folder": str(data)},
        "text": {"encoder": card.text_spec},
        "retrieval": {
            "num_clips": card.num_clips,
            "local_blocks": card.blocks or ((card.video_width, 1.0),),
            "local_clip_weight": card.clip_weight,
            "local_propagation": card.propagation,
        },
        "long_videos": {
            "window_seconds": None if rule is None else rule.window_seconds,
            "overlap_seconds": None if rule is None else rule.overlap_seconds,
        },
    }
    tree = config.model_dump(mode="json")
    return RunConfig.model_validate(
        {key: value | given.get(key, {}) if isinstance(value, dict) else value for key, value in tree.items()}
    )


@dataclass(frozen=True)
class Corpus:
    """The videos of a home as its present index has them: long ones in windows, each with the store of its rows."""

    index: ClipIndex
    stores: VideoStores
    windowed: WindowedIds

    @classmethod
    def of(cls, home: Home) -> Corpus:
        """As they are now. Raises DataError, ModelError: index or store cannot be opened."""
        index = ClipIndex.open(home.present_index)
        stores = VideoStores(index, FeatureStore.open(home.store))
        return cls(index, stores, WindowedIds(index.video_ids))

    def store_of(self, video_id: str) -> FeatureStore:
        """The store of a whole video's rows."""
        return self.stores.group([self.windowed.expand([video_id])[0]])[0][0]

    def fused_clips(self, model: Model, parts: Sequence[str]) -> NDArray[np.float32]:
        """Clip vectors of videos or windows, (parts, S, D)."""
        engine = model.engine
        vectors = np.empty((len(parts), engine.num_clips, engine.vector_width), dtype=np.float32)
        for store, places in self.stores.group(parts):
            for start in range(0, len(places), BATCH_VIDEOS):
                some = places[start : start + BATCH_VIDEOS]
                vectors[some] = engine.fused_clips(store, [parts[place] for place in some])
        return vectors


def _captions(corpus: Corpus, exclude: frozenset[str]) -> list[TrainingPair]:
    """Sentences from the text beside the videos, a few of each, drawn by a hash; what cannot be read is passed over."""
    found = []
    for video_id in corpus.windowed.whole_videos:
        source = corpus.store_of(video_id).source(video_id)
        if video_id in exclude or not source or not Path(source).is_absolute():
            continue
        try:
            file = find_captions(Path(source))
            lines = [] if file is None else [caption.text for caption in read_captions(file)]
        except (DataError, OSError):
            continue
        said = {line: None for line in lines if len(tokenize(line)) >= MIN_CAPTION_WORDS}
        for line in sorted(said, key=_hash)[:CAPTIONS_PER_VIDEO]:
            found.append(TrainingPair(f"text-{_hash(f'{video_id} {line}')[:16]}", video_id, line[:500]))
    return found


def _write_data(path: Path, corpus: Corpus, pairs: Sequence[TrainingPair]) -> None:
    """A data folder of these pairs and the rows of their videos; there are no moments in it."""
    names = list(dict.fromkeys(pair.video_id for pair in pairs))
    stores = {name: corpus.store_of(name) for name in names}
    videos = [Video(name, stores[name].duration_seconds(name), "train") for name in names]
    first = stores[names[0]].manifest

    def build(folder: Path) -> None:
        manifest = StoreManifest(first.encoder, first.width, first.rows_per_second, first.encoder_specs)
        with FeatureStoreWriter(folder, manifest, commit_every=len(names)) as writer:
            for video in videos:
                store = stores[video.video_id]
                writer.append(video.video_id, store.rows(video.video_id), video.duration_seconds)

    queries = [Query(pair.query_id, pair.video_id, pair.sentence) for pair in pairs]
    write_data_folder(path, "told", {"train": queries}, videos, build)


def _compare(
    home: Home,
    trained_folder: Path,
    corpus: Corpus,
    held: Sequence[Told],
    taught: Sequence[TrainingPair],
    num_captions: int,
) -> Verdict:
    """Rank the videos by both models for the sentences set aside; calibrate the trained one on them."""
    untrained = load_model(home.model, home.device)
    trained = load_model(trained_folder, home.device, calibrated=False)
    names = _drawn(corpus, [each.video_id for each in held])
    asked = {"untrained": _ask(untrained, corpus, names, held), "trained": _ask(trained, corpus, names, held)}
    queries = [each.query() for each in held]
    bootstrap = Bootstrap(queries, NUM_RESAMPLES)
    ids = tuple(each.told_id for each in held)
    better = asked["trained"].reciprocal_ranks - asked["untrained"].reciprocal_ranks
    gain = bootstrap.means(PerQuery(ids, {"gain": 100 * better}))["gain"]
    _calibrate(trained_folder, trained, asked["trained"])
    return Verdict(
        trained_on=(len(taught), len({pair.video_id for pair in taught})),
        captions=num_captions,
        held_out=(len(held), len({each.video_id for each in held})),
        corpus=len(names),
        untrained=asked["untrained"].measures(),
        trained=asked["trained"].measures(),
        gain=gain,
    )


def _drawn(corpus: Corpus, own: Sequence[str]) -> list[str]:
    """The videos to rank: those asked for, and others, drawn by a hash of their ids."""
    asked = dict.fromkeys(own)
    others = sorted((name for name in corpus.windowed.whole_videos if name not in asked), key=_hash)
    return [*asked, *others[: max(0, MAX_CORPUS - len(asked))]]


@dataclass(frozen=True)
class _Asked:
    """What a model made of Q sentences in V videos: scores (Q, V), the column of each sentence's own video (Q,), the
    query vectors (Q, D), the mean of all clip vectors (D,), and the IoU of its moment with the true one (Q,).
    """

    scores: FloatArray
    own: NDArray[np.int64]
    queries: NDArray[np.float32]
    mean_clip: FloatArray
    ious: FloatArray

    @cached_property
    def reciprocal_ranks(self) -> FloatArray:
        """1 / rank of each sentence's own video; among equal scores the mean over all orders, so that breaking ties by
        chance gains nothing.
        """
        return np.array(
            [
                expected_reciprocal_rank(row, int(column))
                for row, column in zip(self.scores, self.own, strict=True)
            ]
        )

    def measures(self) -> dict[str, float]:
        """In per cent."""
        mine = np.take_along_axis(self.scores, self.own[:, None], axis=1)
        ahead = (self.scores > mine).sum(axis=1)
        ties = (self.scores == mine).sum(axis=1)
        first = {k: np.clip((k - ahead) / ties, 0, 1).mean() for k in (1, 5)}
        return {
            "mean reciprocal rank": 100 * float(self.reciprocal_ranks.mean()),
            "right video first": 100 * float(first[1]),
            "right video among the first 5": 100 * float(first[5]),
            f"moment with IoU ≥ {MIN_IOU:g} in the right video": 100 * float((self.ious >= MIN_IOU).mean()),
        }


def expected_reciprocal_rank(scores: FloatArray, own: int) -> float:
    """1 / rank of the video in column `own`; of equal scores the mean over all their orders.

    >>> expected_reciprocal_rank(np.array([0.9, 0.5, 0.1]), 1), expected_reciprocal_rank(np.zeros(2), 0)
    (0.5, 0.75)
    """
    ahead, equal = int((scores > scores[own]).sum()), int((scores == scores[own]).sum())
    return float(np.mean(1 / np.arange(ahead + 1, ahead + equal + 1)))


def _ask(model: Model, corpus: Corpus, names: Sequence[str], held: Sequence[Told]) -> _Asked:
    queries = model.engine.embed_queries([each.sentence for each in held])
    column = {name: place for place, name in enumerate(names)}
    scores = np.empty((len(held), len(names)))
    ious, total, count = np.zeros(len(held)), np.zeros(model.engine.vector_width), 0
    for start in range(0, len(names), BATCH_VIDEOS):
        some = names[start : start + BATCH_VIDEOS]
        parts = [corpus.windowed.expand([name]) for name in some]
        flat = [part for own in parts for part in own]
        clips = corpus.fused_clips(model, flat)
        total += clips.sum(axis=(0, 1), dtype=np.float64)
        count += clips.shape[0] * clips.shape[1]
        each = np.einsum("qd,psd->qps", queries, clips)
        firsts = np.cumsum([0, *(len(own) for own in parts[:-1])])
        scores[:, start : start + len(some)] = np.maximum.reduceat(each.max(axis=2), firsts, axis=1)
        for row, told in enumerate(held):
            if told.video_id in some:
                place = some.index(told.video_id)
                mine = slice(int(firsts[place]), int(firsts[place]) + len(parts[place]))
                ious[row] = _iou(corpus, parts[place], each[row, mine], told)
    own = np.array([column[each.video_id] for each in held], dtype=np.int64)
    return _Asked(scores, own, queries, total / count, ious)


def _iou(corpus: Corpus, parts: Sequence[str], similarity: NDArray[np.float32], told: Told) -> float:
    """Of the first moment that a model finds in the right video with what was told of; similarity: (parts, S)."""
    best = int(similarity.max(axis=1).argmax())
    window = parse_window(parts[best])
    times = corpus.stores.row_times(parts[best])
    spans, _ = contrast_windows(similarity[best : best + 1], 1, num_rows=[times.num_rows])
    found = times.seconds(spans[0]) + (0.0 if window is None else window.start_seconds)
    true = np.array([[told.start_seconds, told.end_seconds]])
    return float(temporal_iou(found, true).max())


def _calibrate(folder: Path, model: Model, asked: _Asked) -> None:
    """By what was set aside. The calibration that training left is of other sentences, and goes."""
    (folder / CALIBRATION_FILE).unlink(missing_ok=True)
    if len(asked.own) >= MIN_SENTENCES and asked.scores.shape[1] >= MIN_VIDEOS:
        fingerprint = model.engine.fingerprint
        fit_calibration(
            asked.scores, asked.own, asked.queries, asked.mean_clip, fingerprint=fingerprint, seed=SEED
        ).write(folder)


def adopt(home: Home, folder: Path, verdict: Verdict) -> Path:
    """Index all videos by the model in `folder`/model, and let it be what is in use. Returns: where it lies now.

    Args:
        folder: see `teaching`.
    Raises:
        DataError, ModelError: the home's index or features cannot be read, or there is no room.
    """
    corpus = Corpus.of(home)
    model = load_model(folder / "model", home.device)
    index = ClipIndex.create(
        folder / "index",
        num_clips=model.engine.num_clips,
        width=model.engine.vector_width,
        fingerprint=model.engine.fingerprint,
        model_folder=folder / "model",
        store_path=home.store,
        options=IndexOptions(**model.index.model_dump()),
    )
    bring_over(corpus, model, index)
    write_json(folder / "report.json", verdict.to_json())
    final = home.path / f"taught-{_next_number(home)}"
    folder.rename(final)
    sync_folder(home.path)
    write_json(home.path / TAUGHT_FILE, {"in_use": final.name})  # from here on it is in use
    return final


def undo(home: Home) -> bool:
    """Go back to the untrained model, whose index is brought up to date first. Returns: whether one was taught.

    Raises:
        DataError: another process teaches this home.
    """
    with teaching(home):
        return go_back(home)


def go_back(home: Home) -> bool:
    """As `undo`, for who holds the lock of `teaching`."""
    if home.taught is None:
        (home.path / TAUGHT_FILE).unlink(missing_ok=True)
        return False
    bring_over(Corpus.of(home), load_model(home.model, home.device), ClipIndex.open(home.index))
    (home.path / TAUGHT_FILE).unlink()
    sync_folder(home.path)
    return True


def bring_over(corpus: Corpus, model: Model, target: ClipIndex) -> None:
    """Let an index of `model` hold the videos of a corpus as they are now, and no others."""
    target.check_fingerprint(model.engine.fingerprint)
    wanted = corpus.index.video_ids
    if gone := [part for part in target.video_ids if part not in corpus.index]:
        target.remove(gone)
    known = {part: corpus.index.video(part) for part in wanted}
    todo = [p for p in wanted if p not in target or target.video(p).checksum != known[p].checksum]
    for store, places in corpus.stores.group(todo):
        for start in range(0, len(places), BATCH_VIDEOS):
            some = [todo[place] for place in places[start : start + BATCH_VIDEOS]]
            model.check_store(store)
            details = [
                VideoDetails(
                    title=known[part].title,
                    media_path=None if (media := known[part].media_path) is None else Path(media),
                    tags=known[part].tags,
                    date_unix=known[part].date_unix,
                    checksum=known[part].checksum,
                )
                for part in some
            ]
            target.add(
                some,
                model.engine.fused_clips(store, some),
                [known[part].duration_seconds for part in some],
                store.path,
                details,
                replaces=[part for part in some if part in target],
            )


def report_of(home: Home) -> dict[str, Any] | None:
    """The report of the taught model that is in use; None: none is, or it cannot be read."""
    taught = home.taught
    if taught is None:
        return None
    with suppress(DataError):
        found = read_json(taught / "report.json")
        return found if isinstance(found, dict) else None
    return None


def _next_number(home: Home) -> int:
    numbers = [
        int(entry.name.rpartition("-")[2])
        for entry in home.path.iterdir()
        if TAUGHT_NAME.fullmatch(entry.name)
    ]
    return max(numbers, default=0) + 1


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
