"""How good are the branches on held-out pairs, and which window of a long video does a sentence tell of?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dciml.features import parse_window
from dciml.method import (
    HELD_OUT_TERMS,
    PUBLISHED_WEIGHTS,
    DualBranch,
    EncodedVideos,
    GroundingLosses,
    as_teacher,
    collate_queries,
    collate_videos,
    score_matrix,
)
from dciml.spans import temporal_iou
from dciml.training.loader import Chosen, Group, PairData

VIDEOS_AT_ONCE = 64
LOCAL_WEIGHTS = (0.0, 0.25, 0.5, 0.65, 0.75, 0.85, 1.0)
TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15)
MOST_OTHERS = 300


def choose_windows(model: DualBranch, data: PairData, device: torch.device, epoch: int) -> Chosen:
    """The window of each sentence of a long video in an epoch: any in the first one, then the best.

    A function of (seed, epoch) and of the weights; the model is left as it was.
    """
    if not data.windows:
        return {}
    return random_windows(data) if epoch == 0 else best_windows(model, data, device)


def random_windows(data: PairData) -> Chosen:
    """Any window, drawn by the seed."""
    chosen: dict[int, str] = {}
    for video_id, members in data.by_video().items():
        windows = data.windows.get(video_id)
        if windows is not None:
            places = np.random.default_rng([data.draw.seed, members[0]]).integers(
                len(windows), size=len(members)
            )
            chosen |= {index: windows[place] for index, place in zip(members, places.tolist(), strict=True)}
    return chosen


def best_windows(model: DualBranch, data: PairData, device: torch.device) -> Chosen:
    """The window that the retrieval branch scores best, without dropout; the earlier one of equals."""
    chosen: dict[int, str] = {}
    with as_teacher(model):
        for video_id, members in data.by_video().items():
            windows = data.windows.get(video_id)
            if windows is not None:
                scores = window_scores(model, data, windows, _queries(model, data, members, device))
                best = scores.argmax(dim=1).tolist()
                chosen |= {index: windows[place] for index, place in zip(members, best, strict=True)}
    return chosen


def window_scores(
    model: DualBranch,
    data: PairData,
    windows: Sequence[str],
    queries: Tensor,
    local_weight: float | None = None,
) -> Tensor:
    """The retrieval score of each query (Q, vector), as `search_vectors` gives it, and each window: (Q, windows)."""
    parts = [
        score_matrix(queries, model.retrieval.fused_clips(videos, local_weight))
        for videos in _encoded(model, data, windows, queries.device)
    ]
    return torch.cat(parts, dim=1)


def _encoded(
    model: DualBranch, data: PairData, video_ids: Sequence[str], device: torch.device
) -> Iterator[EncodedVideos]:
    """Videos or windows in order, `VIDEOS_AT_ONCE` at a time."""
    sizes = data.sizes
    for start in range(0, len(video_ids), VIDEOS_AT_ONCE):
        some = video_ids[start : start + VIDEOS_AT_ONCE]
        videos = collate_videos(data.store, some, num_clips=sizes.num_clips, max_frames=sizes.max_frames)
        yield model.retrieval.encode_videos(videos.to(device))


def _queries(model: DualBranch, data: PairData, members: Sequence[int], device: torch.device) -> Tensor:
    batch = collate_queries(
        [data.pairs[index].query_id for index in members],
        [data.sentences.get(index) for index in members],
        data.vocabulary,
        max_words=data.sizes.max_words,
    )
    return model.retrieval.search_vectors(model.retrieval.encode_queries(batch.to(device)))


Moments = Mapping[str, tuple[tuple[float, float], ...]]
"""True moments in seconds, by query id; of held-out videos only, and only when the user allows it."""


@dataclass(frozen=True)
class Objective:
    """By what grounding is judged: its own losses and their weights; the published ones unless said."""

    losses: GroundingLosses = field(default_factory=GroundingLosses)
    weights: Mapping[str, float] = field(default_factory=lambda: PUBLISHED_WEIGHTS)


def validate(
    model: DualBranch,
    data: PairData,
    device: torch.device,
    pairs_at_once: int = 64,
    moments: Moments | None = None,
    objective: Objective | None = None,
) -> dict[str, float]:
    """Evaluate held-out pairs, without dropout and with the same hidden words each time.

    Returns: `retrieval`: SumR (R@1 + R@5 + R@10 + R@100 in percent) over the held-out videos; `grounding`: minus the
        weighted reconstruction and contrast losses or, with moments, the mean IoU in percent of the first proposal
        with the nearest true moment. Higher is better for both. A long video counts by its best window.
    """
    with as_teacher(model):
        if moments is not None:
            grounding = _mean_iou(model, data, device, pairs_at_once, moments)
        else:
            grounding = -_grounding_objective(model, data, device, pairs_at_once, objective or Objective())
        return {"retrieval": _sum_of_recalls(model, data, device), "grounding": grounding}


def choose_local_weight(
    model: DualBranch, data: PairData, training: PairData, device: torch.device, start: float
) -> None:
    """Set the share of the local scale to that of `LOCAL_WEIGHTS` by which held-out pairs are likeliest.

    Likelihood is that of a sentence's own video by a softmax over scores, each share at the best of `TEMPERATURES`. A
    few held-out videos are soon all ranked right, so up to `MOST_OTHERS` training videos stand beside them, which no
    held-out sentence tells of (docs/decisions/0049). Where the likeliest share is not surely better than `start`, it
    is `start` (docs/decisions/0050). Nothing is done where there is no local scale.

    Args:
        data: held-out pairs.
        training: the pairs trained on, of which only videos are read.
        start: the share that needs no proof.
    """
    if model.retrieval.local is None:
        return
    with as_teacher(model):
        embedded, others = _embedded(model, data, device), _other_videos(model, training, device)

        def loss_of(weight: float) -> Tensor:
            scores = _scores(model, data, embedded, weight)
            if others is not None:
                beside = score_matrix(embedded.queries, model.retrieval.fused_clips(others, weight))
                scores = torch.cat([scores, beside], dim=1)
            losses = [
                functional.cross_entropy(scores / temperature, embedded.owner, reduction="none")
                for temperature in TEMPERATURES
            ]
            return min(losses, key=lambda loss: float(loss.mean()))

        found = {weight: loss_of(weight) for weight in dict.fromkeys((*LOCAL_WEIGHTS, start))}
        best = min(LOCAL_WEIGHTS, key=lambda weight: float(found[weight].mean()))
        gain = found[start] - found[best]
        chosen = best if surely_positive(gain, embedded.owner) else start
    model.retrieval.local_weight.fill_(chosen)


def surely_positive(values: Float[Tensor, " queries"], video_of_query: Int[Tensor, " queries"]) -> bool:
    """Is the mean over sentences above 0 by twice its standard error? The sentences of a video count as one draw."""
    count = int(video_of_query.max()) + 1
    if count < 2:
        return False
    sums = values.new_zeros(count).index_add_(0, video_of_query, values)
    error = float(sums.std()) * math.sqrt(count) / len(values)
    return float(values.mean()) > 2 * error


def _other_videos(model: DualBranch, training: PairData, device: torch.device) -> EncodedVideos | None:
    """Some training videos, drawn by the seed; long ones, of which a model reads windows, are left out."""
    short = [video_id for video_id in training.by_video() if video_id not in training.windows]
    drawn = np.random.default_rng(training.draw.seed).permutation(len(short))[:MOST_OTHERS]
    parts = list(_encoded(model, training, [short[place] for place in drawn], device))
    return EncodedVideos.together(parts) if parts else None


def _sum_of_recalls(model: DualBranch, data: PairData, device: torch.device) -> float:
    rank = _ranks(model, data, _embedded(model, data, device))
    return float(sum((rank <= k).float().mean() * 100 for k in (1, 5, 10, 100)))


@dataclass(frozen=True)
class _Embedded:
    """Held-out videos, their sentences, and whose these are."""

    videos: EncodedVideos
    queries: Tensor
    owner: Tensor


def _embedded(model: DualBranch, data: PairData, device: torch.device) -> _Embedded:
    videos, queries, owner = [], [], []
    groups = list(data.by_video().items())
    for start in range(0, len(groups), VIDEOS_AT_ONCE):
        batch = data.collate(groups[start : start + VIDEOS_AT_ONCE], epoch=0).to(device)
        videos.append(model.retrieval.encode_videos(batch.videos))
        queries.append(model.retrieval.search_vectors(model.retrieval.encode_queries(batch.queries)))
        owner.append(batch.video_of_query + start)
    return _Embedded(EncodedVideos.together(videos), torch.cat(queries), torch.cat(owner))


def _ranks(model: DualBranch, data: PairData, embedded: _Embedded) -> Tensor:
    """The rank of each sentence's own video among the held-out ones, from 1; a tie counts against."""
    scores = _scores(model, data, embedded)
    positive = scores.gather(1, embedded.owner[:, None])
    return (scores >= positive).sum(dim=1)


def _scores(
    model: DualBranch, data: PairData, embedded: _Embedded, local_weight: float | None = None
) -> Tensor:
    """The score of each sentence and held-out video, (queries, videos); of a long one that of its best window."""
    scores = score_matrix(embedded.queries, model.retrieval.fused_clips(embedded.videos, local_weight))
    for place, video_id in enumerate(data.by_video()):
        if video_id in data.windows:
            own = window_scores(model, data, data.windows[video_id], embedded.queries, local_weight)
            scores[:, place] = own.amax(dim=1)
    return scores


def _grounding_objective(
    model: DualBranch, data: PairData, device: torch.device, pairs_at_once: int, objective: Objective
) -> float:
    total, count = 0.0, 0
    for groups in _few_pairs(data, pairs_at_once, best_windows(model, data, device)):
        batch = model.anchored(data.collate(groups, epoch=0).to(device))
        selection = model.grounding.select(batch)
        output = model.grounding(batch, selection.best_index, 1.0)
        log_weights = model.grounding.log_weights(output.proposals)
        terms = objective.losses.of_reconstruction(output, log_weights)
        total += sum(objective.weights[name] * float(terms[name].sum()) for name in HELD_OUT_TERMS)
        count += len(selection.best_index)
    return total / count


def _mean_iou(
    model: DualBranch, data: PairData, device: torch.device, pairs_at_once: int, moments: Moments
) -> float:
    found: list[float] = []
    for groups in _few_pairs(data, pairs_at_once, best_windows(model, data, device)):
        batch = data.collate(groups, epoch=0).to(device)
        best = model.select(batch).best()
        unit = torch.cat([best.starts(), best.ends()], dim=1).double().cpu().numpy()
        rows = zip(batch.queries.query_ids, batch.video_of_query.tolist(), unit, strict=True)
        for query_id, place, span_unit in rows:
            true_moments = moments.get(query_id, ())
            if true_moments:
                own_id = batch.videos.video_ids[place]
                window = parse_window(
                    own_id
                )  # of a long video; its time counts from the beginning of the whole
                begin = 0.0 if window is None else window.start_seconds
                span = begin + data.store.row_times(own_id).seconds(span_unit)
                found.append(float(temporal_iou(span[None], np.array(true_moments)).max()))
    return 100.0 * float(np.mean(found))


def _few_pairs(data: PairData, pairs_at_once: int, chosen: Chosen) -> list[list[Group]]:
    groups: list[list[Group]] = [[]]
    for video_id, its_pairs in data.by_video().items():
        for own_id, members in data.grouped(video_id, its_pairs, chosen):
            for part in np.array_split(members, -(-len(members) // pairs_at_once)):
                if sum(len(m) for _, m in groups[-1]) + len(part) > pairs_at_once:
                    groups.append([])
                groups[-1].append((own_id, part.tolist()))
    return [group for group in groups if group]
