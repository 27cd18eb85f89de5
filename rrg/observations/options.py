"""The section `observations` of a recipe: which n-grams a model is given beside the films, and what tells which ones."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.schema import option
from rrg.errors import UserError
from rrg.observations.ngrams import MOST, PER_OBSERVATION

STORED = "stored"
OF_REPORTS = (STORED, "rules", "chexpert")  # words that mean labels of a study's own report

_COMMAND = "`rrg prepare labels RECIPE --from image --out FILE` (or --from retrieved)"


@dataclass
class ObservationOptions:
    ngrams: str = option("", "table of `rrg prepare ngrams`, or ORGan's released JSON file; empty: the model is given no n-grams")
    train: str = option(STORED, "labels of training studies: stored (with the shards) | rules | chexpert | a CSV or label file")
    heldout: str = option("", "labels of validation and test studies: a file of `rrg prepare labels` --from image or retrieved")
    per_observation: int = option(PER_OBSERVATION, "first n-grams of each labelled observation that are given", least=1)
    most: int = option(MOST, "n-grams of a study", least=1)
    denied: bool = option(True, "denied observations (label 0) bring their n-grams too; false where a file labels all fourteen")

    def check(self, path: str) -> None:
        if not self.train.strip():
            raise UserError(f"{path}.train: empty; write one of {', '.join(OF_REPORTS)}, or a file of labels")
        if self.heldout in OF_REPORTS:
            raise UserError(
                f"{path}.heldout: {self.heldout!r} reads the report that the model is to write; write a file of labels read from "
                f"the films or from retrieved training reports: {_COMMAND}"
            )
        if is_table(self.heldout):
            raise UserError(f"{path}.heldout: {self.heldout}: a CSV does not say what its labels were read from; use {_COMMAND}")
        if self.ngrams and not self.heldout:
            raise UserError(f"{path}.heldout: empty, but n-grams need labels of validation and test studies too: {_COMMAND}")


def is_table(name: str) -> bool:
    """Whether a file of labels is a CSV (a table with a column per observation) by its name."""
    return name.endswith((".csv", ".csv.gz"))
