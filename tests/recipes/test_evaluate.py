"""The evaluation of a deterministic engine on a small corpus with planted moments."""

import json
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dciml.cli.evaluate import register
from dciml.config import AnswerConfig
from dciml.datasets.folder import DataFolder, write_data_folder
from dciml.errors import DataError
from dciml.features.long_videos import WindowRule
from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.metrics.video_retrieval import score_blocks
from dciml.model_folder import Model
from dciml.recipes.evaluate import EvaluateOptions, evaluate, make_task
from dciml.recipes.index import build_index
from dciml.recipes.outcomes import differences, read_outcomes
from dciml.recipes.report import headlines, read_report
from dciml.search.engines import Grounding
from dciml.search.searcher import Searcher
from dciml.types import Query, Video

WIDTH, CLIPS, PROPOSALS, VIDEOS = 24, 8, 10, 12
SECONDS = 40.0
LONG, RULE = "v03", WindowRule(40.0, 20.0)
ANSWER = AnswerConfig(nms_iou=None, reconstruction_weight=1.0)


class PlantedEngine:
    """Sentences are "topic N"; a video's rows hold its topics. Grounding is right for the first half of them."""

    fingerprint = "planted"
    num_clips = CLIPS
    vector_width = WIDTH

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def fused_clips(self, store: FeatureStore, video_ids: Sequence[str]) -> np.ndarray:
        return np.stack([self._clips(store, video_id) for video_id in video_ids])

    def _clips(self, store: FeatureStore, video_id: str) -> np.ndarray:
        rows = store.rows(video_id).astype(np.float32)
        rng = np.random.default_rng(zlib.crc32(video_id.encode()))
        pooled = rows.reshape(CLIPS, -1, WIDTH).mean(axis=1) + self.noise * rng.standard_normal(
            (CLIPS, WIDTH)
        )
        return (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(np.float32)

    def embed_queries(self, sentences: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(sentences), WIDTH), dtype=np.float32)
        for row, sentence in enumerate(sentences):
            vectors[row, topic_of(sentence)] = 1.0
        return vectors

    def ground(self, store: FeatureStore, sentences: Sequence[str], video_ids: Sequence[str]) -> Grounding:
        spans = np.empty((len(sentences), PROPOSALS, 2))
        for row, (sentence, video_id) in enumerate(zip(sentences, video_ids, strict=True)):
            seed = zlib.crc32(f"{sentence} {video_id}".encode())
            spans[row] = np.sort(np.random.default_rng(seed).random((PROPOSALS, 2)), axis=1)
            found = np.flatnonzero(store.rows(video_id)[:, topic_of(sentence)] > 0.5)
            if len(found) and topic_of(sentence) < WIDTH // 2:
                spans[row, 0] = found[0] / 40, (found[-1] + 1) / 40
        return Grounding(spans, np.tile(-np.arange(float(PROPOSALS)), (len(sentences), 1)))


def topic_of(sentence: str) -> int:
    return int(sentence.split()[1])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return planted(tmp_path_factory.mktemp("evaluate") / "planted")


@pytest.fixture(scope="module")
def long_data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """The same with a last video of four times the length, its topics late in it."""
    return planted(tmp_path_factory.mktemp("evaluate") / "planted", {LONG: 100})


def planted(folder: Path, later: Mapping[str, int] | None = None) -> DataFolder:
    """Twelve videos with two topics each, one of ten seconds and one of five; each topic is a query.

    Args:
        later: videos that are four times as long, and by how much their topics come later.
    """
    rng = np.random.default_rng(0)
    rows, queries = {}, []
    for number in range(VIDEOS):
        name = f"v{number:02d}"
        shift = (later or {}).get(name)
        table = 0.05 * rng.standard_normal((40 if shift is None else 160, WIDTH))
        for topic, start, end in ((2 * number, 5, 15), (2 * number + 1, 25, 30)):
            span = (start + (shift or 0), end + (shift or 0))
            table[slice(*span), topic] = 1.0
            queries.append(
                Query(f"q{topic:02d}", name, f"topic {topic}", ((float(span[0]), float(span[1])),))
            )
        rows[name] = table
    queries.append(Query("q99", "v00", "topic 0"))  # without a moment
    videos = [Video(name, float(len(table)), "test") for name, table in rows.items()]

    def build_store(path: Path) -> None:
        with FeatureStoreWriter(path, StoreManifest("planted", WIDTH, 1.0), commit_every=99) as writer:
            for name, table in rows.items():
                writer.append(name, table, float(len(table)))

    notes = {"clipped_moments": {"test": 3, "train": 9}, "dropped_moments": {"test": 0}}
    return write_data_folder(folder, "planted", {"test": queries}, videos, build_store, notes=notes)


def test_outcomes_have_the_means_of_the_report(data: DataFolder, tmp_path: Path) -> None:
    file = tmp_path / "outcomes.json"
    report = evaluate(PlantedEngine(noise=1.0), data, "test", ANSWER, options=EvaluateOptions(outcomes=file))
    kept = read_outcomes(file)
    assert (kept.data, kept.split, kept.num_videos) == (report.data, report.split, report.num_videos)
    for name, table in kept.tables.items():
        assert table.values
        for metric, values in table.values.items():
            assert 100 * np.mean(values) == pytest.approx(report.value(name, "model", metric)), (name, metric)
    none = differences([kept], [kept])
    assert all(interval.low == interval.high == 0 for table in none.values() for interval in table.values())


def test_retrieval_and_chance_are_as_planted(data: DataFolder) -> None:
    report = evaluate(PlantedEngine(), data, "test", ANSWER)
    assert report.value("VR", "model", "R@1") == 100.0
    assert report.value("VR", "model", "SumR") == 400.0
    assert report.value("VR", "model", "median rank") == 1.0
    assert report.value("VR", "chance", "R@1") == pytest.approx(100 / VIDEOS)
    assert report.value("VR", "chance", "median rank") == 6.5
    assert (report.num_queries, report.num_queries_with_moments, report.num_videos) == (25, 24, VIDEOS)
    assert "1 queries have no true moment and count for VR only." in report.notes
    assert report.notes[-1] == (
        "At import, 3 true moments of the split ended after their video and were clipped to its end."
    )


def test_proposals_by_reconstruction_are_right_for_half_of_the_topics(data: DataFolder) -> None:
    report = evaluate(PlantedEngine(), data, "test", ANSWER)
    assert report.value("SVMR", "proposals by reconstruction", "R@1, IoU=0.7") >= 50.0
    lenient = report.table("VCMR, lenient").rows
    svmr = report.table("SVMR").rows["proposals by reconstruction"]
    answered = report.table("SVMR").rows["model"]
    for m in (0.3, 0.5, 0.7):
        for n in (1, 5, 10):
            # Retrieval is perfect here, so the lenient count is grounding alone.
            assert lenient["model"][f"R@1, IoU={m}, N_p={n}"] == svmr[f"R@{n}, IoU={m}"]
            assert (
                lenient["model, proposals and windows"][f"R@1, IoU={m}, N_p={n}"]
                == answered[f"R@{n}, IoU={m}"]
            )


def test_oracle_and_blind_rows_agree_across_protocols(data: DataFolder) -> None:
    report = evaluate(PlantedEngine(noise=0.6), data, "test", ANSWER)
    svmr, strict = report.table("SVMR").rows, report.table("VCMR, strict").rows
    lenient = report.table("VCMR, lenient").rows
    for m in (0.3, 0.5, 0.7):
        for n in (1, 5, 10):
            metric = f"R@{n}, IoU={m}"
            assert strict["oracle retrieval"][metric] == svmr["model"][metric]
            assert strict["oracle retrieval + blind spans"][metric] == svmr["blind spans"][metric]
            assert (
                lenient["oracle retrieval + blind spans"][f"R@1, IoU={m}, N_p={n}"]
                == svmr["blind spans"][metric]
            )
        assert strict["model"][f"R@100, IoU={m}"].value <= 100.0
        assert strict["model, NMS 0.5"][f"R@1, IoU={m}"] == strict["model"][f"R@1, IoU={m}"]
    # By hand: of the blind spans, [5, 15] is met best by the third [0, 13.3] (5/9), [25, 30] by the quarter
    # [20, 30] (1/2).
    assert svmr["blind spans"]["R@10, IoU=0.5"].value == 100.0
    assert svmr["blind spans"]["R@10, IoU=0.7"].value == 0.0
    assert svmr["blind spans"]["mIoU"].value == pytest.approx(100 * (10 / 40 + 5 / 40) / 2)


@pytest.mark.parametrize(("corpus", "windows"), [("data", None), ("long_data", RULE)])
def test_scored_hits_equal_those_of_search(
    corpus: str, windows: WindowRule | None, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of the whole corpus and of each true video, from an index as `dciml index` makes it; long videos too."""
    data: DataFolder = request.getfixturevalue(corpus)
    engine, file = PlantedEngine(noise=0.6), tmp_path / "submission.json"
    options = EvaluateOptions(submission=file, batch_size=7, windows=windows)
    report = evaluate(engine, data, "test", ANSWER, options=options)
    content = json.loads(file.read_text(encoding="utf-8"))
    names = {number: name for name, number in content["video2idx"].items()}
    model = Model(tmp_path, "fake", engine, ANSWER, "planted", windows=windows)
    index = build_index(model, data.path, tmp_path / "index")
    assert len(index) == VIDEOS + (6 if windows else 0)  # the long one has seven windows
    searcher = Searcher(engine, index, data.store, ANSWER)
    assert len(content["VCMR"]) == report.num_queries
    assert len(content["SVMR"]) == report.num_queries_with_moments
    own = {query.query_id: [query.video_id] for query in data.queries("test")}
    for task in ("VCMR", "SVMR"):
        for entry in content[task]:
            within = None if task == "VCMR" else own[entry["desc_id"]]
            hits = searcher.search(entry["desc"], 100, within)
            scored = [(names[number], start, end) for number, start, end, _ in entry["predictions"]]
            assert scored == [(hit.video_id, hit.start_seconds, hit.end_seconds) for hit in hits]


def test_a_long_video_is_found_and_grounded_in_its_own_time(long_data: DataFolder, tmp_path: Path) -> None:
    options = EvaluateOptions(windows=RULE, submission=tmp_path / "submission.json")
    report = evaluate(PlantedEngine(), long_data, "test", ANSWER, options=options)
    assert report.value("VR", "model", "R@1") == 100.0
    assert (
        "1 videos are longer than 60 s: searched in windows of 40 s, as in an index, and scored in the time of the "
        "whole video." in report.notes
    )
    content = json.loads((tmp_path / "submission.json").read_text(encoding="utf-8"))
    late = next(entry for entry in content["SVMR"] if entry["desc_id"] == "q06")
    assert slow_iou(late["predictions"][0][1:3], (105, 115)) > 0.6
    # The engine's own first proposal is right for half of the topics, those of the long video among them.
    assert report.value("SVMR", "proposals by reconstruction", "R@1, IoU=0.7") >= 50.0
    whole = evaluate(PlantedEngine(), long_data, "test", ANSWER)
    assert report.value("SVMR", "model", "mIoU") > whole.value("SVMR", "model", "mIoU")
    assert all("windows" not in note for note in whole.notes)


@pytest.mark.parametrize(("corpus", "windows"), [("data", None), ("long_data", RULE)])
def test_an_independent_scorer_reads_the_submission_and_finds_the_same(
    corpus: str,
    windows: WindowRule | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    data: DataFolder = request.getfixturevalue(corpus)
    # Blocks of four queries, so that positions in a block and in the whole differ.
    monkeypatch.setattr("dciml.recipes.answers.score_blocks", partial(score_blocks, max_products=4 * CLIPS))
    file = tmp_path / "submission.json"
    options = EvaluateOptions(submission=file, windows=windows)
    report = evaluate(PlantedEngine(0.6), data, "test", ANSWER, options=options)
    content = json.loads(file.read_text(encoding="utf-8"))
    queries = {query.query_id: query for query in data.queries("test")}
    for k in (1, 5, 10, 100):
        found = slow_video_recall(content, queries, k)
        assert report.value("VR", "model", f"R@{k}") == pytest.approx(found)
        for m in (0.3, 0.5, 0.7):
            found = slow_moment_recall(content, "VCMR", queries, k, m)
            assert report.value("VCMR, strict", "model", f"R@{k}, IoU={m}") == pytest.approx(found)
    for n in (1, 5):
        for m in (0.3, 0.5, 0.7):
            found = slow_moment_recall(content, "SVMR", queries, n, m)
            assert report.value("SVMR", "model", f"R@{n}, IoU={m}") == pytest.approx(found)


def test_rows_equal_a_slow_count_from_the_submission_and_the_engine(data: DataFolder, tmp_path: Path) -> None:
    file, engine = tmp_path / "submission.json", PlantedEngine(0.6)
    report = evaluate(engine, data, "test", ANSWER, options=EvaluateOptions(submission=file))
    content = json.loads(file.read_text(encoding="utf-8"))
    every = {query.query_id: query for query in data.queries("test")}
    queries = [query for query in every.values() if query.moments]
    videos = {entry["desc_id"]: [row[0] for row in entry["predictions"]] for entry in content["VR"]}
    suppressed = content | {"VCMR": [slow_suppression(entry) for entry in content["VCMR"]]}
    for m in (0.3, 0.5):
        lenient = blind = in_ten = 0
        for query in queries:
            rank = 1 + videos[query.query_id].index(content["video2idx"][query.video_id])
            spans = engine.ground(data.store, [query.sentence], [query.video_id]).spans_unit[0, :5] * SECONDS
            lenient += rank <= 5 and any(slow_iou(span, query.moments[0]) >= m for span in spans)
            in_ten += rank <= 10  # the ten blind spans reach IoU 0.5 with every moment of this corpus
            # Five answers are the first five blind spans of the first video.
            first = [(0, 40), (0, 20), (20, 40), (0, 40 / 3), (40 / 3, 80 / 3)]
            blind += rank == 1 and any(slow_iou(span, query.moments[0]) >= m for span in first)
        found = report.value("VCMR, lenient", "model", f"R@5, IoU={m}, N_p=5")
        assert found == pytest.approx(100 * lenient / len(queries))
        found = report.value("VCMR, strict", "retrieval only + blind spans", f"R@5, IoU={m}")
        assert found == pytest.approx(100 * blind / len(queries))
        found = report.value("VCMR, strict", "retrieval only + blind spans", f"R@100, IoU={m}")
        assert found == pytest.approx(100 * in_ten / len(queries))
        found = report.value("VCMR, strict", "model, NMS 0.5", f"R@10, IoU={m}")
        assert found == pytest.approx(slow_moment_recall(suppressed, "VCMR", every, 10, m))


def slow_iou(a: Sequence[float], b: Sequence[float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared)


def slow_suppression(entry: dict) -> dict:
    kept: list[list[float]] = []
    for row in entry["predictions"]:
        if not any(row[0] == other[0] and slow_iou(row[1:3], other[1:3]) > 0.5 for other in kept):
            kept.append(row)
    return entry | {"predictions": kept}


def slow_video_recall(content: dict, queries: dict[str, Query], k: int) -> float:
    hits = 0
    for entry in content["VR"]:
        own = content["video2idx"][queries[entry["desc_id"]].video_id]
        for number, start, end, _ in entry["predictions"][:k]:
            hits += number == own
            assert start == end == 0
    return 100 * hits / len(queries)


def slow_moment_recall(content: dict, task: str, queries: dict[str, Query], k: int, m: float) -> float:
    hits = total = 0
    for entry in content[task]:
        query = queries[entry["desc_id"]]
        if not query.moments:
            continue
        total += 1
        good = False
        for number, start, end, _ in entry["predictions"][:k]:
            for true_start, true_end in query.moments:
                shared = min(end, true_end) - max(start, true_start)
                union = (end - start) + (true_end - true_start) - max(shared, 0.0)
                right = number == content["video2idx"][query.video_id]
                good = good or (right and shared > 0 and shared / union >= m)
        hits += good
    return 100 * hits / total


def test_further_engines_get_rows_of_their_own(data: DataFolder) -> None:
    others = {"untrained": PlantedEngine(noise=20.0)}
    report = evaluate(PlantedEngine(), data, "test", ANSWER, others=others)
    for table in report.tables:
        assert "untrained" in table.rows
    assert report.value("VR", "untrained", "R@1") < 60.0
    text = " ".join(headlines(report))
    assert "above chance (8.3%), above untrained" in text


def test_fewer_queries_are_drawn_by_hash_and_said_so(data: DataFolder) -> None:
    options = EvaluateOptions(num_queries=6)
    report = evaluate(PlantedEngine(), data, "test", ANSWER, options=options)
    assert (report.num_queries, report.num_videos) == (6, VIDEOS)
    assert "Only 6 of 25 queries" in report.notes[0]
    assert report == evaluate(PlantedEngine(), data, "test", ANSWER, options=options)
    taken = {query.query_id for query in make_task(data, "test", 6).queries}
    assert taken < {query.query_id for query in make_task(data, "test", 9).queries}


def test_batch_size_changes_nothing(data: DataFolder) -> None:
    one = evaluate(PlantedEngine(0.6), data, "test", ANSWER, options=EvaluateOptions(batch_size=1))
    many = evaluate(PlantedEngine(0.6), data, "test", ANSWER, options=EvaluateOptions(batch_size=64))
    assert one == many


def test_a_report_comes_back_from_json(data: DataFolder, tmp_path: Path) -> None:
    report = evaluate(PlantedEngine(), data, "test", ANSWER)
    report.write(tmp_path / "report.json")
    assert read_report(tmp_path) == report


def test_an_unknown_split_is_a_user_error(data: DataFolder) -> None:
    with pytest.raises(DataError, match="no split 'val'"):
        evaluate(PlantedEngine(), data, "val", ANSWER)


def test_the_command_prints_tables_and_headlines_and_writes_both_files(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = Model(tmp_path, "fake", PlantedEngine(), ANSWER, "planted")
    asked = []
    monkeypatch.setattr(
        "dciml.model_folder.load_model", lambda folder, device: asked.append(folder) or loaded
    )
    app = typer.Typer()
    register(app)
    files = ["--json", str(tmp_path / "r.json"), "--submission", str(tmp_path / "s.json")]
    options = ["--data", str(data.path), "--queries", "20", "--beside", "zero-shot=other", *files]
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "my_model"), *options])
    assert result.exit_code == 0, result.output
    assert asked == [tmp_path / "my_model", Path("other")]
    report = read_report(tmp_path / "r.json")
    assert (report.run, report.num_queries) == ("my_model", 20)
    assert len(json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["VR"]) == 20
    for row in (
        "model",
        "zero-shot",
        "blind spans",
        "chance",
        "oracle retrieval",
        "retrieval only + blind spans",
    ):
        assert row in result.output
    assert "The right video comes first for 100.0% of the sentences: above chance (8.3%)" in result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 120
    assert "does not say what it was trained on" in report.warnings[0]
    assert report.warnings[1].startswith("row zero-shot: the model in other does not say")
    wrong = CliRunner().invoke(app, ["evaluate", "m", "--data", str(data.path), "--beside", "other"])
    assert wrong.exit_code == 2


def test_both_ways_of_suppression_are_reported_whatever_the_settings_say(data: DataFolder) -> None:
    engine = PlantedEngine(noise=0.6)
    suppressed = evaluate(engine, data, "test", ANSWER.model_copy(update={"nms_iou": 0.5}))
    plain = evaluate(engine, data, "test", ANSWER)
    first, second = suppressed.table("VCMR, strict").rows, plain.table("VCMR, strict").rows
    assert first["model, no NMS"] == second["model"]
    assert first["model"] == second["model, NMS 0.5"]
    assert first["model"] != second["model"]
