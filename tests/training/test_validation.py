"""Values on held-out pairs: against the slow definition; no dropout; nothing left changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dciml.config import RunConfig
from dciml.datasets.folder import DataFolder
from dciml.features.encoded_text import EncodedCorpus
from dciml.features.encoders.words import WordEncoder
from dciml.features.vocabulary import Vocabulary
from dciml.method.losses import GroundingLosses
from dciml.method.mutual import DualBranch
from dciml.model_folder import ModelCard, batch_sizes, build_dual, draw_of
from dciml.training import validation
from dciml.training.loader import PairData
from dciml.training.validation import LOCAL_WEIGHTS, TEMPERATURES, choose_local_weight, validate

CPU = torch.device("cpu")
START = 0.4


@pytest.fixture
def data(tiny_config: Callable[..., RunConfig], tiny_data: Path) -> PairData:
    folder = DataFolder.open(tiny_data)
    pairs = folder.pairs("test")
    vocabulary = Vocabulary.build([pair.sentence for pair in pairs])
    corpus = EncodedCorpus.build(WordEncoder(vocabulary, 16), [pair.sentence for pair in pairs])
    return PairData(
        folder.store, pairs, corpus, vocabulary, batch_sizes(tiny_config()), draw_of(tiny_config())
    )


@pytest.fixture
def model(data: PairData, tiny_config: Callable[..., RunConfig]) -> DualBranch:
    torch.manual_seed(0)
    card = ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, len(data.vocabulary))
    return build_dual(tiny_config(), card)


def test_retrieval_value_is_the_sum_of_recalls(model: DualBranch, data: PairData) -> None:
    model.eval()
    videos = list(data.by_video())
    ranks = []
    with torch.no_grad():
        for index, pair in enumerate(data.pairs):
            scores = {}
            for video_id in videos:
                batch = data.collate([(video_id, [index])], 0)
                output = model.retrieval(batch)
                clip = torch.cosine_similarity(output.query, output.clips[0], dim=-1).max()
                frame = torch.cosine_similarity(output.query, output.frames[0:1])[0]
                scores[video_id] = 0.7 * float(clip) + 0.3 * float(frame)
            ranks.append(sorted(scores, key=lambda v: -scores[v]).index(pair.video_id) + 1)
    expected = sum(100 * sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 5, 10, 100))
    assert validate(model, data, CPU)["retrieval"] == pytest.approx(expected, abs=1e-4)


def test_model_that_scores_all_alike_gets_no_credit(model: DualBranch, data: PairData) -> None:
    """Ties count against; a model that collapsed to one vector must not look perfect."""
    with torch.no_grad():
        for parameter in model.retrieval.parameters():
            parameter.zero_()
    assert validate(model, data, CPU)["retrieval"] == pytest.approx(200.0)  # R@10 and R@100 of 8 videos


def test_grounding_value_is_the_mean_objective_of_single_pairs(model: DualBranch, data: PairData) -> None:
    model.eval()
    total = 0.0
    with torch.no_grad():
        for index, pair in enumerate(data.pairs):
            batch = data.collate([(pair.video_id, [index])], 0)
            output = model.grounding(batch, model.grounding.select(batch).best_index, 1.0)
            log_weights = model.grounding.log_weights(output.proposals)
            terms = GroundingLosses(
                reference_margin=0.1, negative_margin=0.15, diversity_lambda=0.13
            ).of_reconstruction(output, log_weights)
            total += float(terms["reconstruct"])
            total += 2 * float(terms["contrast_reference"] + terms["contrast_left"] + terms["contrast_right"])
    expected = -total / len(data.pairs)
    for pairs_at_once in (1, 3, 64):
        value = validate(model, data, CPU, pairs_at_once)["grounding"]
        assert value == pytest.approx(expected, rel=1e-4)


def test_validation_is_repeatable_and_leaves_the_model_alone(model: DualBranch, data: PairData) -> None:
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(1)
    first = validate(model, data, CPU)
    torch.manual_seed(2)
    assert validate(model, data, CPU) == first
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_with_moments_grounding_is_the_mean_iou_of_the_first_proposal(
    model: DualBranch, data: PairData, tiny_data: Path
) -> None:
    queries = DataFolder.open(tiny_data).queries("test")
    moments = {q.query_id: q.moments for q in queries[:5]}
    model.eval()
    total = 0.0
    for query in queries[:5]:
        index = [pair.query_id for pair in data.pairs].index(query.query_id)
        best = model.grounding.select(data.collate([(query.video_id, [index])], 0)).best()
        seconds = data.store.duration_seconds(query.video_id)
        start, end = float(best.starts()) * seconds, float(best.ends()) * seconds
        ((low, high),) = query.moments
        shared = max(0.0, min(end, high) - max(start, low))
        total += 100 * shared / ((end - start) + (high - low) - shared)
    value = validate(model, data, CPU, moments=moments)["grounding"]
    assert value == pytest.approx(total / 5, rel=1e-5)


def with_local(data: PairData, tiny_config: Callable[..., RunConfig], **retrieval: object) -> DualBranch:
    torch.manual_seed(0)
    card = ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, len(data.vocabulary))
    return build_dual(tiny_config(retrieval={"local": "linear", "local_width": 8, **retrieval}), card)


@pytest.mark.parametrize("sure", [True, False])
def test_share_of_the_local_scale_makes_held_out_pairs_likeliest(
    data: PairData, tiny_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, sure: bool
) -> None:
    """Plain reference, one sentence and one video after the other: held-out videos first, then the training ones."""
    asked: list[tuple[float, int]] = []

    def judge(gain: torch.Tensor, owner: torch.Tensor) -> bool:
        asked.append((float(gain.mean()), len(owner.unique())))
        return sure

    monkeypatch.setattr(validation, "surely_positive", judge)
    own_ids = list(data.by_video())[:4]
    held_out, training = of_videos(data, own_ids), of_videos(data, list(data.by_video())[4:])
    model = with_local(data, tiny_config, local_weight=0.3)
    found = {}
    model.eval()
    batch = data.collate(list(data.by_video().items()), epoch=0)
    with torch.no_grad():
        output = model.retrieval(batch)
        assert output.local is not None
        for weight in (*LOCAL_WEIGHTS, START):
            rows, owners = [], []
            for i, own in enumerate(batch.video_of_query.tolist()):
                if own >= len(own_ids):
                    continue
                scores = []
                for v in range(len(output.clips)):
                    frame = 0.3 * torch.cosine_similarity(output.query[i], output.frames[v], dim=0)
                    clip = 0.7 * torch.cosine_similarity(output.query[i][None], output.clips[v], dim=1)
                    local = torch.cosine_similarity(output.local.query[i][None], output.local.clips[v], dim=1)
                    scores.append(float((weight * local + (1 - weight) * (clip + frame)).max()))
                rows.append(scores)
                owners.append(own)
            scored = np.array(rows)
            found[weight] = max(
                float(
                    np.mean(
                        [
                            row[own] / t - np.log(np.exp(row / t).sum())
                            for row, own in zip(scored, owners, strict=True)
                        ]
                    )
                )
                for t in TEMPERATURES
            )
    model.train()
    choose_local_weight(model, held_out, training, CPU, START)
    chosen, best = float(model.retrieval.local_weight), max(found[weight] for weight in LOCAL_WEIGHTS)
    assert asked == [(pytest.approx(best - found[START], abs=1e-4), len(own_ids))]
    if sure:
        nearest = min(LOCAL_WEIGHTS, key=lambda weight: abs(weight - chosen))
        assert found[nearest] == pytest.approx(best, abs=1e-4)
    else:
        assert chosen == pytest.approx(START)
    assert model.training
    assert len(set(found.values())) > 1


def test_a_gain_is_sure_where_videos_agree() -> None:
    """By hand: of four videos with two sentences each, the sums of a video are the draws."""
    owner = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for sums, sure in (([2.0, 2.0, 2.0, 1.8], True), ([8.0, 0.0, 0.0, 0.0], False), ([-1.0] * 4, False)):
        values = torch.tensor(sums).repeat_interleave(2) / 2
        error = np.std(sums, ddof=1) * 2 / 8  # of the mean over eight sentences
        assert (np.sum(sums) / 8 > 2 * error) is np.bool_(sure)
        assert validation.surely_positive(values, owner) is sure
    assert not validation.surely_positive(
        torch.ones(3), torch.zeros(3, dtype=torch.int64)
    )  # one video tells nothing


def of_videos(data: PairData, video_ids: Sequence[str]) -> PairData:
    chosen = [i for i, pair in enumerate(data.pairs) if pair.video_id in video_ids]
    return replace(data, pairs=tuple(data.pairs[i] for i in chosen), sentences=data.sentences.take(chosen))


def test_without_a_local_scale_there_is_no_share_to_choose(model: DualBranch, data: PairData) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    choose_local_weight(model, data, data, CPU, START)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_share_is_kept_with_the_weights(data: PairData, tiny_config: Callable[..., RunConfig]) -> None:
    model, other = with_local(data, tiny_config), with_local(data, tiny_config)
    model.retrieval.local_weight.fill_(0.25)
    other.load_state_dict(model.state_dict())
    assert float(other.retrieval.local_weight) == 0.25
    assert "retrieval.local_weight" in dict(model.side("retrieval"))
