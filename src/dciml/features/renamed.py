"""Features whose files name the videos a little differently from the annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from dciml.errors import Where
from dciml.names import refuse_lookalikes, same_name

if TYPE_CHECKING:
    from dciml.features.source import FeatureSource

_MEDIA = (".avi", ".mp4", ".m4v", ".mov", ".mpg", ".mpeg", ".mkv", ".webm", ".wmv", ".3gp", ".mts", ".flv")
_YOUTUBE = "v_"  # before the id of a video in ActivityNet; some releases leave it out


class RenamedSource:
    """A source under other names; videos that keep theirs are seen through.

    Args:
        inner: the source.
        old_names: for each new id the one that the source knows.
    """

    def __init__(self, inner: FeatureSource, old_names: Mapping[str, str]) -> None:
        self._inner, self._old_names = inner, old_names
        self.path: Path = inner.path
        self.encoder, self.rows_per_second = inner.encoder, inner.rows_per_second
        self.encoder_specs = inner.encoder_specs
        new_names = {old: new for new, old in old_names.items()}
        self.video_ids = tuple(new_names.get(video_id, video_id) for video_id in inner.video_ids)
        self.durations = {new_names.get(v, v): seconds for v, seconds in inner.durations.items()}
        self.splits = {new_names.get(v, v): split for v, split in inner.splits.items()}

    def place(self, video_id: str) -> Where:
        """Where a video's rows lie."""
        return self._inner.place(self._old(video_id))

    def origin(self, video_id: str) -> str | None:
        """As the source says."""
        return self._inner.origin(self._old(video_id))

    def num_rows(self, video_id: str) -> int:
        """Rows of a video."""
        return self._inner.num_rows(self._old(video_id))

    def shape(self, video_id: str) -> tuple[int, int]:
        """Rows of a video and their width."""
        return self._inner.shape(self._old(video_id))

    def read(self, video_ids: Sequence[str]) -> Iterator[NDArray[Any]]:
        """The rows of these videos."""
        return self._inner.read([self._old(video_id) for video_id in video_ids])

    def _old(self, video_id: str) -> str:
        return self._old_names.get(video_id, video_id)


def names_in(source: FeatureSource, wanted: Collection[str]) -> dict[str, str]:
    """For names that annotations use and the source does not have, the one name of the source that is meant.

    That is one where only the way accents are written, the media ending or ActivityNet's `v_` differs. A name has
    none where several would do, or where another annotated name (`a.mp4`, `a.avi`) would have the same.

    Raises:
        DataError: two names of the source, or of the annotations, look the same; both are named.
    """
    have = frozenset(source.video_ids)
    refuse_lookalikes(have, Where(source.path))
    refuse_lookalikes(wanted, Where("the annotations"))
    by_form = {same_name(name): name for name in have}
    own_names: dict[str, str] = {}
    for name in frozenset(wanted) - have:
        forms = _forms(same_name(name))
        found = [by_form[form] for form in forms if form in by_form]
        if same_name(name) in by_form:
            own_names[name] = by_form[same_name(name)]
        elif len(found) == 1:
            own_names[name] = found[0]
    uses = Counter(own_names.values())
    return {name: own for name, own in own_names.items() if uses[own] == 1}


def with_names_of(source: FeatureSource, wanted: Collection[str]) -> FeatureSource:
    """The source under the names that annotations use, see `names_in`; names that are in use already stay."""
    old_names = {new: old for new, old in names_in(source, wanted).items() if old not in wanted}
    return RenamedSource(source, old_names) if old_names else source


def _forms(name: str) -> set[str]:
    stem = next((name[: -len(end)] for end in _MEDIA if name.lower().endswith(end)), name)
    bare = stem.removeprefix(_YOUTUBE)
    endings = {stem + end for end in _MEDIA} if stem == name else set()
    return ({stem, bare, _YOUTUBE + bare} | endings) - {name}
