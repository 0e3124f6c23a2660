"""What an epoch holds, what a batch depends on, alignment of ids and rows, and the prefetching thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary
from dciml.model_folder import batch_sizes, draw_of
from dciml.training.loader import PairData, epoch_groups, on_device, one_ahead, prefetched
from dciml.types import TrainingPair

MakeConfig = Callable[..., RunConfig]
Groups = list[list[tuple[str, list[int]]]]


@pytest.fixture
def make_data(tiny_config: MakeConfig, tiny_data: Path) -> Callable[..., PairData]:
    folder = DataFolder.open(tiny_data)
    pairs = folder.pairs("train")
    vocabulary = Vocabulary.build([pair.sentence for pair in pairs])
    corpus = EncodedCorpus.build(WordEncoder(vocabulary, 16), [pair.sentence for pair in pairs])

    def make(**changes: object) -> PairData:
        config = tiny_config(**changes)
        return PairData(folder.store, pairs, corpus, vocabulary, batch_sizes(config), draw_of(config))

    return make


@pytest.fixture
def data(make_data: Callable[..., PairData]) -> PairData:
    return make_data()


def flat(groups: Groups) -> list[int]:
    return [index for batch in groups for _, members in batch for index in members]


def test_every_pair_appears_once_an_epoch_with_its_own_video(data: PairData) -> None:
    for epoch in range(3):
        groups = epoch_groups(data, epoch, 0, 1)
        assert sorted(flat(groups)) == list(range(len(data.pairs)))
        for batch in groups:
            assert len({video_id for video_id, _ in batch}) == len(batch)
            for video_id, members in batch:
                assert {data.pairs[index].video_id for index in members} == {video_id}


def test_order_depends_on_seed_and_epoch_only(make_data: Callable[..., PairData]) -> None:
    first = epoch_groups(make_data(), 1, 0, 1)
    np.random.seed(5)  # noqa: NPY002  # the global state must not matter
    torch.manual_seed(5)
    assert epoch_groups(make_data(), 1, 0, 1) == first
    assert epoch_groups(make_data(), 2, 0, 1) != first
    assert epoch_groups(make_data(seed=1), 1, 0, 1) != first


def test_sentences_of_a_video_are_limited_and_drawn_anew(make_data: Callable[..., PairData]) -> None:
    data = make_data(training={"max_sentences_per_video": 1})
    chosen = [flat(epoch_groups(data, epoch, 0, 1)) for epoch in range(8)]
    assert all(len(indices) == 24 for indices in chosen)
    assert set().union(*chosen) == set(range(48))


@pytest.mark.parametrize(("world_size", "batch_videos"), [(2, 4), (4, 2), (8, 1), (3, 5)])
def test_ranks_together_see_the_batches_of_one_process(
    make_data: Callable[..., PairData], world_size: int, batch_videos: int
) -> None:
    alone = epoch_groups(make_data(training={"batch_videos": batch_videos * world_size}), 1, 0, 1)
    data = make_data(training={"batch_videos": batch_videos})
    ranks = [epoch_groups(data, 1, rank, world_size) for rank in range(world_size)]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == alone
    assert all(len(batch) >= 1 for groups in ranks for batch in groups)


def test_last_batch_smaller_than_the_number_of_processes_is_left_out_everywhere(data: PairData) -> None:
    few = PairData(
        data.store, data.pairs[:34], data.sentences, data.vocabulary, data.sizes, data.draw
    )  # 17 videos
    ranks = [epoch_groups(few, 0, rank, 2) for rank in range(2)]
    assert [len(groups) for groups in ranks] == [1, 1]
    assert len(epoch_groups(few, 0, 0, 1)) == 3


def test_hidden_words_do_not_depend_on_batch_mates(make_data: Callable[..., PairData]) -> None:
    def hidden(data: PairData, groups: Groups, epoch: int) -> dict[str, list[int]]:
        found = {}
        for batch in groups:
            queries = data.collate(batch, epoch).queries
            for query_id, row in zip(queries.query_ids, queries.hidden_words, strict=True):
                found[query_id] = row.nonzero()[:, 0].tolist()
        return found

    data = make_data()
    singles: Groups = [
        [(video_id, [index])] for video_id, members in data.by_video().items() for index in members
    ]
    together = hidden(data, epoch_groups(data, 4, 0, 1), 4)
    assert together == hidden(data, singles, 4)
    assert all(len(positions) == 1 for positions in together.values())  # a third of four words
    assert together != hidden(data, singles, 5)
    assert together != hidden(make_data(seed=1), singles, 4)


def test_batch_holds_the_rows_and_ids_that_it_names(data: PairData) -> None:
    for batch_groups in epoch_groups(data, 0, 0, 1):
        batch = data.collate(batch_groups, 0)
        for row, query_id in enumerate(batch.queries.query_ids):
            pair = next(pair for pair in data.pairs if pair.query_id == query_id)
            assert batch.videos.video_ids[int(batch.video_of_query[row])] == pair.video_id
            words = [
                data.vocabulary.words[i] for i in batch.queries.word_ids[row][batch.queries.word_mask[row]]
            ]
            assert words == pair.sentence.split()
        for row, video_id in enumerate(batch.videos.video_ids):
            assert batch.videos.frame_mask[row].sum() == min(16, data.store.num_rows(video_id))


def make_tiny_bert(folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "##s", "run", "the", "door", "##way", ".", "x"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=24
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


SENTENCES = ["The dogs run.", "a doorway: dogs run the door, a dog", "Dogs!", "the unheard-of zebra runs"]


@pytest.mark.parametrize("max_words", [2, 30])
@pytest.mark.parametrize("kind", ["words", "transformers"])
def test_word_ids_stand_beside_the_rows_of_the_same_words(
    data: PairData, tiny_config: MakeConfig, tmp_path: Path, kind: str, max_words: int
) -> None:
    from dciml.features.encoders.text import create_text_encoder

    spec = "words:16" if kind == "words" else f"transformers:{make_tiny_bert(tmp_path / 'bert')}"
    vocabulary = Vocabulary.build(SENTENCES[:3])
    encoder = create_text_encoder(spec, vocabulary)
    pairs = tuple(
        TrainingPair(str(i), data.pairs[0].video_id, sentence) for i, sentence in enumerate(SENTENCES)
    )
    corpus = EncodedCorpus.build(encoder, SENTENCES)
    config = tiny_config(text={"max_words": max_words})
    queries = (
        PairData(data.store, pairs, corpus, vocabulary, batch_sizes(config), draw_of(config))
        .collate([(data.pairs[0].video_id, list(range(len(SENTENCES))))], 0)
        .queries
    )
    seen = set()
    for row in range(len(SENTENCES)):
        for word_id, static in zip(queries.word_ids[row], queries.static_words[row], strict=True):
            if int(word_id) == 0:  # unknown, or padding
                continue
            word = vocabulary.words[int(word_id)]
            alone = torch.from_numpy(encoder.encode([word])[0].static[0])
            torch.testing.assert_close(static, alone, msg=word)
            seen.add(word)
    assert queries.word_mask.sum(1).tolist() == [min(count, max_words) for count in (3, 8, 1, 5)]
    assert len(seen) >= (4 if max_words == 2 else 6)


def test_next_batch_begins_before_the_present_one_is_used() -> None:
    seen: list[str] = []

    def begin(number: int) -> tuple[int, str]:
        seen.append(f"begin {number}")
        return number, "begun"

    def end(begun: tuple[int, str]) -> int:
        seen.append(f"end {begun[0]}")
        return begun[0]

    for number in one_ahead(iter(range(3)), begin, end):
        seen.append(f"use {number}")
    assert seen == [
        "begin 0", "begin 1", "end 0", "use 0", "begin 2", "end 1", "use 1", "end 2", "use 2",
    ]  # fmt: skip
    assert list(one_ahead(iter(()), begin, end)) == []


@pytest.mark.parametrize("good", [0, 1, 2, 5])
def test_error_of_the_loader_comes_after_the_batches_before_it(good: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(good)
        raise LookupError("no more rows")

    seen: list[int] = []
    with pytest.raises(LookupError, match="no more rows"):
        seen.extend(one_ahead(prefetched(broken()), lambda x: x, lambda x: x))
    assert seen == list(range(good))


def test_batches_on_the_device_are_those_of_the_loader(data: PairData) -> None:
    groups = epoch_groups(data, 0, 0, 1)
    expected = [data.collate(group, 0) for group in groups]
    batches = (data.collate(group, 0) for group in groups)
    found = list(on_device(prefetched(batches), torch.device("cpu")))
    assert len(found) == len(expected) == 3
    for left, right in zip(found, expected, strict=True):
        assert left.queries.query_ids == right.queries.query_ids
        assert left.videos.video_ids == right.videos.video_ids
        pairs = list(zip(left.tensors(), right.tensors(), strict=True))
        assert len(pairs) == 11
        assert all(torch.equal(*pair) for pair in pairs)


def test_prefetched_gives_everything_in_order() -> None:
    assert list(prefetched(iter(range(50)))) == list(range(50))
    assert list(prefetched(iter(()))) == []


@hypothesis_settings(deadline=None, max_examples=10)
@given(st.integers(0, 6), st.integers(1, 4))
def test_prefetched_raises_what_its_producer_raised(good: int, depth: int) -> None:
    def broken() -> Iterator[int]:
        yield from range(good)
        raise LookupError("no more rows")

    seen: list[int] = []
    with pytest.raises(LookupError, match="no more rows"):
        seen.extend(prefetched(broken(), depth))
    assert seen == list(range(good))


@pytest.mark.parametrize("ends_by", ["break", "error", "close"])
def test_prefetching_ends_when_its_reader_stops_early(ends_by: str) -> None:
    before = set(threading.enumerate())

    def endless() -> Iterator[int]:
        number = 0
        while True:
            number += 1
            yield number

    reader = prefetched(endless())
    assert next(reader) == 1
    assert set(threading.enumerate()) - before
    if ends_by == "error":
        with pytest.raises(LookupError):
            reader.throw(LookupError())  # type: ignore[attr-defined]
    elif ends_by == "close":
        reader.close()  # type: ignore[attr-defined]
    else:
        del reader
    patience = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < patience:
        time.sleep(0.02)
    assert not set(threading.enumerate()) - before
