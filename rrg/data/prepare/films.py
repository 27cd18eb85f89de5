"""Which films of a study are kept, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rrg.data.study import View
from rrg.errors import UserError, nearest

VIEW_POLICIES = {
    "frontal_lateral": "at most one frontal and one lateral film",
    "single": "one film: a frontal one where there is one",
    "all": "every film",
}


@dataclass(frozen=True, slots=True)
class Film:
    """A film by the name of its file (without suffix) and its projection in the source's words, upper case."""

    name: str
    projection: str

    @property
    def plane(self) -> str:
        """`frontal`, `lateral`, or empty where the source does not say."""
        return View(image="", projection=self.projection).plane


def choose_films(films: Sequence[Film], policy: str, most: int | None = None) -> list[Film]:
    """The films to keep under a policy of `VIEW_POLICIES`, at most `most`.

    Order: frontal before lateral before the rest; PA before AP; then by name, so that the choice does not depend on the order
    of a table. The list is empty where the policy finds nothing (`frontal_lateral` with unnamed projections only).
    """
    if policy not in VIEW_POLICIES:
        raise UserError(f"views {policy!r} is no policy; {nearest(policy, VIEW_POLICIES)}")
    ordered = sorted(films, key=lambda film: (_rank(film), film.name))
    if policy == "single":
        ordered = ordered[:1]
    if policy == "frontal_lateral":
        firsts = (next((film for film in ordered if film.plane == plane), None) for plane in ("frontal", "lateral"))
        ordered = [film for film in firsts if film is not None]
    return ordered[:most]


def _rank(film: Film) -> int:
    if film.plane == "frontal":
        return {"PA": 0, "AP": 1}.get(film.projection, 2)
    return 3 if film.plane == "lateral" else 4
