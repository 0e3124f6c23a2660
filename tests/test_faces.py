"""Every package has a face: what it shows is named in its `__init__.pyi`, and nobody reaches past it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "dciml"
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.pyi"))


def test_packages_have_faces() -> None:
    """In `recipes` each module is one recipe, and its own face; `cli` shows `main` alone."""
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == {*PACKAGES, "cli", "recipes"}


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_face_names_is_there(name: str) -> None:
    package = importlib.import_module(f"dciml.{name}")
    assert package.__all__
    for shown in package.__all__:
        assert getattr(package, shown) is not None


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_reaches_past_a_face(file: Path) -> None:
    own = file.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        for parts in (name.split(".") for name in names):
            reaches = parts[0] == "dciml" and len(parts) > 2 and parts[1] in PACKAGES and parts[1] != own
            assert not reaches, (
                f"{file}:{node.lineno} imports {'.'.join(parts)}; import from dciml.{parts[1]}"
            )


def test_a_face_loads_only_what_is_asked_for() -> None:
    code = "import sys; from dciml.method import TERMS; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
