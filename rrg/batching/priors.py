"""The patient's previous study, as a study's record names it."""

from __future__ import annotations

import math

from rrg.data.study import SPLITS, Study
from rrg.errors import UserError
from rrg.shards.reader import ShardSet

_LEAST_DAYS = 1e-4  # gaps are stored to 1e-4 days, and 0 days means the study itself


def days_since(study: Study) -> float:
    """Days from the prior to `study`, above 0; infinite where the record does not say."""
    return math.inf if study.prior_days is None else max(float(study.prior_days), _LEAST_DAYS)


class Priors:
    """Finds priors in the split that is read. Raises UserError where the shards say that patients are in several splits."""

    def __init__(self, shards: ShardSet) -> None:
        self._shards = shards
        self._elsewhere: dict[str, str] | None = None
        if not shards.manifest.patients_disjoint:
            raise UserError(
                f"{shards.root}: patients are in several splits, so a prior may be a test study; prepare shards by patient, or "
                "read no priors (data.prior=none, no {prior} in language.prompt)"
            )

    def find(self, study: Study) -> int | None:
        """The index of the prior of `study`; None where it has none, or where the shards were written without that study.

        Raises UserError for a link that would show a report of another patient, of another split, of the future, or its own.
        """
        if study.prior is None:
            return None
        if study.prior == study.id or (study.prior_days is not None and study.prior_days < 0):
            raise UserError(f"study {study.id}: its prior {study.prior} is not an earlier study; prepare the shards again")
        try:
            index = self._shards.index_of(study.prior)
        except KeyError:
            self._refuse_other_split(study)
            return None
        if self._shards.patients[index] != study.patient:
            raise UserError(f"study {study.id}: its prior {study.prior} is of another patient; prepare the shards again")
        return index

    def _refuse_other_split(self, study: Study) -> None:
        if self._elsewhere is None:
            self._elsewhere = {study_id: split for split in SPLITS for study_id in self._ids(split)}
        split = self._elsewhere.get(str(study.prior))
        if split is not None:
            raise UserError(
                f"study {study.id} of {self._shards.split}: its prior {study.prior} is in {split}; prepare the shards again: the "
                "studies of a patient belong to one split"
            )

    def _ids(self, split: str) -> list[str]:
        if split == self._shards.split or not self._shards.manifest.of_split(split):
            return []
        try:
            return ShardSet(self._shards.root, split, self._shards.reading).ids
        except UserError:  # a copy of some splits only: what is not here cannot be read by mistake
            return []
