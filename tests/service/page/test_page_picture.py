"""A picture dropped on the page, or pasted into the search field, asks for moments like it."""

from __future__ import annotations

import io
import os
from base64 import b64encode
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dciml.media import frame_at, write_video
from dciml.recipes.home import TEXT_BESIDE

pytestmark = [pytest.mark.browser, pytest.mark.slow]
DROP = """
([content, kind, target, event]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "asked.png", { type: kind }));
  const more = event === "paste" ? { clipboardData: data } : { dataTransfer: data };
  const made = event === "paste" ? ClipboardEvent : DragEvent;
  document.querySelector(target).dispatchEvent(new made(event, { bubbles: true, cancelable: true, ...more }));
}
"""


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """The encoder of a tiny CLIP, as the tests of features make it."""
    spec = spec_from_file_location("tiny_models", Path(__file__).parents[2] / "features" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    return f"image:{made.save_model('clip', tmp_path / 'tiny-clip')}"


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(2):
        scenes = draw.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
        write_video(folder / f"{number}.mp4", [scenes[step // 16] for step in range(32)], 4)
        os.utime(folder / f"{number}.mp4", (1e9, 1e9))
    return folder


def picture_of(film: Path, seconds: float) -> str:
    file = io.BytesIO()
    Image.fromarray(frame_at(film, seconds)).save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def test_a_dropped_and_a_pasted_picture_find_their_moments(
    folder_site: Callable[..., Any], visit: Callable[..., Any], films: Path, clip: str, tmp_path: Path
) -> None:
    site = folder_site(films, (clip, TEXT_BESIDE))
    page = visit(at=site).page
    page.wait_for_selector("#results a.hit[data-video='films/1.mp4']")
    page.wait_for_selector("#results a.hit[data-video='films/0.mp4']")
    page.evaluate(DROP, [picture_of(films / "1.mp4", 6.0), "image/png", "#search", "dragover"])
    assert page.locator("#search.takes-picture").count() == 1
    assert page.is_hidden("#drop-veil")  # that is for videos
    page.evaluate(DROP, [picture_of(films / "1.mp4", 6.0), "image/png", "#search", "drop"])
    page.wait_for_selector("#status:has-text('similar moment')")
    assert page.locator("#results a.hit").first.get_attribute("data-video") == "films/1.mp4"
    assert "like asked.png" in page.inner_text("#scope")
    assert page.locator("#search.takes-picture").count() == 0
    for name, settings in {
        "light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": {"width": 390, "height": 844}}
    }.items():  # fmt: skip
        other = visit(at=site, **settings).page
        other.wait_for_selector("#results a.hit")
        other.evaluate(DROP, [picture_of(films / "0.mp4", 2.0), "image/png", "#sentence", "paste"])
        other.wait_for_selector("#scope .picture img")
        other.wait_for_selector("#status:has-text('similar moment')")
        assert other.locator("#results a.hit").first.get_attribute("data-video") == "films/0.mp4"
        assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
        other.screenshot(path=tmp_path / f"{name}.png")
    page.click("#scope .picture button")
    page.wait_for_selector("#results h2:has-text('In this collection')")
    page.evaluate(DROP, [b64encode(b"junk").decode(), "image/png", "#search", "drop"])
    page.wait_for_selector("#trouble:has-text('asked.png cannot be read by this browser')")


def test_an_index_that_cannot_be_asked_by_a_picture_says_why(visit: Callable[..., Any]) -> None:
    page = visit().page
    page.wait_for_selector("#results a.hit")
    dot = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(dot, "PNG")
    page.evaluate(DROP, [b64encode(dot.getvalue()).decode(), "image/png", "#search", "drop"])
    page.wait_for_selector("#results:has-text('That cannot be answered')")
