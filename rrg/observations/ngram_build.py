"""From training reports and their labels to the table of n-grams: the seven steps in order (spec cmeaa §5b)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rrg.data.cleaning import CLEANINGS
from rrg.data.study import Study
from rrg.errors import UserError, nearest
from rrg.observations.ngrams import NgramTable, observation_keys
from rrg.observations.phrase_inventory import InventoryRules, Ngram, Sentence, occurrences, phrase_inventory, sentences_of
from rrg.observations.pmi import MODES, Association, PmiMode

# The cleanings that leave no empty sentences (spec common §2d).
CLEANING_NAMES = ("clean_organ_iu", "clean_organ_mimic")


@dataclass(frozen=True)
class NgramOptions:
    """What decides a table beside the reports and labels. Raises UserError for a word or number that is none of them."""

    pmi: PmiMode = "organ"
    cleaning: str = "clean_organ_iu"
    section: str = "findings"
    rules: InventoryRules = field(default_factory=InventoryRules)

    def __post_init__(self) -> None:
        for what, word, legal in (
            ("pmi", self.pmi, MODES),
            ("cleaning", self.cleaning, CLEANING_NAMES),
            ("section", self.section, ("findings", "impression")),
        ):
            if word not in legal:
                raise UserError(f"{what} {word!r}: {nearest(str(word), legal)}")
        if self.rules.min_count < 0 or not 1 <= self.rules.longest <= 8:
            raise UserError(f"min-count {self.rules.min_count}, longest {self.rules.longest}: at least 0, and 1 to 8 words")


def build_ngrams(
    studies: Iterable[Study],
    labels_of: Callable[[Study], Mapping[str, int]],
    options: NgramOptions,
    made_of: Mapping[str, Any] | None = None,
) -> NgramTable:
    """The table of the training studies' reports; `made_of` (source, labels) is kept in it.

    Raises UserError where a study is of another split than train, or no n-gram passes the thresholds.
    """
    clean, studies_seen = CLEANINGS[options.cleaning], 0
    numbers: dict[Sentence, int] = {}
    reports: list[tuple[list[str], tuple[int, ...]]] = []
    empty = unlabelled = 0
    for study in studies:
        _check_split(study)
        studies_seen += 1
        text = study.sections.findings if options.section == "findings" else study.sections.impression
        sentences = sentences_of(text, clean)
        keys = observation_keys(labels_of(study))
        empty, unlabelled = empty + (not sentences), unlabelled + (not keys)
        reports.append((keys, tuple(numbers.setdefault(sentence, len(numbers)) for sentence in sentences)))
    table = _associated(list(numbers), reports, options)
    if not table.ngrams:
        raise UserError(
            f"no n-gram of {studies_seen} training reports occurs more than {options.rules.min_count} times "
            "beside an observation; lower --min-count, or give labels that cover these studies"
        )
    counts = {"reports": studies_seen, "empty": empty, "unlabelled": unlabelled}
    chosen = {"pmi": options.pmi, "cleaning": options.cleaning, "section": options.section}
    made = {"split": "train", **chosen, "thresholds": dataclasses.asdict(options.rules), **counts, **(made_of or {})}
    return dataclasses.replace(table, made=made)


def _associated(sentences: list[Sentence], reports: list[tuple[list[str], tuple[int, ...]]], options: NgramOptions) -> NgramTable:
    weights = Counter(number for _, held in reports for number in held)
    inventory = phrase_inventory({sentences[number]: count for number, count in sorted(weights.items())}, options.rules)
    found = [Counter(occurrences(sentence, inventory, options.rules.longest)) for sentence in sentences]
    association = Association(inventory)
    for keys, held in reports:
        counts: Counter[Ngram] = Counter()
        for number in held:
            counts.update(found[number])
        association.add(keys, counts)
    ranked = association.ranked(options.pmi)
    texts = {key: [" ".join(ngram) for ngram, _ in scored] for key, scored in ranked.items()}
    return NgramTable.of(texts, {key: [round(score, 9) for _, score in scored] for key, scored in ranked.items()})


def _check_split(study: Study) -> None:
    if study.split != "train":
        raise UserError(
            f"study {study.id} is of split {study.split!r}: n-grams are made of training reports only (what a model is given for "
            "a validation or test study must not come from its report)"
        )
