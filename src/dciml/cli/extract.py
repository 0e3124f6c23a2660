"""`dciml extract` and `dciml merge-stores`: arguments and printing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dciml.cli.options import JsonOption, new_folder, say, wait_asleep
from dciml.cli.serve import SpeechModelOption, YesOption, make_sure_of_speech, wanted_speech

if TYPE_CHECKING:
    from rich.console import Console

    from dciml.features import Extraction, ExtractionProgress, Failure, Shard

PathsArgument = Annotated[
    list[str], typer.Argument(help="Video files, folders (with all inside) and globs.", metavar="PATH…")
]
OutOption = Annotated[
    Path, typer.Option("--out", help="The feature store: a new one, or one to bring up to date.")
]
EncoderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--encoder",
        help="builtin, image:MODEL, video:MODEL or text:TEXT-ENCODER; several stand side by side in each row. "
        "Default: that of the store, and builtin for a new one.",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rows-per-second",
        min=1e-3,
        max=1000,
        help="Feature rows a second. Default: as the store, and 2 for a new one.",
    ),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, max=512, help="How many videos at a time, each a process.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="Where models run: cpu, cuda or cuda:N.")]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only part I of N, into OUT.shards; join them with merge-stores."
    ),
]
IdsOption = Annotated[
    Literal["stem", "path"],
    typer.Option("--ids", help="What names a video: its file's name, or the way to it from the PATH given."),
]
SpeechOption = Annotated[
    bool,
    typer.Option(
        "--speech",
        help="With an encoder of text: recognise what is said in videos that have no subtitles beside them (extra "
        "`speech`).",
    ),
]
RayOption = Annotated[bool, typer.Option("--ray", help="Share the work out by Ray Data (extra `ray`).")]
StoresArgument = Annotated[
    list[Path], typer.Argument(help="Feature stores of one encoder.", metavar="STORE…")
]
NewOutOption = Annotated[
    Path, typer.Option("--out", callback=new_folder, help="The store to write; must not exist yet.")
]

PrecisionOption = Annotated[
    Literal["bf16", "int8"] | None,
    typer.Option(
        "--precision",
        help="Arithmetic of models: bf16 is up to three times as fast on processors that compute it, int8 (on "
        "processors alone) faster still and coarser. Left out: float32, and half precision on a GPU.",
    ),
]

USAGE_ERROR = 2


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("extract")(extract)
    app.command("merge-stores")(merge_stores)


def extract(
    paths: PathsArgument,
    out: OutOption,
    encoder: EncoderOption = None,
    rows_per_second: RateOption = None,
    workers: WorkersOption = 2,
    device: DeviceOption = "cpu",
    shard: ShardOption = None,
    ids: IdsOption = "stem",
    ray: RayOption = False,
    precision: PrecisionOption = None,
    json: JsonOption = False,
    speech: SpeechOption = False,
    speech_model: SpeechModelOption = None,
    yes: YesOption = False,
) -> None:
    """Turn video files into a feature store; a second call does only what is missing or changed."""
    wait_asleep()
    from rich.console import Console

    from dciml.errors import ConfigError, DataError
    from dciml.recipes import extract as recipe

    spoken = wanted_speech(speech or None, speech_model)
    options = recipe.ExtractOptions(
        tuple(encoder or ()),
        rows_per_second,
        workers,
        device,
        _parse_shard(shard),
        ids,
        ray,
        precision,
        spoken,
    )
    try:
        make_sure_of_speech(spoken, yes)
        plan = recipe.plan_extraction(paths, out, options)
    except (DataError, ConfigError) as error:  # nothing was tried yet: the call itself is wrong
        typer.echo(f"dciml: {error}", err=True)
        raise typer.Exit(USAGE_ERROR) from None
    console = Console(stderr=True)
    with _progress(console) as report:
        done = recipe.extract(plan, options, report, lambda failure: _print_failure(console, failure))
    say(_summary(done, plan.store_path), _facts(done, plan.store_path), as_json=json)
    if done.failures:
        typer.echo(f"What failed is listed in {plan.store_path / recipe.FAILURES_FILE}", err=True)
        raise typer.Exit(1)


def merge_stores(stores: StoresArgument, out: NewOutOption, json: JsonOption = False) -> None:
    """Join feature stores of one encoder, such as the shards of an extraction, into a new one."""
    from dciml.features import merge_stores as merge

    merged = merge(stores, out)
    facts = {"store": out, "videos": len(merged), "merged": stores}
    say(f"{out}: {_videos(len(merged))} of {len(stores)} stores.", facts, as_json=json)


def _parse_shard(text: str | None) -> Shard | None:
    from dciml.features import Shard

    try:
        return None if text is None else Shard.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None


def _print_failure(console: Console, failure: Failure) -> None:
    console.print(
        f"failed: {failure.video_id}: {failure.error}", soft_wrap=True, highlight=False, markup=False
    )


def _summary(done: Extraction, store_path: Path) -> str:
    parts = [f"{_videos(len(done.done))} extracted", f"{len(done.unchanged)} unchanged"]
    if done.failures:
        parts.append(f"{len(done.failures)} failed")
    return f"{store_path}: {', '.join(parts)}."


def _facts(done: Extraction, store_path: Path) -> dict[str, object]:
    failed = [
        {
            "video_id": failure.video_id,
            "path": failure.path,
            "reason": failure.error.what,
            "mend": failure.error.mend,
        }
        for failure in done.failures
    ]
    return {"store": store_path, "extracted": done.done, "unchanged": done.unchanged, "failed": failed}


def _videos(count: int) -> str:
    return "1 video" if count == 1 else f"{count} videos"


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[ExtractionProgress], None]]:
    """A line over the bytes of the files, with videos done, the time left, and frames a second."""
    from time import monotonic

    from dciml.progress_line import ProgressLine

    begin = monotonic()
    with ProgressLine(console) as line:
        line.begin("looking at the files")

        def report(now: ExtractionProgress) -> None:
            finished = now.num_unchanged + now.num_done + now.num_failed
            speed = now.num_pictures / max(monotonic() - begin, 1e-3)
            line.tell(
                now.bytes_done,
                total=now.num_bytes,
                what=f"{finished} of {_videos(now.num_videos)}",
                details=f"{speed:.0f} frames/s",
            )

        yield report
