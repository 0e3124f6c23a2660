"""The page takes a sentence for a moment, lists what was told, and teaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from dciml.recipes.home import Home
from dciml.recipes.told import read_told

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def home_site(page_corpus: Any, browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Serves a home; the class of sites is that of the fixtures beside it."""
    import threading
    import time
    from types import SimpleNamespace

    import uvicorn

    from dciml.service.app import create_app
    from dciml.service.server import listen
    from dciml.service.settings import ServiceSettings

    with ExitStack() as stack:

        def start(home: Home, **changes: Any) -> Any:
            given = ServiceSettings(home.index, home=home, cache=tmp_path / "cache", **changes)
            listener = listen("127.0.0.1", 0)
            options = {"ws": "none", "log_level": "warning", "timeout_graceful_shutdown": 2}
            server = uvicorn.Server(uvicorn.Config(create_app(given), **options))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()

            def end() -> None:
                server.should_exit = True
                thread.join(20)
                listener.close()

            stack.callback(end)
            until = time.monotonic() + 30
            while not server.started and time.monotonic() < until:
                time.sleep(0.02)
            return SimpleNamespace(address=f"http://127.0.0.1:{listener.getsockname()[1]}")

        yield start


def test_a_sentence_is_written_for_a_moment_and_taken_back(
    home_of: Callable[..., Home], home_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    home = home_of(tmp_path, 3, 0)
    page = visit("?v=films/1&t=2-4.5", at=home_site(home)).page
    page.click(".telling summary:has-text('This is …')")
    assert page.input_value("[aria-label='From, seconds']") == "2"
    assert page.input_value("[aria-label='to, seconds']") == "4.5"
    page.fill("[aria-label='This is …']", "a / dog? <b>runs</b>")  # single keys are letters here
    page.fill("[aria-label='to, seconds']", "2")
    page.click("text=Keep")
    page.wait_for_selector(".tell .fault-line:has-text('cannot last from 2 to 2 s')")
    page.evaluate("document.querySelector('video').currentTime = 6")
    page.click(".time:nth-of-type(2) button")
    assert page.input_value("[aria-label='to, seconds']") == "6"
    page.press("[aria-label='This is …']", "Enter")
    page.wait_for_selector(".telling .told li")
    (told,) = read_told(home.path)
    assert (told.video_id, told.start_seconds, told.end_seconds) == ("films/1", 2.0, 6.0)
    assert told.sentence == "a / dog? <b>runs</b>"
    assert page.inner_text(".telling .told strong") == told.sentence
    assert "00:02–00:06" in page.inner_text(".telling .told")
    page.click(".telling .told a")
    assert "t=2-6" in page.url
    page.goto(page.url.split("?")[0] + "?v=films/2")  # a whole video: from where the player is
    page.click(".telling summary:has-text('This is …')")
    assert page.input_value("[aria-label='From, seconds']") == "0"
    assert page.input_value("[aria-label='to, seconds']") == "5"
    assert page.locator(".telling .told li").count() == 0
    page.goto(page.url.split("?")[0] + "?v=films/1&t=2-4")
    page.click(".telling .told button")
    page.wait_for_selector(".telling .told li", state="detached")
    assert read_told(home.path) == []


def test_the_button_teaches_and_says_what_came_of_it(
    home_of: Callable[..., Home], home_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    home = home_of(tmp_path, 36, 35)
    visitor = visit("?view=videos", at=home_site(home))
    page = visitor.page
    page.wait_for_selector(".teach:has-text('There are 35 sentences for 35 videos')")
    page.click(".teach summary")
    page.wait_for_selector(".teach .told li")
    assert page.locator(".teach .told li").count() == 35
    page.click(".teach .told li:first-child button")
    visitor.until("document.querySelectorAll('.teach .told li').length === 34")
    page.click(".teach button:has-text('Teach')")
    page.wait_for_selector(".teach progress:not([hidden])")
    page.wait_for_selector(".teach .result:has-text('training')", timeout=120_000)
    page.wait_for_selector(".teach .result:has-text('Kept: on')", timeout=240_000)
    assert page.is_hidden(".teach progress")
    assert page.locator("#videos-view .job").count() == 0  # no video is being added
    page.click("nav a:has-text('Search')")
    page.fill("#sentence", "a purple thing")
    page.press("#sentence", "Enter")
    visitor.until("document.querySelector('#status').textContent.includes('found in')")
    first = page.locator("#results a.hit").first.get_attribute("data-video") or ""
    assert int(first.rpartition("/")[2]) % 6 == 5
    page.click("nav a:has-text('Videos')")
    page.click(".teach button:has-text('Back to untrained')")
    page.click("dialog button:has-text('Go back')")
    page.wait_for_selector(".teach .result:has-text('The untrained model is in use again')", timeout=120_000)
    assert page.is_hidden(".teach button:has-text('Back to untrained')")
    assert home.taught is None


def test_too_few_sentences_are_said_and_who_only_reads_sees_no_form(
    home_of: Callable[..., Home], home_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    home = home_of(tmp_path, 3, 2)
    page = visit("?view=videos", at=home_site(home)).page
    page.wait_for_selector(".teach:has-text('there are 2 sentences for 2 videos, so tell of 22 more videos')")
    assert page.is_disabled(".teach button:has-text('Teach')")
    page = visit("?view=videos&v=films/1", at=home_site(home, read_only=True)).page
    page.wait_for_selector("#videos-view a.hit")
    page.wait_for_selector("#player h2:has-text('0')")
    page.wait_for_timeout(300)
    assert page.is_hidden(".teach")
    assert page.is_hidden(".telling")
