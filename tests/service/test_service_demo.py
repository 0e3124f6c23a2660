"""`dciml demo --serve`: when a demo that is there is used as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dciml.demo.corpus import MADE_FILE, made_by
from dciml.files import write_json
from dciml.recipes.demo import DemoOptions, is_finished


@pytest.fixture
def finished(own: Path) -> Path:
    """A folder with what a finished demo of seed 7 has."""
    write_json(own / "videos" / MADE_FILE, made_by(7))
    (own / "index.html").write_text("the page")
    return own


def test_a_finished_demo_is_used_again(finished: Path) -> None:
    assert is_finished(finished, DemoOptions())


def test_another_seed_or_other_settings_make_a_new_one(finished: Path) -> None:
    assert not is_finished(finished, DemoOptions(seed=8))
    assert not is_finished(finished, DemoOptions(overrides=("training.epochs=1",)))


@pytest.mark.parametrize("missing", ["index.html", "videos/made.json", "index/catalogue.sqlite"])
def test_an_unfinished_demo_is_made_anew(finished: Path, missing: str) -> None:
    (finished / missing).unlink()
    assert not is_finished(finished, DemoOptions())


def test_a_demo_with_a_damaged_index_is_made_anew(finished: Path, tmp_path: Path) -> None:
    (finished / "index" / "catalogue.sqlite").write_bytes(b"damaged" * 500)
    assert not is_finished(finished, DemoOptions())
    assert not is_finished(tmp_path / "nothing", DemoOptions())
