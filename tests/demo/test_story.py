"""The plan of the demo corpus: lengths, confusable events, held-out combinations, and sentences that fit."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from dciml.demo.corpus import CorpusSize, plan_corpus
from dciml.demo.drawing import ACTIONS, ACTORS, COLOURS, EVENT_ACTIONS, SCENES, Moment, Pose, pose_of
from dciml.demo.story import (
    ACTION_WORDS,
    ACTOR_WORDS,
    COLOUR_WORDS,
    SCENE_WORDS,
    Story,
    is_held_out,
    plan_story,
    sentence,
)

SEED = 7


@pytest.fixture(scope="module")
def stories() -> tuple[Story, ...]:
    return plan_corpus(CorpusSize(), SEED)


def words(story: Story) -> set[str]:
    return {word for query in story.queries for word in re.findall("[a-z]+", query.sentence.lower())}


def test_corpus_has_the_stated_size_and_lengths(stories: tuple[Story, ...]) -> None:
    assert len({story.video_id for story in stories}) == 280
    assert all(20 <= story.duration_seconds <= 60 for story in stories)
    assert {len(story.events) for story in stories} == {2, 3, 4, 5}


def test_events_lie_apart_and_inside(stories: tuple[Story, ...]) -> None:
    for story in stories:
        times = [
            0.0,
            *(t for e in story.events for t in (e.start_seconds, e.end_seconds)),
            story.duration_seconds,
        ]
        assert all(later - earlier >= 1 for earlier, later in pairwise(times))
        assert all(3 <= e.end_seconds - e.start_seconds <= 12 for e in story.events)
        assert all(e.start_seconds * 8 == int(e.start_seconds * 8) for e in story.events)


def test_bystanders_stand_in_gaps_only(stories: tuple[Story, ...]) -> None:
    assert sum(len(story.bystanders) for story in stories) > 100
    for story in stories:
        for still in story.bystanders:
            assert still.action == "stays"
            assert all(
                still.end_seconds <= e.start_seconds or still.start_seconds >= e.end_seconds
                for e in story.events
            )


def test_a_story_depends_on_its_own_key_alone(stories: tuple[Story, ...]) -> None:
    assert plan_story("train", 5, SEED) == stories[5]
    assert plan_story("test", 0, SEED) == stories[220]
    assert plan_story("train", 5, SEED + 1) != stories[5]


def test_no_act_comes_twice_in_a_video_but_alike_acts_do(stories: tuple[Story, ...]) -> None:
    same_actor = same_action = 0
    for story in stories:
        acts = [(e.actor, e.action) for e in story.events]
        assert len(set(acts)) == len(acts)
        same_actor += len({actor for actor, _ in acts}) < len(acts)
        same_action += any(
            a.kind == b.kind and a.colour != b.colour and x == y
            for i, (a, x) in enumerate(acts)
            for b, y in acts[:i]
        )
    assert same_actor > 100
    assert same_action > 50


def test_some_combinations_occur_in_the_test_split_alone(stories: tuple[Story, ...]) -> None:
    acts = {
        split: {(e.actor, e.action) for s in stories if s.video_id.startswith(split) for e in s.events}
        for split in ("train", "test")
    }
    assert not any(is_held_out(*act) for act in acts["train"])
    held_out = [act for act in acts["test"] if is_held_out(*act)]
    assert len(held_out) >= 15


def test_test_words_are_known_but_sentences_are_new(stories: tuple[Story, ...]) -> None:
    train, test = stories[:220], stories[220:]
    known = set().union(*map(words, train))
    assert set().union(*map(words, test)) <= known
    train_sentences = {query.sentence for story in train for query in story.queries}
    test_sentences = [query.sentence for story in test for query in story.queries]
    assert np.mean([text in train_sentences for text in test_sentences]) < 0.1


def test_queries_carry_the_moment_of_their_event(stories: tuple[Story, ...]) -> None:
    for story in stories:
        moments = [(e.start_seconds, e.end_seconds) for e in story.events]
        assert [query.moments[0] for query in story.queries if query.query_id.endswith("a")] == moments
        assert len({query.query_id for query in story.queries}) == len(story.queries)
        assert {query.video_id for query in story.queries} == {story.video_id}


def test_wording_covers_everything_in_several_ways() -> None:
    assert set(ACTION_WORDS) == set(EVENT_ACTIONS)
    assert all(len(set(ways)) >= 6 for ways in ACTION_WORDS.values())
    assert set(SCENE_WORDS) == set(SCENES)
    assert set(COLOUR_WORDS) == set(COLOURS)
    assert set(ACTOR_WORDS) == set(ACTORS)
    phrases = [phrase for ways in ACTION_WORDS.values() for phrase in ways]
    assert len(set(phrases)) == len(phrases)  # no phrase means two actions


def test_sentences_name_the_scene_often_and_are_english() -> None:
    rng = np.random.default_rng(0)
    texts = [sentence("blue", "cat", "spins", "snow", rng) for _ in range(400)]
    named = np.mean([any(place in text.lower() for place in SCENE_WORDS["snow"]) for text in texts])
    assert 0.55 < named < 0.75
    assert len(set(texts)) > 150
    for text in texts:
        assert re.fullmatch(r"[A-Z][a-z ,]+\.", text), text
        assert " a azure" not in text
        assert not text.startswith("A azure")


@pytest.mark.parametrize("action", sorted(ACTIONS))
@pytest.mark.parametrize("length", [3.0, 10.9])
def test_actions_do_what_they_are_called(action: str, length: float) -> None:
    home = Pose(0.5, 0.5)
    poses = [pose_of(action, home, Moment(k / 8, length)) for k in range(int(length * 8))]
    x, y = np.diff([p.x for p in poses]), np.diff([p.y for p in poses])
    size, turn = np.diff([p.scale for p in poses]), np.diff([p.angle_degrees for p in poses])
    forwards = {
        "rightwards": x, "leftwards": -x, "rises": -y, "falls": y, "grows": size, "shrinks": -size, "spins": turn,
    }  # fmt: skip
    if action in forwards:
        assert np.median(forwards[action]) > 0
        assert np.mean(forwards[action] > 0) > 0.9  # but for the jumps back to the start
    elif action == "blinks":
        assert {p.is_visible for p in poses} == {True, False}
    elif action == "stays":
        assert set(poses) == {home}
    else:
        assert y.max() > 0.01
        assert y.min() < -0.01
        assert (np.ptp([p.x for p in poses]) > 0.3) == (action == "circles")
