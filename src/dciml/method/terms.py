"""The losses by name, spelt once: settings, schedule, validation and tests derive theirs from this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Side = Literal["retrieval", "grounding"]
PlaceForm = Literal["mask", "centred", "distribution", "fused"]
"""How the explicit pathway to retrieval teaches (METHOD §5.2)."""
BY_DISTRIBUTION: tuple[PlaceForm, ...] = ("distribution", "fused")
"""The forms that have the local scale as their teacher."""
SIDES: tuple[Side, ...] = ("retrieval", "grounding")


@dataclass(frozen=True)
class Term:
    """One loss.

    Attributes:
        side: the side that learns from it.
        weight: as published; of the local scale, which is ours, as measured.
        pathway: by which the other branch teaches; None: the side learns alone.
        held_out: does it judge grounding on held-out pairs?
    """

    side: Side
    weight: float
    pathway: str | None = None
    held_out: bool = False


TERMS: Mapping[str, Term] = MappingProxyType(
    {
        "nce_clip": Term("retrieval", 0.02),
        "nce_frame": Term("retrieval", 0.04),
        "triplet_clip": Term("retrieval", 1.0),
        "triplet_frame": Term("retrieval", 1.0),
        "query_diversity": Term("retrieval", 0.015),
        "nce_local": Term("retrieval", 1.0),
        "triplet_local": Term("retrieval", 0.0),
        "explicit_to_retrieval": Term("retrieval", 1.0, "explicit_to_retrieval"),
        "modulated_clip": Term("retrieval", 1.0, "implicit_to_retrieval"),
        "modulated_frame": Term("retrieval", 1.0, "implicit_to_retrieval"),
        "match_clip": Term("retrieval", 0.4, "implicit_to_retrieval"),
        "match_frame": Term("retrieval", 0.4, "implicit_to_retrieval"),
        "reconstruct": Term("grounding", 1.0, held_out=True),
        "contrast_reference": Term("grounding", 2.0, held_out=True),
        "contrast_left": Term("grounding", 2.0, held_out=True),
        "contrast_right": Term("grounding", 2.0, held_out=True),
        "proposal_diversity": Term("grounding", 1.0),
        "explicit_to_grounding": Term("grounding", 3.0, "explicit_to_grounding"),
        "modulated_nll": Term("grounding", 0.8, "implicit_to_grounding"),
        "match_grounding": Term("grounding", 1.0, "implicit_to_grounding"),
    }
)
"""METHOD §3.4, METHOD §4.5 and METHOD §5 define them."""

PUBLISHED_WEIGHTS: Mapping[str, float] = MappingProxyType({name: term.weight for name, term in TERMS.items()})

PATHWAY_TERMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        pathway: tuple(name for name, term in TERMS.items() if term.pathway == pathway)
        for pathway in dict.fromkeys(term.pathway for term in TERMS.values())
        if pathway is not None
    }
)
"""The terms of each of the four pathways."""

HELD_OUT_TERMS = tuple(name for name, term in TERMS.items() if term.held_out)


def terms_of(side: Side) -> tuple[str, ...]:
    """All losses of one side, the pathways that teach it included, in the order of the table.

    >>> len(terms_of("retrieval")), len(terms_of("grounding"))
    (12, 8)
    """
    return tuple(name for name, term in TERMS.items() if term.side == side)
