"""Everybody can use it: axe-core finds no serious fault in any state, in light and in dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.browser
QUESTION = "?q=a+light+wanders+to+the+right"
STATES = {
    "home": ("", ".try"),
    "results": (QUESTION, "#results a.hit .times"),
    "player": (f"{QUESTION}&v=kitchen%2Fclock&t=3-4.5", ".lanes .span"),
    "broken": ("?v=broken&t=2-5", ".fault:not([hidden])"),
    "nothing": ("?q=a+dog&min=500&folder=nowhere", ".notice .primary"),
    "error": ("?q=%3F", ".notice.bad"),
    "videos": ("?view=videos", "#videos-view a.hit"),
}
PHONE = {"viewport": {"width": 360, "height": 740}}


def faults(page: Any) -> list[str]:
    """What axe-core calls serious or critical, after the rules of WCAG 2.2 AA and its best practices."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary']}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def open_state(visit: Callable[..., Any], state: str, **settings: Any) -> Any:
    """A window in that state, without movement, so that no colour is caught half faded."""
    address, sign = STATES[state]
    visitor = visit(address, reduced_motion="reduce", **settings)
    visitor.page.wait_for_selector(sign)
    return visitor


def test_no_serious_fault_with_the_player_open(visit: Callable[..., Any]) -> None:
    visitor = open_state(visit, "player")
    assert faults(visitor.page) == []
    visitor.page.emulate_media(color_scheme="dark")
    assert faults(visitor.page) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [{}, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_no_serious_fault(visit: Callable[..., Any], state: str, scheme: str, size: dict[str, Any]) -> None:
    assert faults(open_state(visit, state, color_scheme=scheme, **size).page) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_in_the_help_and_the_open_filters(visit: Callable[..., Any], scheme: str) -> None:
    visitor = open_state(visit, "results", color_scheme=scheme)
    visitor.page.click("summary")
    assert faults(visitor.page) == []
    visitor.page.click("#help")
    visitor.page.wait_for_selector("dialog[open]")
    assert faults(visitor.page) == []


@pytest.mark.slow
def test_the_colours_follow_the_switch_and_stay(visit: Callable[..., Any]) -> None:
    visitor = visit(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visitor.page.evaluate(ground)
    visitor.page.click("#theme")
    visitor.page.click("#theme")
    assert visitor.page.get_attribute("#theme", "aria-label") == "Colours: dark"
    dark = visitor.page.evaluate(ground)
    assert dark != light
    visitor.page.reload()
    assert visitor.page.evaluate(ground) == dark


@pytest.mark.slow
def test_what_happens_is_said_to_a_screen_reader(visit: Callable[..., Any]) -> None:
    visitor = open_state(visit, "results")
    assert "found in" in visitor.page.text_content("[role=status]#status")
    visitor.page.click("#results a.hit >> nth=0")
    visitor.until("document.querySelector('#said').textContent.length > 0")
    assert visitor.page.text_content("#player-title") in visitor.page.text_content("#said")


@pytest.mark.slow
def test_targets_are_large_enough_to_hit(visit: Callable[..., Any]) -> None:
    visitor = open_state(visit, "player", viewport={"width": 360, "height": 740})
    small = visitor.page.evaluate(
        "[...document.querySelectorAll('#player button, #player a, #player select')]"
        ".filter((one) => one.offsetParent && (one.offsetWidth < 24 || one.offsetHeight < 24))"
        ".map((one) => one.outerHTML)"
    )
    assert small == []
