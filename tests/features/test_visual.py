"""The built-in encoder: shape, the same rows whatever the blocks, and numbers that mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dciml.features.encoders import visual
from dciml.features.encoders.joined import encode_video
from dciml.features.encoders.visual import BuiltinVisualEncoder
from dciml.media import VideoInfo, write_video

HEIGHT, WIDTH = 48, 64


def scene_with_square(places: list[tuple[int, int] | None], colour: tuple[int, int, int]) -> np.ndarray:
    """Grey pictures with a square of side 10 at (top, left), or none."""
    found = np.full((len(places), HEIGHT, WIDTH, 3), 110, dtype=np.uint8)
    for picture, place in zip(found, places, strict=True):
        if place is not None:
            picture[place[0] : place[0] + 10, place[1] : place[1] + 10] = colour
    return found


def crossing(step: int, count: int = 20) -> list[tuple[int, int] | None]:
    """A square that crosses between two still times without it."""
    path = range(2, 52, abs(step))
    inside: list[tuple[int, int] | None] = [(20, left) for left in (path if step > 0 else reversed(path))]
    return [None] * count + inside + [None] * count


def encode_pictures(pictures: np.ndarray, rows_per_second: float = 2.0) -> np.ndarray:
    encoder = BuiltinVisualEncoder(rows_per_second)
    duration = len(pictures) / encoder.frames_per_second
    builder = encoder.begin(VideoInfo(duration, WIDTH, HEIGHT, encoder.frames_per_second, Path("v.mp4")))
    for index, picture in enumerate(pictures):
        builder.add(index / encoder.frames_per_second, picture)
    return builder.finish()


def encode_whole(pictures: np.ndarray, samples_per_row: int = 2) -> np.ndarray:
    """The definition: all pictures at once, each block with the background of the pictures around it."""
    parts, tracks = [], []
    for start in range(0, len(pictures), 64):
        end = min(start + 64, len(pictures))
        around = pictures[max(start - 80, 0) : end + 80]
        found = visual._encode_block(pictures[max(start - 1, 0) : end], pictures[start:end], around)
        parts.append(found[0])
        tracks.append(found[1])
    course = np.concatenate(tracks)
    courses = [visual.GAINS["course"] * visual.course_of(course, reach) for reach in visual.CONTEXTS]
    samples = np.concatenate([np.concatenate(parts), visual.GAINS["tracks"] * course, *courses], axis=1)
    groups = range(0, len(samples), samples_per_row)
    return np.stack([samples[k : k + samples_per_row].mean(axis=0) for k in groups])


def test_rows_have_the_stated_width_and_rate(tmp_path: Path) -> None:
    encoder = BuiltinVisualEncoder()
    write_video(tmp_path / "v.mp4", scene_with_square(crossing(5), (220, 30, 30)), 10)
    encoded = encode_video(tmp_path / "v.mp4", encoder)
    assert encoded.duration_seconds == 5.0
    assert encoded.rows.shape == (10, encoder.width)
    assert encoded.rows.dtype == np.float32
    assert np.isfinite(encoded.rows).all()


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_any_pictures_give_finite_rows(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.integers(0, 256, 2))
    some = rng.integers(low, high + 1, (count, HEIGHT, WIDTH, 3)).astype(np.uint8)
    rows = encode_pictures(some)
    assert rows.shape == (-(-count // 2), BuiltinVisualEncoder.width)
    assert np.isfinite(rows).all()
    assert np.abs(rows).max() < 100


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 144, 145, 208, 229])
def test_streaming_gives_the_rows_of_the_whole(count: int) -> None:
    places = [None if k % 50 < 20 else (5 + k % 30, (3 * k) % 50) for k in range(count)]
    some = (
        scene_with_square(places, (30, 60, 220))
        + (np.arange(count) % 9).astype(np.uint8)[:, None, None, None]
    )
    np.testing.assert_allclose(encode_pictures(some), encode_whole(some), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rate", "samples_per_row", "frames_per_second"), [
    (0.5, 8, 4.0), (1.0, 4, 4.0), (1.5, 3, 4.5), (3.0, 1, 3.0), (8.0, 1, 8.0),
])  # fmt: skip
def test_rate_is_settable(rate: float, samples_per_row: int, frames_per_second: float) -> None:
    encoder = BuiltinVisualEncoder(rate)
    assert encoder.frames_per_second == frames_per_second
    some = scene_with_square([*crossing(3), *crossing(-2), *crossing(3)], (220, 30, 30))
    np.testing.assert_allclose(
        encode_pictures(some, rate), encode_whole(some, samples_per_row), rtol=1e-5, atol=1e-6
    )


def test_a_long_video_is_not_held() -> None:
    builder = BuiltinVisualEncoder().begin(VideoInfo(150.0, WIDTH, HEIGHT, 4.0, Path("v.mp4")))
    some = scene_with_square(crossing(3), (220, 30, 30))
    held = []
    for index in range(600):
        builder.add(index / 4, some[index % len(some)])
        held.append(len(builder._pictures))
    assert max(held) <= 64 + 2 * 80
    assert builder.finish().shape == (300, 581)


def test_blocks_change_nothing_but_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    some = scene_with_square(crossing(3), (220, 30, 30))
    whole = encode_pictures(some)
    monkeypatch.setattr(visual, "BLOCK", 7)
    np.testing.assert_allclose(encode_pictures(some), whole, atol=1e-4)


def test_encoding_leaves_its_input_alone() -> None:
    some = scene_with_square(crossing(5), (220, 30, 30))
    before = some.copy()
    encode_pictures(some)
    np.testing.assert_array_equal(some, before)


@pytest.mark.parametrize(("step", "sign"), [(4, 1), (-4, -1)])
def test_course_tells_the_direction(step: int, sign: int) -> None:
    some = scene_with_square(crossing(step), (220, 30, 30))
    background = np.full((HEIGHT, WIDTH, 3), 110, dtype=np.float32)
    tracks = visual.find_foreground(some, background).tracks
    drift_x = visual.course_of(tracks, 3)[:, 0]
    middle = len(some) // 2
    assert sign * drift_x[middle] > 0.3
    assert abs(drift_x[5]) < 0.01
    assert abs(visual.course_of(tracks, 3)[middle, 1]) < 0.05  # it does not rise or fall


def test_foreground_is_where_the_square_is() -> None:
    some = scene_with_square([None, (10, 40)], (220, 30, 30))
    found = visual.find_foreground(some, np.full((HEIGHT, WIDTH, 3), 110, dtype=np.float32))
    assert found.presence[0] < 0.01
    assert found.presence[1] > 0.8
    center_x, center_y = found.tracks[1, :2] / found.presence[1]
    assert center_x == pytest.approx(2 * 44.5 / 63 - 1, abs=0.03)
    assert center_y == pytest.approx(2 * 14.5 / 47 - 1, abs=0.03)


def test_a_swaying_camera_is_no_foreground() -> None:
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(30, 220, (13, 17, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    views = np.stack([wide[y : y + HEIGHT, x : x + WIDTH] for y, x in [(1, 1), (0, 1), (2, 2), (1, 0)]])
    found = visual.find_foreground(views, views[0].astype(np.float32))
    assert found.presence.max() < 0.05


def test_changing_light_is_no_foreground() -> None:
    rng = np.random.default_rng(0)
    background = rng.integers(60, 180, (HEIGHT, WIDTH, 3)).astype(np.float32)
    darker = (background * 0.7).astype(np.uint8)[None]
    assert visual.find_foreground(darker, background).presence[0] < 0.01


def test_foreground_hue_is_named() -> None:
    some = scene_with_square([(10, 40)], (30, 60, 220))
    found = visual.find_foreground(some, np.full((HEIGHT, WIDTH, 3), 110, dtype=np.float32))
    hues = visual.foreground_look(some, visual.colour_name_indices(some), found)["hues"][0]
    assert visual.COLOUR_NAMES[int(hues.argmax())] == "blue"


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((128, 128, 128), "grey"),
        ((255, 255, 255), "white"),
        ((220, 20, 20), "red"),
        ((250, 130, 10), "orange"),
        ((120, 70, 30), "brown"),
        ((240, 220, 20), "yellow"),
        ((30, 170, 40), "green"),
        ((30, 200, 220), "cyan"),
        ((20, 40, 220), "blue"),
        ((140, 40, 190), "purple"),
        ((250, 60, 160), "pink"),
    ],
)
def test_colours_have_their_names(colour: tuple[int, int, int], name: str) -> None:
    index = visual.colour_name_indices(np.array(colour, dtype=np.uint8).reshape(1, 1, 1, 3))
    assert visual.COLOUR_NAMES[int(index.item())] == name


def test_colour_shares_equal_counting() -> None:
    rng = np.random.default_rng(1)
    names = rng.integers(0, 12, (2, 12, 16))
    shares = visual.colour_name_shares(names, 3, 4).reshape(2, 3, 4, 12)
    for n, row, column, name in np.ndindex(2, 3, 4, 12):
        cell = names[n, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert shares[n, row, column, name] == pytest.approx(np.sqrt((cell == name).mean()))


def test_edges_have_their_direction() -> None:
    ramp = np.tile(np.arange(WIDTH, dtype=np.float32), (HEIGHT, 1))
    across = visual.edge_directions(ramp[None]).reshape(12, 8)
    down = visual.edge_directions(np.tile(np.arange(HEIGHT, dtype=np.float32)[:, None], (1, WIDTH))[None])
    assert (across.argmax(axis=1) == 0).all()
    assert (down.reshape(12, 8).argmax(axis=1) == 4).all()


def test_flow_has_its_sign() -> None:
    x = np.arange(WIDTH, dtype=np.float32)
    moving = np.stack([np.tile(100 + 50 * np.sin((x - shift) / 4), (HEIGHT, 1)) for shift in (0, 1, 2)])
    change = visual.change_by_cell(moving)
    assert (change[0] == 0).all()
    assert (change[1:, 16:32] > 0.2).all()  # to the right
    assert np.abs(change[1:, 32:]).max() < 1e-3


def test_window_sums_equal_the_slow_definition() -> None:
    values = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    found = visual._window_sums(values, 2)
    slow = [values[max(i - 2, 0) : i + 3].sum(axis=0) for i in range(9)]
    np.testing.assert_allclose(found, slow, atol=1e-5)
