"""Puts the figures of a GPU day into docs/PERFORMANCE.md and docs/RESULTS.md, between the markers that are there.

    python scripts/gpu_report.py gpu-day [ANOTHER-DAY …]

Reads summary.json of each folder that scripts/gpu_day.sh wrote; of a step that several days have, the last one that
ended well counts. What is not known is said. Running it twice changes nothing. A dry run measures nothing, and is
written into a copy of the documents only (`--docs FOLDER`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dciml.errors import DataError, DcimlError
from dciml.files import read_json, read_text, write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- gpu:begin -->", "<!-- gpu:end -->"
PAGES = ("PERFORMANCE.md", "RESULTS.md")
CORPUS_NAMES = ("demo", "flickr_stitched", "charades_sim")
Steps = dict[str, dict[str, Any]]


def read_days(folders: Sequence[Path]) -> Steps:
    """The steps of all days by name, each with the card, torch and revision it was run with.

    Raises:
        DataError: a folder has no summary, or it is damaged.
    """
    steps: Steps = {}
    for folder in folders:
        file = folder / "summary.json"
        day = read_json(file)
        if not isinstance(day, dict) or not isinstance(day.get("steps"), list):
            raise DataError("this is no summary of a day", where=file, mend="name the --out of gpu_day.sh")
        about = {key: day.get(key) for key in ("dry_run", "card", "torch", "git_revision")}
        for step in day["steps"]:
            if step["status"] == "ok" or step["step"] not in steps:
                steps[step["step"]] = step | {"day": about}
    return steps


def performance(steps: Steps) -> Iterator[str]:
    """The section for docs/PERFORMANCE.md."""
    yield from about(steps)
    yield from how_it_ended(steps)
    yield from section(steps, "tests", "Tests on the card", tests)
    for shape in ("activitynet", "charades", "tvr"):
        yield from section(steps, f"step-{shape}", f"A training step, {shape} shapes", train_step)
        yield from section(steps, f"compile-{shape}", f"Compiled, {shape} shapes", train_step)
    yield from section(steps, "ground", "Grounding one sentence", ground)
    yield from section(steps, "whole", "Whole answers", whole)
    yield from section(steps, "encoders", "Encoding frames", encoders)


def results(steps: Steps) -> Iterator[str]:
    """The section for docs/RESULTS.md."""
    names = [f"schedule-{name}" for name in CORPUS_NAMES]
    if not any(steps.get(name, {}).get("figures") for name in names):
        yield "No schedule has ended on a GPU yet: there is nothing to show here."
        return
    yield from about(steps)
    for name in CORPUS_NAMES:
        yield from section(steps, f"schedule-{name}", name, schedule)


def about(steps: Steps) -> Iterator[str]:
    """Card, torch and revision, each combination once."""
    for day in dict.fromkeys(tuple(step["day"].items()) for step in steps.values()):
        found = dict(day)
        dry = (
            "**A dry run on a processor at toy size: no figure here means anything.** "
            if found["dry_run"]
            else ""
        )
        yield (
            f"{dry}Card: {found['card'] or 'not known'}; torch {found['torch'] or 'not known'}; revision "
            f"`{(found['git_revision'] or 'not known')[:16]}`."
        )
    yield ""


def how_it_ended(steps: Steps) -> Iterator[str]:
    """A line a step."""
    yield "| step | ended | seconds |"
    yield "|---|---|---|"
    for step in sorted(steps.values(), key=lambda step: int(step["number"])):
        yield f"| {step['step']} | {step['status']} | {step['seconds']:.0f} |"
    yield ""


def section(
    steps: Steps, name: str, title: str, lines: Callable[[dict[str, Any]], Iterator[str]]
) -> Iterator[str]:
    """What a step found; nothing where it found nothing."""
    figures = steps.get(name, {}).get("figures")
    if not figures:
        return
    yield f"### {title}"
    yield ""
    yield from lines(figures)
    yield ""


def tests(figures: dict[str, Any]) -> Iterator[str]:
    """How many ended how, and what they noted."""
    ends = ", ".join(f"{figures[end]} {end}" for end in ("passed", "failed", "xfailed", "skipped"))
    yield f"`pytest -m gpu`: {ends}."
    if figures["names_failed"]:
        yield f"Failed: {', '.join(figures['names_failed'])}."
    for name, noted in figures["noted"].items():
        yield from (f"- {name}: {what}: {value}" for what, value in noted.items())


def train_step(figures: dict[str, Any]) -> Iterator[str]:
    """A row a path."""
    peaks = figures["peak_gflops"]
    products = ", ".join(f"{value / 1e3:.1f} TFLOP/s in {name}" for name, value in peaks.items())
    yield (
        f"{figures['videos']} videos, {figures['queries']} sentences. A large matrix product reached {products}, a "
        f"large copy {figures['peak_gb_per_second']:.0f} GB/s."
    )
    yield ""
    yield "| path | queries/s | a step | TFLOP/s (of the peak) | GB/s (of the peak) | kernels | memory | plain / this |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in figures["paths"]:
        kernels = "–" if row["kernel_share"] is None else f"{row['kernel_share']:.0%}"
        times = f"{row['times_plain']:.1f}" if row.get("times_plain") else "–"
        yield (
            f"| {row['path']} | {row['queries_per_second']:.1f} | {1e3 * row['seconds']:.1f} ms | "
            f"{row['gflops'] / 1e3:.2f} ({row['share_of_peak_gflops']:.1%}) | {row['gb_per_second']:.0f} "
            f"({row['share_of_peak_bandwidth']:.0%}) | {kernels} | {row['peak_gib']:.2f} GiB | {times} |"
        )
    if figures["failed"]:
        yield ""
        yield from (f"- {name} failed: `{why}`" for name, why in figures["failed"].items())


def ground(figures: dict[str, Any]) -> Iterator[str]:
    """Medians."""
    yield f"{figures['queries']} sentences, each in {figures['videos']} videos, {figures['shape']} shapes."
    yield ""
    yield "| videos | median | 95th percentile |"
    yield "|---|---|---|"
    for name in ("not seen before", "seen before"):
        yield f"| {name} | {figures[name]['median_ms']:.1f} ms | {figures[name]['p95_ms']:.1f} ms |"
    if "plain" in figures:
        yield f"| plain path | {figures['plain']['median_ms']:.1f} ms | – |"


def whole(figures: dict[str, Any]) -> Iterator[str]:
    """Medians."""
    parts = ", ".join(f"{name} {value} ms" for name, value in figures["median_ms_of"].items())
    yield (
        f"{figures['queries']} sentences over {figures['videos']} videos, {figures['grounded_videos']} grounded each: "
        f"{figures['median_ms']} ms at the median, {figures['p90_ms']} ms at the 90th percentile ({parts})."
    )


def encoders(figures: dict[str, Any]) -> Iterator[str]:
    """Frames a second."""
    yield "| model, random weights | model alone | with scaling and copying | numbers |"
    yield "|---|---|---|---|"
    for name, row in figures["models"].items():
        yield (
            f"| {name} | {row['model_frames_per_second']:.0f} frames/s | {row['encoder_frames_per_second']:.0f} "
            f"frames/s | {row['dtype']} |"
        )
    decoding = figures.get("decoding_frames_per_second")
    yield ""
    yield f"Decoding 640x360 H.264: {f'{decoding:.0f} frames/s a thread' if decoding else 'not measured'}."


def schedule(figures: dict[str, Any]) -> Iterator[str]:
    """The table with what it was trained on."""
    videos, queries, cut = figures["videos"], figures["queries"], figures.get("cut")
    yield (
        f"Settings `{figures['config']}`, {figures['epochs']} epochs, {figures['precision']}, text by "
        f"{figures['text_encoder']}, seeds {', '.join(map(str, figures['seeds']))}; {videos['train']} training videos "
        f"with {queries['train']} sentences, {videos['test']} test videos with {queries['test']}."
    )
    if cut:
        yield (
            f"**The corpus is cut:** {cut['train_videos']} of {cut['of_train_videos']} training videos, "
            f"{cut['test_videos']} of {cut['of_test_videos']} test videos, at most {cut['rows_at_most']} rows a video; "
            f"text: {cut['text']}. Not to be compared with figures of the whole corpus."
        )
    yield ""
    yield from figures["table"]


def put_between(file: Path, lines: Sequence[str]) -> bool:
    """Replace what stands between the markers; whether that changed anything.

    Raises:
        DataError: the page does not have each marker once, in order.
    """
    page = read_text(file)
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(f"the page does not have {BEGIN} and {END} once each", where=file, mend="put them in")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    body = "\n".join(lines).strip("\n")
    fresh = f"{head}{BEGIN}\n{body}\n{END}{tail}"
    if fresh != page:
        write_text(file, fresh)
    return fresh != page


def main() -> None:
    """Read the arguments and write the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("days", type=Path, nargs="+", metavar="DIR", help="the --out of scripts/gpu_day.sh")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the two pages")
    options = parser.parse_args()
    try:
        steps = read_days(options.days)
        if any(step["day"]["dry_run"] for step in steps.values()) and options.docs.resolve() == ROOT / "docs":
            raise DataError(
                "a dry run measures nothing", where=options.days[0], mend="name a copy with --docs"
            )
        for page, lines in zip(PAGES, (performance(steps), results(steps)), strict=True):
            changed = put_between(options.docs / page, list(lines))
            print(f"{options.docs / page}: {'written' if changed else 'as it was'}")
    except DcimlError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
