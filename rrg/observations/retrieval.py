"""Labels and n-grams from the training reports of the most similar films (spec cmeaa §5a, §8 trap 2).

Exact search by cosine over film vectors, in chunks. A bank holds training studies only, whatever is asked for; a training study
never finds itself nor another study of its patient, so that what it is given resembles what a new patient is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rrg.data.study import OBSERVATIONS, Study
from rrg.errors import UserError
from rrg.observations.film_vectors import FilmVectors, check_same
from rrg.observations.provenance import Source

CHUNK = 256


@dataclass(frozen=True)
class Neighbour:
    """A training study and the cosine of its film vector with the query's."""

    study: str
    similarity: float


class ReportBank:
    """The film vectors of the training studies. Raises UserError where they are of another split."""

    def __init__(self, bank: FilmVectors) -> None:
        if bank.split != "train":
            raise UserError(f"retrieval from split {bank.split!r}: only training reports may be retrieved")
        self.bank = bank
        self._mean = bank.x.mean(0)
        self._spread = bank.x.std(0, unbiased=False).clamp_min(1e-6)
        self._x = self._unit(bank.x)
        self._rows = {study: row for row, study in enumerate(bank.ids)}
        self._patients: dict[str, list[int]] = {}
        for row, patient in enumerate(bank.patients):
            self._patients.setdefault(patient, []).append(row)

    def neighbours(self, queries: FilmVectors, most: int = 1, chunk: int = CHUNK) -> dict[str, tuple[Neighbour, ...]]:
        """Query study → its `most` nearest training studies, nearest first; of equal ones the first in the bank's order.

        Raises UserError where features differ, or a study has fewer candidates than `most`.
        """
        check_same(self.bank, queries)
        if most < 1:
            raise UserError(f"{most} neighbours: write at least 1")
        found = {}
        for start in range(0, len(queries), chunk):
            scores = self._unit(queries.x[start : start + chunk]) @ self._x.T
            for row, study in enumerate(queries.ids[start : start + chunk]):
                own = self._own(study, queries.patients[start + row])
                others = len(self._x) - len(own)
                if others < most:
                    raise UserError(f"study {study}: {most} neighbours asked for, {others} other patients' training studies")
                scores[row, own] = -torch.inf
                found[study] = tuple(Neighbour(self.bank.ids[place], score) for place, score in _best(scores[row], most))
        return found

    def _own(self, study: str, patient: str) -> list[int]:
        own = set(self._patients.get(patient, ()))
        if study in self._rows:
            own.add(self._rows[study])
        return sorted(own)

    def _unit(self, x: Tensor) -> Tensor:
        """Standardised by the bank, then of length 1: features share a large common part that says nothing."""
        return F.normalize((x - self._mean) / self._spread, dim=1)


def _best(scores: Tensor, most: int) -> list[tuple[int, float]]:
    """Places and values of the highest scores [N]; of equal ones the first, which `topk` alone leaves open."""
    least = scores.topk(most).values[-1]
    places = (scores >= least).nonzero().flatten().tolist()
    ranked = sorted(places, key=lambda place: (-float(scores[place]), place))[:most]
    return [(place, round(float(scores[place]), 6)) for place in ranked]


class RetrievedLabels:
    """Labels of the retrieved training reports: of the nearest one, or what most of several say (the nearer where they are even).

    Args:
        neighbours: study → its neighbours, from `ReportBank.neighbours`.
        labels: training study → labels of its report.
    """

    source: Source = "retrieved"

    def __init__(self, neighbours: Mapping[str, Sequence[Neighbour]], labels: Mapping[str, Mapping[str, int]]) -> None:
        self._neighbours, self._labels = neighbours, labels

    def labels(self, study: Study) -> dict[str, int]:
        """Raises UserError where nothing was retrieved for the study, or it was retrieved for itself."""
        reports = [self._labels[neighbour.study] for neighbour in self.retrieved(study)]
        voted = {name: Counter(report.get(name) for report in reports).most_common(1)[0][0] for name in OBSERVATIONS}
        return {name: value for name, value in voted.items() if value is not None}

    def retrieved(self, study: Study) -> tuple[Neighbour, ...]:
        """The study's neighbours. Raises UserError as `labels`."""
        found = tuple(self._neighbours.get(study.id, ()))
        if not found:
            raise UserError(f"nothing was retrieved for study {study.id}; retrieve for its split too")
        for neighbour in found:
            if neighbour.study == study.id or neighbour.study not in self._labels:
                raise UserError(f"study {study.id}: {neighbour.study} was retrieved, no other training study with labels")
        return found
