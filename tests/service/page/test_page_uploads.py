"""The queue of uploads in the page: many files, a busy server, a lost connection, duplicates; and converted copies."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import httpx
import numpy as np
import pytest

from dciml.media import write_video
from dciml.service.settings import Limits

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PATIENCE = 120_000
TITLE = "  „Größe“  'n' 👩‍🚀 100% 日本"


def write(path: Path, seed: int = 0, seconds: int = 3) -> Path:
    rng = np.random.default_rng(seed)
    write_video(path, (rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(8 * seconds)), 8)
    return path


def counts(page: Any) -> dict[str, int]:
    """How many rows are in each state."""
    states = page.locator(".job").evaluate_all("all => all.map((row) => row.className.split(' ')[1])")
    return {state: states.count(state) for state in set(states)}


def until_ended(visitor: Any, number: int) -> None:
    over = ".job.done, .job.failed, .job.there, .job.cancelled"
    visitor.until(f"document.querySelectorAll('{over}').length === {number}", seconds=PATIENCE / 1000)


def test_a_file_goes_through_all_states_and_keeps_its_title(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    site = own_site()
    visitor = visit("?view=videos", at=site)
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    page.evaluate(
        "window.states = []; new MutationObserver(() => { const row = document.querySelector('.job .state');"
        " if (row && states.at(-1) !== row.textContent) states.push(row.textContent); })"
        ".observe(document.querySelector('.jobs'), { subtree: true, childList: true, characterData: true })"
    )
    page.set_input_files("#files", write(tmp_path / f"{TITLE}.mp4"))
    page.wait_for_selector(".job.done", timeout=PATIENCE)
    states = "|".join(page.evaluate("window.states"))
    assert re.fullmatch(r"(waiting.*)?sending.*(sent, waits to be read.*)?being read.*searchable", states), (
        states
    )
    assert page.text_content(".job .name") == f"{TITLE}.mp4"
    page.click(".job >> text=Look at it")
    page.wait_for_selector("#player", state="visible")
    assert page.text_content("#player-title") == TITLE
    titles = [video["title"] for video in httpx.get(f"{site.address}/api/videos").json()["videos"]]
    assert titles[0] == TITLE


def test_the_same_content_is_told_with_a_link(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    first = write(tmp_path / "first.mp4")
    again = tmp_path / "again.mp4"
    again.write_bytes(first.read_bytes())
    held = tmp_path / "held.mp4"
    held.write_bytes(visitor.site.corpus.files["kitchen/clock"].read_bytes())
    page.set_input_files("#files", [first, again, held])
    until_ended(visitor, 3)
    assert counts(page) == {"done": 1, "there": 2}
    assert "The same content is" in page.text_content(".job.there:has-text('held.mp4') .message")
    page.click(".job.there:has-text('held.mp4') >> a")
    page.wait_for_selector("#player", state="visible")
    assert page.text_content("#player-title") == "kitchen/clock"


def test_two_hundred_files_wait_for_a_busy_server_and_all_come_through(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    files = []
    for number in range(200):
        files.append(tmp_path / f"file {number}.mp4")
        files[-1].write_bytes(b"no video at all %d" % number)
    visitor = visit("?view=videos", at=own_site(limits=Limits(queued_jobs=8, queued_jobs_per_client=6)))
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    sent: list[Any] = []
    refused: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    page.on("response", lambda answer: refused.append(answer) if answer.status == 503 else None)
    page.set_input_files("#files", files)
    until_ended(visitor, 200)
    assert counts(page) == {"failed": 200}
    assert len(sent) == 200  # a busy server is asked, and not sent to in vain
    assert refused == []
    messages = set(page.locator(".job .message").all_text_contents())
    assert len(messages) == 1
    assert "not a video file" in messages.pop()
    assert "200 files: 200 failed" in page.text_content(".queue-words")
    page.click("text=Clear what is over")
    page.wait_for_selector(".job", state="detached")


@pytest.mark.parametrize("status", [503, 429])
def test_a_refusal_for_now_is_waited_for_as_the_server_says(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path, status: int
) -> None:
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    times: list[float] = []

    def busy(route: Any) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        times.append(time.monotonic())
        if len(times) <= 2:
            route.fulfill(status=status, headers={"Retry-After": "4"}, body="{}")
        else:
            route.continue_()

    page.route("**/api/videos", busy)
    page.set_input_files("#files", write(tmp_path / "a.mp4"))
    page.wait_for_selector(".queue-hold", state="visible")
    assert "The server is busy" in page.text_content(".queue-hold")
    page.wait_for_selector(".job.done", timeout=PATIENCE)
    assert len(times) == 3
    assert all(later - earlier >= 4 for earlier, later in pairwise(times))


class Line:
    """A slow line to a server, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._port, self._open, self.is_cut, self.bytes_per_second = port, set[socket.socket](), False, 40_000
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open |= {near, far}
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while piece := source.recv(4000):
                target.sendall(piece)
                if len(piece) == 4000:
                    time.sleep(len(piece) / self.bytes_per_second)
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(own_site: Callable[..., Any]) -> Iterator[tuple[Line, Any]]:
    """A server, and the line to it."""
    site = own_site()
    made = Line(int(site.address.rpartition(":")[2]))
    site.address = f"http://127.0.0.1:{made.port}"
    yield made, site
    made.close()


def test_a_lost_connection_is_survived(
    line: tuple[Line, Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    cable, site = line
    visitor = visit("?view=videos", at=site)
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    page.set_input_files("#files", [write(tmp_path / "a.mp4", 1), write(tmp_path / "b.mp4", 2)])
    visitor.until("(document.querySelector('.job.sending progress')?.value ?? 0) > 0.02")
    cable.cut()
    page.wait_for_selector(".job.lost")
    assert "connection lost" in page.text_content(".job.lost .state")
    assert page.locator(".job.lost >> text=Send again").first.is_visible()
    cable.is_cut, cable.bytes_per_second = False, 10_000_000
    page.locator("text=Try now").click()
    until_ended(visitor, 2)
    assert counts(page) == {"done": 2}


def test_leaving_with_files_waiting_asks_first(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    visitor = visit("?view=videos", at=own_site())
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 5_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#files", write(tmp_path / "a.mp4"))
    page.wait_for_selector(".job.sending")
    page.click("#find-video")  # browsers ask only where the reader did something
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.evaluate("location.href = 'about:blank'")
    visitor.until("true")
    assert asked == ["beforeunload"]
    page.click(".job.sending .end")
    page.wait_for_selector(".job", state="detached")
    page.evaluate("location.href = 'about:blank'")
    page.wait_for_url("about:blank")
    assert asked == ["beforeunload"]


def test_single_files_are_cancelled_by_keyboard_and_the_focus_stays_in_the_list(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    site = own_site()
    visitor = visit("?view=videos", at=site)
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    page.set_input_files("#files", [write(tmp_path / f"{n}.mp4", n, seconds=10) for n in range(4)])
    for number in (3, 2, 1):
        page.focus(f"[aria-label='Cancel {number}.mp4']")
        page.keyboard.press("Enter")
    until_ended(visitor, page.locator(".job").count())
    assert page.evaluate("document.activeElement.closest('.jobs, .job') !== null")
    ids = {video["video_id"] for video in httpx.get(f"{site.address}/api/videos").json()["videos"]}
    assert "0" in ids
    assert not ids & {"1", "2", "3"}


def test_what_the_server_would_refuse_is_not_sent(
    own_site: Callable[..., Any], visit: Callable[..., Any], tmp_path: Path
) -> None:
    visitor = visit("?view=videos", at=own_site(limits=Limits(upload_bytes=5000)))
    page = visitor.page
    page.wait_for_selector("#videos-view a.hit")
    files = {"big.mp4": b"x" * 6000, "notes.txt": b"x", "empty.mp4": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    page.set_input_files("#files", [tmp_path / name for name in files])
    until_ended(visitor, 3)
    assert sent == []
    messages = page.locator(".job .message").all_text_contents()
    assert "takes 5.0 kB at most" in messages[0]
    assert "not called a video" in messages[1]
    assert messages[2] == "The file is empty."
    assert page.locator("text=Send again").count() == page.locator("text=Send again >> visible=false").count()


@pytest.fixture
def odd_site(own_site: Callable[..., Any], tmp_path: Path) -> Any:
    """A server of a video in MPEG-4 Part 2 and AVI, which no Chromium plays, and of one in HEVC with sound."""

    def change(corpus: Any) -> None:
        for name, form, codec in (("kitchen/clock", "avi", "mpeg4"), ("Straße 1", "mp4", "libx265")):
            source = corpus.files[name]
            target = corpus.folder / "videos" / source.name
            options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            with av.open(str(source)) as opened, av.open(str(target), "w", format=form) as out:
                stream = out.add_stream(codec, rate=8, options=options)
                stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
                heard = out.add_stream("aac" if form == "mp4" else "mp3", rate=48_000)
                for frame in opened.decode(video=0):
                    out.mux(stream.encode(frame))
                out.mux(stream.encode(None))
                for place in range(0, 14 * 48_000, heard.codec_context.frame_size or 1024):
                    silence = np.zeros((1, heard.codec_context.frame_size or 1024), np.float32)
                    sound = av.AudioFrame.from_ndarray(silence, "fltp", "mono")
                    sound.sample_rate, sound.pts = 48_000, place
                    resampler = av.AudioResampler(
                        heard.codec_context.format, heard.codec_context.layout, 48_000
                    )
                    for part in resampler.resample(sound):
                        out.mux(heard.encode(part))
                out.mux(heard.encode(None))

    return own_site(change)


@pytest.mark.parametrize(
    ("video_id", "words"), [("kitchen/clock", "MPEG-4 Part 2"), ("Straße 1", "HEVC (H.265)")]
)
def test_a_file_that_does_not_play_is_offered_as_a_copy_that_does(
    odd_site: Any, visit: Callable[..., Any], video_id: str, words: str
) -> None:
    visitor = visit(f"?v={quote(video_id, safe='')}&t=3-4.5", at=odd_site)
    page = visitor.page
    page.wait_for_selector("text=Play a converted copy", timeout=PATIENCE)
    assert words in page.text_content(".fault")
    assert "does not play" in page.text_content(".fault")
    page.click("text=Play a converted copy")
    page.wait_for_selector(".copy-note", state="visible", timeout=PATIENCE)
    visitor.until("(window.played ?? []).length > 0")
    assert page.evaluate("window.played[0]") == pytest.approx(3.0, abs=0.2)
    assert page.evaluate("document.querySelector('video').videoWidth") == 128
    assert page.locator(".fault").is_hidden()
    page.wait_for_selector(".at-end", state="visible")
    page.reload()  # another time the copy plays at once
    page.wait_for_selector(".copy-note", state="visible", timeout=PATIENCE)
    visitor.until_at(3.0, slack=0.2)
