"""docs/METHOD.md: what cites it finds its section, what it names is in the program, and its equations are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = ROOT / "docs" / "METHOD.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CITING = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "docs", "configs", "scripts")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".md", ".yaml", ".sh") and path not in (Path(__file__), METHOD)
)

WORD = re.compile(r"\bMETHOD\b(?!\.md)")
CITATION = re.compile(r"\bMETHOD §(\d+(?:\.\d+)?)")
PAGE = re.compile(r"\b([A-Z]+(?:_[A-Z]+)*)\.md\b")
ABSENT = re.compile(r"\b(?:DESIGN|FINDINGS|BASELINES)\b")
"""Pages that early comments cited, and that are not here."""

HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
ANCHOR = re.compile(r"\]\(([\w./-]*)#([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`(.*?)`\$", re.DOTALL)
NAME = re.compile(r"(?<!\$)`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def sections() -> frozenset[str]:
    headings = HEADING.findall(METHOD.read_text(encoding="utf-8"))
    return frozenset(heading.split()[0] for heading in headings if heading[0].isdigit())


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    return frozenset(re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings)


def wrong_citations(text: str) -> list[str]:
    """What a text cites in vain."""
    wrong = [f"METHOD §{number}" for number in CITATION.findall(text) if number not in sections()]
    if len(WORD.findall(text)) != len(CITATION.findall(text)):
        wrong.append("METHOD without the number of a section")
    if text.count("§") != len(CITATION.findall(text)):
        wrong.append("§ without METHOD before it")
    wrong += ABSENT.findall(text)
    known = {page.stem for page in PAGES}
    return wrong + [f"{page}.md" for page in PAGE.findall(text) if page not in known]


def own_citations() -> list[str]:
    return re.findall(r"(?<!METHOD )§(\d+(?:\.\d+)?)", METHOD.read_text(encoding="utf-8"))


def test_citations_lead_to_a_section_of_a_page_that_is_here() -> None:
    cited = 0
    wrong = {}
    for path in CITING:
        text = path.read_text(encoding="utf-8")
        cited += len(CITATION.findall(text))
        if found := wrong_citations(text):
            wrong[name_of(path)] = found
    assert not wrong
    assert cited > 20
    assert set(own_citations()) <= sections()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("METHOD §3.2; see METHOD §4", 0), ("METHOD §99", 1), ("as METHOD says", 1), ("DESIGN: index", 1),
        ("docs/NOWHERE.md", 1), ("METHOD.md, the page", 0), ("METHOD §3, §4", 1),
    ],
)  # fmt: skip
def test_a_citation_in_vain_is_found(text: str, number: int) -> None:
    assert len(wrong_citations(text)) == number


def test_sections_are_numbered_in_order() -> None:
    numbers = [
        tuple(map(int, h.split()[0].split(".")))
        for h in HEADING.findall(METHOD.read_text(encoding="utf-8"))
        if h[0].isdigit()
    ]
    assert numbers == sorted(set(numbers))
    assert [n[0] for n in numbers if len(n) == 1] == list(range(1, numbers[-1][0] + 1))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_a_heading_find_it(page: Path) -> None:
    for target, anchor in ANCHOR.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target:
            found = page if not target else (page.parent / target).resolve()
            assert anchor in anchors(found), f"{name_of(page)}: {target}#{anchor}"


def test_names_on_the_page_are_names_of_the_program() -> None:
    text = FENCE.sub("", METHOD.read_text(encoding="utf-8"))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    words = set(re.findall(r"\w+", sources))
    named = {part for name in NAME.findall(INLINE.sub("", text)) for part in name.split(".")}
    assert len(named) > 60
    assert named <= words, f"not in the program: {sorted(named - words)}"


def test_every_loss_is_on_the_page() -> None:
    from dciml.config import LossWeights

    text = METHOD.read_text(encoding="utf-8")
    assert [name for name in LossWeights.model_fields if f"`{name}`" not in text] == []


def equations() -> Iterator[str]:
    text = METHOD.read_text(encoding="utf-8")
    yield from (block for language, block in FENCE.findall(text) if language == "math")
    yield from INLINE.findall(FENCE.sub("", text))


def test_equations_are_whole() -> None:
    """GitHub shows what stands in ```math and between $` and `$; a brace too few, and it shows the source."""
    found = list(equations())
    assert len(found) > 60
    for equation in found:
        depth = 0
        for sign in re.findall(r"(?<!\\)[{}]", equation):
            depth += 1 if sign == "{" else -1
            assert depth >= 0, equation
        assert depth == 0, equation
        assert equation.count(r"\left") == equation.count(r"\right"), equation
        assert "|" not in equation or "\n" in equation, f"ends a cell of a table: {equation}"
    outside = INLINE.sub("", FENCE.sub("", METHOD.read_text(encoding="utf-8")))
    assert "$" not in outside
