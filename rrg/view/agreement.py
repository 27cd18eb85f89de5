"""What two reports say, finding by finding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rrg.data.study import OBSERVATIONS

NO_FINDING = OBSERVATIONS[0]
FINDINGS = OBSERVATIONS[1:]


@dataclass(frozen=True)
class Agreement:
    """Findings that a reference and a generated report state as present. Uncertain mentions count as not present.

    Where neither states a finding they agree on "No Finding". `present` holds what either side states, for filters.
    """

    agree: tuple[str, ...]
    missed: tuple[str, ...]
    invented: tuple[str, ...]
    present: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """`correct`, or `missed` and `invented` as they apply."""
        kinds = (("missed",) if self.missed else ()) + (("invented",) if self.invented else ())
        return kinds or ("correct",)


def compare(reference: str, generated: str) -> Agreement:
    """Label both texts with the rule-based labeller and set them against each other."""
    left, right = stated(reference), stated(generated)
    return Agreement(
        agree=_ordered(left & right) or (() if left | right else (NO_FINDING,)),
        missed=_ordered(left - right),
        invented=_ordered(right - left),
        present=_ordered(left | right) + (() if left and right else (NO_FINDING,)),
    )


@lru_cache(maxsize=4096)
def stated(text: str) -> frozenset[str]:
    """Findings, "No Finding" not among them, that a text states as present."""
    from rrg.observations.labels import label_report

    labels = label_report(text)
    return frozenset(name for name in FINDINGS if labels.get(name) == 1)


def _ordered(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in FINDINGS if name in names)
