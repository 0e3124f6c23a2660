"""The page: right links, right marks, escaped text, and a shape that a parser accepts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from dciml.demo.page import Corpus, ExampleAnswer, FigureRow, Figures, verdict, write_page
from dciml.errors import DataError
from dciml.media import write_video
from dciml.types import Query, SearchHit

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Elements(HTMLParser):
    """Collects elements and text; complains about tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    paths = {}
    for number, name in enumerate(["a", "b & c"]):
        paths[name] = tmp_path / "videos" / f"{name}.mp4"
        pictures = [np.full((48, 64, 3), 10 * k + number, dtype=np.uint8) for k in range(20)]
        write_video(paths[name], pictures, 1)
    return Corpus(paths, {"a": 20.0, "b & c": 20.0})


QUERY = Query("q", "b & c", "a <script>alert(1)</script> cat & dog", ((5.0, 10.0), (15.0, 20.0)))
HITS = (
    SearchHit(1, "b & c", 5.0, 11.0, 0.75),
    SearchHit(2, "a", 0.0, 4.0, 0.5),
    SearchHit(3, "b & c", 0.0, 4.0, 0.25),
)
FIGURES = Figures(
    ("VR <R@1>",), (FigureRow("model", (12.345,), True), FigureRow("oracle & co", (None,))), "about"
)


def parsed(page: Path) -> Elements:
    elements = Elements()
    elements.feed(page.read_text(encoding="utf-8"))
    elements.close()
    assert elements.open == []
    return elements


def test_page_plays_each_hit_at_its_place(tmp_path: Path, corpus: Corpus) -> None:
    page = write_page(tmp_path, "demo", FIGURES, [ExampleAnswer(QUERY, HITS)], corpus)
    videos = parsed(page).attributes("video")
    assert [video["src"] for video in videos] == [
        "videos/b%20%26%20c.mp4#t=5.00,11.00",
        "videos/a.mp4#t=0.00,4.00",
        "videos/b%20%26%20c.mp4#t=0.00,4.00",
    ]
    for video in videos:
        assert (tmp_path / unquote(str(video["src"]).split("#")[0])).is_file()
        assert video["aria-label"]
    picture = Image.open(tmp_path / unquote(str(videos[0]["poster"])))
    assert abs(float(np.asarray(picture).mean()) - 81) < 4  # second 8, the middle of the hit
    assert picture.size == (128, 96)


def test_page_marks_right_and_wrong_in_words(tmp_path: Path, corpus: Corpus) -> None:
    elements = parsed(write_page(tmp_path, "demo", FIGURES, [ExampleAnswer(QUERY, HITS)], corpus))
    hits = [item["class"] for item in elements.attributes("li")]
    assert hits == ["hit right", "hit wrong", "hit wrong"]
    text = " ".join(elements.text)
    assert "✓ right moment (IoU 0.83)" in text
    assert "✗ another video" in text
    assert "✗ right video, other moment (IoU 0.00)" in text


def test_page_draws_found_and_true_spans_to_scale(tmp_path: Path, corpus: Corpus) -> None:
    elements = parsed(write_page(tmp_path, "demo", FIGURES, [ExampleAnswer(QUERY, HITS[:2])], corpus))
    styles = [span["style"] for span in elements.attributes("span") if "style" in span]
    assert styles == [
        "left:25.00%;width:30.00%",
        "left:25.00%;width:25.00%",
        "left:75.00%;width:25.00%",
        "left:0.00%;width:20.00%",  # of another video there is nothing true to show
    ]


def test_page_escapes_what_others_wrote(tmp_path: Path, corpus: Corpus) -> None:
    page = write_page(tmp_path, "<b>demo</b>", FIGURES, [ExampleAnswer(QUERY, HITS)], corpus)
    content, elements = page.read_text(encoding="utf-8"), parsed(page)
    assert elements.attributes("script") == elements.attributes("b") == []
    assert "&lt;script&gt;alert(1)&lt;/script&gt; cat &amp; dog" in content
    assert "VR &lt;R@1&gt;" in content


def test_page_needs_nothing_from_elsewhere(tmp_path: Path, corpus: Corpus) -> None:
    content = write_page(tmp_path, "demo", FIGURES, [ExampleAnswer(QUERY, HITS)], corpus).read_text(
        encoding="utf-8"
    )
    assert "http:" not in content
    assert "https:" not in content
    assert str(tmp_path) not in content


def test_figures_show_a_dash_for_nothing(tmp_path: Path, corpus: Corpus) -> None:
    elements = parsed(write_page(tmp_path, "demo", FIGURES, [], corpus))
    assert {"12.3", "–", "oracle & co"} <= set(elements.text)
    assert [row.get("class") for row in elements.attributes("tr")] == [None, "model", None]


def test_page_refuses_videos_that_it_cannot_link(tmp_path: Path, corpus: Corpus) -> None:
    stranger = ExampleAnswer(QUERY, (SearchHit(1, "unknown", 0.0, 1.0, 0.1),))
    with pytest.raises(DataError, match="does not hold the video 'unknown'"):
        write_page(tmp_path, "demo", FIGURES, [stranger], corpus)
    with pytest.raises(DataError, match="outside the page's folder"):
        write_page(tmp_path / "elsewhere", "demo", FIGURES, [ExampleAnswer(QUERY, HITS)], corpus)


def test_verdict_takes_the_best_true_moment() -> None:
    assert verdict(QUERY, SearchHit(1, "b & c", 15.0, 20.0, 0.0)) == ("right moment (IoU 1.00)", True)
    assert verdict(QUERY, SearchHit(1, "b & c", 10.0, 20.0, 0.0)) == ("right moment (IoU 0.50)", True)
