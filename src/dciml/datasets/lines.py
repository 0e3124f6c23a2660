"""What TVR and QVHighlights share: a query a line, with the video's duration and [start, end] in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dciml.datasets.by_video import read_span
from dciml.datasets.fields import Row, check_sentence, positive_field, read_rows, text_field
from dciml.datasets.moments import BadMoments, MomentRules, PastEnd
from dciml.datasets.records import QueryFile
from dciml.errors import DataError, Where
from dciml.types import Query


@dataclass(frozen=True)
class Line:
    """One line of a file: its number, from 1, and its fields."""

    number: int
    row: Row


@dataclass
class LineReader:
    """Collects the queries of a JSON-lines file."""

    path: Path
    past_end: PastEnd
    bad_moments: BadMoments
    _rules: MomentRules = field(init=False)
    _queries: list[Query] = field(default_factory=list, init=False)
    _durations: dict[str, float] = field(default_factory=dict, init=False)
    _lines: dict[str, int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._rules = MomentRules(self.past_end, self.bad_moments)

    def lines(self, required: Sequence[str]) -> Iterator[Line]:
        """The lines, each with these fields. Raises DataError: one is missing, or a line is malformed."""
        for number, row in read_rows(self.path):
            for name in required:
                if row.get(name) is None:
                    place = Where(self.path, number, name)
                    raise DataError("the field is missing", where=place, mend=f"add {name!r} to the line")
            yield Line(number, row)

    def add(
        self, line: Line, query_id: str, names: tuple[str, str], spans: Sequence[Any], spans_name: str
    ) -> None:
        """Take the query of a line.

        Args:
            names: the fields of the video and of the sentence.
            spans: values that must be [start, end], each a true moment.
            spans_name: their field.
        Raises:
            DataError: a field is not as it must be, or the id was there before.
        """
        where = Where(self.path, line.number)
        if query_id in self._lines:
            raise DataError(
                f"the query id {query_id!r} is already that of line {self._lines[query_id]}",
                where=where,
                mend="give each query an id of its own",
            )
        video_id = text_field(line.row, names[0], where)
        sentence = check_sentence(
            text_field(line.row, names[1], where), Where(self.path, line.number, names[1])
        )
        duration = self._durations.setdefault(video_id, positive_field(line.row, "duration", where))
        place = Where(self.path, line.number, spans_name)
        checked = (self._rules.check(*read_span(span, place), duration, place) for span in spans)
        moments = tuple(moment for moment in checked if moment is not None)
        self._queries.append(Query(query_id, video_id, sentence, moments))
        self._lines[query_id] = line.number

    def result(self) -> QueryFile:
        """All queries, with the counts of what was clipped and dropped."""
        rules = self._rules
        return QueryFile(
            tuple(self._queries), rules.num_clipped, rules.num_dropped, self._durations, self._lines
        )
