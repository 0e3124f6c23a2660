"""A real browser before the real server: some seconds of video, and a model with its first, random weights.

What such a model finds is arbitrary but always the same, so the page is held to what the API itself answers.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from dciml.features.store import FeatureStore, FeatureStoreWriter, StoreManifest
from dciml.files import PART_SUFFIX
from dciml.folders import WEIGHTS_FILE
from dciml.media import RGBFrame, write_video
from dciml.types import Query, Video

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from dciml.service.settings import ServiceSettings

FPS, SECONDS, WIDTH, HEIGHT = 8, 14, 128, 96
HOSTILE = '<img src=x onerror="window.hacked=1"> & Söhne/50% #1?'
BROKEN, FILELESS = "broken", "fileless"
GOOD = ("kitchen/clock", "Straße 1", HOSTILE)
SENTENCES = ("a light wanders to the right", "the blocks change", "a dark field")


def clock_picture(seconds: float, seed: int) -> RGBFrame:
    """Eight blocks that count half seconds in binary: any two of these pictures differ clearly."""
    bits = [(int(2 * seconds) >> place) & 1 for place in range(8)]
    row = np.repeat(np.array(bits, dtype=np.uint8) * 200 + 25, WIDTH // 8)
    picture = np.full((HEIGHT, WIDTH, 3), (60 * seed, 90, 160 - 40 * seed), dtype=np.uint8)
    picture[HEIGHT // 4 : 3 * HEIGHT // 4] = row[None, :, None]
    return picture


@dataclass(frozen=True)
class PageCorpus:
    """An index folder, and the video files by id."""

    folder: Path
    index: Path
    files: dict[str, Path]


@dataclass
class Site:
    """A running server, and what asks it without the page."""

    address: str
    corpus: PageCorpus
    token: str | None = None

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """What the API answers to the question that the page puts."""
        answer = httpx.post(f"{self.address}{path}", json={"k": 12, **body}, timeout=60).raise_for_status()
        return dict(answer.json())


@dataclass
class Visitor:
    """A browser window. `faults` are errors of scripts and refusals by the content security policy."""

    page: Page
    site: Site
    faults: list[str] = field(default_factory=list)

    def search(self, sentence: str) -> list[dict[str, Any]]:
        """Type a sentence, wait for the cards, and return the API's own hits for it, in the order of the page."""
        self.page.fill("#sentence", sentence)
        self.page.press("#sentence", "Enter")
        self.page.wait_for_selector("#results a.hit .times")
        self.until("document.querySelector('#status').textContent.includes('found in')")
        hits = [
            hit for hit in self.site.ask("/api/search", sentence=sentence)["hits"] if not hit["far_below"]
        ]
        return sorted(hits, key=lambda hit: hit["video_rank"])  # stable: by video, each best first

    def seconds(self) -> float:
        """Where the player is."""
        return float(self.page.evaluate("document.querySelector('video').currentTime"))

    def until(self, condition: str, seconds: float = 40) -> None:
        """Wait until an expression holds (playwright's own way evaluates text, which the page's policy refuses)."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}"
            self.page.wait_for_timeout(25)

    def until_at(self, seconds: float, slack: float = 0.3) -> None:
        """Wait until the player is at a time."""
        video = "document.querySelector('video')"
        self.until(f"Math.abs({video}.currentTime - {seconds}) <= {slack} && !{video}.seeking")


def _write_videos(folder: Path) -> dict[str, Path]:
    files = {video_id: folder / f"{number}.mp4" for number, video_id in enumerate(GOOD)}
    for seed, path in enumerate(files.values()):
        write_video(path, (clock_picture(at / FPS, seed) for at in range(SECONDS * FPS)), FPS)
    files[BROKEN] = folder / "broken.mp4"
    files[BROKEN].write_bytes(b"\0\0\0\x18ftypmp42" + b"\0damaged" * 500)
    return files


def _write_data(folder: Path) -> FeatureStore:
    from dciml.datasets.folder import write_data_folder
    from dciml.features.encoders.visual import BuiltinVisualEncoder

    encoder, rng = BuiltinVisualEncoder(), np.random.default_rng(3)
    videos = [Video(video_id, float(SECONDS), "test") for video_id in (*GOOD, BROKEN, FILELESS)]
    queries = [Query(f"q{i}", GOOD[i], sentence) for i, sentence in enumerate(SENTENCES)]

    def fill(path: Path) -> None:
        manifest = StoreManifest(encoder.name, encoder.width, encoder.rows_per_second)
        with FeatureStoreWriter(path, manifest) as writer:
            for video in videos:
                rows = rng.standard_normal((round(SECONDS * encoder.rows_per_second), encoder.width))
                writer.append(video.video_id, rows, video.duration_seconds)

    return write_data_folder(folder, "page", {"test": queries}, videos, fill).store


def _write_model(folder: Path, store: FeatureStore) -> None:
    import torch

    from dciml.config import dump_config, parse_config
    from dciml.features.vocabulary import Vocabulary
    from dciml.files import write_json, write_text
    from dciml.model_folder import MODEL_FORMAT, ModelCard, build_dual, make_text_encoder
    from dciml.training.checkpoint import save_tensors

    small = {"hidden": 16, "heads": 2}
    tree = {
        "name": "page",
        "data": {"folder": str(folder)},
        "text": {"encoder": "words:16", "max_words": 8},
        "retrieval": {
            **small,
            "num_clips": 8,
            "max_frames": 16,
            "gaussian_widths": [None, 1.0],
            "num_blocks": 1,
        },
        "grounding": {**small, "layers": 1, "num_proposals": 3, "num_positions": 8},
    }
    config, vocabulary = parse_config(tree, "test"), Vocabulary.build(SENTENCES)
    text = make_text_encoder(config, vocabulary)
    manifest, widths = store.manifest, (text.width, text.static_width)
    card = ModelCard(
        "dciml", MODEL_FORMAT, manifest.encoder, text.name, manifest.width, *widths, len(vocabulary)
    )
    torch.manual_seed(1)
    folder.mkdir()
    write_text(folder / "config.yaml", dump_config(config))
    write_json(folder / "model.json", card.to_json())
    vocabulary.save(folder / "vocabulary.json")
    save_tensors(folder / WEIGHTS_FILE, dict(build_dual(config, card).state_dict()), {"epoch": "0"})


def make_corpus(folder: Path) -> PageCorpus:
    """Videos, features, model and index in a folder."""
    from dciml.index import ClipIndex, VideoDetails
    from dciml.model_folder import load_model

    (folder / "videos").mkdir(parents=True)
    files = _write_videos(folder / "videos")
    store = _write_data(folder / "data")
    _write_model(folder / "model", store)
    engine = load_model(folder / "model").engine
    index = ClipIndex.create(
        folder / "index",
        num_clips=engine.num_clips,
        width=engine.vector_width,
        fingerprint=engine.fingerprint,
        model_folder=folder / "model",
        store_path=store.path,
    )
    ids = store.video_ids
    told = [VideoDetails(title=name, media_path=files.get(name), tags=("test", name[:3])) for name in ids]
    index.add(ids, engine.fused_clips(store, ids), [float(SECONDS)] * len(ids), details=told)
    return PageCorpus(folder, folder / "index", files)


@contextmanager
def serving(settings: ServiceSettings) -> Iterator[str]:
    """Run the real app in uvicorn on a free port; yields its address."""
    import uvicorn

    from dciml.service.app import create_app
    from dciml.service.server import listen

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), ws="none", log_level="warning", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium; without it these tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        # Pages are drawn by the processor here; without a pretended GPU that takes a tenth less.
        browser = playwright.chromium.launch(executable_path=program, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_corpus(tmp_path_factory: pytest.TempPathFactory) -> PageCorpus:
    """The corpus that all tests look at; a test that changes one copies it first."""
    return make_corpus(tmp_path_factory.mktemp("page") / "corpus")


@pytest.fixture(scope="session")
def site(page_corpus: PageCorpus, browser: Browser) -> Iterator[Site]:
    """The server of the shared corpus."""
    from dciml.service.settings import ServiceSettings

    with serving(ServiceSettings(page_corpus.index, cache=page_corpus.folder / "cache")) as address:
        yield Site(address, page_corpus)


@pytest.fixture
def own_site(page_corpus: PageCorpus, browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes servers of a copy of the corpus, changed before it is opened, and with further settings."""
    from dciml.service.settings import ServiceSettings

    with ExitStack() as stack:

        def start(change: Callable[[PageCorpus], None] | None = None, **settings: Any) -> Site:
            folder = tmp_path / "corpus"
            # A server of another test may be writing pictures into its cache.
            shutil.copytree(page_corpus.folder, folder, ignore=shutil.ignore_patterns(f"*{PART_SUFFIX}"))
            given = ServiceSettings(folder / "index", cache=tmp_path / "cache", **settings)
            copied = PageCorpus(folder, given.index, page_corpus.files)
            if change is not None:
                change(copied)
            return Site(stack.enter_context(serving(given)), copied, given.token)

        yield start


@pytest.fixture
def folder_site(page_corpus: PageCorpus, browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Serves a folder of videos, which is read meanwhile."""
    from dciml.recipes.home import WITHOUT_MODEL, open_home
    from dciml.service.settings import ServiceSettings

    with ExitStack() as stack:

        def start(folder: Path, encoders: tuple[str, ...] = WITHOUT_MODEL) -> Site:
            home = open_home(tmp_path / "home", [folder], encoders)
            given = ServiceSettings(home.index, cache=tmp_path / "cache", home=home)
            return Site(stack.enter_context(serving(given)), page_corpus)

        yield start


@pytest.fixture
def visit(browser: Browser, site: Site) -> Iterator[Callable[..., Visitor]]:
    """Opens windows: `visit("?q=a+dog", color_scheme="dark")`. Errors of the page's scripts fail the test."""
    contexts: list[BrowserContext] = []
    visitors: list[Visitor] = []

    def open_window(address: str = "", at: Site | None = None, **settings: Any) -> Visitor:
        where = at or site
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        context.set_default_timeout(40_000)
        # Where the player first plays tells exactly where it jumped to, however slow the machine.
        context.add_init_script(
            "addEventListener('playing', (e) => { (window.played ??= []).push(e.target.currentTime); }, true);"
            "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.blockedURI));"
        )
        contexts.append(context)
        visitor = Visitor(context.new_page(), where)
        visitor.page.on("pageerror", lambda error: visitor.faults.append(str(error)))
        visitor.page.on(
            "console",
            lambda said: visitor.faults.append(said.text) if "policy" in said.text.lower() else None,
        )
        visitors.append(visitor)
        visitor.page.goto(f"{where.address}/{address}")
        return visitor

    yield open_window
    faults = [fault for visitor in visitors for fault in visitor.faults]
    for context in contexts:
        context.close()
    assert faults == []
