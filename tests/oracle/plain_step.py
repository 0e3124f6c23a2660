"""The plain path of a training step: the losses of `dciml.training.steps`, with nothing shared and nothing skipped.

What the published code computes is computed here: every query has its own copy of its video, sentences are padded to
the longest that is allowed, all P proposals and both negatives of each are reconstructed with gradients, once in the
step of either branch; attention is softmax · g / Σ by its definition; the vocabulary loss makes all its logits and
label smoothing is a target distribution; the retrieval branch computes the padding of sentences and videos too; all
threads share each operation. It reads the parameters of the fast modules, so that the two can be compared, and calls
nothing else of theirs but what has no fast form (FiLM, the hinge losses).

Tests use it as the oracle; `benchmarks/train_step.py --reference` times it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dciml.method.batch import Batch, QueryBatch
from dciml.method.grounding import GroundingBranch, sinusoids
from dciml.method.layers import Attention, AttentionPooling, DecoderLayer, GaussianAttentionBlock, Stack
from dciml.method.losses import better_by, explicit_to_grounding, match
from dciml.method.outputs import (
    BestClip,
    GroundingOutput,
    LocalOutput,
    Proposals,
    Reconstructions,
    RetrievalOutput,
    Selection,
)
from dciml.method.retrieval import InputLayer, LocalScale, RetrievalBranch
from dciml.training.steps import Step, retrieval_terms


@dataclass(frozen=True)
class PlainGrounding:
    """All that the plain path computes.

    NLLs are (queries, proposals), `reference` (queries,); `features` (queries, proposals, hidden) are the frames as
    encoded under each proposal, averaged over time; `sampled` is (queries, positions, hidden).
    """

    proposals: Proposals
    nll: Tensor
    left: Tensor
    right: Tensor
    reference: Tensor
    features: Tensor
    sampled: Tensor

    def selection(self) -> Selection:
        nll = self.nll.detach()
        return Selection.of(self.proposals.detach(), nll)

    def output(self, best_index: Tensor) -> GroundingOutput:
        chosen = best_index[:, None]
        best, left, right = (x.gather(1, chosen)[:, 0] for x in (self.nll, self.left, self.right))
        nll = Reconstructions(best, left, right, self.reference)
        return GroundingOutput(self.proposals, best_index, nll, self.sampled)


def padded_queries(queries: QueryBatch, length: int) -> QueryBatch:
    """The same sentences, padded to `length` words."""
    more = length - queries.word_mask.shape[1]
    return replace(
        queries,
        words=F.pad(queries.words, (0, 0, 0, more)),
        static_words=F.pad(queries.static_words, (0, 0, 0, more)),
        word_mask=F.pad(queries.word_mask, (0, more)),
        word_ids=F.pad(queries.word_ids, (0, more)),
        hidden_words=F.pad(queries.hidden_words, (0, more)),
        content_words=None if queries.content_words is None else F.pad(queries.content_words, (0, more)),
    )


def causal(length: int, device: torch.device) -> Tensor:
    """True where position i may look: at positions up to i; (1, length, length)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None]


def plain_attention(
    layer: Attention, x: Tensor, keys: Tensor, allowed: Tensor, weights: Tensor | None
) -> Tensor:
    """softmax(a) · g / Σ; `allowed` (#batch, queries, keys) True where seen, `weights` (batch, keys) are g."""
    split = lambda t: t.reshape(*t.shape[:-1], layer.heads, -1).transpose(1, 2)  # noqa: E731
    q, (k, v) = split(layer.query(x)), (split(part) for part in layer.key_value(keys).chunk(2, dim=-1))
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(~allowed[:, None], -1e9)
    attention = torch.softmax(scores, dim=-1)
    if weights is not None:
        attention = attention * weights[:, None, None]
        attention = attention / attention.sum(dim=-1, keepdim=True)
    out: Tensor = layer.out((attention @ v).transpose(1, 2).flatten(-2))
    return out


def plain_stack(
    stack: Stack,
    x: Tensor,
    allowed: Tensor,
    memory: Tensor | None = None,
    memory_allowed: Tensor | None = None,
    *,
    weights: Tensor | None = None,
    memory_weights: Tensor | None = None,
) -> Tensor:
    """All layers, all rows."""
    for layer in stack.layers:
        assert isinstance(layer, DecoderLayer)
        update = plain_attention(layer.self_attention, x, x, allowed, weights)
        x = layer.norms[0](x + layer.dropout(update))
        if memory is not None:
            seen = memory_allowed
            if seen is None:
                seen = torch.ones(1, 1, memory.shape[1], dtype=torch.bool, device=x.device)
            update = plain_attention(layer.cross_attention, x, memory, seen, memory_weights)
            x = layer.norms[1](x + layer.dropout(update))
        x = layer.norms[2](x + layer.dropout(layer.feed_forward(x)))
    return x


def plain_nll(branch: GroundingBranch, queries: QueryBatch, states: Tensor) -> Tensor:
    """Mean over real words, content words weighing more, of the cross-entropy with the smoothed target written out."""
    log_probability = torch.log_softmax(
        branch.vocabulary_head(states), dim=-1
    )  # (queries, words, vocabulary)
    smoothing, size = branch.label_smoothing, log_probability.shape[-1]
    target = F.one_hot(queries.word_ids, size) * (1 - smoothing) + smoothing / size
    per_word = -(target * log_probability).sum(dim=-1)
    mask = queries.word_mask.float()
    if queries.content_words is not None:
        mask = mask * torch.where(queries.content_words, branch.content_weight, 1.0)
    return (per_word * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def gaussian(center: Tensor, sigma: Tensor, length: int) -> Tensor:
    """g(t) at `length` positions, kept above the smallest number so that a row of zeros cannot come about."""
    t = torch.linspace(0, 1, length, device=center.device)
    g = torch.exp(-0.5 * ((t - center[..., None]) / sigma[..., None]) ** 2)
    return g.clamp(min=torch.finfo(g.dtype).tiny)


def plain_sentence_nll(
    branch: GroundingBranch, queries: QueryBatch, sampled: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Reconstruct each sentence from its frames under a Gaussian (queries, positions), or evenly.

    Returns: NLL (queries,), and the encoded frames averaged over time (queries, hidden).
    """
    positions, length = branch.num_positions, queries.word_mask.shape[1]
    encoded = plain_stack(branch.frame_stack, sampled, causal(positions, sampled.device), weights=weights)
    words = branch.dropout(branch.word_project(queries.static_words))
    words = torch.where(queries.hidden_words[..., None], branch.hidden_word, words)
    shifted = branch._with_start(words[:, :-1])
    seen = causal(length, shifted.device)
    states = plain_stack(branch.word_stack, shifted, seen, encoded, memory_weights=weights)
    return plain_nll(branch, queries, states), encoded.mean(dim=1)


def plain_propose(branch: GroundingBranch, batch: Batch) -> tuple[Proposals, Tensor]:
    """Pass 1 with each query's own copy of its video. Returns: proposals, and the sampled frames."""
    mask = batch.videos.frame_mask[batch.video_of_query]
    counts = mask.sum(dim=1, keepdim=True)
    unit = torch.arange(mask.shape[1], device=mask.device)[None] / (counts - 1).clamp(min=1)
    rows = branch.dropout(branch.frame_project(batch.videos.frames[batch.video_of_query]))
    frames = rows + sinusoids(unit * 100, branch.hidden)  # the reconstruction reads the rows without the time
    queries = batch.queries
    words = branch._with_start(branch.dropout(branch.word_project(queries.static_words)))
    word_mask = F.pad(queries.word_mask, (1, 0), value=True)
    seen = causal(word_mask.shape[1], words.device) & word_mask[:, None]
    encoded = plain_stack(branch.word_stack, words, seen)
    with_prediction = torch.cat([frames, branch.prediction_row.expand(len(frames), 1, -1)], dim=1)
    seen = causal(with_prediction.shape[1], frames.device) & F.pad(mask, (0, 1), value=True)[:, None]
    last = plain_stack(branch.frame_stack, with_prediction, seen, encoded, word_mask[:, None])[:, -1]
    logits, log_prior = branch.span_head(last), None
    if queries.anchors is not None:
        center, width, share = queries.anchors.unbind(dim=-1)
        anchor = torch.cat([center, width], dim=1).clamp(1e-3, 1 - 1e-3)
        logits, log_prior = logits + torch.log(anchor / (1 - anchor)), torch.log(share)
    centers, widths = torch.sigmoid(logits).chunk(2, dim=-1)
    proposals = Proposals(centers, widths.clamp(min=branch.min_width), log_prior)
    points = torch.linspace(0, 1, branch.num_positions, device=mask.device)
    index = (points[None] * (counts - 1)).round().long()
    sampled = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    return proposals, sampled


def plain_grounding(branch: GroundingBranch, batch: Batch, easiness_now: float) -> PlainGrounding:
    """Every proposal, both negatives of each, and the whole video, all with gradients."""
    proposals, sampled = plain_propose(branch, batch)
    positions, queries = branch.num_positions, batch.queries
    own = gaussian(proposals.centers, proposals.widths / branch.gaussian_sigma, positions)
    room_left = easiness_now * (proposals.centers - proposals.widths / 2).clamp(min=0)
    room_right = easiness_now * (1 - proposals.centers - proposals.widths / 2).clamp(min=0)
    scale = branch.gaussian_sigma / 2
    sides = [
        gaussian(center, (room / 2).clamp(min=branch.min_width) / scale, positions)
        for center, room in ((room_left / 2, room_left), (1 - room_right / 2, room_right))
    ]
    every = [
        [plain_sentence_nll(branch, queries, sampled, weights[:, p]) for p in range(weights.shape[1])]
        for weights in (own, *sides)
    ]
    nll, left, right = (torch.stack([value for value, _ in row], dim=1) for row in every)
    features = torch.stack([feature for _, feature in every[0]], dim=1)
    reference, _ = plain_sentence_nll(branch, queries, sampled, None)
    return PlainGrounding(proposals, nll, left, right, reference, features, sampled)


def plain_grounding_terms(
    step: Step, batch: Batch, plain: PlainGrounding, clip: BestClip
) -> dict[str, Tensor]:
    """All losses of the grounding side, by name; means over the queries."""
    branch = step.model.grounding
    output = plain.output(plain.selection().best_index)
    own = gaussian(
        plain.proposals.centers, plain.proposals.widths / branch.gaussian_sigma, branch.num_positions
    )
    losses = step.grounding_losses.of_reconstruction(output, own.log())
    losses["explicit_to_grounding"] = explicit_to_grounding(output.proposals, clip.center_unit)
    modulated = step.model.to_grounding(plain.sampled, clip.feature)
    best = output.proposals.at(output.best_index)
    weights = gaussian(best.centers, best.widths / branch.gaussian_sigma, branch.num_positions)[:, 0]
    nll, _ = plain_sentence_nll(branch, batch.queries, modulated, weights)
    losses["modulated_nll"] = better_by(-nll, -output.nll.best, step.grounding_losses.modulation_margin)
    losses["match_grounding"] = match(plain.sampled.mean(dim=1), modulated.mean(dim=1))
    return {name: loss.mean() for name, loss in losses.items()}


def plain_input(layer: InputLayer, rows: Tensor) -> Tensor:
    """(batch, length, width) → (batch, length, hidden)."""
    out: Tensor = layer.dropout(layer.norm(layer.project(rows) + layer.positions[: rows.shape[1]]))
    return out


def plain_window_block(block: GaussianAttentionBlock, x: Tensor, mask: Tensor) -> Tensor:
    """Self-attention of all rows, its scores multiplied by the Gaussian of their distance in unit time."""
    split = lambda t: t.reshape(*t.shape[:-1], block.heads, -1).transpose(1, 2)  # noqa: E731
    q, k, v = (split(part) for part in block.query_key_value(x).chunk(3, dim=-1))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if block.width is not None:
        place = torch.arange(x.shape[1], device=x.device)
        unit = place / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)  # (batch, length)
        distance = unit[:, :, None] - unit[:, None, :]
        scores = scores * torch.exp(-0.5 * (distance / (block.width / 9)) ** 2)[:, None].to(scores.dtype)
    attention = torch.softmax(scores.masked_fill(~mask[:, None, None], -1e9), dim=-1)
    update = block.out((block.dropout(attention) @ v).transpose(1, 2).flatten(-2))
    out: Tensor = block.norm(x + block.dropout(update))
    return out


def plain_pool(pool: AttentionPooling, x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the real rows, weighted by a softmax."""
    weights = torch.softmax(pool.score(x)[..., 0].masked_fill(~mask, -1e9), dim=1)
    return (weights[..., None] * x).sum(dim=1)


def plain_retrieval(branch: RetrievalBranch, batch: Batch) -> RetrievalOutput:
    """The retrieval branch with all padding computed."""
    queries, videos = batch.queries, batch.videos
    words = plain_window_block(
        branch.query_block, plain_input(branch.query_input, queries.words), queries.word_mask
    )
    scales = []
    every_clip = torch.ones(videos.clips.shape[:2], dtype=torch.bool, device=words.device)
    for layer, mixtures, rows, mask in (
        (branch.clip_input, branch.clip_blocks, videos.clips, every_clip),
        (branch.frame_input, branch.frame_blocks, videos.frames, videos.frame_mask),
    ):
        x = plain_input(layer, rows)
        for mixture in mixtures:
            x = torch.stack([plain_window_block(block, x, mask) for block in mixture.blocks]).mean(dim=0)
        scales.append(x)
    clips, frames = scales
    query = plain_pool(branch.query_pool, words, queries.word_mask)
    return RetrievalOutput(
        query,
        clips,
        plain_pool(branch.frame_pool, frames, videos.frame_mask),
        batch.video_of_query,
        None if branch.local is None else plain_local(branch.local, batch),
    )


def plain_local(scale: LocalScale, batch: Batch) -> LocalOutput:
    """The local scale, sentence by sentence and clip by clip."""
    vectors = []
    for rows, mask in zip(batch.queries.words, batch.queries.word_mask, strict=True):
        own = rows[mask]
        pooled = torch.softmax(scale.word_score(own)[:, 0], dim=0) @ own
        vectors.append(scale.text(scale.dropout(pooled)))
    clips = [torch.stack([scale.video(scale.dropout(clip)) for clip in own]) for own in batch.videos.clips]
    return LocalOutput(torch.stack(vectors), torch.stack(clips))


def with_plain_retrieval(step: Step) -> Step:
    """The same step, for `retrieval_terms`, with the branch as above."""
    branch = step.model.retrieval

    class Plain:
        parameters = branch.parameters

        def __call__(self, batch: Batch) -> RetrievalOutput:
            return plain_retrieval(branch, batch)

    model: Any = SimpleNamespace(retrieval=Plain(), to_retrieval=step.model.to_retrieval)
    return replace(step, model=model)


def plain_best_clip(step: Step, batch: Batch) -> BestClip:
    """The clip of a query's own video with the largest cosine, from the whole retrieval branch."""
    retrieval = step.model.retrieval
    was_training = retrieval.training
    retrieval.eval()
    output = plain_retrieval(retrieval, batch)
    retrieval.train(was_training)
    own = output.clips[output.video_of_query].detach()
    query, judged = output.query, own
    if output.local is not None:
        query, judged = output.local.query, output.local.clips[output.video_of_query]
    cosine = F.cosine_similarity(judged.detach(), query[:, None].detach(), dim=-1)
    index = cosine.argmax(dim=1)
    every = torch.arange(len(index), device=index.device)
    return BestClip(batch.videos.clip_centers[batch.video_of_query[every], index], own[every, index])


def plain_terms(step: Step, batch: Batch, side: str) -> dict[str, Tensor]:
    """The losses of one side, its teacher computed in full beforehand."""
    batch = replace(batch, queries=padded_queries(batch.queries, step.model.grounding.max_words))
    branch = step.model.grounding
    if side == "retrieval":
        was_training = branch.training
        branch.eval()
        teacher = plain_grounding(branch, batch, step.easiness)
        branch.train(was_training)
        selection = teacher.selection()
        every = torch.arange(len(selection.best_index), device=selection.best_index.device)
        condition = teacher.features.detach()[every, selection.best_index]
        return retrieval_terms(with_plain_retrieval(step), batch, selection, condition)
    clip = plain_best_clip(step, batch)
    plain = plain_grounding(branch, batch, step.easiness)
    return plain_grounding_terms(step, batch, plain, clip)


def plain_training_step(
    step: Step, batch: Batch, optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, float]:
    """One batch, both sides in turn; returns losses by name."""
    values: dict[str, float] = {}
    for side in ("retrieval", "grounding"):
        terms = plain_terms(step, batch, side)
        used = {name: term for name, term in terms.items() if step.weights[name] > 0}
        optimizer = optimizers[side]
        optimizer.zero_grad(set_to_none=True)
        sum((step.weights[name] * term for name, term in used.items()), torch.zeros(())).backward()
        if step.clip_norm is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, step.clip_norm)
        optimizer.step()
        values |= {name: float(term.detach()) for name, term in used.items()}
    return values
