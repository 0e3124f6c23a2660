"""The view of the videos: finding, adding with progress, failures in plain words, removing; and the token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from dciml.media import write_video

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 90  # adding starts a process of its own


@pytest.fixture
def new_video(tmp_path: Path) -> Path:
    """Six seconds that the index does not hold yet."""
    rng = np.random.default_rng(0)
    path = tmp_path / "new <b>one</b>.mp4"
    write_video(path, (rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(48)), 8)
    return path


def titles(page: Any) -> list[str]:
    """The ids of the cards in the view."""
    return list(page.locator("#videos-view a.hit").evaluate_all("all => all.map((one) => one.dataset.video)"))


def test_an_uploaded_video_is_added_and_plays(
    own_site: Callable[..., Any], visit: Callable[..., Any], new_video: Path
) -> None:
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    before = titles(page)
    page.set_input_files("#files", new_video)
    page.wait_for_selector(".job.done", timeout=PATIENCE * 1000)
    visitor.until(f"document.querySelectorAll('#videos-view a.hit').length === {len(before) + 1}")
    (added,) = set(titles(page)) - set(before)
    assert titles(page)[0] == added
    assert page.locator(".job b").count() == 0  # the name is text
    page.click("text=Look at it")
    page.wait_for_selector("#player", state="visible")
    assert page.text_content("#player-title") == new_video.stem
    page.click("button.start")
    visitor.until("document.querySelector('video').currentTime > 0.2")


def test_the_progress_of_an_upload_is_shown_and_can_be_cancelled(
    own_site: Callable[..., Any], visit: Callable[..., Any], new_video: Path
) -> None:
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    slow_line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow_line)
    page.set_input_files("#files", new_video)
    visitor.until("(document.querySelector('.job.sending progress')?.value ?? 0) > 0.02")
    assert page.evaluate("document.querySelector('.job.sending progress').value") < 1
    page.click(".job.sending button.end")
    page.wait_for_selector(".job", state="detached")


def test_dropped_files_are_added_from_anywhere(
    own_site: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    visitor = visit("", at=own_site())
    page = visitor.page
    page.wait_for_selector(".try")
    drop = (
        "const load = new DataTransfer(); load.items.add(new File(['no video at all'], 'notes.mp4'));"
        "for (const kind of ['dragover', 'drop'])"
        " document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: load, bubbles: true, cancelable: true }));"
    )
    page.evaluate(f"(() => {{ {drop} }})()")
    page.wait_for_selector("#videos-view", state="visible")
    page.wait_for_selector(".job.failed .message", timeout=PATIENCE * 1000)
    assert "notes" in page.text_content(".job.failed")
    page.click("[aria-label^='Dismiss']")
    page.wait_for_selector(".job", state="detached")


def test_a_file_on_the_server_is_added_and_others_are_refused(
    own_site: Callable[..., Any], visit: Callable[..., Any], new_video: Path
) -> None:
    visitor = visit("?view=videos", at=own_site(allow_roots=(new_video.parent,)))
    page = visitor.page
    page.click("#videos-view summary")
    page.fill("#path", "/etc/passwd")
    page.press("#path", "Enter")
    page.wait_for_selector(".fault-line:not(:empty)")
    page.fill("#path", new_video.name)
    page.press("#path", "Enter")
    page.wait_for_selector(".job.done", timeout=PATIENCE * 1000)
    assert page.text_content(".fault-line") == ""


def test_a_video_is_removed_only_after_a_yes(own_site: Callable[..., Any], visit: Callable[..., Any]) -> None:
    site = own_site()
    visitor = visit("?view=videos", at=site)
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    remove = page.locator("[aria-label='Remove kitchen/clock']")
    remove.click()
    page.click("dialog >> text=Cancel")
    page.wait_for_selector("dialog", state="detached")
    assert "kitchen/clock" in titles(page)
    remove.click()
    page.click("dialog button.danger")
    visitor.until(
        "![...document.querySelectorAll('#videos-view a.hit')].some((a) => a.dataset.video === 'kitchen/clock')"
    )
    assert httpx.get(f"{site.address}/api/videos/kitchen%2Fclock").status_code == 404
    page.click("nav >> text=Search")
    visitor.search("a light wanders")
    assert page.locator("#results a.hit[data-video='kitchen/clock']").count() == 0


def test_videos_are_found_by_name_and_tag(visit: Callable[..., Any]) -> None:
    visitor = visit("?view=videos")
    visitor.page.wait_for_selector("#videos-view a.hit")
    visitor.page.fill("#find-video", "straß")
    visitor.until("document.querySelectorAll('#videos-view a.hit').length === 1")
    assert titles(visitor.page) == ["Straße 1"]
    visitor.page.fill("#find-video", "TEST")
    visitor.until("document.querySelectorAll('#videos-view a.hit').length === 5")
    visitor.page.fill("#find-video", "nowhere")
    visitor.page.wait_for_selector("text=No such video")


def test_the_token_is_asked_for_once_and_media_come_with_it(
    own_site: Callable[..., Any], visit: Callable[..., Any]
) -> None:
    visitor = visit("?q=a+dark+field&v=kitchen%2Fclock&t=3-4.5", at=own_site(token="open sesame"))
    page = visitor.page
    page.wait_for_selector("dialog[open] #token")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#token-fault:not(:empty)")
    page.fill("#token", "open sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#results a.hit .times")
    visitor.until_at(3.0, slack=0.05)
    assert "sesame" not in page.url
    page.reload()
    page.wait_for_selector("#results a.hit .times")
    assert page.locator("dialog").count() == 0


def test_a_server_that_is_gone_is_told_and_can_be_tried_again(visit: Callable[..., Any]) -> None:
    visitor = visit()
    page = visitor.page
    page.wait_for_selector(".try")
    page.context.set_offline(True)
    page.fill("#sentence", "a dark field")
    page.press("#sentence", "Enter")
    page.wait_for_selector(".notice.bad")
    assert "does not answer" in page.text_content("#results")
    page.context.set_offline(False)
    page.click(".notice >> text=Try again")
    page.wait_for_selector("#results a.hit .times")


def test_an_empty_index_leads_to_adding(own_site: Callable[..., Any], visit: Callable[..., Any]) -> None:
    site = own_site()
    for video in httpx.get(f"{site.address}/api/videos").json()["videos"]:
        httpx.delete(f"{site.address}/api/videos/{quote(video['video_id'], safe='')}").raise_for_status()
    visitor = visit("", at=site)
    visitor.page.wait_for_selector("text=No videos yet")
    visitor.page.click(".notice >> text=Add videos")
    visitor.page.wait_for_selector("#videos-view", state="visible")


def test_many_files_at_once_wait_for_their_turn(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    files = []
    for number in range(6):
        files.append(tmp_path / f"file {number}.mp4")
        files[-1].write_bytes(b"no video at all" * 100_000)
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.set_input_files("#files", files)
    visitor.until("document.querySelectorAll('.job.failed').length >= 5")
    messages = page.locator(".job.failed .message").all_text_contents()
    assert not [message for message in messages if "too many" in message], messages
