"""Runs compared sentence by sentence."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dciml.cli.evaluate import register
from dciml.errors import DataError
from dciml.recipes.outcomes import (
    Outcomes,
    Protocol,
    compare_outcomes,
    differences,
    read_outcomes,
    together,
)

QUERIES = tuple(f"q{number:02}" for number in range(40))
VIDEOS = tuple(f"v{number // 4}" for number in range(40))


def outcomes(run: str, right: Sequence[float], shuffle: bool = False) -> Outcomes:
    order = np.random.default_rng(5).permutation(40) if shuffle else np.arange(40)
    ids, videos = tuple(QUERIES[i] for i in order), tuple(VIDEOS[i] for i in order)
    protocol = Protocol(ids, videos, {"R@1": tuple(float(right[i]) for i in order)})
    return Outcomes(run, "corpus, queries 0123", "test", 10, {"VR": protocol})


def test_difference_is_that_of_the_means_and_far_surer_than_they_are() -> None:
    """Plain reference: all draws of videos, one by one. Two runs that differ in two sentences of one video alone."""
    ours = np.random.default_rng(1).integers(0, 2, 40).astype(float)
    theirs = ours.copy()
    ours[[0, 1]], theirs[[0, 1]] = 1.0, 0.0
    found = differences([outcomes("a", ours)], [outcomes("b", theirs, shuffle=True)], num_resamples=2000)
    interval = found["VR"]["R@1"]
    assert interval.value == pytest.approx(100 * 2 / 40)
    rng = np.random.default_rng(3)
    by_video = (ours - theirs).reshape(10, 4).mean(axis=1)
    drawn = [100 * by_video[rng.integers(10, size=10)].mean() for _ in range(4000)]
    assert interval.low == pytest.approx(np.percentile(drawn, 2.5), abs=1.0)
    assert interval.high == pytest.approx(np.percentile(drawn, 97.5), abs=1.0)


def test_seeds_are_averaged_before_videos_are_drawn() -> None:
    one, two, other = np.ones(40), np.zeros(40), np.zeros(40)
    interval = differences([outcomes("a", one), outcomes("a", two)], [outcomes("b", other)])["VR"]["R@1"]
    assert (interval.value, interval.low, interval.high) == pytest.approx((50.0, 50.0, 50.0))


def test_corpora_together_are_as_one_of_all_their_videos() -> None:
    """Ids that both corpora have stay apart, and each sentence counts once."""
    rng = np.random.default_rng(2)
    ours, theirs = ([rng.integers(0, 2, 40).astype(float) for _ in range(2)] for _ in range(2))
    sides = [
        together([outcomes("a", right, shuffle=bool(place)) for place, right in enumerate(side)])
        for side in (ours, theirs)
    ]
    assert len(set(sides[0].tables["VR"].query_ids)) == 80
    assert sides[0].num_videos == 20
    found = differences([sides[0]], [sides[1]], num_resamples=2000)["VR"]["R@1"]
    apart = np.concatenate(ours) - np.concatenate(theirs)
    assert found.value == pytest.approx(100 * apart.mean())
    drawn = apart.reshape(20, 4).mean(axis=1)[rng.integers(20, size=(4000, 20))].mean(axis=1) * 100
    assert found.low == pytest.approx(np.percentile(drawn, 2.5), abs=1.5)
    assert found.high == pytest.approx(np.percentile(drawn, 97.5), abs=1.5)


def test_together_has_what_all_corpora_have() -> None:
    one, other = outcomes("a", np.ones(40)), outcomes("a", np.ones(40))
    other = replace(other, tables={"VR": other.tables["VR"], "SVMR": other.tables["VR"]})
    assert set(together([one, other]).tables) == set(together([other, one]).tables) == {"VR"}


def test_other_queries_are_refused() -> None:
    first = outcomes("a", np.ones(40))
    with pytest.raises(DataError, match="b and a were not evaluated"):
        differences([first], [replace(outcomes("b", np.ones(40)), split="val")])
    fewer = Protocol(QUERIES[:-1], VIDEOS[:-1], {"R@1": (1.0,) * 39})
    with pytest.raises(DataError, match="other queries than each other in VR"):
        differences([first], [replace(first, tables={"VR": fewer})])


def test_file_comes_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    first = outcomes("a", np.ones(40))
    first.write(file)
    assert read_outcomes(file) == first
    content = json.loads(file.read_text())
    content["tables"]["VR"]["values"]["R@1"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"one value for each query id.*--outcomes"):
        read_outcomes(file)
    file.write_text(json.dumps(content | {"split": 3}))
    with pytest.raises(DataError, match=r"a\.json, field split"):
        read_outcomes(file)
    outcomes("b", np.ones(40)).write(tmp_path / "b.json")
    with pytest.raises(DataError, match="second file"):
        compare_outcomes([tmp_path / "b.json"])


def test_compare_prints_the_first_less_each_other(tmp_path: Path) -> None:
    app = typer.Typer(callback=lambda: None)
    register(app)
    files = []
    for name, right in (("ours", np.ones(40)), ("plain", np.zeros(40)), ("plainer", np.zeros(40))):
        files.append(str(tmp_path / f"{name}.json"))
        outcomes(name, right).write(Path(files[-1]))
    done = CliRunner().invoke(app, ["compare", *files])
    assert done.exit_code == 0, done.output
    assert "ours − plain" in done.output
    assert "ours − plainer" in done.output
    assert "100.0" in done.output
    told = json.loads(CliRunner().invoke(app, ["compare", *files, "--json"]).output)
    assert told["tables"][0]["rows"]["ours − plain"]["R@1"]["value"] == 100.0
