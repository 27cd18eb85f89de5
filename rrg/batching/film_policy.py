"""Which films of a study are used, in which order, and whether they are pasted into one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rrg.data.projections import KINDS, kind_of, rank_of
from rrg.data.study import View
from rrg.errors import UserError, nearest


def _frontal_lateral(views: Sequence[View]) -> list[int]:
    firsts = {view.plane: number for number, view in reversed(list(enumerate(views)))}
    return [firsts[plane] for plane in ("frontal", "lateral") if plane in firsts]


def _by_plane(views: Sequence[View]) -> list[int]:
    planes = ("frontal", "lateral", "")
    return sorted(range(len(views)), key=lambda number: planes.index(views[number].plane))


# Each gives film numbers; where it gives none of a study that has films, the study's first film is used.
POLICIES: dict[str, Callable[[Sequence[View]], list[int]]] = {
    "stored": lambda views: list(range(len(views))),
    "frontal_first": _by_plane,
    "frontal": lambda views: [number for number, view in enumerate(views) if view.plane == "frontal"],
    "frontal_lateral": _frontal_lateral,
    "ranked": lambda views: sorted(range(len(views)), key=lambda number: rank_of(views[number])),
}


@dataclass(frozen=True)
class FilmPolicy:
    """`views` is one of `POLICIES`; of what it gives, the first `most` films are used (None: all).

    With `stitch` they become one picture. Raises UserError for an unknown word.
    """

    views: str = "stored"
    most: int | None = None
    stitch: bool = False

    def __post_init__(self) -> None:
        if self.views not in POLICIES:
            raise UserError(f"data.views: {self.views!r} is not known; {nearest(self.views, POLICIES)}")

    def choose(self, views: Sequence[View]) -> list[int]:
        """Numbers of the films that are used, in order. Films of equal standing keep the order of the shard."""
        chosen = POLICIES[self.views](views) or list(range(len(views)))[:1]
        return chosen[: self.most]

    def kinds(self, views: Sequence[View]) -> tuple[int, ...]:
        """The projection (a place in `KINDS`) of every picture that the encoder gets: of each film, or of the stitched picture,
        which is `unknown` where its films differ."""
        kinds = tuple(kind_of(views[number]) for number in self.choose(views))
        if not self.stitch or not kinds:
            return kinds
        return kinds[:1] if len(set(kinds)) == 1 else (KINDS.index("unknown"),)
