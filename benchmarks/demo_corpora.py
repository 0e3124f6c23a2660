"""One corpus is an anecdote, too: the rows of the demo on several corpora of its generator, and the difference of all.

    python benchmarks/demo_corpora.py --out runs/demo-corpora --corpora 31 32 33 34 35 36

Each corpus is drawn with another seed, and each model is trained on it with one seed. Figures are the mean over corpora
± their standard deviation; the last row is the model less the shared space, sentence by sentence, with a 95 %
bootstrap interval over the test videos of all corpora. Settings were chosen on corpora 8 and 21 to 25: not to be named
here. A run that has its report is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from machine import write_figures
from pairs import drawn_corpus, rows_of
from results import HEAD, OUTCOMES, Corpus, apart, line, short_schedule

from dciml.demo import CorpusSize
from dciml.recipes.outcomes import read_outcomes, together
from dciml.recipes.report import Report


def write_together(corpora: Sequence[Corpus], run: str, path: Path) -> Path:
    """The outcomes of the runs of one name in all corpora, as one file."""
    together([read_outcomes(corpus.folder(run) / OUTCOMES) for corpus in corpora]).write(path)
    return path


def main() -> None:
    """Read the arguments, make what is missing, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--corpora", type=int, nargs="+", default=[31, 32, 33, 34, 35, 36], help="seeds")
    parser.add_argument("--seed", type=int, default=1, help="of training")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw and read videos")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    arguments = parser.parse_args()
    corpora, found = [], dict[str, list[Report]]()
    for number in arguments.corpora:
        folder = arguments.out / str(number)
        data = drawn_corpus(folder, CorpusSize(), number, arguments.workers)
        corpora.append(Corpus("demo", data, short_schedule("demo"), folder / "runs", ()))
        for name, reports in rows_of(corpora[-1], [arguments.seed]).items():
            found.setdefault(name, []).extend(reports)
            print(line(f"corpus {number}, {name}", reports), flush=True)
    ours, others = (
        write_together(corpora, f"{name} {arguments.seed}", arguments.out / f"{name.replace(' ', '-')}.json")
        for name in ("dciml", "shared space")
    )
    table = [
        *HEAD,
        *(line(name, reports) for name, reports in found.items()),
        f"| *dciml less shared space* | {apart([ours], [others])} |",
    ]
    print("\n" + "\n".join(table))
    write_figures(arguments.json, {"corpora": arguments.corpora, "seed": arguments.seed, "table": table})


if __name__ == "__main__":
    main()
