import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dciml.method.fast import Packing, linear_cross_entropy
from dciml.method.layers import word_nll
from dciml.method.losses import (
    RetrievalLosses,
    better_by,
    centred_on_clips,
    clips_by_proposals,
    clips_by_similarity,
    distribution_on_clips,
    explicit_to_grounding,
    explicit_to_retrieval,
    info_nce,
    match,
    proposal_diversity,
    query_diversity,
    span_on_clips,
    triplet,
    windows_as_proposals,
)
from dciml.method.mutual import best_windows
from dciml.method.outputs import Proposals, RetrievalOutput, Selection, Windows
from dciml.search.contrast import contrast_windows

OWNER = torch.tensor([0, 0, 1, 2])


def similarity(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))


def test_info_nce_equals_the_slow_definition() -> None:
    s = similarity()
    forward = [math.log(sum(math.exp(s[q, v]) for v in range(3))) - s[q, OWNER[q]].item() for q in range(4)]
    backward = []
    for v in range(3):
        own = sum(math.exp(s[q, v]) for q in range(4) if OWNER[q] == v)
        backward.append(math.log(sum(math.exp(s[q, v]) for q in range(4))) - math.log(own))
    expected = sum(forward) / 4 + sum(backward) / 3
    assert info_nce(s, OWNER).item() == pytest.approx(expected, rel=1e-5)


def test_triplet_with_the_hardest_negative_equals_the_slow_definition() -> None:
    s = similarity()
    forward, backward = [], []
    for q in range(4):
        own = int(OWNER[q])
        positive = s[q, own].item()
        forward.append(max(0.0, 0.2 + max(s[q, v].item() for v in range(3) if v != own) - positive))
        backward.append(max(0.0, 0.2 + max(s[o, own].item() for o in range(4) if OWNER[o] != own) - positive))
    loss = triplet(s, OWNER, margin=0.2, hard_pool_size=1, generator=torch.Generator())
    assert loss.item() == pytest.approx(sum(forward) / 4 + sum(backward) / 4, rel=1e-5)


def test_random_triplet_never_takes_the_own_video_or_a_sister_sentence() -> None:
    """With the negatives as good as the positives the loss is the margin twice; an own pair would show as a jump."""
    s = torch.where(F.one_hot(OWNER, 3).bool(), 100.0, 0.0)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        assert triplet(s, OWNER, margin=0.2, hard_pool_size=None, generator=generator).item() == 0.0


def test_triplet_of_one_video_is_zero() -> None:
    s = torch.randn(3, 1, requires_grad=True)
    loss = triplet(
        s, torch.zeros(3, dtype=torch.long), margin=0.2, hard_pool_size=None, generator=torch.Generator()
    )
    assert loss.item() == 0.0
    assert loss.requires_grad


def test_query_diversity_equals_the_slow_definition() -> None:
    q = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for i in range(4):
        inner = sum(
            math.exp(4.0 * (F.cosine_similarity(q[i], q[j], dim=0).item() + 0.2))
            for j in range(4)
            if j != i and OWNER[i] == OWNER[j]
        )
        expected += math.log(1 + inner) / 4
    assert query_diversity(q, OWNER, alpha=4.0, delta=0.2).item() == pytest.approx(expected, rel=1e-4)


def retrieval_output() -> RetrievalOutput:
    generator = torch.Generator().manual_seed(3)
    shapes = ((4, 6), (3, 5, 6), (3, 6))
    query, clips, frames = (5 * torch.randn(shape, generator=generator) for shape in shapes)
    return RetrievalOutput(query, clips.requires_grad_(), frames, OWNER)


def losses_of(output: RetrievalOutput, **settings: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    losses = RetrievalLosses(margin=0.2, **settings)
    return losses.of_ranking(output, hard_pool_size=None, generator=generator)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a @ b / (a.norm() * b.norm())).item()


def test_info_nce_reads_products_or_cosines_over_a_temperature() -> None:
    o = retrieval_output()
    products = [[max((q @ c).item() for c in video) for video in o.clips] for q in o.query]
    cosines = [[max(cosine(q, c) for c in video) for video in o.clips] for q in o.query]
    published, normalised = losses_of(o), losses_of(o, nce_temperature=0.07)
    assert published["nce_clip"].item() == pytest.approx(
        info_nce(torch.tensor(products), OWNER).item(), rel=1e-5
    )
    assert normalised["nce_clip"].item() == pytest.approx(
        info_nce(torch.tensor(cosines) / 0.07, OWNER).item(), rel=1e-5
    )
    frames = torch.tensor([[cosine(q, f) for f in o.frames] for q in o.query])
    assert normalised["nce_frame"].item() == pytest.approx(info_nce(frames / 0.07, OWNER).item(), rel=1e-5)


def test_a_soft_maximum_teaches_every_clip_and_a_maximum_one_a_query_and_video() -> None:
    best, every = (clips_with_gradient(temperature) for temperature in (None, 0.1))
    assert best == sum(
        len({int((video @ q / video.norm(dim=-1)).argmax()) for q in retrieval_output().query})
        for video in retrieval_output().clips.detach()
    )
    assert every == 15


def clips_with_gradient(temperature: float | None) -> int:
    output = retrieval_output()
    settings = {} if temperature is None else {"clip_pool_temperature": temperature}
    torch.autograd.backward(losses_of(output, nce_temperature=0.07, **settings)["nce_clip"])
    assert output.clips.grad is not None
    return int((output.clips.grad.abs().sum(dim=-1) > 0).sum())


@pytest.mark.parametrize("word_weights", [None, [1.0, 4.0, 1.0, 4.0]])
def test_word_nll_equals_the_slow_definition(word_weights: list[float] | None) -> None:
    torch.manual_seed(0)
    states, ids = torch.randn(2, 3, 4), torch.tensor([[1, 2, 0], [3, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weight, bias = torch.randn(5, 4), torch.randn(5)
    packing = Packing.of(mask)
    weights = None if word_weights is None else torch.tensor(word_weights)
    out = word_nll(packing.pack(states), ids[mask], packing, (weight, bias), 0.1, weights)
    each = iter(word_weights or [1.0] * 4)
    for q, words in enumerate((3, 1)):
        losses, counts = [], [next(each) for _ in range(words)]
        for i in range(words):
            log_p = torch.log_softmax(weight @ states[q, i] + bias, dim=0)
            losses.append(-(0.9 * log_p[ids[q, i]] + 0.1 * log_p.mean()))
        mean = sum(count * loss.item() for count, loss in zip(counts, losses, strict=True)) / sum(counts)
        assert out[q].item() == pytest.approx(mean, rel=1e-5)


CLASSES = torch.tensor([6, 0, 3, 3, 1])


@pytest.mark.parametrize("at_once", [1 << 22, 14])
def test_linear_cross_entropy_and_its_gradients_equal_autograd_in_one_piece_and_in_many(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dciml.method.fast.LOGITS_AT_ONCE", {"cpu": at_once})  # 14 logits: two rows of seven
    monkeypatch.setattr("dciml.method.fast.CLASSES_AT_ONCE", 3)
    torch.manual_seed(0)
    rows, weight, bias = inputs = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 4), (7, 4), (7,))
    ]
    own = torch.rand(5, dtype=torch.float64)  # each row has its own share of the loss; one has none
    own[2] = 0
    found = linear_cross_entropy(rows, CLASSES, weight, bias, 0.1)
    expected = F.cross_entropy(F.linear(*inputs), CLASSES, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(found, inputs, own), torch.autograd.grad(expected, inputs, own), strict=True
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(x[0], CLASSES, *x[1:], 0.1), inputs)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(rows, CLASSES, weight, bias, 0.1), expected)


def test_linear_cross_entropy_under_autocast_is_near_and_gives_every_input_its_own_kind_of_gradient() -> None:
    torch.manual_seed(0)
    rows, weight, bias = inputs = [
        torch.randn(*shape, requires_grad=True) for shape in ((5, 4), (7, 4), (7,))
    ]
    expected = F.cross_entropy(F.linear(*inputs), CLASSES, reduction="none", label_smoothing=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(rows, CLASSES, weight, bias, 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(found.sum(), inputs)
    for a, b in zip(gradients, torch.autograd.grad(expected.sum(), inputs), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)


def test_proposal_diversity_equals_the_slow_definition() -> None:
    log_g = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0))
    g = log_g.exp()[0]
    g = g / g.sum(dim=1, keepdim=True)
    expected = sum((0.13 * (i == j) - (g[i] @ g[j]).item()) ** 2 for i in range(2) for j in range(2))
    assert proposal_diversity(log_g, 0.13).item() == pytest.approx(expected, rel=1e-5)


def test_span_on_clips_marks_clips_inside() -> None:
    best = Proposals(torch.tensor([[0.5], [0.99]]), torch.tensor([[0.5], [0.01]]))
    centers = torch.tensor([[0.125, 0.375, 0.625, 0.875]]).repeat(2, 1)
    assert span_on_clips(best, centers).tolist() == [[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    few_rows = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.25, 0.25, 0.75, 0.75]])  # clips 2 and 3 show one row
    assert span_on_clips(best, few_rows).tolist() == [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]]


def test_explicit_to_retrieval_has_a_gradient_with_the_right_sign() -> None:
    cosine = torch.zeros(1, 4, requires_grad=True)
    best = Proposals(torch.tensor([[0.5]]), torch.tensor([[0.5]]))
    loss = explicit_to_retrieval(cosine, best, 0.1, torch.tensor([[0.125, 0.375, 0.625, 0.875]])).sum()
    assert loss.item() == pytest.approx(math.log(2.0), rel=1e-5)
    loss.backward()
    assert (cosine.grad[0].sign() == torch.tensor([1.0, -1.0, -1.0, 1.0])).all()


def test_explicit_to_grounding_is_zero_only_inside() -> None:
    proposals = Proposals(torch.tensor([[0.5, 0.2]]), torch.tensor([[0.4, 0.2]]))
    assert explicit_to_grounding(proposals, torch.tensor([0.6])).item() == pytest.approx((0.0 + 0.3) / 2)
    assert explicit_to_grounding(proposals, torch.tensor([0.3])).item() == pytest.approx(0.0, abs=1e-6)


def test_explicit_to_grounding_moves_centres_and_no_width() -> None:
    centers, widths = torch.tensor([[0.5]], requires_grad=True), torch.tensor([[0.2]], requires_grad=True)
    explicit_to_grounding(Proposals(centers, widths), torch.tensor([0.9])).sum().backward()
    assert centers.grad.item() == -1.0  # towards the later clip
    assert widths.grad is None


def test_better_by_leaves_the_plain_side_alone() -> None:
    plain, modulated = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = better_by(modulated, plain, 0.2).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.4)
    assert plain.grad is None
    assert (modulated.grad == -1).all()


def test_match_leaves_the_modulated_side_alone() -> None:
    plain, modulated = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    loss = match(plain, modulated)
    assert loss.shape == (2,)
    loss.sum().backward()
    assert modulated.grad is None
    assert plain.grad.abs().sum() > 0


def test_distribution_pulls_the_similarities_to_the_teachers_shape() -> None:
    cosines = torch.tensor([[0.9, 0.1, 0.1, 0.1]])
    alike = distribution_on_clips(cosines - 0.4, clips_by_similarity(cosines, 0.07), 0.07)
    assert alike.item() == pytest.approx(0.0, abs=1e-6)
    by_hand = torch.tensor([[0.2, 0.3, 0.1, 0.0]], requires_grad=True)
    p, q = (torch.softmax(x / 0.1, dim=1) for x in (cosines, by_hand))
    loss = distribution_on_clips(by_hand, clips_by_similarity(cosines, 0.1), 0.1)
    assert loss.item() == pytest.approx((p * (p / q).log()).sum().item(), rel=1e-5)
    loss.sum().backward()
    assert by_hand.grad is not None
    assert by_hand.grad.argmin() == 0  # the first clip must rise
    assert by_hand.grad.sum().item() == pytest.approx(0.0, abs=1e-5)  # only the shape is taught


def test_the_teachers_of_a_distribution_are_fixed() -> None:
    cosines = torch.tensor([[0.9, 0.1]], requires_grad=True)
    assert not clips_by_similarity(cosines, 0.1).requires_grad
    centers = torch.tensor([[0.3]], requires_grad=True)
    selection = Selection.of(Proposals(centers, torch.tensor([[0.2]])), torch.tensor([[1.0]]))
    assert not clips_by_proposals(selection, torch.tensor([[0.25, 0.75]])).requires_grad


def test_each_proposal_spreads_its_share_over_the_clips_in_its_span() -> None:
    proposals = Proposals(torch.tensor([[0.25, 0.9]]), torch.tensor([[0.5, 0.01]]))
    selection = Selection.of(proposals, torch.tensor([[1.0, 1.0 + math.log(3)]]))  # three times as likely
    centers = torch.tensor([[0.125, 0.375, 0.625, 0.875]])
    found = clips_by_proposals(selection, centers)
    torch.testing.assert_close(found, torch.tensor([[0.375, 0.375, 0.0, 0.25]]))


def test_centred_mask_does_not_see_the_level() -> None:
    best, centers = (
        Proposals(torch.tensor([[0.25]]), torch.tensor([[0.5]])),
        torch.tensor([[0.1, 0.4, 0.6, 0.9]]),
    )
    similarity = torch.tensor([[0.5, 0.4, 0.1, 0.2]])
    found = [centred_on_clips(similarity + level, best, 0.1, centers) for level in (0.0, 0.3)]
    torch.testing.assert_close(*found)


def test_best_windows_find_the_run_that_stands_out() -> None:
    similarity = torch.full((1, 16), 0.1)
    similarity[0, 4:8] = 0.9
    similarity[0, 12:14] = 0.5
    windows = best_windows(similarity, 3)
    assert windows.centers[0, 0].item() == pytest.approx(6 / 16)
    assert windows.widths[0, 0].item() == pytest.approx(4 / 16)
    assert windows.shares.sum().item() == pytest.approx(1.0)
    assert windows.shares[0].tolist() == sorted(windows.shares[0].tolist(), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_best_windows_equal_the_search_s_windows(seed: int) -> None:
    """Search and teacher agree on where: the same contrast, the same order, the same suppression."""
    similarity = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed))
    found = best_windows(similarity, 4, max_iou=0.5)
    expected, _ = contrast_windows(similarity.numpy(), 4, 0.5, np.array([12]))
    spans = torch.stack([found.centers - found.widths / 2, found.centers + found.widths / 2], dim=-1)
    np.testing.assert_allclose(spans[0].numpy(), expected[0], atol=1e-6)


def test_windows_of_equal_similarities_carry_no_nan() -> None:
    windows = best_windows(torch.full((2, 8), 0.3), 5)
    assert all(x.isfinite().all() for x in (windows.centers, windows.widths, windows.shares))


def test_windows_teach_centre_and_width_of_the_proposal_of_their_rank() -> None:
    proposals = Proposals(
        torch.tensor([[0.2, 0.8]], requires_grad=True), torch.tensor([[0.3, 0.3]], requires_grad=True)
    )
    windows = Windows(torch.tensor([[0.5, 0.9]]), torch.tensor([[0.1, 0.3]]), torch.tensor([[0.75, 0.25]]))
    loss = windows_as_proposals(proposals, windows)
    assert loss.item() == pytest.approx(0.75 * (0.3 + 0.2) + 0.25 * 0.1)
    loss.sum().backward()
    assert proposals.centers.grad is not None
    assert proposals.widths.grad is not None
    torch.testing.assert_close(proposals.centers.grad, torch.tensor([[-0.75, -0.25]]))
    torch.testing.assert_close(proposals.widths.grad, torch.tensor([[0.75, 0.0]]))
