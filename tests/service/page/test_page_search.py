"""Type a sentence, click a result, and the player is at its second."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from dciml.clock import clock_range
from dciml.index import ClipIndex
from dciml.index.tables import seal_videos
from dciml.media import frame_at

pytestmark = pytest.mark.browser
SENTENCE = "a light wanders to the right"
GRAB = """
(() => {
  const video = document.querySelector('video');
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  return [video.currentTime, video.videoWidth, video.videoHeight,
          Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
})()
"""


def playable(hits: list[dict[str, Any]]) -> int:
    """The first hit of a video that plays."""
    return next(place for place, hit in enumerate(hits) if hit["media_url"] and hit["video_id"] != "broken")


def open_playable(visitor: Any) -> dict[str, Any]:
    """Search, click the first hit that plays, and return it."""
    hits = visitor.search(SENTENCE)
    place = playable(hits)
    visitor.page.click(f"#results a.hit >> nth={place}")
    visitor.until("window.played !== undefined")
    return dict(hits[place])


@pytest.mark.slow
def test_cards_show_what_the_api_found(visit: Callable[..., Any]) -> None:
    visitor = visit()
    hits = visitor.search(SENTENCE)
    cards = visitor.page.locator("#results a.hit")
    assert cards.count() == len(hits)
    for place, hit in enumerate(hits):
        assert cards.nth(place).locator(".title").text_content().startswith(hit["title"])
        times = clock_range(hit["start_seconds"], hit["end_seconds"])
        assert cards.nth(place).locator(".times").text_content() == times


def test_a_click_plays_the_moment_and_shows_its_picture(visit: Callable[..., Any]) -> None:
    visitor = visit()
    hit = open_playable(visitor)
    assert visitor.page.evaluate("window.played[0]") == pytest.approx(hit["start_seconds"], abs=0.3)
    assert visitor.page.text_content("#player-title") == hit["title"]
    visitor.page.keyboard.press("Space")
    visitor.until("document.querySelector('video').paused")
    seconds, width, height, values = visitor.page.evaluate(GRAB)
    seen = np.array(values, dtype=np.float64).reshape(height, width, 4)[..., :3]
    file = visitor.site.corpus.files[hit["video_id"]]

    def difference(at: float) -> float:
        return float(np.abs(seen - frame_at(file, max(at, 0.0))).mean())

    # A player paused between two pictures may show either.
    assert min(difference(seconds + step) for step in (-1 / 8, 0, 1 / 8)) < 8
    assert difference((seconds + 5) % 12) > 16


@pytest.mark.slow
def test_an_example_is_searched_by_a_click(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.page.click(f"text={SENTENCE}")
    visitor.page.wait_for_selector("#results a.hit .times")
    assert visitor.page.input_value("#sentence") == SENTENCE


@pytest.mark.slow
def test_the_address_can_be_shared(visit: Callable[..., Any]) -> None:
    visitor = visit()
    hit = open_playable(visitor)
    shared = urlsplit(visitor.page.url)
    query = parse_qs(shared.query)
    assert (query["q"], query["v"]) == ([SENTENCE], [hit["video_id"]])
    other = visit(f"?{shared.query}")
    other.until_at(hit["start_seconds"])
    assert other.page.text_content("#player-title") == hit["title"]
    assert other.page.evaluate("document.querySelector('video').paused")  # nobody clicked here
    other.page.wait_for_selector("#player .sure")
    assert other.page.text_content("#player .facts") == visitor.page.text_content("#player .facts")


@pytest.mark.slow
def test_back_and_forward_lead_through_the_states(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.page
    open_playable(visitor)
    page.go_back()
    page.wait_for_selector("#player", state="hidden")
    assert page.locator("#results a.hit .times").count() > 0
    page.go_back()
    page.wait_for_selector(".try")
    assert page.input_value("#sentence") == ""
    page.go_forward()
    visitor.until("document.querySelector('#status').textContent.includes('found in')")
    page.go_forward()
    page.wait_for_selector("#player", state="visible")


def test_nothing_within_the_filters_is_said(visit: Callable[..., Any]) -> None:
    visitor = visit("?q=a+dog&min=500")
    visitor.page.wait_for_selector("text=Nothing found")
    visitor.page.click(".notice >> text=Clear filters")
    visitor.page.wait_for_selector("#results a.hit .times")
    assert "min" not in visitor.page.url


@pytest.mark.slow
def test_filters_limit_the_search(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.page.click("summary")
    visitor.page.fill("[name=tag]", "kit")
    visitor.page.press("[name=tag]", "Tab")
    visitor.search(SENTENCE)
    titles = visitor.page.locator("#results a.hit").evaluate_all("all => all.map((one) => one.dataset.video)")
    assert set(titles) == {"kitchen/clock"}
    assert visitor.page.locator("#scope").text_content() == "tag kit"
    visitor.page.click("[aria-label='Remove: tag kit']")
    visitor.until("new Set([...document.querySelectorAll('a.hit')].map(a => a.dataset.video)).size > 1")


def test_an_answer_that_comes_leaves_what_is_being_typed(visit: Callable[..., Any]) -> None:
    visitor = visit()
    visitor.page.click("summary")
    held: list[Any] = []
    visitor.page.route("**/api/search", lambda route: held.append(route))
    visitor.page.fill("#sentence", SENTENCE)
    visitor.page.press("#sentence", "Enter")
    visitor.page.fill("[name=tag]", "kit")
    while not held:
        visitor.page.wait_for_timeout(20)
    held[0].continue_()
    visitor.until("document.querySelector('#status').textContent.includes('found in')")
    assert visitor.page.input_value("[name=tag]") == "kit"


@pytest.mark.slow
def test_a_sentence_without_words_is_a_plain_error(visit: Callable[..., Any]) -> None:
    visitor = visit("?q=%3F%21")
    visitor.page.wait_for_selector(".notice.bad")
    assert "no word" in visitor.page.text_content(".notice.bad")
    assert visitor.page.locator(".notice button").count() == 0  # it would be refused again


def test_a_broken_video_says_so(visit: Callable[..., Any]) -> None:
    visitor = visit("?v=broken&t=2-5")
    visitor.page.wait_for_selector(".fault", state="visible")
    assert "does not play" in visitor.page.text_content(".fault")
    assert visitor.page.text_content(".clock") == "00:02 / 00:14"


@pytest.mark.slow
def test_a_video_without_a_file_says_so(visit: Callable[..., Any]) -> None:
    visitor = visit("?v=fileless&t=2-5")
    visitor.page.wait_for_selector(".fault", state="visible")
    assert "no file" in visitor.page.text_content(".fault")
    visitor.page.keyboard.press("Escape")
    visitor.page.wait_for_selector("#player", state="hidden")


@pytest.mark.slow
def test_an_address_of_an_unknown_video_says_so(visit: Callable[..., Any]) -> None:
    visitor = visit("?v=nowhere&t=2-5")
    visitor.page.wait_for_selector("#trouble:not(:empty)")
    assert "nowhere" in visitor.page.text_content("#trouble")
    visitor.search(SENTENCE)
    assert visitor.page.text_content("#trouble") == ""


def test_names_and_sentences_are_text_and_never_html(visit: Callable[..., Any], page_corpus: Any) -> None:
    hostile = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    visitor = visit()
    hits = visitor.search(hostile)
    name = next(video_id for video_id in page_corpus.files if "<img" in video_id)
    assert any(hit["video_id"] == name for hit in hits)
    visitor.page.click(
        f"#results a.hit >> nth={next(i for i, hit in enumerate(hits) if hit['video_id'] == name)}"
    )
    visitor.page.wait_for_selector("#player", state="visible")
    assert visitor.page.text_content("#player-title") == name
    assert visitor.page.title().startswith(name)
    visitor.page.click("text=Search in this video")
    visitor.page.wait_for_selector("#scope li")
    assert name in visitor.page.text_content("#scope")
    visitor.page.click("nav >> text=Videos")
    visitor.page.wait_for_selector("#videos-view a.hit")
    assert visitor.page.evaluate("window.hacked") is None
    assert visitor.page.locator("main img[src=x], main script").count() == 0


@pytest.mark.slow
def test_a_phone_shows_everything_without_scrolling_sideways(visit: Callable[..., Any]) -> None:
    visitor = visit(viewport={"width": 360, "height": 740}, has_touch=True)
    page = visitor.page
    sideways = "document.documentElement.scrollWidth > innerWidth"
    page.wait_for_selector(".try")
    assert not page.evaluate(sideways)
    open_playable(visitor)
    assert not page.evaluate(sideways)
    box = page.locator("#player").bounding_box()
    assert (box["x"], box["y"], box["width"]) == (0, 0, 360)
    assert page.evaluate("document.querySelector('#search-view').inert")
    edges = page.locator(".axis span").evaluate_all(
        "all => all.flatMap((one) => [one.getBoundingClientRect().left, one.getBoundingClientRect().right])"
    )
    assert len(edges) >= 6
    assert edges == sorted(edges)
    page.click("[aria-label^='Close the player']")
    assert page.evaluate("document.activeElement.matches('a.hit')")
    page.click("nav >> text=Videos")
    page.wait_for_selector("#videos-view a.hit")
    assert not page.evaluate(sideways)


@pytest.mark.slow
@pytest.mark.parametrize(
    "title",
    [
        "A recording of a very long afternoon, part 3 of 17 (final) " * 5,
        "x" * 300,
        "سيارة صفراء تسير (2024).mp4",
    ],
    ids=["long", "one word", "right to left"],
)
def test_any_title_leaves_room_for_the_rest(
    own_site: Callable[..., Any], visit: Callable[..., Any], edited: Callable[..., Any], title: str
) -> None:
    def rename(corpus: Any) -> None:
        with edited(corpus.index) as connection:
            connection.execute("UPDATE videos SET title = ?", (title,))
            seal_videos(connection)

    visitor = visit("", at=own_site(change=rename), viewport={"width": 360, "height": 740})
    page = visitor.page
    sideways = "document.documentElement.scrollWidth > innerWidth"
    page.wait_for_selector(".try")
    assert not page.evaluate(sideways)
    open_playable(visitor)
    assert not page.evaluate(sideways)
    assert page.locator("#player-title").bounding_box()["height"] < 90
    shown = page.text_content("#player-title")
    assert shown == page.get_attribute("#player-title", "title")
    assert shown.startswith(title)  # and then what tells it from the others, which are called the same
    assert shown != title
    assert page.locator(".track").bounding_box()["y"] < 500
    page.click("text=Search in this video")
    page.wait_for_selector("#scope bdi")
    assert not page.evaluate(sideways)


@pytest.mark.slow
def test_every_request_goes_to_the_server_itself(visit: Callable[..., Any], site: Any) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.reload()
    open_playable(visitor)
    assert asked
    assert all(re.match(re.escape(site.address), url) for url in asked)


@pytest.mark.slow
@pytest.mark.parametrize(("usual", "is_found"), [(-50.0, True), (50.0, False)])
def test_how_sure_the_answer_is_and_that_there_may_be_none(
    own_site: Callable[..., Any], visit: Callable[..., Any], usual: float, is_found: bool
) -> None:
    from dciml.search.calibration import Calibration

    def calibrate(corpus: Any) -> None:
        index = ClipIndex.open(corpus.index)
        known = Calibration(1.0, usual, 0.0, (1.0, 0.0), (0.0,) * index.width, 100, 50, index.fingerprint)
        known.write(corpus.folder / "model")

    visitor = visit(f"?q={SENTENCE.replace(' ', '+')}", at=own_site(change=calibrate))
    page = visitor.page
    if is_found:
        page.wait_for_selector("#results a.hit .sure")
        assert "%" in page.locator("#results .sure").first.text_content()
        return
    page.wait_for_selector("text=Nothing found")
    assert page.locator("#results a.hit").first.is_hidden()
    page.click("text=Show the nearest moments anyway")
    assert page.locator("#results a.hit").first.is_visible()
