"""Errors as plain sentences for clients."""

from __future__ import annotations

from dciml.errors import DataError, DcimlError

MISTAKE = "The server made a mistake. Its log has the details."


def sentence_of(error: DcimlError) -> str:
    """What is wrong and how to mend it, without the server's paths.

    >>> sentence_of(DataError("the sentence is empty", where="/srv/a.jsonl", mend="write one"))
    'The sentence is empty. To mend it: write one.'
    """
    if isinstance(error, DataError):
        mend = f" To mend it: {error.mend}." if error.mend else ""
        return f"{error.what[:1].upper()}{error.what[1:]}.{mend}"
    return "The index or its model cannot be used. The server's log has the details."
