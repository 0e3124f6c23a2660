"""The benchmarks of speed run, and print what docs/PERFORMANCE.md quotes from them. On a shape that takes seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *options: str) -> str:
    command = [sys.executable, str(FOLDER / script), "--shape", "tiny", "--threads", "1", *options]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=300).stdout


def test_train_step_prints_each_path_and_the_parts_of_the_fast_one() -> None:
    said = run("train_step.py", "--rounds", "1", "--precision", "32-true")
    assert re.search(
        r"^fast 32-true +[\d.]+ queries/s .* GMAC a query .* peak [\d.]+ GiB$", said, re.MULTILINE
    )
    parts = re.findall(r"^  (\w.*?)  +([\d.]+) GMAC a query .* floor +[\d.]+ ms$", said, re.MULTILINE)
    assert len(parts) == 7
    assert all(float(operations) > 0 for _, operations in parts)


@pytest.mark.slow
def test_train_step_prints_how_much_more_the_plain_path_takes() -> None:
    said = run("train_step.py", "--rounds", "1", "--reference", "--precision", "32-true", "bf16-mixed")
    operations = dict(re.findall(r"^(plain|fast) 32-true .* ([\d.]+) GMAC a query", said, re.MULTILINE))
    assert float(operations["plain"]) > 2 * float(operations["fast"])
    ratios = re.findall(
        r"^ratio of plain to fast (\S+): [\d.]+ in time, [\d.]+ in processor time$", said, re.MULTILINE
    )
    assert ratios == ["32-true", "bf16-mixed"]


def test_ground_prints_times_for_new_and_for_seen_videos_and_for_the_plain_path() -> None:
    said = run("ground.py", "--queries", "2", "--videos", "2", "--reference")
    found = re.findall(r"videos (\w.*?) +\d+ ms at the median.* ([\d.]+) G multiply-adds", said)
    assert [name for name, _ in found] == ["not seen before", "seen before"]
    plain = re.search(r"without any shortcut .* ([\d.]+) times as long; scores differ by (\S+) nats", said)
    assert plain is not None
    assert float(plain[2]) < 1e-4
    assert re.search(r"reconstruction \d+% of one thread's time\n  peak [\d.]+ GiB$", said.strip())


def test_evaluate_prints_each_part_and_that_the_plain_way_finds_the_same() -> None:
    said = run("evaluate.py", "--queries", "6", "--videos", "3", "--corpus", "--reference")
    assert len(re.findall(r"^ +[\d.]+ s +[\d.]+ queries/s  \w", said, re.MULTILINE)) == 7
    assert "with the same ranks" in said
    off = re.search(r"6 queries grounded; scores differ by (\S+) nats", said)
    assert off is not None
    assert float(off[1]) < 1e-4
