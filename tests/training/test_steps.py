"""Each loss: does it carry gradient, to the right parameters only, with the right pairing?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn import functional as F

from dciml.config import RunConfig, parse_config
from dciml.errors import TrainingError
from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch
from dciml.method.layers import as_teacher
from dciml.method.mutual import DualBranch, best_clip, proposal_feature
from dciml.method.outputs import Proposals, Selection
from dciml.method.retrieval import LocalScale, RetrievalBranch
from dciml.method.terms import PATHWAY_TERMS, terms_of
from dciml.model_folder import build_step
from dciml.training.steps import Step, grounding_terms, retrieval_terms, training_step

RETRIEVAL_TERMS, GROUNDING_TERMS = terms_of("retrieval"), terms_of("grounding")


def settings(**changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "name": "test",
        "data": {"folder": "unused"},
        "mutual": {"from_epoch": 0, "grounding_margin": 5.0},
        "retrieval": {"margin": 2.0},
        "grounding": {"reference_margin": 5.0, "negative_margin": 5.0},
        "training": {"clip_norm": None},
        "weights": {"triplet_local": 1.0},
    }
    for key, value in changes.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    return parse_config(tree, "test")


def make_model(dropout: float = 0.0) -> DualBranch:
    torch.manual_seed(0)
    retrieval = RetrievalBranch(
        video_width=12,
        text_width=10,
        hidden=16,
        heads=2,
        num_clips=8,
        max_frames=16,
        dropout=dropout,
        local=LocalScale(video_width=12, text_width=10, width=6, dropout=dropout),
    )
    grounding = GroundingBranch(
        video_width=12, static_width=8, vocabulary_size=20, hidden=16, heads=2, layers=2, num_proposals=4,
        num_positions=6, dropout=dropout,
    )  # fmt: skip
    return DualBranch(retrieval, grounding, 16)


def make_step(model: DualBranch, config: RunConfig, epoch: int = 0) -> Step:
    fabric = Fabric(accelerator="cpu", devices=1)
    return build_step(config, fabric, model, epoch, torch.Generator().manual_seed(0))


def weights_in(config: RunConfig, epoch: int) -> Mapping[str, float]:
    return make_step(make_model(), config, epoch).weights


def optimizers(model: DualBranch, lr: float = 1e-3) -> dict[str, torch.optim.Optimizer]:
    return {
        side: torch.optim.AdamW([p for _, p in model.side(side)], lr=lr)
        for side in ("retrieval", "grounding")
    }


def all_terms(step: Step, batch: Batch) -> dict[str, torch.Tensor]:
    selection = step.model.grounding.select(batch)
    with as_teacher(step.model.grounding):
        condition = proposal_feature(step.model.grounding, batch, selection.best())
    with as_teacher(step.model.retrieval):
        clip = best_clip(step.model.retrieval, batch)
    return retrieval_terms(step, batch, selection, condition) | grounding_terms(step, batch, selection, clip)


def test_sides_share_no_parameter_and_leave_none_out() -> None:
    model = make_model()
    retrieval, grounding = (dict(model.side(side)) for side in ("retrieval", "grounding"))
    assert not retrieval.keys() & grounding.keys()
    assert retrieval.keys() | grounding.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("name", RETRIEVAL_TERMS + GROUNDING_TERMS)
def test_each_loss_has_a_gradient_that_reaches_only_its_side(batch: Batch, name: str) -> None:
    step = make_step(make_model(), settings())
    terms = all_terms(step, batch)
    assert terms[name].item() > 0
    terms[name].backward()
    side = "retrieval" if name in RETRIEVAL_TERMS else "grounding"
    touched = {
        key for key, p in step.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert touched
    assert touched <= dict(step.model.side(side)).keys()


@pytest.mark.parametrize(("side", "other"), [("retrieval", "grounding"), ("grounding", "retrieval")])
def test_an_optimizer_moves_its_own_side_only(batch: Batch, side: str, other: str) -> None:
    model = make_model(dropout=0.2)
    before = copy.deepcopy(model)
    both = optimizers(model)
    both[other] = torch.optim.SGD([p for _, p in model.side(other)], lr=0.0)
    training_step(make_step(model, settings()), batch, both)
    assert all(torch.equal(p, dict(before.named_parameters())[k]) for k, p in model.side(other))
    moved = [k for k, p in model.side(side) if not torch.equal(p, dict(before.named_parameters())[k])]
    assert len(moved) > 0.9 * len(list(model.side(side)))


def test_a_batch_is_never_written_to(batch: Batch) -> None:
    before = copy.deepcopy(batch)
    model = make_model(dropout=0.2)
    training_step(make_step(model, settings()), batch, optimizers(model))
    for part in ("videos", "queries"):
        for key, value in vars(getattr(before, part)).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(getattr(batch, part), key)), key


def test_query_is_taught_by_its_own_video(batch: Batch) -> None:
    """Changing video 1 moves the pathway losses of its sentence alone."""
    model = make_model()
    config = settings()

    def per_query(changed: Batch) -> dict[str, torch.Tensor]:
        values: list[dict[str, torch.Tensor]] = []
        for index in range(len(batch.video_of_query)):
            q = changed.queries
            rows = slice(index, index + 1)
            one = replace(
                changed,
                queries=replace(
                    q, query_ids=q.query_ids[rows], words=q.words[rows], static_words=q.static_words[rows],
                    word_mask=q.word_mask[rows], word_ids=q.word_ids[rows], hidden_words=q.hidden_words[rows],
                ),
                video_of_query=changed.video_of_query[rows],
            )  # fmt: skip
            values.append(all_terms(make_step(model, config), one))
        return {
            k: torch.stack([v[k] for v in values]).detach() for terms in PATHWAY_TERMS.values() for k in terms
        }

    frames, clips = batch.videos.frames.clone(), batch.videos.clips.clone()
    generator = torch.Generator().manual_seed(7)
    frames[1] = torch.randn(frames[1].shape, generator=generator)
    clips[1] = torch.randn(clips[1].shape, generator=generator)
    plain = per_query(batch)
    changed = per_query(replace(batch, videos=replace(batch.videos, frames=frames, clips=clips)))
    own = batch.video_of_query == 1
    for name, values in plain.items():
        torch.testing.assert_close(values[~own], changed[name][~own], msg=name)
        assert not torch.allclose(values[own], changed[name][own]), name


def with_own_centers(batch: Batch) -> Batch:
    """Clips at other times in each video, as where rows do not divide into clips."""
    drawn = torch.rand(batch.videos.clip_centers.shape, generator=torch.Generator().manual_seed(0))
    return replace(batch, videos=replace(batch.videos, clip_centers=drawn.sort(dim=1).values))


def test_the_mask_that_teaches_retrieval_is_of_each_query_s_own_video(batch: Batch) -> None:
    step, batch = make_step(make_model().eval(), settings()), with_own_centers(batch)
    selection = step.model.grounding.select(batch)
    own = step.model.retrieval(batch).paired_similarity()
    for places in (None, torch.tensor([1, 3, 4])):
        asked = torch.arange(len(own)) if places is None else places
        chosen = Selection(
            Proposals(selection.proposals.centers[asked], selection.proposals.widths[asked]),
            selection.nll[asked],
            selection.cost[asked],
            selection.best_index[asked],
        )
        best = chosen.best()
        term = retrieval_terms(step, batch, chosen, None, places)["explicit_to_retrieval"]
        expected = []
        for row, query in enumerate(asked.tolist()):
            centers = batch.videos.clip_centers[batch.video_of_query[query]]
            target = (centers >= best.starts()[row]) & (centers <= best.ends()[row])
            target[(centers - best.centers[row]).abs().argmin()] = True
            p = torch.sigmoid(own[query] / settings().mutual.temperature)
            expected.append(-torch.where(target, p, 1 - p).log().mean())
        torch.testing.assert_close(term, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_fused_teachers_speak_of_each_query_s_own_video(batch: Batch) -> None:
    """Where grounding looked, the mean of the local scale and the proposals; elsewhere the local scale alone."""
    model, batch = make_model().eval(), with_own_centers(batch)
    selection, output = model.grounding.select(batch), model.retrieval(batch)
    assert output.local is not None
    chosen = [1, 3, 4]
    places = torch.tensor(chosen)
    seen = Selection(
        Proposals(selection.proposals.centers[places], selection.proposals.widths[places]),
        selection.nll[places],
        selection.cost[places],
        selection.best_index[places],
    )
    step = make_step(model, settings(retrieval={"local": "linear"}, mutual={"to_retrieval_form": "fused"}))
    found = retrieval_terms(step, batch, seen, None, places)["explicit_to_retrieval"]
    tau, expected = step.retrieval_losses.distribution_temperature, []
    for query, video in enumerate(batch.video_of_query.tolist()):
        cosines = [
            F.cosine_similarity(vector[query], clips[video], dim=-1)
            for vector, clips in ((output.local.query, output.local.clips), (output.query, output.clips))
        ]
        teacher, learned = (torch.softmax(cosine / tau, dim=0) for cosine in cosines)
        if query in chosen:
            centers, shares = batch.videos.clip_centers[video], torch.softmax(-selection.cost[query], dim=0)
            proposals = torch.zeros_like(teacher)
            for number, share in enumerate(shares):
                middle, width = (
                    selection.proposals.centers[query, number],
                    selection.proposals.widths[query, number],
                )
                start, end = (middle - width / 2).clamp(0, 1), (middle + width / 2).clamp(0, 1)
                inside = (centers >= start) & (centers <= end)
                inside[(centers - middle).abs().argmin()] = True
                proposals += share * inside / inside.sum()
            teacher = (teacher + proposals) / 2
        expected.append((teacher * (teacher / learned).log()).sum())
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_best_clip_is_in_the_paired_video_and_where_its_rows_are(batch: Batch) -> None:
    model, batch = make_model().eval(), with_own_centers(batch)
    output = model.retrieval(batch)
    assert output.local is not None
    clip = best_clip(model.retrieval, batch)
    for i, owner in enumerate(batch.video_of_query.tolist()):
        judged = zip([output.local.query[i]] * 8, output.local.clips[owner], strict=True)
        cosine = [torch.cosine_similarity(query, clip, dim=0).item() for query, clip in judged]
        best = max(range(8), key=cosine.__getitem__)
        assert clip.center_unit[i] == batch.videos.clip_centers[owner, best]
        torch.testing.assert_close(clip.feature[i], output.clips[owner, best])


@pytest.mark.parametrize("mode", ["alternating", pytest.param("joint", marks=pytest.mark.slow)])
def test_one_batch_can_be_overfitted(
    batch_of: Callable[..., Batch], shapes_unchecked: Callable[[], AbstractContextManager[None]], mode: str
) -> None:
    model = make_model()
    config = settings(
        training={"mode": mode}, retrieval={"margin": 0.2},
        grounding={"reference_margin": 0.1, "negative_margin": 0.15},
        weights={"nce_clip": 1.0, "nce_frame": 1.0},
    )  # fmt: skip
    batch = batch_of()
    both = optimizers(model, lr=1e-2)
    if mode == "joint":
        both = {"joint": torch.optim.AdamW(model.parameters(), lr=1e-2)}
    first = training_step(make_step(model, config), batch, both)
    with shapes_unchecked():
        for _ in range(40):
            last = training_step(make_step(model, config), batch, both)
    assert last["triplet_clip"] < 0.05 < first["triplet_clip"]
    assert last["nce_clip"] < 0.3 * first["nce_clip"]
    assert last["reconstruct"] < 0.6 * first["reconstruct"]


def test_joint_mode_lets_gradients_through_both_branches(batch: Batch) -> None:
    """The contrast to alternation: the modulating feature teaches the branch that it comes from as well."""
    model = make_model()
    step = make_step(model, settings())
    selection = model.grounding.select(batch)
    condition = proposal_feature(model.grounding, batch, selection.best())
    retrieval_terms(step, batch, selection, condition)["modulated_clip"].backward()
    assert model.grounding.frame_project.weight.grad is not None


def test_pathways_are_off_before_their_epoch_and_by_their_switch() -> None:
    config = settings(mutual={"from_epoch": 3, "explicit_to_grounding": False})
    assert weights_in(config, 2)["modulated_clip"] == 0.0
    assert weights_in(config, 3)["modulated_clip"] == 1.0
    assert weights_in(config, 3)["explicit_to_grounding"] == 0.0
    assert weights_in(config, 0)["reconstruct"] == 1.0


def test_a_switched_off_pathway_is_not_in_the_losses(batch: Batch) -> None:
    off = dict.fromkeys(PATHWAY_TERMS, False)
    model = make_model()
    values = training_step(make_step(model, settings(mutual=off)), batch, optimizers(model))
    assert set(values) == set(RETRIEVAL_TERMS[:7] + GROUNDING_TERMS[:5])


def test_non_finite_loss_stops_with_its_name_and_the_batch(batch: Batch) -> None:
    model = make_model()
    clips = batch.videos.clips.clone()
    clips[0, 0, 0] = float("nan")
    broken = replace(batch, videos=replace(batch.videos, clips=clips))
    with pytest.raises(TrainingError, match=r"loss nce_clip is nan.*v0, v1, v2.*q0"):
        training_step(make_step(model, settings()), broken, optimizers(model))


def test_lessons_of_single_sentences_average_to_the_lesson_of_all(batch: Batch) -> None:
    """Every term of a pathway or of grounding is a mean over the sentences that are looked at; InfoNCE sees all."""
    step = make_step(make_model(), settings())
    whole = all_terms(step, batch)
    alone = []
    for place in range(len(batch.queries.query_ids)):
        part = batch.at(torch.tensor([place]))
        assert part.videos.video_ids == (batch.videos.video_ids[int(batch.video_of_query[place])],)
        selection = step.model.grounding.select(part)
        condition = proposal_feature(step.model.grounding, part, selection.best())
        terms = retrieval_terms(step, batch, selection, condition, torch.tensor([place]))
        terms |= grounding_terms(step, part, selection, best_clip(step.model.retrieval, part))
        alone.append(terms)
        assert terms["nce_clip"].item() == pytest.approx(whole["nce_clip"].item())
    for name in (*RETRIEVAL_TERMS[7:], *GROUNDING_TERMS):
        mean = sum(terms[name].item() for terms in alone) / len(alone)
        assert mean == pytest.approx(whole[name].item(), rel=1e-4), name


def test_grounding_looks_at_drawn_sentences_when_asked(
    batch: Batch, shapes_unchecked: Callable[[], AbstractContextManager[None]]
) -> None:
    model, seen = make_model(), set()
    still = optimizers(model, lr=0.0)
    step = make_step(model, settings(training={"grounding_queries": 1}))
    training_step(step, batch, still)
    with shapes_unchecked():
        for seed in range(20):
            step.generator.manual_seed(seed)
            values = training_step(step, batch, still)
            assert values.keys() == set(RETRIEVAL_TERMS + GROUNDING_TERMS)
            seen.add(round(values["reconstruct"], 5))
    assert len(seen) == len(batch.queries.query_ids)


def test_grounding_is_updated_as_often_as_asked_and_retrieval_once(batch: Batch) -> None:
    counts = {}
    for number in (1, 3):
        model = make_model()
        own = optimizers(model)
        begun = dict.fromkeys(own, 0)

        def count(side: str, begun: dict[str, int] = begun) -> Callable[..., None]:
            def stepped(*_: object) -> None:
                begun[side] += 1

            return stepped

        for side, optimizer in own.items():
            optimizer.register_step_post_hook(count(side))
        step = make_step(model, settings(training={"grounding_updates": number, "grounding_queries": 1}))
        values = training_step(step, batch, own)
        assert values.keys() == set(RETRIEVAL_TERMS + GROUNDING_TERMS)
        counts[number] = begun
    assert counts == {1: {"retrieval": 1, "grounding": 1}, 3: {"retrieval": 1, "grounding": 3}}
