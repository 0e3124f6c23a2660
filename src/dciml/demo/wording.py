"""Sentences for the events of the demo corpus: synonyms, word order, and sometimes the place."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator

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


def _pick(choices: Sequence[str], rng: Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
