"""How well and how fast is one short event found in a long, mostly empty video?

    python benchmarks/long_video.py MODEL [--minutes 180] [--events 1] [--window-seconds S]

Draws a video with one planted event of eight seconds for each event asked for, extracts it with the built-in encoder,
indexes it in windows and asks for the event. MODEL is the model folder of a finished `dciml demo`.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np

from dciml.demo.drawing import ACTORS, COLOURS, EVENT_ACTIONS, SCENES
from dciml.demo.long_video import EVENT_SECONDS, MINUTE, PlantedEvent, write_long_video
from dciml.demo.story import Actor
from dciml.features import BuiltinVisualEncoder, WindowRule, extract_videos
from dciml.model_folder import load_model, open_searcher
from dciml.recipes.index import build_index


def draw_event(minutes: int, rng: np.random.Generator) -> PlantedEvent:
    """Any actor doing anything anywhere, somewhere in the video."""
    actor = Actor(str(rng.choice(sorted(ACTORS))), str(rng.choice(sorted(COLOURS))))
    offset = round(float(rng.uniform(0, MINUTE - EVENT_SECONDS)))
    start = float(rng.integers(minutes)) * MINUTE + offset
    return PlantedEvent(actor, str(rng.choice(EVENT_ACTIONS)), start, str(rng.choice(sorted(SCENES))))


def main() -> None:
    """Print one line an event, and a summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=int, default=180)
    parser.add_argument("--events", type=int, default=1)
    parser.add_argument("--window-seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = load_model(options.model)
    if options.window_seconds is not None:
        model = replace(model, windows=WindowRule.of(options.window_seconds))
    rng = np.random.default_rng(options.seed)
    ranks = []
    for number in range(options.events):
        planted = draw_event(options.minutes, rng)
        with tempfile.TemporaryDirectory() as folder:
            name, place = f"long{number}", Path(folder)
            write_long_video(place / f"{name}.mp4", options.minutes, planted, seed=number)
            begin = monotonic()
            extract_videos({name: place / f"{name}.mp4"}, BuiltinVisualEncoder(), place / "store", workers=1)
            extracted = monotonic()
            index = build_index(model, place / "store", place / "index")
            indexed = monotonic()
            query = planted.query(name)
            hits = open_searcher(place / "index", model_folder=options.model).search(query.sentence, 100)
            took = monotonic() - indexed
        start, end = query.moments[0]
        near = [h.rank for h in hits if abs(h.start_seconds - start) <= 2 and abs(h.end_seconds - end) <= 2]
        ranks.append(min(near, default=0))
        best = hits[0]
        print(
            f"{query.sentence!r} {start:.0f}–{end:.0f} s: first hit {best.start_seconds:.1f}–{best.end_seconds:.1f} s, "
            f"rank within 2 s: {ranks[-1] or '–'}; extracted in {extracted - begin:.0f} s, {len(index)} windows "
            f"indexed in {indexed - extracted:.1f} s, opened and asked in {took:.1f} s",
            flush=True,
        )
    first = sum(rank == 1 for rank in ranks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{first} of {len(ranks)} found to within 2 s by the first hit; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
