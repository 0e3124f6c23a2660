"""The line above a page whose server watches a folder: how far it is, what failed, what cannot be done."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dciml.media import write_video

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def film(path: Path, said: str) -> None:
    write_video(path, [np.full((96, 128, 3), 9 * k, dtype=np.uint8) for k in range(24)], 4)
    path.with_suffix(".srt").write_text(f"1\n00:00:02,000 --> 00:00:04,000\n{said}\n")
    for file in (path, path.with_suffix(".srt")):
        os.utime(file, (1e9, 1e9))


def test_the_page_shows_videos_as_they_are_read(
    folder_site: Callable[[Path], Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    film(films / "one.mp4", "we cut onions")
    (films / "broken.mp4").write_bytes(b"junk")
    os.utime(films / "broken.mp4", (1e9, 1e9))
    visitor = visit(at=folder_site(films))
    page = visitor.page
    page.wait_for_selector("#results a.hit[data-video='films/one.mp4']")  # the first page follows by itself
    page.wait_for_selector("#folder summary:has-text('1 video could not be read')")
    assert "subtitles beside the videos" in page.inner_text("#folder .notes")
    page.click("#folder summary")
    assert "films/broken.mp4 this video cannot be read" in page.inner_text("#folder details")
    assert page.is_hidden("#folder progress")  # nothing is being read any more

    film(films / "two.mp4", "a fox sleeps")
    film(films / "three.mp4", "rain")
    (films / "three.srt").write_text("1\n00:00:02,000 --> soon\nrain\n")
    os.utime(films / "three.srt", (1e9, 1e9))
    page.wait_for_selector("#results a.hit[data-video='films/three.mp4']")
    without = page.locator("#folder details", has_text="The text beside 1 video could not be read")
    without.locator("summary").click()
    assert "films/three.mp4 three.srt, line 2: this is not a timing line" in without.inner_text()
    assert "it is searched without it" in without.inner_text()
    page.wait_for_selector("#results a.hit[data-video='films/two.mp4']")
    visitor.search("sleeping fox")
    assert page.locator("#results a.hit").first.get_attribute("data-video") == "films/two.mp4"


def test_without_a_folder_there_is_no_such_line(visit: Callable[..., Any]) -> None:
    page = visit().page
    page.wait_for_selector("#results a.hit")
    assert page.is_hidden("#folder")
    assert page.inner_html("#folder") == ""


def test_a_sentence_is_answered_with_what_does_not_count(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.search("two dogs without a xyzzy")
    assert "Negation hardly counts" in visitor.page.inner_text("#results .hints")
