"""Everything that needs a GPU, in order of worth, for a machine that is at hand for half an hour, without network.

    scripts/gpu_day.sh --minutes 28 --out gpu-day --pack .gpu     # sets the paths, then calls this
    scripts/gpu_day.sh --only tests,step-activitynet              # single steps; --list names them
    scripts/gpu_day.sh --dry-run                                  # every step on the processor, at toy size

    OUT/NN-STEP.log    what the step printed
    OUT/NN-STEP.json   command, seconds, status, figures: written the moment it is known
    OUT/summary.json   all of these, the card, torch and the git revision: written anew after each step
    OUT/work/          runs, indexes, the toy corpus

A step that fails or runs out of time stops no other one. A step of an earlier call into the same OUT that ended well is
not run again (but with --again), and a schedule that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from dciml.errors import DcimlError
from dciml.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ("demo", "flickr_stitched", "charades_sim")
SEEDS = (1, 2, 3)
LEAST_SECONDS = 10.0  # of time left, for a step to be begun at all
GRACE_SECONDS = 20.0  # between asking a step to stop and ending it; a training saves its state
TAIL = 2000  # characters of the log that stay with the result
OK, FAILED, TIMED_OUT, NO_TIME, SKIPPED = "ok", "failed", "timed out", "no time", "skipped"

Command = list[str]


@dataclass(frozen=True)
class Step:
    """One thing to find out.

    Attributes:
        stages: one after the other; the commands of a stage run side by side.
        figures: a file that the commands write.
        read: turns that file into figures.
        missing: why it cannot be run here; None where it can.
    """

    name: str
    limit_seconds: float
    stages: tuple[tuple[Command, ...], ...]
    figures: Path | None = None
    read: Callable[[Path], Any] = read_json
    missing: str | None = None


@dataclass(frozen=True)
class Day:
    """What all steps share. `settings` are further ones for the schedules, key=value."""

    out: Path
    pack: Path
    dry: bool
    full: bool
    settings: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """Where the work is done."""
        return "cpu" if self.dry else "cuda"

    def script(self, name: str, *words: object) -> Command:
        """A Python script of the repository."""
        return [sys.executable, str(ROOT / name), *map(str, words)]

    def work(self, name: str) -> Path:
        """A place for a step's own files."""
        return self.out / "work" / name

    def corpus(self, name: str) -> Path:
        """The data folder: the toy one, the packed one, or for the demo the one that is made here."""
        if self.dry or (name == "demo" and not (self.pack / "corpora" / name).is_dir()):
            return self.work("demo-corpus")
        return self.pack / "corpora" / name

    def why_missing(self, name: str) -> str | None:
        """Why a corpus cannot be used; None where it can."""
        folder = self.corpus(name)
        made_here = folder == self.work("demo-corpus")
        if made_here or (folder / "data.json").is_file():
            return None
        return f"{folder} is not there; pack it with scripts/gpu_pack.sh --corpus {name}=DATA"


def steps_of(day: Day) -> list[Step]:
    """All steps, the most worth first."""
    return [
        machine_step(day),
        tests_step(day),
        *(train_step(day, shape) for shape in ("activitynet", "charades", "tvr")),
        ground_step(day),
        corpus_step(day),
        whole_step(day),
        *(schedule_step(day, name) for name in CORPORA),
        encoders_step(day),
        # At toy size shapes do not differ, and to trace a step takes a minute or two.
        *(
            compile_step(day, shape)
            for shape in (("activitynet",) if day.dry else ("activitynet", "charades"))
        ),
    ]


def machine_step(day: Day) -> Step:
    """Card, packages, and what the machine reaches at best."""
    file = day.work("machine.json")
    return Step("machine", 90, ((day.script("scripts/gpu_machine.py", file, *["--quick"] * day.dry),),), file)


def tests_step(day: Day) -> Step:
    """The tests that are marked `gpu`."""
    file = day.work("tests.xml")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-W", "default", "-p", "no:cacheprovider"]
    command += [str(ROOT / "tests" / "gpu"), f"--junit-xml={file}", f"--basetemp={day.work('tests')}"]
    return Step("tests", 240, ((command,),), file, read_tests)


def train_step(day: Day, shape: str) -> Step:
    """Speed of the training step, beside the plain path of the same losses."""
    name = f"step-{shape}"
    file = day.work(f"{name}.json")
    words = ["--shape", shape, "--device", day.device, "--reference", "--rounds", 10, "--threads", 8]
    if day.dry:
        words = ["--shape", "tiny", "--reference", "--rounds", 1, "--threads", 1, "--precision", "32-true"]
    return Step(name, 150, ((day.script("benchmarks/train_step.py", *words, "--json", file),),), file)


def compile_step(day: Day, shape: str) -> Step:
    """The same with torch.compile and CUDA graphs; apart, since to compile takes minutes and may not end."""
    name = f"compile-{shape}"
    file = day.work(f"{name}.json")
    words = ["--shape", shape, "--device", day.device, "--rounds", 10, "--threads", 8]
    words += ["--precision", "bf16-mixed", "--compile"]
    if day.dry:
        words = ["--shape", "tiny", "--rounds", 1, "--threads", 1, "--precision", "32-true"]
        words += ["--compile", "compiled", "--backend", "eager"]
    return Step(name, 300, ((day.script("benchmarks/train_step.py", *words, "--json", file),),), file)


def ground_step(day: Day) -> Step:
    """One sentence in ten videos."""
    file = day.work("ground.json")
    words = ["--shape", "activitynet", "--device", day.device, "--reference", "--threads", 8]
    if day.dry:
        words = ["--shape", "tiny", "--reference", "--threads", 1, "--queries", 2, "--videos", 2]
    return Step("ground", 90, ((day.script("benchmarks/ground.py", *words, "--json", file),),), file)


def corpus_step(day: Day) -> Step:
    """The demo corpus, where the pack holds none: videos are drawn and read, which needs PyAV."""
    folder = day.work("demo-corpus")
    words = ["--train", 16, "--test", 6] if day.dry else ["--train", 220, "--test", 60]
    stages = ((day.script("scripts/gpu_pack.py", "demo-corpus", *words, "--out", folder),),)
    return Step("corpus", 180, stages if day.corpus("demo") == folder else ())


def whole_step(day: Day) -> Step:
    """Whole answers over many videos, with a model that is trained shortly."""
    file, folder = day.work("whole.json"), day.work("whole")
    words: list[object] = ["--data", day.corpus("demo"), "--model", folder / "model", "--folder", folder]
    words += ["--config", ROOT / "src" / "dciml" / "demo" / "demo.yaml", "--device", day.device]
    words += (
        ["--videos", 30, "--queries", 5, "--threads", 1] if day.dry else ["--videos", 2000, "--threads", 8]
    )
    words += ["--set", "training.epochs=1"] if day.dry else []
    stages = ((day.script("benchmarks/whole_answer.py", *words, "--json", file),),)
    return Step("whole", 180, stages, file, missing=day.why_missing("demo"))


def schedule_step(day: Day, corpus: str) -> Step:
    """A whole schedule with its evaluation: one process a seed, side by side, then the table."""
    name = f"schedule-{corpus}"
    file = day.work(f"{name}.json")
    seeds = (SEEDS[:2] if corpus == "demo" else SEEDS[:1]) if day.dry else SEEDS
    words: list[object] = [corpus, "--data", day.corpus(corpus), "--out", day.work("runs")]
    words += ["--variants", "dciml", "--device", day.device]
    full = ROOT / "configs" / "full" / f"{corpus}.yaml"
    if day.full and full.is_file():
        words += ["--config", full]
    settings = [f"training.accelerator={day.device}", *day.settings]
    if (day.corpus(corpus) / "text").is_dir():
        settings.append(f"text.encoder=vectors:{day.corpus(corpus) / 'text'}")
    if day.dry:
        settings += ["training.epochs=1", "training.precision=32-true", "text.encoder=words:16"]
        settings += ["retrieval.hidden=16", "grounding.hidden=16", "retrieval.heads=2", "grounding.heads=2"]
        settings += ["mutual.from_epoch=0"]
    words += [word for setting in settings for word in ("--set", setting)]
    one = tuple(day.script("benchmarks/results.py", *words, "--trained-only", "--seeds", s) for s in seeds)
    table = day.script("benchmarks/results.py", *words, "--seeds", *seeds, "--json", file)
    return Step(name, 360, (one, (table,)), file, missing=day.why_missing(corpus))


def encoders_step(day: Day) -> Step:
    """Frames a second of image encoders."""
    file = day.work("encoders.json")
    words: list[object] = (
        ["--models", "tiny", "--pictures", 8, "--threads", 1] if day.dry else ["--threads", 8]
    )
    command = day.script("benchmarks/encoders.py", *words, "--device", day.device, "--json", file)
    return Step("encoders", 150, ((command,),), file)


def read_tests(file: Path) -> dict[str, Any]:
    """How many tests ended how, the names of those that failed, and what they noted."""
    cases: dict[str, str] = {}
    noted: dict[str, dict[str, str]] = {}
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        name = case.get("name", "?")
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            cases[name] = "failed"
        elif skipped is not None:
            cases[name] = "xfailed" if skipped.get("type") == "pytest.xfail" else "skipped"
        else:
            cases[name] = "passed"
        properties = {p.get("name", "?"): p.get("value", "") for p in case.iter("property")}
        if properties:
            noted[name] = properties
    ends = {end: sum(e == end for e in cases.values()) for end in ("passed", "failed", "xfailed", "skipped")}
    return {**ends, "names_failed": [n for n, end in cases.items() if end == "failed"], "noted": noted}


def run_step(step: Step, number: int, day: Day, limit_seconds: float) -> dict[str, Any]:
    """Run it, and write its log and its result."""
    stem = f"{number:02d}-{step.name}"
    result: dict[str, Any] = {"step": step.name, "number": number, "dry_run": day.dry}
    result["limit_seconds"] = round(limit_seconds, 1)
    result["commands"] = [shown(command) for stage in step.stages for command in stage]
    begin, status, tail = monotonic(), SKIPPED, ""
    why = step.missing or (None if step.stages else "nothing to do")
    if why is None and limit_seconds < LEAST_SECONDS:
        status, why = NO_TIME, "no time was left"
    if why is None:
        if step.figures is not None:
            step.figures.parent.mkdir(parents=True, exist_ok=True)
            step.figures.unlink(missing_ok=True)
        with (day.out / f"{stem}.log").open("wb") as log:
            status = run_stages(step.stages, log, environment(day), begin + limit_seconds)
        tail = (day.out / f"{stem}.log").read_text(encoding="utf-8", errors="replace")[-TAIL:]
    result |= {"status": status, "seconds": round(monotonic() - begin, 1), "figures": None}
    if why is not None:
        result["why"] = why
    elif step.figures is not None and step.figures.is_file():
        try:
            result["figures"] = finite(step.read(step.figures))
        except (DcimlError, ElementTree.ParseError, ValueError) as error:
            result["why"] = f"the figures cannot be read: {error}"
    if tail:
        result["log_ends"] = tail
    write_json(day.out / f"{stem}.json", result)
    return result


def shown(command: Command) -> str:
    """A command as it would be typed in the root of the repository."""
    words = ["python" if word == sys.executable else word.replace(f"{ROOT}{os.sep}", "") for word in command]
    return " ".join(words)


def run_stages(stages: Sequence[Sequence[Command]], log: Any, env: dict[str, str], deadline: float) -> str:
    """Run the stages up to the deadline; how it ended. A stage that fails ends the step."""
    for stage in stages:
        started: list[subprocess.Popen[bytes]] = []
        try:
            for command in stage:
                log.write(f"$ {' '.join(command)}\n".encode())
                log.flush()
                started.append(
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env=env,
                        cwd=ROOT,
                        start_new_session=True,
                    )
                )
            while any(process.poll() is None for process in started):
                if monotonic() > deadline:
                    return TIMED_OUT
                sleep(0.05)
        except OSError as error:
            log.write(f"{error}\n".encode())
            return FAILED
        finally:
            end(started)
        if any(process.returncode for process in started):
            return FAILED
    return OK


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask what still runs to stop, and end it after a while, with all that it has started."""
    alive = [process for process in started if process.poll() is None]
    for process in alive:
        signal_group(process, signal.SIGTERM)
    last = monotonic() + GRACE_SECONDS
    while any(process.poll() is None for process in alive) and monotonic() < last:
        sleep(0.05)
    for process in alive:
        signal_group(process, signal.SIGKILL)
        process.wait()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """To a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def environment(day: Day) -> dict[str, str]:
    """Of the steps' processes."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if day.dry:
        env |= {"DCIML_GPU_TESTS_ON_CPU": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return env


def finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def git_revision() -> str | None:
    """Of the sources; None where they are a plain copy."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


def summarize(day: Day, results: dict[str, dict[str, Any]]) -> None:
    """Write all that is known so far."""
    machine = (results.get("machine") or {}).get("figures") or {}
    pack_file = day.pack / "pack.json"
    write_json(
        day.out / "summary.json",
        {
            "dry_run": day.dry,
            "card": machine.get("device"),
            "torch": machine.get("torch"),
            "git_revision": git_revision(),
            "pack": read_json(pack_file) if pack_file.is_file() and not day.dry else None,
            "steps": sorted(results.values(), key=lambda result: int(result["number"])),
        },
    )


def earlier_results(out: Path) -> Iterator[dict[str, Any]]:
    """Of earlier calls into the same folder."""
    for file in sorted(out.glob("[0-9][0-9]-*.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if isinstance(result, dict) and "step" in result:
            yield result


def run_day(day: Day, minutes: float, only: Sequence[str], again: bool) -> dict[str, dict[str, Any]]:
    """Run the steps that are asked for; the results by name, those of earlier calls included."""
    day.out.mkdir(parents=True, exist_ok=True)
    results = {r["step"]: r for r in earlier_results(day.out) if r.get("dry_run") == day.dry}
    last = monotonic() + 60 * minutes
    try:
        for number, step in enumerate(steps_of(day), start=1):
            done = results.get(step.name, {}).get("status") == OK
            if (only and step.name not in only) or (done and not again):
                continue
            limit = min(step.limit_seconds, last - monotonic() - GRACE_SECONDS)
            print(f"{step.name}: at most {max(limit, 0):.0f} s", flush=True)
            result = results[step.name] = run_step(step, number, day, limit)
            why = f" ({result['why']})" if "why" in result else ""
            print(f"{step.name}: {result['status']}{why}, {result['seconds']:.0f} s", flush=True)
            summarize(day, results)
    finally:
        summarize(day, results)
    return results


def main() -> None:
    """Read the arguments and run the day."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=28.0, help="for everything")
    parser.add_argument("--out", type=Path, default=Path("gpu-day"), help="folder of the results")
    parser.add_argument("--pack", type=Path, default=Path(".gpu"), help="what scripts/gpu_pack.sh gathered")
    parser.add_argument("--only", default="", help="steps, with commas between them")
    parser.add_argument("--again", action="store_true", help="also steps that ended well before")
    parser.add_argument("--dry-run", action="store_true", help="on the processor, at toy size")
    parser.add_argument("--short", action="store_true", help="the short schedules instead of configs/full")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], help="of the schedules, key=value"
    )
    parser.add_argument("--list", action="store_true", help="name the steps and end")
    options = parser.parse_args()
    out, pack = options.out.resolve(), options.pack.resolve()
    day = Day(out, pack, options.dry_run, not options.short, tuple(options.settings))
    names = [step.name for step in steps_of(day)]
    if options.list:
        print("\n".join(names))
        return
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    unknown = [name for name in only if name not in names]
    if unknown:
        parser.error(f"there is no step {', '.join(unknown)}; the steps are {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what runs is ended, too
    results = run_day(day, options.minutes, only, options.again)
    bad = [name for name in only or names if results.get(name, {}).get("status") in (FAILED, TIMED_OUT)]
    print(f"results: {out / 'summary.json'}")
    if bad:
        raise SystemExit(f"did not end well: {', '.join(bad)}")


if __name__ == "__main__":
    main()
