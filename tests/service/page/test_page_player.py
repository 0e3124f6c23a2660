"""The open moment: its end, the loop, the timeline, other moments, and the keyboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser
SENTENCE = "a light wanders to the right"
PAUSED = "document.querySelector('video').paused"
FOCUSED = "document.activeElement"


@pytest.fixture
def player(visit: Callable[..., Any]) -> Any:
    """A window with seconds 3 to 4.5 of the first video open, not yet playing."""
    visitor = visit("?q=a+light+wanders+to+the+right&v=kitchen%2Fclock&t=3-4.5")
    visitor.until_at(3.0, slack=0.05)
    visitor.until("document.querySelectorAll('.lanes .span').length > 1")
    return visitor


def spans_of(player: Any) -> list[tuple[float, float]]:
    """Where the spans below the timeline begin and end, as parts of its width, in the order of their numbers."""
    shares = player.page.evaluate(
        "(() => { const track = document.querySelector('.track').getBoundingClientRect();"
        " return [...document.querySelectorAll('.lanes .span')].map((span) => {"
        "  const box = span.getBoundingClientRect();"
        "  return [(box.left - track.left) / track.width, (box.right - track.left) / track.width]; }); })()"
    )
    return [(float(start), float(end)) for start, end in shares]


def test_playing_stops_at_the_end_of_the_moment_and_goes_on_when_asked(player: Any) -> None:
    page = player.page
    page.click("button.start")
    page.wait_for_selector(".at-end", state="visible")
    assert page.evaluate(PAUSED)
    assert player.seconds() == pytest.approx(4.5, abs=0.3)
    page.click(".at-end >> text=Play on")
    player.until("document.querySelector('video').currentTime > 4.9")
    assert not page.evaluate(PAUSED)


@pytest.mark.slow
def test_a_looped_moment_begins_again(player: Any) -> None:
    page = player.page
    page.click("text=Loop")
    page.click("button.start")
    page.evaluate(
        "window.jumps = 0; document.querySelector('video').addEventListener('seeked', () => { window.jumps += 1; })"
    )
    player.until("window.jumps >= 2")
    assert 2.7 <= player.seconds() <= 4.8
    assert page.locator(".at-end").is_hidden()
    assert page.get_attribute("text=Loop >> xpath=..", "aria-pressed") == "true"


def test_the_timeline_goes_where_it_is_clicked(player: Any) -> None:
    box = player.page.locator(".track").bounding_box()
    player.page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 20)
    player.until_at(0.75 * 14, slack=0.15)
    head = player.page.locator(".playhead").bounding_box()
    assert head["x"] + head["width"] / 2 == pytest.approx(box["x"] + 0.75 * box["width"], abs=6)


@pytest.mark.slow
def test_the_timeline_shows_the_relevance_that_the_api_gives(player: Any) -> None:
    relevance = player.site.ask("/api/search", sentence=SENTENCE)["relevance"]["kitchen/clock"]
    heights = player.page.locator(".relevance rect").evaluate_all(
        "all => all.map((one) => +one.getAttribute('height'))"
    )
    assert len(heights) == len(relevance) == 8
    assert heights == pytest.approx([max(0.03, value) for value in relevance], abs=1e-3)


@pytest.mark.slow
def test_the_timeline_works_by_keyboard(player: Any) -> None:
    slider = player.page.locator(".track")
    slider.focus()
    for key, seconds in (("ArrowRight", 4.0), ("Shift+ArrowRight", 9.0), ("PageDown", 7.6), ("Home", 0.0)):
        slider.press(key)
        player.until_at(seconds, slack=0.1)
    slider.press("End")
    player.until_at(14.0, slack=0.2)
    assert slider.get_attribute("aria-valuetext") == "14 seconds of 14 seconds"


@pytest.mark.slow
def test_spans_lie_where_the_moments_are_and_lead_to_them(player: Any) -> None:
    hits = [
        hit
        for hit in player.site.ask("/api/search", sentence=SENTENCE)["hits"]
        if hit["video_id"] == "kitchen/clock"
    ]
    spans = spans_of(player)
    for hit, (start, end) in zip(hits, spans, strict=False):
        assert start == pytest.approx(hit["start_seconds"] / 14, abs=0.05)
        assert end == pytest.approx(hit["end_seconds"] / 14, abs=0.05)
    player.page.click(".lanes .span >> nth=0")
    player.until("window.played !== undefined")
    assert player.page.evaluate("window.played[0]") == pytest.approx(hits[0]["start_seconds"], abs=0.3)
    assert player.page.get_attribute(".lanes .span >> nth=0", "aria-current") == "true"


@pytest.mark.slow
def test_another_moment_of_the_video_is_opened_from_the_list(player: Any) -> None:
    rows = player.page.locator(".others a")
    times = rows.nth(0).locator("> span").last.text_content()
    rows.nth(0).click()
    player.until("window.played !== undefined")
    assert times in player.page.text_content("#player .facts")


def test_keys_lead_through_the_page(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.page
    page.wait_for_selector(".try")
    page.keyboard.press("/")
    assert page.evaluate(f"{FOCUSED}.id") == "sentence"
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    visitor.until("document.querySelector('#status').textContent.includes('found in')")
    page.keyboard.press("ArrowDown")
    links = "[...document.querySelectorAll('#results a.hit')]"
    assert page.evaluate(f"{FOCUSED} === {links}[0]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(f"{FOCUSED} === {links}[1]")
    page.keyboard.press("Enter")
    page.wait_for_selector("#player", state="visible")
    page.keyboard.press("Escape")
    page.wait_for_selector("#player", state="hidden")
    assert page.evaluate(f"{FOCUSED} === {links}[1]")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")


@pytest.mark.slow
def test_space_plays_and_pauses(player: Any) -> None:
    player.page.evaluate(f"{FOCUSED}.blur()")
    player.page.keyboard.press("Space")
    player.until(f"!{PAUSED}")
    player.page.keyboard.press("Space")
    player.until(PAUSED)


@pytest.mark.slow
def test_single_keys_can_be_switched_off(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.page
    page.wait_for_selector(".try")
    page.click("#help")
    page.uncheck("dialog input[type=checkbox]")
    page.click("dialog button")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press("?")
    page.keyboard.press("/")
    assert page.locator("dialog").count() == 0
    assert page.evaluate(f"{FOCUSED}.id") != "sentence"
    page.reload()
    page.wait_for_selector(".try")
    page.keyboard.press("?")
    assert page.locator("dialog").count() == 0


@pytest.mark.slow
def test_search_inside_the_open_video(player: Any) -> None:
    player.page.click("text=Search in this video")
    player.until("document.querySelector('#scope').textContent.includes('kitchen/clock')")
    shown = "[...document.querySelectorAll('#results a.hit')].map((a) => a.dataset.video)"
    player.until(f"{shown}.length > 0 && {shown}.every((id) => id === 'kitchen/clock')")


@pytest.mark.slow
def test_more_like_this_shows_what_the_api_finds_similar(player: Any) -> None:
    similar = player.site.ask("/api/similar", video_id="kitchen/clock", start_seconds=3, end_seconds=4.5)
    player.page.click("text=More like this")
    player.until("document.querySelector('#status').textContent.includes('similar moment')")
    shown = player.page.locator("#results a.hit").evaluate_all("all => all.map((one) => one.dataset.video)")
    close = [hit for hit in similar["hits"] if not hit["far_below"]]
    assert shown == [hit["video_id"] for hit in sorted(close, key=lambda hit: hit["video_rank"])]
    assert "like_t=3-4.5" in player.page.url


@pytest.mark.slow
def test_the_link_of_the_moment_is_copied(player: Any) -> None:
    player.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    player.page.click("text=Copy link")
    player.page.wait_for_selector("text=Copied")
    assert player.page.evaluate("navigator.clipboard.readText()") == player.page.url
