"""What is known of how a film was taken, as small integers a model can embed, and the order in which films are preferred."""

from __future__ import annotations

from rrg.data.study import View

# Rows of an embedding: the order is part of every checkpoint that has one.
KINDS = ("unknown", "PA", "AP", "frontal", "lateral")

# The order of the official MIMIC-CXR script (spec gla §4). A source that says only "frontal" stands with the frontal films.
_RANKED = (
    *("PA", "AP", "FRONTAL", "LATERAL", "LL", "AP AXIAL", "AP LLD", "AP RLD", "PA RLD", "PA LLD"),
    *("LAO", "RAO", "LPO", "XTABLE LATERAL", "SWIMMERS"),
)


def kind_of(view: View) -> int:
    """The place of a film's projection in `KINDS`. A frontal film of which no more is known is `frontal`; decubitus, oblique and
    unnamed films are `unknown`."""
    if view.plane != "frontal":
        return KINDS.index(view.plane or "unknown")
    word = view.projection.upper().partition(" ")[0]
    return KINDS.index(word if word in ("PA", "AP") else "frontal")


def rank_of(view: View) -> int:
    """The place of a film's projection in the ranking; one that is not in it comes last."""
    word = view.projection.upper()
    return _RANKED.index(word) if word in _RANKED else len(_RANKED)
