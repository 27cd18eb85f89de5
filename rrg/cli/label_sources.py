"""The three origins of `rrg prepare labels`: a classifier of films, the reports of similar films, own reports."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrg.cli.prepare_ngrams import label_provider, read_studies
from rrg.cli.progress import Meter
from rrg.config.load import Loaded
from rrg.data.study import Study
from rrg.errors import UserError
from rrg.observations.film_vectors import FilmVectors
from rrg.observations.head_fit import HeadOptions, cross_fitted, fit_image_head
from rrg.observations.image_head import ImageHead
from rrg.observations.label_file import LabelLine
from rrg.observations.probabilities import Probabilities, ProbabilityLabels
from rrg.observations.provenance import LabelProvider, Source
from rrg.observations.retrieval import ReportBank, RetrievedLabels
from rrg.recipe import Recipe
from rrg.system import open_split
from rrg.train.film_vectors import film_vectors

Metering = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
_SHOWN = 10


@dataclass
class Made:
    """Labels with their source; `truth` are those of the studies' own reports, for comparison only, and `reports` their texts by
    the study that is asked about (own or retrieved), for an adjudicator."""

    source: Source
    described: dict[str, Any]
    lines: list[LabelLine]
    truth: Mapping[str, Mapping[str, int]]
    notes: list[str] = field(default_factory=list)
    reports: Mapping[str, str] = field(default_factory=dict)
    probabilities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def from_reports(loaded: Loaded[Recipe], splits: Sequence[str], options: argparse.Namespace, metering: Metering) -> Made:
    """Labels of each study's own report."""
    provider, described = label_provider(options.labels, _section(loaded), in_shards=True)
    studies = [study for split in splits for study in read_studies(open_split(loaded.value, split))]
    lines = [LabelLine(study.id, study.split, provider.labels(study)) for study in studies]
    reports = {study.id: _text(study, loaded) for study in studies} if options.adjudicate is not None else {}
    probabilities, notes = _head_probabilities(loaded, splits, options, metering)
    return Made("report", {"labels": described}, lines, {}, notes, reports, probabilities)


def from_films(loaded: Loaded[Recipe], splits: Sequence[str], options: argparse.Namespace, metering: Metering) -> Made:
    """Labels of a classifier of films: the one in `--head`, or one that is fitted now."""
    opened, notes = _vectors(loaded, tuple(dict.fromkeys(("train", "val", *splits))), metering)
    provider, described = label_provider(options.labels, _section(loaded), in_shards=True)
    studies = {split: list(read_studies(shards)) for split, (shards, _) in opened.items()}
    truth = _truth(provider, [study for held in studies.values() for study in held])
    head = _head(opened["train"][1], opened["val"][1], truth, options, described)
    found = {split: _probabilities(head, opened[split][1], truth, options) for split in splits}
    if options.probabilities is not None:
        _joined(found).save(options.probabilities)
    lines: list[LabelLine] = []
    for split in splits:
        labels = ProbabilityLabels(found[split], head.thresholds, options.below, str(options.out))
        values = dict(zip(found[split].ids, found[split].values, strict=True))
        lines += [LabelLine(study.id, split, labels.of_row(values[study.id])) for study in studies[split] if study.id in values]
    made = {"provider": "image head", "labels": head.made.get("labels", {}), "below": options.below, "features": head.features}
    made |= {"thresholds": dict(head.thresholds.values), "found": dict(head.thresholds.found), "decay": head.made["decay"]}
    return Made("image", made, lines, truth, notes)


def retrieved(loaded: Loaded[Recipe], splits: Sequence[str], options: argparse.Namespace, metering: Metering) -> Made:
    """Labels of the training reports whose films are nearest."""
    names = tuple(dict.fromkeys(("train", *splits)))
    opened, notes = _vectors(loaded, names, metering) if options.vectors is None else _of_run(loaded, names, options, metering)
    provider, described = label_provider(options.labels, _section(loaded), in_shards=True)
    studies = {split: {study.id: study for study in read_studies(shards)} for split, (shards, _) in opened.items()}
    truth = _truth(provider, [study for held in studies.values() for study in held.values()])
    bank = ReportBank(opened["train"][1])
    known = {study: truth[study] for study in bank.bank.ids if study in truth}
    lines: list[LabelLine] = []
    reports: dict[str, str] = {}
    for split in splits:
        neighbours = bank.neighbours(opened[split][1], options.neighbours)
        labels = RetrievedLabels(neighbours, known)
        for study, near in neighbours.items():
            more = {"neighbours": [dataclasses.asdict(neighbour) for neighbour in near]}
            lines.append(LabelLine(study, split, labels.labels(studies[split][study]), more))
            if options.adjudicate is not None:
                reports[study] = _text(studies["train"][near[0].study], loaded)
    made = {"provider": "retrieval", "neighbours": options.neighbours, "labels": described, "features": bank.bank.features}
    probabilities = _of_head(options.head, [opened[split][1] for split in splits]) if options.adjudicate is not None else {}
    return Made("retrieved", made, lines, truth, notes, reports, probabilities)


def _vectors(loaded: Loaded[Recipe], splits: Sequence[str], metering: Metering) -> tuple[dict[str, Any], list[str]]:
    return _noted(*film_vectors(loaded, splits, metering))


def _of_run(
    loaded: Loaded[Recipe], splits: Sequence[str], options: argparse.Namespace, metering: Metering
) -> tuple[dict[str, Any], list[str]]:
    """Vectors of films by an alignment run, of the recipe's shards."""
    from rrg.train.aligned_vectors import aligned_vectors

    with metering(f"film vectors by {options.vectors}") as progress:
        return _noted(*aligned_vectors(options.vectors, loaded.value, splits, progress))


def _noted(opened: dict[str, Any], damaged: Sequence[Any]) -> tuple[dict[str, Any], list[str]]:
    notes = [f"no labels, unreadable: {damage}" for damage in damaged[:_SHOWN]]
    if len(damaged) > _SHOWN:
        notes.append(f"no labels for {len(damaged):,} studies in all, whose films cannot be read")
    return opened, notes


def _truth(provider: LabelProvider, studies: Sequence[Study]) -> dict[str, dict[str, int]]:
    return {study.id: provider.labels(study) for study in studies}


def _head(
    train: FilmVectors,
    val: FilmVectors,
    truth: Mapping[str, Mapping[str, int]],
    options: argparse.Namespace,
    described: Mapping[str, Any],
) -> ImageHead:
    if options.head is not None and (options.head / "head.json").is_file():
        return ImageHead.load(options.head)
    with Meter("fitting the observation head", "weight decays") as progress:
        chosen = HeadOptions(hidden=options.hidden, goal=options.goal)
        head = fit_image_head(train, val, truth, chosen, made={"labels": dict(described)}, progress=progress)
    if options.head is not None:
        head.save(options.head)
    return head


def _probabilities(
    head: ImageHead, vectors: FilmVectors, truth: Mapping[str, Mapping[str, int]], options: argparse.Namespace
) -> Probabilities:
    """Of a split; training studies are judged by heads that have not seen them."""
    if vectors.split != "train":
        return head.probabilities(vectors)
    return cross_fitted(vectors, truth, head, options.folds)


def _joined(found: Mapping[str, Probabilities]) -> Probabilities:
    import numpy as np

    ids = tuple(study for part in found.values() for study in part.ids)
    return Probabilities(ids, np.concatenate([part.values for part in found.values()]))


def _head_probabilities(
    loaded: Loaded[Recipe], splits: Sequence[str], options: argparse.Namespace, metering: Metering
) -> tuple[dict[str, dict[str, float]], list[str]]:
    if options.adjudicate is None or options.head is None:
        return {}, []
    opened, notes = _vectors(loaded, splits, metering)
    return _of_head(options.head, [vectors for _, vectors in opened.values()]), notes


def _of_head(folder: Path | None, vectors: Sequence[FilmVectors]) -> dict[str, dict[str, float]]:
    from rrg.data.study import OBSERVATIONS

    if folder is None:
        return {}
    head = ImageHead.load(folder)
    rows = [head.probabilities(split) for split in vectors]
    return {
        study: dict(zip(OBSERVATIONS, row, strict=True))
        for part in rows
        for study, row in zip(part.ids, part.values.tolist(), strict=True)
    }


def _section(loaded: Loaded[Recipe]) -> str:
    """The section that labels are read from: that of the target; both sections of a target of both."""
    section = loaded.value.data.section
    return section if section in ("findings", "impression") else "report"


def _text(study: Study, loaded: Loaded[Recipe]) -> str:
    from rrg.data.protocols import section_text

    text = section_text(study.sections, loaded.value.data.section)
    if not text.strip():
        raise UserError(f"study {study.id}: its report is empty, nothing can be adjudicated; leave it out of the shards")
    return text
