"""A report in plain words: what the model finds, and whether that is more than rows which know less."""

from __future__ import annotations

from collections.abc import Sequence

from dciml.metrics.intervals import Interval
from dciml.recipes.report import Report

LESS = ("zero-shot", "untrained")


def headlines(report: Report, row: str = "model") -> list[str]:
    """One sentence a protocol, with the rows to compare with.

    Two figures are said to differ only when their intervals do not overlap.
    """
    names = {table.name for table in report.tables}
    found = [
        _sentence(
            report, "VR", row, "R@1", "The right video comes first for {} of the sentences", ("chance",)
        ),
        _sentence(report, "VR", row, "R@10", "It is among the first 10 for {}", ("chance",)),
    ]
    if "SVMR" in names:
        text = "Given the video, the first span fits (IoU ≥ 0.5) for {}"
        found.append(_sentence(report, "SVMR", row, "R@1, IoU=0.5", text, ("blind spans", "chance")))
        text = "In the whole corpus, a right moment (IoU ≥ 0.5) is among the first 10 answers for {}"
        others = ("retrieval only + blind spans", "retrieval only + whole videos")
        found.append(_sentence(report, "VCMR, strict", row, "R@10, IoU=0.5", text, others))
        text = "The lenient count (R@10, IoU ≥ 0.5, any of 10 proposals) is {}"
        metric = "R@10, IoU=0.5, N_p=10"
        found.append(_sentence(report, "VCMR, lenient", row, metric, text, others[:1]))
    return found


def _sentence(report: Report, table: str, row: str, metric: str, text: str, others: Sequence[str]) -> str:
    rows = report.table(table).rows
    own = rows[row][metric]
    parts = [
        f"{_relation(own, rows[other][metric])} {other} ({rows[other][metric].value:.1f}%)"
        for other in (*others, *LESS)
        if metric in rows.get(other, {}) and other != row
    ]
    return f"{text.format(f'{own.value:.1f}%')}: {', '.join(parts)}."


def _relation(own: Interval, other: Interval) -> str:
    if own.low > other.high:
        return "above"
    if own.high < other.low:
        return "BELOW"
    return "not clearly apart from"
