"""Times for people: one rule. The page is held to the same table in tests/service/page/test_page_groups.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dciml.clock import clock, clock_name, clock_range
from dciml.recipes.cut import clip_name
from dciml.types import SearchHit

CASES = json.loads(Path(__file__).with_name("clock_cases.json").read_text())


@pytest.mark.parametrize(("seconds", "said"), CASES)
def test_times_are_whole_seconds_that_have_passed(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_moments_and_names_of_files_say_the_same() -> None:
    assert clock_range(59.96, 3723.2) == "01:00–1:02:03"
    assert (clock_name(59.96), clock_name(3723.2)) == ("01m00s", "1h02m03s")
    assert clip_name(SearchHit(2, "v", 59.96, 61.0, 1.0)) == "02_v_01m00s-01m01s.mp4"
