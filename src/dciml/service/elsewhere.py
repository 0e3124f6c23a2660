"""Tells whoever starts the server which videos it may not play, and how to let it."""

from __future__ import annotations

import os
from pathlib import Path

from dciml.errors import DcimlError
from dciml.service.errors import ServiceError
from dciml.service.files import find_media, has_video_name
from dciml.service.live import Snapshot
from dciml.service.settings import ServiceSettings

LOOKED_AT = 200  # videos, at even distances


def videos_elsewhere(now: Snapshot, settings: ServiceSettings) -> str | None:
    """A sentence with the option to give when files of videos lie where the server may not play from; None: none do."""
    step = max(1, len(now.video_ids) // LOOKED_AT)
    looked_at = now.video_ids[::step]
    outside = [file for video_id in looked_at if (file := _refused(now, video_id, settings)) is not None]
    if not outside:
        return None
    folders = sorted({str(file.parent) for file in outside})
    try:
        common = [os.path.commonpath(folders)]
    except ValueError:  # on different drives
        common = folders[:3]
    options = " ".join(f"--media-root {folder}" for folder in (common if len(common[0]) > 1 else folders[:3]))
    return (
        f"Of {len(looked_at)} videos looked at, the files of {len(outside)} do not lie beside the index, and are not "
        f"played. To play them, if you trust this index: {options}"
    )


def _refused(now: Snapshot, video_id: str, settings: ServiceSettings) -> Path | None:
    """The file of a video, where there is one that could be played, but may not be."""
    try:
        media_path = now.video(video_id).media_path
        if media_path is None or not has_video_name(file := Path(media_path)) or not file.is_file():
            return None
        find_media(media_path, settings.played_roots, settings.allow_roots)
    except ServiceError as refusal:
        return file if refusal.status_code == 403 else None
    except (DcimlError, OSError, ValueError):
        return None
    return None
