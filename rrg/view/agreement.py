"""What two reports say, finding by finding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rrg.data.study import OBSERVATIONS

NO_FINDING = OBSERVATIONS[0]
FINDINGS = OBSERVATIONS[1:]


@dataclass(frozen=True)
class Agreement:
    """Observations that a reference and a generated report state as present. Uncertain mentions count as not present.

    `present` holds what either side states, for filters. "No Finding" is neither missed nor invented where the findings of
    the other side already say so.
    """

    agree: tuple[str, ...]
    missed: tuple[str, ...]
    invented: tuple[str, ...]
    present: tuple[str, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """`missed` and `invented` as they apply, `correct` where neither does; nothing where neither report states anything."""
        kinds = (("missed",) if self.missed else ()) + (("invented",) if self.invented else ())
        return kinds or (("correct",) if self.agree else ())


def compare(reference: str, generated: str) -> Agreement:
    """Label both texts with the rule-based labeller and set them against each other."""
    left, right = stated(reference), stated(generated)
    missed, invented = left - right, right - left
    return Agreement(
        agree=_ordered(left & right),
        missed=_ordered(missed - {NO_FINDING} if invented else missed),
        invented=_ordered(invented - {NO_FINDING} if missed else invented),
        present=_ordered(left | right),
    )


@lru_cache(maxsize=4096)
def stated(text: str) -> frozenset[str]:
    """The observations that a text states as present, "No Finding" among them where the labeller says so."""
    from rrg.observations.labels import label_report

    return frozenset(name for name, value in label_report(text).items() if value == 1)


def _ordered(names: frozenset[str]) -> tuple[str, ...]:
    """In the order of `OBSERVATIONS`, "No Finding" last."""
    return tuple(name for name in (*FINDINGS, NO_FINDING) if name in names)
