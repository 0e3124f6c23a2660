"""The checks of the machine, on this machine and on made-up ones."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from typer.testing import CliRunner

from dciml.cli.app import app
from dciml.config import RunConfig
from dciml.model_folder import load_model
from dciml.recipes import doctor
from dciml.recipes.doctor import Check, can_work, run_checks
from dciml.recipes.index import build_index
from dciml.recipes.train import train


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
    assert "too old to know it" in extras["extra serve"].found  # nothing was looked at, so nothing is claimed


def test_a_package_that_does_not_load_is_not_called_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_there.py").write_text("import no_such_library_of_c")
    info = tmp_path / "half_there-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-there\nVersion: 2.0\n")
    (info / "RECORD").write_text("half_there.py,,\nhalf_there-2.0.dist-info/METADATA,,\n")
    (info / "top_level.txt").write_text("half_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    doctor._modules_by_package.cache_clear()
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["half-there>=2", 'numpy; extra == "hub"'])
    (packages,) = doctor.check_packages()
    doctor._modules_by_package.cache_clear()
    assert packages.state == "fail"
    assert (
        "half-there does not load (ModuleNotFoundError: No module named 'no_such_library_of_c')"
        in packages.found
    )
    assert next(check for check in doctor.check_extras() if check.name == "extra hub").state == "ok"


class BrokenGpu:
    """What torch says of a GPU that it sees, and that computes nonsense."""

    class version:
        cuda = "13.0"

    class cuda:
        get_device_properties = staticmethod(lambda _: type("P", (), {"name": "G", "total_memory": 8e9}))

    @staticmethod
    def arange(stop: float) -> Any:
        return torch.zeros(int(stop))


def test_a_gpu_is_usable_only_where_a_product_came_out_right(monkeypatch: pytest.MonkeyPatch) -> None:
    doctor._compute(torch, "cpu")
    broken = doctor._check_gpu(BrokenGpu, 0)
    assert broken.state == "warn"
    assert "G (8 GB) is there, but does not compute" in broken.found


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    assert doctor._cannot_be_written(tmp_path / "gone") is None
    (tmp_path / "gone").rmdir()
    assert doctor._cannot_be_written(tmp_path / "gone") == "No such file or directory"


def test_a_format_whose_pictures_come_back_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODECS", {"h264": "libx264"})
    assert next(doctor.check_codecs()).found == "written, and read back alike"
    monkeypatch.setattr(doctor, "TOLERANCE", 0.0)
    (h264,) = doctor.check_codecs()
    assert (h264.state, h264.found) == ("fail", "cannot be read as it was written")


def test_folders_are_read_and_damage_in_them_ends_with_status_1(
    tmp_path: Path, tiny_config: Callable[..., RunConfig]
) -> None:
    config = tiny_config(training={"epochs": 1})
    train(config, tmp_path / "model", quiet=True)
    index = build_index(load_model(tmp_path / "model"), tmp_path / "tiny-data", tmp_path / "index")
    checks = run_checks(folders=(tmp_path, tmp_path / "tiny-data"))
    found = {Path(check.folder).name: check for check in checks if check.folder}
    assert {name: check.state for name, check in found.items()} == dict.fromkeys(
        ("model", "tiny-data", "index", "features"), "ok"
    )
    assert "the rows of 32 videos were read" in found["features"].found

    for file in (
        tmp_path / "tiny-data" / "features" / "rows.bin",
        next(index.path.glob("*.vectors")),
        tmp_path / "model" / "model.safetensors",
    ):
        content = bytearray(file.read_bytes())
        content[-4:] = b"\x12\x34\x56\x78"
        file.write_bytes(content)
    (tmp_path / "model" / "vocabulary.json").write_text("{")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), str(tmp_path / "tiny-data"), "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["can_work"], told["all_whole"]) == (True, False)
    states = {Path(check["folder"]).name: check["state"] for check in told["checks"] if check["folder"]}
    assert set(states.values()) == {"fail"}, told


def test_little_memory_is_a_warning_and_hardly_any_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((8e9, "ok"), (2e9, "warn"), (1e8, "fail")):
        monkeypatch.setattr(doctor, "free_memory", lambda free=free: int(free))
        assert next(doctor.check_memory()).state == state


def test_a_codec_that_cannot_be_written_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CODECS", {"h264": "no-such-encoder", "no-such-format": "neither"})
    h264, other = doctor.check_codecs()
    assert (h264.state, other.state) == ("warn", "warn")
    assert "not written" in h264.found
    assert "could not be tried" in h264.found
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
    _, cache = doctor.check_models()
    assert (cache.state, "not whole: openai/clip (there is no config.json)" in cache.found) == ("warn", True)
    snapshot = blobs.parent / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    save_file({"a": np.zeros(3, dtype=np.float32)}, snapshot / "model.safetensors")
    assert [check.state for check in doctor.check_models()] == ["ok", "ok"]
    weights = (snapshot / "model.safetensors").read_bytes()
    (snapshot / "model.safetensors").write_bytes(weights[:-4])  # as of a copy that was broken off
    assert [check.state for check in doctor.check_models()] == ["ok", "warn"]


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


def test_a_long_name_of_a_check_is_told_from_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "the home of a folder of videos"
    monkeypatch.setattr(doctor, "run_checks", lambda folders=(): [Check(name, "ok", "/films.dciml: in use")])
    assert f"{name} /films.dciml" in CliRunner().invoke(app, ["doctor"]).stdout


def test_what_killed_commands_left_is_removed_from_folders_and_those_in_them(tmp_path: Path) -> None:
    (tmp_path / "runs" / ".index.abcdefgh.dciml-part").mkdir(parents=True)
    (tmp_path / "runs" / ".mine.part").write_text("mine")
    done = CliRunner().invoke(app, ["doctor", str(tmp_path), "--json"])
    found = {check["name"]: check["found"] for check in json.loads(done.stdout)["checks"]}
    assert ".index.abcdefgh.dciml-part" in found["leftovers"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".mine.part"]
