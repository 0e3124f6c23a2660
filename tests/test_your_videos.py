"""docs/YOUR_VIDEOS.md walked as a new user does: its commands, in its order, on a folder of generated clips."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.demo.corpus import CorpusSize, make_videos, plan_corpus, video_path

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
NUM_CLIPS = 24
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands_of_the_page() -> list[list[str]]:
    """The `dciml` commands of the page that train, up to what needs a download, without the server."""
    text = (ROOT / "docs" / "YOUR_VIDEOS.md").read_text(encoding="utf-8")
    text = text.partition("## Or: learn from a table of sentences")[2]
    text = text.partition("### With a pre-trained encoder")[0]
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.split(line) for line in lines]
    assert all(words[0] == "dciml" for words in found)
    return [words[1:] for words in found if words[1] != "serve"]


def run(words: list[str]) -> str:
    """What a command prints; it must end well."""
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, f"dciml {' '.join(words)}: {result.output}"
    return " ".join(result.output.split())


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder as the page asks for it, entered: clips and their table; one more clip waits beside it."""
    stories = plan_corpus(CorpusSize(train=NUM_CLIPS + 1, test=0), seed=11)
    make_videos(stories, tmp_path / "drawn", workers=2)
    (tmp_path / "clips").mkdir()
    sentences = {story.video_id: story.queries[0].sentence for story in stories[:NUM_CLIPS]}
    for video_id in sentences:
        shutil.copy(video_path(tmp_path / "drawn", video_id), tmp_path / "clips")
    silent = next(iter(sentences))  # a clip without a sentence
    with (tmp_path / "sentences.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["video", "sentence"])
        table.writerows([f"{name}.mp4", text] for name, text in sentences.items() if name != silent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return {name: text for name, text in sentences.items() if name != silent}


def test_the_page_leads_from_a_folder_to_answers(at_home: dict[str, str], tmp_path: Path) -> None:
    commands = commands_of_the_page()
    assert [words[0] for words in commands] == [
        "extract", "inspect", "import", "inspect", "train", "index", "search", "extract", "index-add",
    ]  # fmt: skip
    said = [run(words) for words in commands[:-2]]
    assert f"{NUM_CLIPS} videos extracted" in said[0]
    assert "Nothing wrong was found" in said[1]
    assert "Nothing wrong was found" in said[3]
    assert f"index: {NUM_CLIPS} videos indexed" in said[5]
    assert "train00" in said[6]

    from dciml import open_index

    searcher = open_index("index")
    found = [searcher.search(text, 1)[0].video_id == name for name, text in at_home.items()]
    assert sum(found) >= 0.8 * len(found)

    new = f"train{NUM_CLIPS:04d}"
    shutil.copy(video_path(tmp_path / "drawn", new), tmp_path / "clips")
    assert f"1 video extracted, {NUM_CLIPS} unchanged" in run(commands[-2])
    assert f"1 video added, {NUM_CLIPS + 1} videos" in run(commands[-1])
    assert new in open_index("index").index.video_ids
