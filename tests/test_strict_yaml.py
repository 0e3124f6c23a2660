from __future__ import annotations

from pathlib import Path

import pytest

from dciml.config import load_config, parse_config
from dciml.errors import ConfigError

BOMB = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "the key 'name' comes twice"),
        (BOMB, "an alias .* is not allowed"),
        ("name: !!python/name:os.system x\n", "a tag .* is not allowed"),
        ("name: " + "[" * 70 + "]" * 70, "nested more than 64 deep"),
        ("name: " + "[" * 5000 + "]" * 5000, "nested more than 64 deep"),
        ("seed: " + "9" * 5000, "a value of 5,000 characters"),
        ("? [a]\n: b\n", "a key is not a plain word"),
        ("name: 2001-99-99\n", "a value cannot be read"),
    ],
)
def test_yaml_that_is_no_plain_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "branch",
    [
        {"grounding": {"layers": 100_000}},
        {"grounding": {"num_proposals": 10**9}},
        {"retrieval": {"hidden": 10**9}},
        {"retrieval": {"num_blocks": 10**6}},
    ],
)
def test_sizes_of_a_model_are_bounded(branch: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="less than or equal to"):
        parse_config({"name": "a", "data": {"folder": "d"}, **branch}, "a.yaml")
