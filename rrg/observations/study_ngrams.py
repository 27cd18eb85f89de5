"""The n-grams that a model is given with a study: the table and the labels that a recipe's section `observations` names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rrg.data.study import Study
from rrg.digest import digest_file, digest_json
from rrg.errors import UserError
from rrg.observations.label_file import LabelFile
from rrg.observations.ngrams import NgramTable
from rrg.observations.options import OF_REPORTS, STORED, ObservationOptions, is_table
from rrg.observations.provenance import LabelProvider, ModelInputs
from rrg.observations.providers import RULES, CsvLabels, RuleLabels, ShardLabels

if TYPE_CHECKING:
    from rrg.shards.reader import ShardSet


class StudyNgrams:
    """Ids of the n-grams of a study: a pure function of its labels, whose source is another for training and held-out studies.

    `section` is the text to be written; rules read it. Files are opened when a study of theirs is first asked for.

    Raises:
        UserError: no such table, or not one.
    """

    def __init__(self, options: ObservationOptions, section: str) -> None:
        self.options = options
        if not Path(options.ngrams).is_file():
            raise UserError(
                f"observations.ngrams: no file {options.ngrams}; write one with `rrg prepare ngrams`, or name another"
            )
        self.table = NgramTable.load(options.ngrams)
        self._section = section if section in ("findings", "impression") else "report"
        self._inputs: dict[str, ModelInputs] = {}

    def ids(self, study: Study) -> tuple[int, ...]:
        """Places in the table; () where the study has none. Raises UserError where it has no labels that it may be given."""
        options = self.options
        labels = self._of(study.split).labels(study)
        return self.table.select(labels, options.per_observation, options.most, denied=options.denied)

    def check(self, shards: ShardSet, spared: int | float = 0) -> None:
        """Whether the studies of `shards` have labels: said before hours of training, not after.

        `spared` studies (a number, or a share below 1) may lack them: what cannot be read could not be labelled either.

        Raises:
            UserError: labels of the own reports of held-out studies, a study without labels, shards that store none.
        """
        inputs = self._of(shards.split)
        inputs.check_split(shards.split)
        provider = inputs.provider
        if isinstance(provider, ShardLabels) and not any(shards.labels(index) for index in range(len(shards))):
            raise UserError(
                f"observations.train: {STORED}, but no study of {shards.root} has labels; write rules, chexpert or a file"
            )
        if isinstance(provider, LabelFile | CsvLabels):
            lacking = [study for study in shards.ids if not _has(provider, study, shards.split)]
            if len(lacking) > (math.floor(spared * len(shards)) if spared < 1 else spared):
                raise UserError(
                    f"{inputs.name}: no labels for {len(lacking):,} of {len(shards):,} studies of {shards.split!r} (first: "
                    f"{lacking[0]}); write them with `rrg prepare labels`"
                )

    def digests(self, splits: Sequence[str]) -> dict[str, str]:
        """Digests of the table and of the labels of `splits`, by setting: what numbers hang on beside the recipe."""
        found = {"observations.ngrams": self.table.digest}
        for split in splits:
            name = self._setting(split)
            value = getattr(self.options, name)
            self._of(split)  # a file that cannot be read is refused in words
            made = [STORED] if value == STORED else [RULES[value][1], self._section] if value in RULES else None
            found[f"observations.{name}"] = digest_file(Path(value)) if made is None else digest_json(made)
        return found

    def _setting(self, split: str) -> str:
        return "train" if split == "train" else "heldout"

    def _of(self, split: str) -> ModelInputs:
        name = self._setting(split)
        if name not in self._inputs:
            value = getattr(self.options, name)
            self._inputs[name] = ModelInputs(self._provider(name, value), f"observations.{name}: {value}")
        return self._inputs[name]

    def _provider(self, name: str, value: str) -> LabelProvider:
        if value == STORED:
            return ShardLabels()
        if value in RULES:
            return RuleLabels(self._section, value)
        if not Path(value).is_file():
            words = f", and none of {', '.join(OF_REPORTS)}" if name == "train" else ""
            raise UserError(f"observations.{name}: no file {value}{words}; write one with `rrg prepare labels`, or name another")
        return CsvLabels(value) if is_table(value) else LabelFile(value)


def _has(provider: LabelFile | CsvLabels, study: str, split: str) -> bool:
    """Raises UserError where the labels were written for another split."""
    if study not in provider:
        return False
    if isinstance(provider, LabelFile):
        provider.of(study, split)
    return True
