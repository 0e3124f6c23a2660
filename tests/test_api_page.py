"""docs/API.md: its examples run, in order, on a model, features and an index; and it names all that is public."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import dciml
from dciml.config import RunConfig
from dciml.errors import DataError, ModelError
from dciml.model_folder import load_model
from dciml.recipes.index import build_index
from dciml.recipes.train import train

PAGE = (Path(__file__).parent.parent / "docs" / "API.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_examples_of_the_page_run(
    tiny_config: Callable[..., RunConfig],
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in ("runs", "data", "indexes"):
        (tmp_path / folder).mkdir()
    tiny_data.rename(tmp_path / "data" / "mine")
    config = tiny_config(data={"folder": str(tmp_path / "data" / "mine")}, training={"epochs": 1})
    model = load_model(train(config, tmp_path / "runs" / "mine", quiet=True))
    build_index(model, tmp_path / "data" / "mine", tmp_path / "indexes" / "mine", split="test")
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 6
    names: dict[str, object] = {}
    for example in EXAMPLES:
        exec(compile(example, "docs/API.md", "exec"), names)
    said = capsys.readouterr().out
    assert said.startswith("1 test")
    assert "indexes/nowhere" in said


def test_page_names_all_that_is_public() -> None:
    assert all(f"`dciml.{name}`" in PAGE for name in dciml.__all__)
    assert PAGE.startswith(
        f"# From Python\n\n`dciml` has {['no', 'one', 'two', 'three'][len(dciml.__all__)]} public"
    )


@pytest.mark.parametrize("call", [dciml.load, dciml.open_index])
def test_names_that_no_file_system_takes_are_told_as_others(call: Callable[[str], object]) -> None:
    with pytest.raises((ModelError, DataError), match=r"no model here|there is no such folder"):
        call("x" * 300)
