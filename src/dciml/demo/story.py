"""What happens in each video of the demo corpus, and the sentences that tell of it; no pictures yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator

from dciml.demo.drawing import ACTORS, COLOURS, EVENT_ACTIONS, SCENES, Pose
from dciml.types import Query

SCENE_MENTION = 0.65
"""How often a sentence says where; often enough to tell videos apart, seldom enough that looking is needed."""

COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "blue": ("blue", "blue", "azure"),
    "green": ("green", "green", "emerald"),
    "purple": ("purple", "purple", "violet"),
    "red": ("red", "red", "scarlet"),
    "white": ("white", "white", "pale"),
    "yellow": ("yellow", "yellow", "golden"),
}
ACTOR_WORDS: dict[str, tuple[str, ...]] = {
    "ball": ("{c} ball", "{c} ball", "{c} round ball", "{c} sphere"),
    "bird": ("{c} bird", "{c} bird", "small {c} bird", "{c} feathered bird"),
    "boat": ("{c} boat", "{c} boat", "boat with {c} sails", "{c} sailing ship"),
    "car": ("{c} car", "{c} car", "{c} vehicle", "{c} automobile"),
    "cat": ("{c} cat", "{c} cat", "{c} kitten", "cat with {c} fur"),
    "person": ("person in {c}", "person with a {c} shirt", "man dressed in {c}", "man in a {c} shirt"),
}
ACTION_WORDS: dict[str, tuple[str, ...]] = {
    "blinks": (
        "blinks",
        "flashes on and off",
        "appears and disappears",
        "flickers",
        "vanishes and comes back",
        "keeps flashing",
        "is there and gone again",
    ),
    "bounces": (
        "bounces",
        "hops on the ground",
        "jumps up and down",
        "keeps jumping",
        "springs up and down",
        "bounces again and again",
    ),
    "circles": (
        "moves in a circle",
        "goes round and round",
        "circles around the middle",
        "runs in loops",
        "goes around in rings",
        "keeps circling",
    ),
    "falls": (
        "falls",
        "drops down",
        "sinks to the bottom",
        "goes down",
        "descends",
        "comes down from the top",
        "falls to the ground",
    ),
    "grows": (
        "grows",
        "gets bigger",
        "becomes larger",
        "swells up",
        "comes closer and closer",
        "increases in size",
    ),
    "leftwards": (
        "moves from right to left",
        "goes to the left",
        "crosses towards the left",
        "travels leftwards",
        "passes by to the left side",
        "comes from the right and leaves on the left",
    ),
    "rightwards": (
        "moves from left to right",
        "goes to the right",
        "crosses towards the right",
        "travels rightwards",
        "passes by to the right side",
        "comes from the left and leaves on the right",
    ),
    "rises": (
        "rises",
        "goes up",
        "climbs upwards",
        "floats up to the top",
        "lifts off from the ground",
        "ascends",
    ),
    "shrinks": (
        "shrinks",
        "gets smaller",
        "becomes tiny",
        "moves far away",
        "dwindles",
        "decreases in size",
    ),
    "spins": (
        "spins",
        "rotates",
        "turns around itself",
        "whirls",
        "twirls on the spot",
        "turns over and over",
    ),
}
SCENE_WORDS: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the seaside", "by the sea", "on the sand by the water"),
    "desert": ("in the desert", "among the dunes", "next to a cactus", "in the dry desert"),
    "forest": ("in the forest", "in the woods", "among the trees", "between tall trees"),
    "kitchen": ("in the kitchen", "in a kitchen", "beside the fridge", "in front of the kitchen tiles"),
    "meadow": ("on the meadow", "in the grass", "on a green field", "on a flower meadow"),
    "night": ("at night", "under the night sky", "under the moon", "in the dark under the stars"),
    "snow": ("in the snow", "in the snowy mountains", "in winter", "on a field of snow"),
    "street": ("on the street", "in the city", "on the road", "in front of the houses"),
}
FRAMES = (
    "a {actor} {action}",
    "the {actor} {action}",
    "there is a {actor} that {action}",
    "we see how a {actor} {action}",
    "a {actor} {action} while we watch",
    "now the {actor} {action}",
)
SCENE_FRAMES = ("{sentence} {scene}", "{scene}, {sentence}", "{sentence}, {scene}")


def sentence(colour: str, kind: str, action: str, scene: str, rng: Generator) -> str:
    """A sentence about an event, capitalised, with a full stop; the place is named with `SCENE_MENTION` odds.

    >>> import numpy as np
    >>> sentence("red", "cat", "spins", "beach", np.random.default_rng(4))
    'Now the scarlet kitten whirls.'
    """
    actor = _pick(ACTOR_WORDS[kind], rng).format(c=_pick(COLOUR_WORDS[colour], rng))
    text = _pick(FRAMES, rng).format(actor=actor, action=_pick(ACTION_WORDS[action], rng))
    text = text.replace("a azure", "an azure").replace("a emerald", "an emerald")
    if rng.random() < SCENE_MENTION:
        text = _pick(SCENE_FRAMES, rng).format(sentence=text, scene=_pick(SCENE_WORDS[scene], rng))
    return text[0].upper() + text[1:] + "."


Split = Literal["train", "test"]

SHORTEST_SECONDS, LONGEST_SECONDS = 20.0, 60.0
TICKS_PER_SECOND = 8  # all times are multiples of an eighth of a second, so that they fall on frames
SECOND_SENTENCE = 0.6  # how often an event has a second sentence


@dataclass(frozen=True)
class Actor:
    """Who is seen."""

    kind: str
    colour: str


@dataclass(frozen=True)
class Event:
    """An actor doing something from one time to another, around a home pose."""

    actor: Actor
    action: str
    start_seconds: float
    end_seconds: float
    home: Pose


@dataclass(frozen=True)
class Story:
    """One video: a place, its events in order of time, and bystanders that stand still in some of the gaps."""

    video_id: str
    scene: str
    duration_seconds: float
    events: tuple[Event, ...]
    bystanders: tuple[Event, ...]
    queries: tuple[Query, ...]
    seed: tuple[int, ...]


def is_held_out(actor: Actor, action: str) -> bool:
    """Whether this combination of colour, kind and action is kept out of training (about one in six).

    >>> is_held_out(Actor("ball", "blue"), "blinks"), is_held_out(Actor("ball", "blue"), "spins")
    (True, False)
    """
    colours, kinds = sorted(COLOURS), sorted(ACTORS)
    total = colours.index(actor.colour) + kinds.index(actor.kind) + EVENT_ACTIONS.index(action)
    return total % 6 == 0


def plan_story(split: Split, index: int, seed: int) -> Story:
    """Plan one video. The same arguments always give the same story, whatever else is planned."""
    key = (seed, 0 if split == "train" else 1, index)
    rng = np.random.default_rng(key)
    video_id = f"{split}{index:04d}"
    scene = _pick(sorted(SCENES), rng)
    lengths, gaps = _times(rng)
    events: list[Event] = []
    clock = gaps[0]
    for length, gap in zip(lengths, gaps[1:], strict=True):
        actor, action = _next_act(events, split, rng)
        events.append(Event(actor, action, clock, clock + length, _home(rng)))
        clock += length + gap
    return Story(
        video_id,
        scene,
        clock,
        tuple(events),
        _bystanders(events, clock, rng),
        _tell(video_id, scene, events, rng),
        key,
    )


def _times(rng: Generator) -> tuple[list[float], list[float]]:
    """Lengths of the events and of the gaps around them, in seconds, drawn until the video has a good length."""
    while True:
        count = int(rng.choice([2, 3, 4, 5], p=[0.2, 0.35, 0.3, 0.15]))
        lengths = rng.integers(3 * TICKS_PER_SECOND, 11 * TICKS_PER_SECOND, count) / TICKS_PER_SECOND
        gaps = rng.integers(1 * TICKS_PER_SECOND, 5 * TICKS_PER_SECOND, count + 1) / TICKS_PER_SECOND
        if SHORTEST_SECONDS <= lengths.sum() + gaps.sum() <= LONGEST_SECONDS:
            return lengths.tolist(), gaps.tolist()


def _next_act(events: list[Event], split: Split, rng: Generator) -> tuple[Actor, str]:
    """An act that this video does not show yet, often alike to one before: only colour or only action differs."""
    while True:
        actor = Actor(_pick(sorted(ACTORS), rng), _pick(sorted(COLOURS), rng))
        action = _pick(EVENT_ACTIONS, rng)
        if events:
            before = events[int(rng.integers(len(events)))]
            likeness = rng.random()
            if likeness < 0.45:
                actor = before.actor
            elif likeness < 0.75:
                actor, action = Actor(before.actor.kind, actor.colour), before.action
        is_new = all((event.actor, event.action) != (actor, action) for event in events)
        if is_new and not (split == "train" and is_held_out(actor, action)):
            return actor, action


def _bystanders(events: list[Event], duration_seconds: float, rng: Generator) -> tuple[Event, ...]:
    """Somebody who stands still in about a third of the gaps, often an actor of the video itself."""
    ends = [0.0, *(event.end_seconds for event in events)]
    starts = [*(event.start_seconds for event in events), duration_seconds]
    found = []
    for start, end in zip(ends, starts, strict=True):
        if rng.random() < 0.35:
            stranger = Actor(_pick(sorted(ACTORS), rng), _pick(sorted(COLOURS), rng))
            actor = events[int(rng.integers(len(events)))].actor if rng.random() < 0.6 else stranger
            found.append(Event(actor, "stays", start, end, _home(rng)))
    return tuple(found)


def _home(rng: Generator) -> Pose:
    x, y = float(rng.uniform(0.25, 0.75)), float(rng.uniform(0.35, 0.7))
    return Pose(x, y, scale=float(rng.uniform(0.9, 1.15)))


def _tell(video_id: str, scene: str, events: list[Event], rng: Generator) -> tuple[Query, ...]:
    queries = []
    for number, event in enumerate(events):
        for version in range(2 if rng.random() < SECOND_SENTENCE else 1):
            text = sentence(event.actor.colour, event.actor.kind, event.action, scene, rng)
            span = (event.start_seconds, event.end_seconds)
            queries.append(Query(f"{video_id}-{number}{'ab'[version]}", video_id, text, (span,)))
    return tuple(queries)


def _pick(choices: list[str] | tuple[str, ...], rng: Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
