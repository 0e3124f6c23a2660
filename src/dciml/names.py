"""Names of videos, files and queries: two that look the same are the same.

Unicode writes é as one letter or as e and an accent; macOS writes file names the second way, most else the first. Ids
are compared, and names looked up, after normalisation to NFC.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable
from functools import cached_property

from dciml.errors import DataError, Where

_SHOWN = 3


def same_name(name: str) -> str:
    """The form in which names are compared, NFC.

    >>> same_name("cafe\\u0301") == "caf\\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


class KnownNames:
    """Names that are known, found whatever way their accents are written.

    Args:
        names: kept, not copied; may be many.

    >>> KnownNames(["cafe\\u0301"]).find("caf\\u00e9") == "cafe\\u0301"
    True
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names

    def find(self, name: str) -> str | None:
        """The known name that is the same as this one; None: there is none."""
        if name in self._names:
            return name
        return None if name.isascii() else self._by_form.get(same_name(name))

    @cached_property
    def _by_form(self) -> dict[str, str]:
        return {same_name(name): name for name in self._names if not name.isascii()}


def refuse_lookalikes(names: Iterable[str], where: Where) -> None:
    """Raises DataError: two different names differ only in how accents are written; both are named."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(same_name(name), name)
        if other != name:
            what = f"two names look the same, {other!a} and {name!a}"
            raise DataError(what, where=where, mend="rename or remove one of them")


def nearest_names(name: str, known: Collection[str]) -> str:
    """The known names most like one that is missing, for an error message; "" where none is."""
    by_form = {same_name(other): other for other in known}
    near = difflib.get_close_matches(same_name(name), list(by_form)[:10_000], n=_SHOWN)
    return ", ".join(repr(by_form[form]) for form in near)
