"""How the service holds up when many clients search at once, over HTTP, with a real server process.

    python benchmarks/serve.py INDEX
    python benchmarks/serve.py INDEX --videos 20000 --folder /data/bench --clients 32 --seconds 60

Each client is a thread with one connection that asks one sentence after another. Printed are errors, answers a second,
latencies, and how evenly the clients were served: the least and the most answers of a client, and Jain's index of
fairness, (Σx)² / (n·Σx²), which is 1 when all got the same. One client alone is measured first, for comparison. On a
busy machine only the server's processor time an answer says much.

With --videos, the index is first filled up to so many videos with copies of its own: their vectors are turned a little,
their features are the same, so that grounding works as hard as it would.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

HEADERS = {"Content-Type": "application/json"}
TURN = 0.3  # length of the noise that turns a copied vector, as a share of its own length
WARM_UP = 3


@dataclass
class Client:
    """What one client saw."""

    seconds: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def fill(source: Path, folder: Path, num_videos: int) -> Path:
    """An index like `source` with so many videos, kept in `folder` for the next time."""
    from dciml.features import FeatureStore, FeatureStoreWriter
    from dciml.index import ClipIndex
    from dciml.model_folder import open_searcher

    out = folder / f"index-{num_videos}"
    if out.exists():
        return out
    searcher = open_searcher(source)
    index, ids = searcher.index, searcher.index.video_ids
    store = FeatureStore.open(index.store_path(ids[0]))
    vectors = searcher.engine.fused_clips(store, ids)
    rng = np.random.default_rng(0)
    durations = index.durations_seconds
    filled = ClipIndex.create(
        out,
        num_clips=index.num_clips,
        width=index.width,
        fingerprint=index.fingerprint,
        model_folder=index.model_folder(),
        store_path=folder / f"features-{num_videos}",
    )
    names = [ids[n % len(ids)] if n < len(ids) else f"{ids[n % len(ids)]}-{n}" for n in range(num_videos)]
    places = np.arange(num_videos) % len(ids)
    with FeatureStoreWriter(folder / f"features-{num_videos}", store.manifest, commit_every=1000) as writer:
        for name, place in zip(names, places.tolist(), strict=True):
            writer.append(name, store.rows(ids[place]), float(durations[place]))
    turned = vectors[places]
    noise = rng.standard_normal(turned[len(ids) :].shape, dtype=np.float32) * (TURN / index.width**0.5)
    turned[len(ids) :] += noise * np.linalg.norm(turned[len(ids) :], axis=2, keepdims=True)
    filled.add(names, turned, durations[places])
    return out


@contextmanager
def served(index: Path, threads: int) -> Iterator[tuple[int, int]]:
    """A server process; yields its port and its id."""
    command = [
        sys.executable,
        "-m",
        "dciml",
        "serve",
        str(index),
        "--port",
        "0",
        "--search-threads",
        str(threads),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            greeting = process.stdout.readline()
            if "http://127.0.0.1:" not in greeting:
                raise SystemExit(f"the server did not start: {greeting}")
            yield int(greeting.partition("http://127.0.0.1:")[2].partition("/")[0]), process.pid
        finally:
            process.terminate()


def processor_seconds(process_id: int) -> float:
    """What a process has used so far, all its threads together."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(port: int, sentences: Sequence[str], start: int, until: float, client: Client) -> None:
    """Ask one sentence after another until the time is over."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    number = start
    while time.perf_counter() < until:
        body = json.dumps({"sentence": sentences[number % len(sentences)], "k": 10})
        begin = time.perf_counter()
        try:
            connection.request("POST", "/api/search", body, HEADERS)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as error:
            client.errors.append(repr(error))
            connection.close()
            continue
        if response.status != 200:
            client.errors.append(f"{response.status} {content[:200]!r}")
        else:
            client.seconds.append(time.perf_counter() - begin)
            client.inside.append(json.loads(content)["took_seconds"])
        number += 1
    connection.close()


def measure(port: int, sentences: Sequence[str], num_clients: int, seconds: float) -> list[Client]:
    """Let so many clients ask at once for so long."""
    clients = [Client() for _ in range(num_clients)]
    until = time.perf_counter() + seconds
    threads = [
        threading.Thread(target=ask, args=(port, sentences, 7 * place, until, client))
        for place, client in enumerate(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients


def report(name: str, clients: Sequence[Client], seconds: float, used_seconds: float) -> None:
    """Print one block of figures; `used_seconds` is the server's processor time."""
    all_seconds = np.array([value for client in clients for value in client.seconds])
    inside = np.array([value for client in clients for value in client.inside])
    errors = [error for client in clients for error in client.errors]
    counts = np.array([len(client.seconds) for client in clients], dtype=float)
    print(
        f"\n{name}: {len(all_seconds)} answers, {len(errors)} errors, {len(all_seconds) / seconds:.1f} answers/s"
    )
    for error in errors[:3]:
        print(f"  error: {error}")
    if not len(all_seconds):
        return
    at = np.percentile(all_seconds, [50, 90, 95, 99, 100]) * 1000
    print("  latency, ms: " + ", ".join(
        f"{label} {value:.0f}" for label, value in zip(("p50", "p90", "p95", "p99", "max"), at, strict=True)
    ))  # fmt: skip
    print(f"  of this inside the search itself: p50 {np.median(inside) * 1000:.0f} ms")
    print(f"  processor time an answer: {used_seconds / len(all_seconds) * 1000:.0f} ms")
    if len(clients) > 1:
        medians = [np.median(client.seconds) * 1000 for client in clients if client.seconds]
        jain = counts.sum() ** 2 / (len(counts) * (counts**2).sum())
        print(f"  answers a client: {counts.min():.0f} to {counts.max():.0f}, Jain's index {jain:.4f}")
        print(f"  median latency of a client: {min(medians):.0f} to {max(medians):.0f} ms")


def sentences_of(port: int) -> list[str]:
    """Sentences that suit the corpus, as the server names them."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("GET", "/api/examples")
        found = json.loads(connection.getresponse().read())["sentences"]
    return found or ["a person opens the door", "something red moves to the left", "two people talk"]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--search-threads", type=int, default=2)
    parser.add_argument("--videos", type=int, help="fill the index up to so many videos")
    parser.add_argument("--folder", type=Path, default=Path("serve-bench"), help="for the filled index")
    parser.add_argument("--sentences", type=Path, help="one a line; else the server's examples")
    options = parser.parse_args()
    index = fill(options.index, options.folder, options.videos) if options.videos else options.index
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with served(index, options.search_threads) as (port, server):
        sentences = options.sentences.read_text().splitlines() if options.sentences else sentences_of(port)
        measure(port, sentences, 1, WARM_UP)
        for clients, seconds in ((1, options.seconds / 2), (options.clients, options.seconds)):
            before = processor_seconds(server)
            seen = measure(port, sentences, clients, seconds)
            name = f"{clients} client{'s' * (clients > 1)}"
            report(name, seen, seconds, processor_seconds(server) - before)
    print(f"load of the machine after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
