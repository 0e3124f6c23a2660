"""A writer killed at any moment leaves the last committed state whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a process of its own, which forks the writers, so that a writer costs no start of the interpreter.
DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
import numpy as np
from dciml.index import ClipIndex, IndexOptions

folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
CLIPS, WIDTH = 2, 6

def step(state, number):
    '''The state (video id -> value) after change `number`, and how to make it on an index.'''
    dice = random.Random(f"{seed} {number}")
    kind = dice.choice(["add", "add", "add", "replace", "remove", "compact"])
    held = sorted(state)
    if kind == "compact":
        return dict(state), lambda index: index.compact()
    if kind == "remove" and len(held) > 3:
        gone = dice.sample(held, 2)
        return {k: v for k, v in state.items() if k not in gone}, lambda index: index.remove(gone)
    if kind == "replace" and held:
        chosen = dice.sample(held, min(3, len(held)))
        old = chosen
    else:
        chosen, old = [f"v{number}-{i}" for i in range(dice.randint(1, 4))], []
    values = [float(dice.randint(-50, 50)) for _ in chosen]
    vectors = np.array(values)[:, None, None] * np.ones((1, CLIPS, WIDTH))
    return state | dict(zip(chosen, values)), lambda index: index.add(
        chosen, vectors, np.ones(len(chosen)), replaces=old)

def read(index):
    found = index.search(np.ones((1, WIDTH)), 10_000)[0]
    return {match.video_id: match.score / WIDTH for match in found}

ClipIndex.create(folder, num_clips=CLIPS, width=WIDTH, fingerprint="f", model_folder=folder, store_path=folder,
                 options=IndexOptions(exact_videos=20, code_bytes=2))
state, number, dice, acknowledged = {}, 0, random.Random(seed), 0
for kill in range(kills):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        index = ClipIndex.open(folder)
        while True:
            state, change = step(state, number)
            change(index)
            number += 1
            os.write(tell, b"x")
    os.close(tell)
    done = 0
    for _ in range(dice.randint(0, 3)):  # let it get on, however slow the machine is
        done += len(os.read(told, 1))
    time.sleep(dice.uniform(0.0, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while part := os.read(told, 1 << 16):
        done += len(part)
    os.close(told)
    for _ in range(done):
        state, _ = step(state, number)
        number += 1
    acknowledged += done
    index = ClipIndex.open(folder)
    damages = index.verify()
    assert not damages, (kill, damages)
    found = read(index)
    if found != state:  # committed, but killed before it could say so
        state, _ = step(state, number)
        number += 1
    assert found == state, (kill, number)
index.compact()
assert read(ClipIndex.open(folder)) == state
left = {file.name.partition("-")[0].partition(".")[0] for file in folder.iterdir()}
assert left <= {"catalogue", "segment", "coder"}, left
print(acknowledged)
"""


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_writer_leaves_the_last_committed_state(tmp_path: Path, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "index"), str(kills), "5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > kills  # the writers did get something done
