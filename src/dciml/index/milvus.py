"""The vectors of an index in a Milvus database: Milvus Lite (a file), a server, or a cluster.

Every clip is a row `id = video key · S + clip` of a collection of its own; the catalogue, in the index folder, says
which videos count. So a change is committed by the catalogue here too: rows are written before the commit and
deleted after it, and rows that no video of the catalogue owns are passed over. Hits are grouped by video here, not by
the server, whose grouping is not to be relied on in all versions.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dciml.errors import DataError, ModelError
from dciml.index.backend import FloatArray, PlaceArray, VideoBlock, similarities_in_blocks
from dciml.index.catalogue import Contents, IndexFacts

SCHEME = "milvus:"
MAX_ROWS = 16_384  # the server's limit on what one search or query returns
WRITE_ROWS = 2_048
READ_VIDEOS = 64
MIN_ROWS, ROWS_PER_VIDEO = 256, 8  # asked for at a time
EXACT_VIDEOS = 256  # so few videos are fetched and compared here
SPARE_VIDEOS = 8  # fetched more than asked for: equal scores may be rounded differently there
TOKEN_VARIABLE = "MILVUS_TOKEN"


def new_collection() -> str:
    """A name that no other index has."""
    return f"dciml_{uuid.uuid4().hex}"


def absolute_store(store: str) -> str:
    """The same store, found from any folder: a file by its absolute path."""
    uri = store.removeprefix(SCHEME)
    return store if "://" in uri or uri == store else f"{SCHEME}{Path(uri).expanduser().absolute()}"


def connect(store: str, *, is_typed: bool) -> Any:
    """A client for `milvus:FILE` or `milvus:http://HOST:PORT`.

    Args:
        is_typed: the user named this store. One that comes from an index folder may be anybody's: it gets no token
            (MILVUS_TOKEN goes to typed addresses only), and no file or folder is made for it.
    Raises:
        DataError: the packages are missing, or nothing answers there.
    """
    uri = store.removeprefix(SCHEME)
    if not store.startswith(SCHEME) or not uri:
        raise DataError(f"{store!r} names no store", mend="write milvus:FILE.db or milvus:http://HOST:19530")
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        raise DataError(
            "the packages for Milvus are not installed", mend="pip install 'dciml[milvus]'"
        ) from error
    if "://" not in uri:
        uri = absolute_store(store).removeprefix(SCHEME)
        if is_typed:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        elif not Path(uri).exists():
            mend = "say where it is now with --store milvus:FILE"
            raise DataError("the database of this index's vectors is gone", where=uri, mend=mend)
    token = os.environ.get(TOKEN_VARIABLE, "")
    try:
        return MilvusClient(uri, token=token if is_typed else "")
    except Exception as error:  # of many kinds, by version and by what went wrong
        mend = "check the address"
        if token and not is_typed:
            mend = f"if you trust this address, type it, and it gets the token of {TOKEN_VARIABLE}: --store {store}"
        raise DataError(f"Milvus does not answer ({error})", where=uri, mend=mend) from error


class MilvusVectors:
    """See `VectorBackend`; `typed_store` is where the user says that the database is; None: where the index says."""

    def __init__(self, facts: IndexFacts, typed_store: str | None) -> None:
        store = typed_store or str(facts.options.store)
        self._facts, self._client = facts, connect(store, is_typed=typed_store is not None)
        self._name = str(facts.options.collection)

    def open(self, contents: Contents) -> OpenMilvus:
        """See `VectorBackend.open`."""
        if not self._client.has_collection(self._name):
            if len(contents.video_ids):
                raise ModelError(
                    f"the collection {self._name} is not in the database; build the index again."
                )
            self._create()
        return OpenMilvus(self._client, self._name, contents)

    def add(self, connection: sqlite3.Connection, keys: Sequence[int], vectors: FloatArray) -> None:
        """Write the rows; those of a change that was cut short have the same ids and are overwritten."""
        clips = self._facts.num_clips
        flat = vectors.reshape(-1, self._facts.width)
        ids = (np.asarray(keys, dtype=np.int64)[:, None] * clips + np.arange(clips)).reshape(-1)
        for start in range(0, len(flat), WRITE_ROWS):
            part = slice(start, start + WRITE_ROWS)
            rows = [
                {"id": number, "video": number // clips, "vector": vector}
                for number, vector in zip(ids[part].tolist(), flat[part], strict=True)
            ]
            self._client.upsert(self._name, rows)
        self._client.flush(self._name)

    def settle(self, connection: sqlite3.Connection, everything: bool) -> None:
        """When compacting, delete the rows of removed videos and of changes that were cut short."""
        if not everything:
            return
        gone = connection.execute("SELECT video_key FROM videos WHERE removed IS NOT NULL").fetchall()
        keys = [key for (key,) in gone]
        for start in range(0, len(keys), WRITE_ROWS):
            self._client.delete(self._name, filter=f"video in {keys[start : start + WRITE_ROWS]}")
        (last,) = connection.execute("SELECT ifnull(max(video_key), 0) FROM videos").fetchone()
        self._client.delete(self._name, filter=f"video > {last}")

    def sweep(self, contents: Contents) -> None:
        """Nothing: readers of older states may still want what was removed."""

    def verify(self, connection: sqlite3.Connection, contents: Contents) -> list[str]:
        """Every video must have all its rows."""
        opened = OpenMilvus(self._client, self._name, contents)
        whole = {place for places, _ in opened.blocks(None) for place in places.tolist()}
        return [
            f"video {video_id!r}: vectors of it are missing in the database"
            for place, video_id in enumerate(contents.video_ids)
            if place not in whole
        ]

    def copy(self, contents: Contents, target: Path) -> None:
        """Refuses: a copied catalogue would go on pointing to the same rows."""
        raise DataError(
            "the vectors of this index are in a database",
            mend="back the database up by its own means (milvus-backup), and copy the index folder",
        )

    def discard(self) -> None:
        """Drop the collection."""
        self._client.drop_collection(self._name)

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("video", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self._facts.width)
        parameters = self._client.prepare_index_params()
        parameters.add_index("vector", index_type="FLAT", metric_type="IP")
        self._client.create_collection(
            self._name, schema=schema, index_params=parameters, consistency_level="Strong"
        )


class OpenMilvus:
    """See `OpenVectors`: the videos of one committed state, as the database holds them now."""

    def __init__(self, client: Any, name: str, contents: Contents) -> None:
        self._client, self._name, self._contents = client, name, contents
        self._place_of = {key: place for place, key in enumerate(contents.keys.tolist())}

    def blocks(self, places: PlaceArray | None) -> Iterator[VideoBlock]:
        """Fetch vectors; a video of which rows are missing is left out."""
        facts = self._contents.facts
        wanted = np.arange(len(self._contents.keys)) if places is None else places
        for start in range(0, len(wanted), READ_VIDEOS):
            part = wanted[start : start + READ_VIDEOS]
            row_of = {key: row for row, key in enumerate(self._contents.keys[part].tolist())}
            vectors = np.full((len(part), facts.num_clips, facts.width), np.nan, dtype=np.float32)
            rows = self._client.query(
                self._name, filter=f"video in {list(row_of)}", output_fields=["id", "vector"], limit=MAX_ROWS
            )
            for row in rows:
                key, clip = divmod(int(row["id"]), facts.num_clips)
                vectors[row_of[key], clip] = row["vector"]
            whole = ~np.isnan(vectors).any(axis=(1, 2))
            yield part[whole], vectors[whole]

    def similarities(self, queries: FloatArray, places: PlaceArray | None) -> FloatArray:
        """See `OpenVectors.similarities`: the database computes them where it can, so that no vectors travel."""
        wanted = np.arange(len(self._contents.keys)) if places is None else places
        shape = (len(wanted), self._contents.facts.num_clips)
        rows = shape[0] * shape[1]
        if not 0 < rows <= MAX_ROWS:
            return similarities_in_blocks(queries, self.blocks(places), places, shape)
        found = np.full((len(queries), *shape), -np.inf, dtype=np.float32)
        keys = self._contents.keys[wanted]
        column_of = {key: column for column, key in enumerate(keys.tolist())}
        for query, row in zip(queries, found, strict=True):
            for key, clip, score in self._search(query, rows, f"video in {keys.tolist()}"):
                row[column_of[key], clip] = score
            if np.isneginf(row).any():  # a graph index may pass over some
                row[:] = similarities_in_blocks(query[None], self.blocks(places), places, shape)[0]
        return found

    def _search(self, query: FloatArray, limit: int, condition: str) -> Iterator[tuple[int, int, float]]:
        """Video key, clip and score of the nearest rows, best first."""
        (hits,) = self._client.search(
            self._name,
            data=[query.tolist()],
            limit=limit,
            filter=condition,
            output_fields=["id"],
            search_params={"metric_type": "IP"},
        )
        for hit in hits:
            yield *divmod(int(hit["id"]), self._contents.facts.num_clips), float(hit["distance"])

    def candidates(
        self, queries: FloatArray, num_videos: int, allowed: NDArray[np.bool_] | None
    ) -> list[PlaceArray] | None:
        """See `OpenVectors.candidates`: ask for the nearest rows until they are of enough videos."""
        chosen = len(self._contents.keys) if allowed is None else int(allowed.sum())
        if chosen <= EXACT_VIDEOS:
            return None
        wanted = min(num_videos + SPARE_VIDEOS, chosen)
        return [self._nearest(query, wanted, allowed) for query in queries]

    def _nearest(self, query: FloatArray, wanted: int, allowed: NDArray[np.bool_] | None) -> PlaceArray:
        limit = min(MAX_ROWS, max(MIN_ROWS, ROWS_PER_VIDEO * wanted))
        places: dict[int, None] = {}
        passed: set[int] = set()  # keys that need not be found again
        while len(places) < wanted:
            keys = [key for key, _, _ in self._search(query, limit, self._condition(allowed, passed))]
            passed.update(keys)
            for place in (self._place_of.get(key) for key in keys):
                if place is not None and (allowed is None or allowed[place]):
                    places[place] = None
            if len(keys) < limit:
                break
        return np.sort(np.array(list(places)[:wanted], dtype=np.int64))

    def _condition(self, allowed: NDArray[np.bool_] | None, passed: set[int]) -> str:
        conditions = [f"video not in {sorted(passed)}"] if passed else []
        if allowed is not None:
            inside = self._contents.keys[allowed].tolist()
            outside = self._contents.keys[~allowed].tolist()
            if len(inside) <= len(outside):
                conditions.append(f"video in {inside}")
            elif outside:
                conditions.append(f"video not in {outside}")
        return " and ".join(conditions)
