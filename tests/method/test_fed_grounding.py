"""What feeds the grounding branch besides the published: negatives of the proposal's own shape, and a warm start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dciml.config import RunConfig
from dciml.errors import ConfigError
from dciml.method.batch import Batch
from dciml.method.grounding import GroundingBranch, Negatives
from dciml.method.mutual import DualBranch
from dciml.method.outputs import Proposals
from dciml.model_folder import ModelCard, build_dual
from dciml.recipes import train as recipe

BEST = Proposals(torch.tensor([[0.6], [0.2]]), torch.tensor([[0.3], [0.2]]))


def branch(negatives: Negatives) -> GroundingBranch:
    torch.manual_seed(0)
    sizes = {
        "video_width": 12,
        "static_width": 8,
        "vocabulary_size": 20,
        "hidden": 8,
        "heads": 2,
        "layers": 1,
    }
    return GroundingBranch(
        **sizes, num_proposals=3, num_positions=101, gaussian_sigma=4.0, negatives=negatives
    ).eval()


def test_alike_negatives_have_the_width_of_the_proposal_and_stand_beside_it() -> None:
    left, right = branch("alike").negative_log_weights(BEST, 1.0)
    own = branch("alike").log_weights(BEST)[:, 0]
    for row, (center, width) in enumerate(((0.6, 0.3), (0.2, 0.2))):
        for negative, low, high in ((left, 0.0, center - width / 2), (right, center + width / 2, 1.0)):
            peak = int(negative[row].argmax()) / 100
            assert peak == pytest.approx((low + high) / 2, abs=0.011)
            near = int(negative[row].argmax())  # it falls off as the proposal does
            start = int(own[row].argmax())
            for step in (1, 3):
                if near + step <= 100:
                    assert float(negative[row, near + step]) == pytest.approx(
                        float(own[row, start + step]), abs=0.3
                    )


def test_another_video_is_seen_under_the_same_gaussian(batch: Batch) -> None:
    grounding = branch("other_video")
    best = grounding.select(batch).best_index
    found = grounding(batch, best, 1.0).nll
    videos = batch.videos
    moved = torch.roll(torch.arange(len(videos.frames)), -1)
    foreign = Batch(videos.at(moved), batch.queries, batch.video_of_query)
    under = grounding.log_weights(grounding(batch, best, 1.0).proposals.at(best))[:, 0]
    expected = grounding.nll_of_proposals(
        grounding.sampled_frames(foreign.videos), batch.queries, batch.video_of_query, under[:, None]
    )[:, 0]
    torch.testing.assert_close(found.left, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.best, branch("beside")(batch, best, 1.0).nll.best)
    sides = branch("alike").negative_log_weights(BEST, 1.0)
    _, wider = grounding.negative_log_weights(BEST, 1.0)
    torch.testing.assert_close(wider[0], sides[0][0])  # 0.45 of room on the left, 0.25 on the right
    torch.testing.assert_close(wider[1], sides[1][1])


def test_where_there_is_no_other_video_one_of_its_width_stands_in(
    batch_of: Callable[..., Batch],
) -> None:
    batch = batch_of((2,))
    found, plain = (
        branch(negatives)(batch, torch.zeros(2, dtype=torch.int64), 1.0).nll.left
        for negatives in ("other_video", "alike")
    )
    torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("local_width", [4, 30])
def test_warm_start_keeps_what_the_local_projection_tells_apart(
    tiny_config: Callable[..., RunConfig], local_width: int
) -> None:
    model = dual(tiny_config(retrieval={"local": "linear", "local_width": local_width}))
    local = model.retrieval.local
    assert local is not None
    weight = model.grounding.frame_project.weight
    kept = min(*local.video.weight.shape, len(weight))
    before = weight.detach().clone()
    assert model.warm_start() is weight
    _, _, directions = torch.linalg.svd(local.video.weight.detach(), full_matrices=False)
    inside = weight[:kept] @ directions[:kept].t() @ directions[:kept]
    torch.testing.assert_close(inside, weight[:kept], atol=1e-4, rtol=1e-3)
    assert float(weight[:kept].detach().norm()) == pytest.approx(float(before[:kept].norm()), rel=1e-4)
    assert torch.equal(weight[kept:], before[kept:])


def test_training_starts_warm_at_the_end_of_the_warm_up_and_once(
    tiny_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    plain = DualBranch.warm_start

    def counted(model: DualBranch) -> torch.nn.Parameter:
        epochs.append(1)
        return plain(model)

    monkeypatch.setattr(DualBranch, "warm_start", counted)
    config = tiny_config(
        retrieval={"local": "linear", "local_width": 12},
        mutual={"from_epoch": 1, "warm_start": True},
        training={"epochs": 3},
    )
    recipe.train(config, tmp_path / "run", quiet=True)
    assert len(epochs) == 1
    with pytest.raises(ConfigError, match=r"warm_start needs a local scale that has learned"):
        tiny_config(mutual={"from_epoch": 1, "warm_start": True})


def dual(config: RunConfig) -> DualBranch:
    torch.manual_seed(0)
    return build_dual(config, ModelCard("dciml", 1, "test-encoder", "words", 16, 16, 16, 20))
