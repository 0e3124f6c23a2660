"""Whether sentences and video rows can be compared as they are: the names of their encoders tell."""

from __future__ import annotations

import re

_MODEL = re.compile(r"@([0-9a-f]{12})(?:-|$)")  # the digest of a model's files
_OWN_KINDS = ("image:", "video:", "text:", "builtin-")


def same_space(store_encoder: str, text_encoder: str) -> bool | None:
    """Whether rows and sentence vectors come from the same model's space.

    Rows of `image:`, `video:` and `text:` share the space of the text encoder that is made of the same files. Rows of
    several encoders side by side share it with none.

    Args:
        store_encoder: as the manifest of the store names it.
        text_encoder: the encoder's name.
    Returns: None for features that were imported under a name of their own: then only the widths can tell.

    >>> same_space("image:clip@0123456789ab", "clip@0123456789ab-layer-1x30")
    True
    >>> same_space("builtin-visual-1", "clip@0123456789ab-layer-1x30")
    False
    >>> same_space("i3d", "clip@0123456789ab-layer-1x30") is None
    True
    """
    if not store_encoder.startswith(_OWN_KINDS):
        return None
    rows, sentences = _MODEL.findall(store_encoder), _MODEL.findall(text_encoder)
    return " + " not in store_encoder and len(rows) == 1 and rows == sentences
