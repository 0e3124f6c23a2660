"""Answers on the page: by video, without what is far below the best, downloaded by a click, told apart."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dciml.clock import clock_range
from dciml.config import dump_config, load_config
from dciml.files import write_text
from dciml.media import write_video

pytestmark = pytest.mark.browser
SENTENCE = "a light wanders to the right"
CASES = json.loads((Path(__file__).parents[2] / "clock_cases.json").read_text())
GROUPS = """[...document.querySelectorAll('#results .group')].map((group) =>
  [...group.querySelectorAll('a.hit')].map((hit) => [hit.dataset.video, hit.querySelector('.times').textContent]))"""


def test_the_page_counts_time_as_the_program_does(visit: Callable[..., Any]) -> None:
    page = visit().page
    said = page.evaluate(
        "async (cases) => { const { clock } = await import('/static/format.js');"
        " return cases.map(([seconds]) => clock(seconds)); }",
        CASES,
    )
    assert said == [words for _, words in CASES]


def test_moments_stand_under_the_best_of_their_video(visit: Callable[..., Any]) -> None:
    visitor = visit()
    hits = visitor.search(SENTENCE)
    groups: dict[str, list[list[str]]] = {}
    for hit in hits:
        times = clock_range(hit["start_seconds"], hit["end_seconds"])
        groups.setdefault(hit["video_id"], []).append([hit["video_id"], times])
    assert visitor.page.evaluate(GROUPS) == list(groups.values())
    assert any(len(own) > 1 for own in groups.values())
    titles = visitor.page.locator("#results .best .title")
    assert titles.count() == len(groups)


def set_answer(corpus: Any, **settings: Any) -> None:
    """Change how the model's answers are composed."""
    file = corpus.folder / "model" / "config.yaml"
    changes = [f"answer.{name}={value}" for name, value in settings.items()]
    write_text(file, dump_config(load_config(file, changes)))


@pytest.mark.slow
def test_what_is_far_below_the_best_is_shown_on_request(
    own_site: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    site = own_site(change=lambda corpus: set_answer(corpus, far_below_deviations=0.5))
    found = site.ask("/api/search", sentence=SENTENCE)["hits"]
    far = [hit for hit in found if hit["far_below"]]
    assert 0 < len(far) < len(found)
    assert not found[0]["far_below"]
    visitor = visit(at=site)
    assert len(visitor.search(SENTENCE)) == len(found) - len(far)
    page = visitor.page
    assert page.locator("#results a.hit").count() == len(found) - len(far)
    said = "1 moment is" if len(far) == 1 else f"{len(far)} moments are"
    assert page.text_content(".left-out") == f"{said} left out, far below the best."
    page.click("text=Show all")
    assert page.locator("#results a.hit").count() == len(found)
    assert page.locator(".left-out").count() == 0


@pytest.mark.slow
def test_a_short_moment_is_widened(own_site: Callable[..., Any], visit: Callable[..., Any]) -> None:
    site = own_site(change=lambda corpus: set_answer(corpus, min_seconds=6))
    hits = visit(at=site).search(SENTENCE)
    assert all(hit["end_seconds"] - hit["start_seconds"] >= 6 - 1e-6 for hit in hits)
    assert all(hit["start_seconds"] >= 0 and hit["end_seconds"] <= 14 for hit in hits)


def test_a_click_downloads_the_moment(visit: Callable[..., Any], tmp_path: Path) -> None:
    visitor = visit("?q=a+light+wanders+to+the+right&v=kitchen%2Fclock&t=3-4.5")
    page = visitor.page
    page.wait_for_selector("#player .save")
    with page.expect_download() as download:
        page.click("#player >> text=Download clip")
    assert download.value.suggested_filename == "kitchen_clock_00m03s-00m04s.mp4"
    download.value.save_as(tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 11  # at 8 a second
    assert page.is_enabled("#player .save")


@pytest.mark.slow
def test_each_moment_of_the_list_has_its_button(visit: Callable[..., Any]) -> None:
    visitor = visit()
    hits = visitor.search(SENTENCE)
    page = visitor.page
    assert page.locator("#results .save").count() == sum(hit["media_url"] is not None for hit in hits)
    good = next(hit for hit in hits if hit["media_url"] and hit["video_id"] != "broken")
    times = clock_range(good["start_seconds"], good["end_seconds"])
    button = page.locator("#results").get_by_label(f"Download {times} of {good['title']}", exact=True).first
    with page.expect_download() as download:
        button.click()
    assert download.value.suggested_filename.endswith(".mp4")
    assert page.locator("#player").is_hidden()


@pytest.mark.slow
def test_a_broken_file_says_why_it_cannot_be_downloaded(visit: Callable[..., Any]) -> None:
    page = visit("?v=broken&t=2-5").page
    page.click("#player .save")
    page.wait_for_selector("#player .actions .fault-line")
    assert "cannot be cut out of its file" in page.text_content("#player .actions .fault-line")
    assert page.is_enabled("#player .save")


def film(path: Path, said: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [np.full((96, 128, 3), 9 * k, dtype=np.uint8) for k in range(24)], 4)
    path.with_suffix(".srt").write_text(f"1\n00:00:02,000 --> 00:00:04,000\n{said}\n")
    for file in (path, path.with_suffix(".srt")):
        os.utime(file, (1e9, 1e9))


@pytest.mark.slow
def test_a_folder_has_its_own_examples_titles_and_lines(
    folder_site: Callable[[Path], Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    film(tmp_path / "films" / "monday" / "clip.mp4", "- We cut the red onions.")
    film(tmp_path / "films" / "tuesday" / "clip.mp4", "a fox sleeps in the snow")
    visitor = visit(at=folder_site(tmp_path / "films"))
    page = visitor.page
    page.wait_for_selector(".try >> text=a fox sleeps in the snow")
    assert page.locator(".try >> text=We cut the red onions.").count() == 1
    page.click(".try >> text=a fox sleeps in the snow")
    page.wait_for_selector("#results .best .line")
    best = page.locator("#results .best").first
    assert best.locator(".title").inner_text().split(",")[0].startswith("tuesday/clip")
    assert best.locator(".kinds").text_content() == "text 1.00"  # the built-in encoder knows no sentence
    assert best.locator(".line").text_content() == "a fox sleeps in the snow"


@pytest.mark.slow
def test_a_folder_without_words_has_no_made_up_examples(
    folder_site: Callable[[Path], Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    film(tmp_path / "films" / "a.mp4", "onions")
    (tmp_path / "films" / "a.srt").unlink()
    page = visit(at=folder_site(tmp_path / "films")).page
    page.wait_for_selector("#results a.hit")
    assert page.locator(".try").count() == 0


@pytest.mark.slow
def test_a_phone_shows_groups_without_scrolling_sideways(visit: Callable[..., Any]) -> None:
    visitor = visit(viewport={"width": 320, "height": 640}, has_touch=True)
    visitor.search(SENTENCE)
    assert not visitor.page.evaluate("document.documentElement.scrollWidth > innerWidth")
