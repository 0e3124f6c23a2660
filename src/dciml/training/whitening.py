"""By what the retrieval branch whitens: the clips of the training videos, without a label."""

from __future__ import annotations

import numpy as np
import torch

from dciml.method import Whitening, collate_videos
from dciml.training.loader import PairData

MOST_CLIPS = 40_000
VIDEOS_AT_ONCE = 64


def fit_whitening(whitening: Whitening, data: PairData) -> None:
    """Fit to clips of videos spread evenly over the training videos, about `MOST_CLIPS` at most; of a long video those
    of its first window. A function of the data alone, the same in every process.
    """
    ids = [
        data.windows[video_id][0] if video_id in data.windows else video_id for video_id in data.by_video()
    ]
    wanted = min(len(ids), max(1, MOST_CLIPS // data.sizes.num_clips))
    chosen = [
        ids[place] for place in np.unique(np.linspace(0, len(ids) - 1, wanted).round().astype(int)).tolist()
    ]
    parts = []
    for start in range(0, len(chosen), VIDEOS_AT_ONCE):
        some = chosen[start : start + VIDEOS_AT_ONCE]
        videos = collate_videos(
            data.store, some, num_clips=data.sizes.num_clips, max_frames=data.sizes.max_frames
        )
        parts.append(videos.clips.flatten(0, 1))
    whitening.fit(torch.cat(parts).to(whitening.mean.device))
