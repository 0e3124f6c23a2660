"""Looks through a whole index and says what is damaged, also where it is too damaged to be opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from dciml.errors import DcimlError
from dciml.index.backend import VectorBackend
from dciml.index.catalogue import Catalogue, IndexFacts


def verify(catalogue: Catalogue, backend_of: Callable[[IndexFacts], VectorBackend]) -> list[str]:
    """Read everything and compare checksums. Returns: a sentence for each damage; of a whole index none.

    Args:
        backend_of: gives the vectors of an index; may raise DcimlError.
    """
    found = catalogue.verify()
    try:
        contents = catalogue.read()
        backend = backend_of(contents.facts)
        with catalogue.reading() as connection:
            found += backend.verify(connection, contents)
        if not found:
            backend.open(contents)
    except (DcimlError, sqlite3.Error, OSError) as error:
        if not found:
            found.append(str(error))
    return found
