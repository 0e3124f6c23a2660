"""The checks of the machine, on this machine and on made-up ones."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.recipes import doctor
from dciml.recipes.doctor import Check, can_work, run_checks


def state_of(checks: list[Check], name: str) -> str:
    """The state of the check of this name."""
    return next(check.state for check in checks if check.name == name)


def test_this_machine_passes_what_the_suite_itself_needs(tmp_path: Path) -> None:
    checks = run_checks(tmp_path)
    for name in ("Python", "packages", "torch", "h264"):
        assert state_of(checks, name) == "ok", checks
    assert all(check.mend for check in checks if check.state != "ok")
    assert not any("the check broke" in check.found for check in checks)


def test_only_a_failure_keeps_the_main_job_from_working() -> None:
    assert can_work([Check("a", "ok", ""), Check("b", "warn", "", "mend")])
    assert not can_work([Check("a", "ok", ""), Check("b", "fail", "", "mend")])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["numpy>=1", "no-such-package>=2", 'milvus-nothing; extra == "milvus"', "rich<1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: wanted)
    (packages,) = doctor.check_packages()
    assert packages.state == "fail"
    assert "no-such-package is missing" in packages.found
    assert "rich is " in packages.found
    assert "numpy" not in packages.found
    extras = {check.name: check for check in doctor.check_extras()}
    assert extras["extra milvus"].state == "warn"
    assert 'pip install "dciml[milvus]"' in extras["extra milvus"].mend
    assert extras["extra serve"].state == "ok"


def test_little_memory_is_a_warning_and_hardly_any_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((8e9, "ok"), (2e9, "warn"), (1e8, "fail")):
        monkeypatch.setattr(doctor, "free_memory", lambda free=free: int(free))
        assert next(doctor.check_memory()).state == state


def test_a_codec_that_cannot_be_written_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODECS", {"h264": "no-such-encoder", "no-such-format": "neither"})
    h264, other = doctor.check_codecs()
    assert (h264.state, other.state) == ("warn", "warn")
    assert "not written" in h264.found
    assert other.found == "cannot be read"


def test_cached_models_are_listed_and_offline_without_any_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert next(doctor.check_models()).state == "warn"
    blobs = tmp_path / "models--openai--clip" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "weights").write_bytes(b"12345")
    assert doctor.cached_models() == {"openai/clip": 5}
    assert [check.state for check in doctor.check_models()] == ["ok", "ok"]


def test_a_check_that_breaks_is_a_line_and_not_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> float:
        raise RuntimeError("no such file in this kernel")

    monkeypatch.setattr(doctor, "free_memory", broken)
    checks = run_checks(tmp_path)
    assert "no such file in this kernel" in next(c.found for c in checks if c.name == "memory")
    assert state_of(checks, "disk") in ("ok", "warn")


def test_the_command_ends_with_status_1_only_on_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, code in (("warn", 0), ("fail", 1)):
        monkeypatch.setattr(
            doctor, "run_checks", lambda folders=(), state=state: [Check("x", state, "found", "mend it")]
        )
        shown = CliRunner().invoke(app, ["doctor"])
        assert shown.exit_code == code
        assert "mend it" in shown.output
        printed = CliRunner().invoke(app, ["doctor", "--json"])
        assert printed.exit_code == code
        assert json.loads(printed.output)["can_work"] is (code == 0)


def test_what_killed_commands_left_is_removed_from_folders_and_those_in_them(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".index.abcdefgh.dciml-part").mkdir(parents=True)
    (tmp_path / "runs" / ".mine.part").write_text("mine")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"])
    found = {check["name"]: check["found"] for check in json.loads(done.stdout)["checks"]}
    assert ".index.abcdefgh.dciml-part" in found["leftovers"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".mine.part"]
