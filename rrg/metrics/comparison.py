"""Systems side by side on the same studies: figures, differences from the first system, and tests corrected over the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.metrics.intervals import LEVEL, Method, intervals
from rrg.metrics.labelled import labeller_of
from rrg.metrics.multiplicity import holm
from rrg.metrics.observations import Uncertain, class_scores
from rrg.metrics.paired import EXCHANGE, PERMUTATIONS, RESAMPLE, Difference, differences
from rrg.metrics.registry import METRICS, ReportPairs
from rrg.metrics.reports import Reading, Report, pair
from rrg.metrics.scored import measured
from rrg.metrics.statistics import Statistics, mean_of

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class System:
    """Predictions of one system: one list of rows per seed."""

    name: str
    seeds: tuple[Rows, ...]


@dataclass(frozen=True)
class StudyMetric:
    """A metric that a program of its own computed: by system, one mapping study → number per seed. A study that failed anywhere
    has no number there, and is left out of the comparison for every system."""

    name: str
    numbers: Mapping[str, Sequence[Mapping[str, float]]]
    higher_is_better: bool = True

    def families(self, studies: Sequence[str]) -> dict[str, list[Statistics]]:
        """System → the mean over the studies that have a number everywhere, per seed; empty where there is no such study."""
        every = [seed for seeds in self.numbers.values() for seed in seeds]
        kept = [study for study in studies if all(study in seed for seed in every)]
        if not kept:
            return {}
        return {
            system: [mean_of(self.name, np.array([seed[study] for study in kept], dtype=np.float64)) for seed in seeds]
            for system, seeds in self.numbers.items()
        }


@dataclass(frozen=True)
class Figure:
    """A metric of one system: the mean over its seeds, with an interval over `count` studies; `seeds` are the single values."""

    value: float
    interval: tuple[float, float] | None = None
    seeds: tuple[float, ...] = ()
    count: int | None = None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, None for one seed."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True)
class Gap:
    """A difference from the first system; `adjusted` is its p value after Holm's correction over the table."""

    difference: Difference
    adjusted: float


@dataclass(frozen=True)
class ComparedMetric:
    """One row of a table: figures by system, gaps by system other than the first."""

    name: str
    figures: Mapping[str, Figure]
    gaps: Mapping[str, Gap]
    higher_is_better: bool = True


@dataclass(frozen=True)
class Comparison:
    """`metrics` and `findings` are two tables, each with a correction of its own; `support` counts references per observation.

    `dropped` are studies that not every system has a report for (none unless they were asked to be left out).
    """

    systems: tuple[str, ...]
    studies: tuple[str, ...]
    metrics: tuple[ComparedMetric, ...]
    findings: tuple[ComparedMetric, ...]
    support: Mapping[str, int]
    missing: Mapping[str, str]
    dropped: tuple[str, ...]
    settings: Mapping[str, Any]

    @property
    def tests(self) -> list[str]:
        """The tests that the p values come from, each once, with how often they drew."""
        drawn = {EXCHANGE: f"{self.settings['permutations']:,} exchanges", RESAMPLE: f"{self.settings['resamples']:,} resamples"}
        used = dict.fromkeys(gap.difference.test for row in self.metrics for gap in row.gaps.values())
        return [f"{test} ({drawn[test]})" for test in used]


def compare_systems(
    systems: Sequence[System],
    reading: Reading,
    metrics: Sequence[str],
    *,
    resamples: int = 1000,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    method: Method = "percentile",
    uncertain: Uncertain | None = None,
    dropped: Sequence[str] = (),
    further: Sequence[StudyMetric] = (),
) -> Comparison:
    """Score all systems, which hold the same studies in the same order (see `aligned`), and compare each with the first."""
    uncertain = reading.protocol.uncertain if uncertain is None else uncertain
    label = labeller_of(
        text for one in systems for rows in one.seeds for row in rows for text in (row["generated"], row["reference"])
    )
    reading = replace(reading, label=label)
    references = [reading.reference(row["reference"]) for row in systems[0].seeds[0]]
    pairs = {one.name: [_pairs(rows, references, reading, uncertain) for rows in one.seeds] for one in systems}
    found, missing = measured([member for group in pairs.values() for member in group], metrics)
    families = {family: _split(members, pairs) for family, members in found.items()}
    order = [row["study"] for row in systems[0].seeds[0]]
    more = {one.name: groups for one in further if (groups := one.families(order))}
    missing = missing | {one.name: "no study has a number from every system" for one in further if one.name not in more}
    classes = {"classes": {name: [class_scores(*member.positives) for member in group] for name, group in pairs.items()}}
    options = {"resamples": resamples, "seed": seed}
    scored = [name for name in metrics if name not in missing]
    lower = {one.name for one in further if not one.higher_is_better} | {
        name for name in scored if not METRICS[name].higher_is_better
    }
    tables = [
        _table(which, names, lower, permutations, method, options)
        for which, names in ((families | more, [*scored, *more]), (classes, OBSERVATIONS))
    ]
    real = next(iter(pairs.values()))[0].positives[1].sum(axis=0)
    return Comparison(
        systems=tuple(pairs),
        studies=tuple(order),
        metrics=tables[0],
        findings=tables[1],
        support={name: int(count) for name, count in zip(OBSERVATIONS, real, strict=True)},
        missing=missing,
        dropped=tuple(dropped),
        settings=options | {"permutations": permutations, "level": LEVEL, "interval": method, "uncertain": uncertain},
    )


def aligned(systems: Sequence[System], common: bool = False) -> tuple[list[System], list[str]]:
    """The systems with their rows in one order, and the studies left out because not all systems have them (`common`).

    Raises:
        UserError: other studies and not `common`, no study in common, or another reference for a study.
    """
    members = [(one.name, {row["study"]: row for row in rows}) for one in systems for rows in one.seeds]
    shared = set.intersection(*(set(rows) for _, rows in members))
    everything = list(dict.fromkeys(study for _, rows in members for study in rows))
    dropped = [study for study in everything if study not in shared]
    order = [study for study in everything if study in shared]
    if not order:
        raise UserError("the systems have no study in common: predictions of other splits or other data sets?")
    if dropped and not common:
        short = next(name for name, rows in members if dropped[0] not in rows)
        raise UserError(
            f"the systems do not report on the same studies: {len(dropped)} are not in all of them ({short} lacks {dropped[0]}); "
            "generate the missing ones, or compare the studies that all have with --common"
        )
    _same_references(members, order)
    rows_of = iter([tuple(rows[study] for study in order) for _, rows in members])
    return [System(one.name, tuple(next(rows_of) for _ in one.seeds)) for one in systems], dropped


def _same_references(members: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]], order: Sequence[str]) -> None:
    first, truth = members[0]
    for name, rows in members[1:]:
        other = [study for study in order if rows[study]["reference"].split() != truth[study]["reference"].split()]
        if other:
            raise UserError(
                f"{name}: {len(other)} of {len(order)} references are other texts than those of {first} (first: {other[0]}); "
                "only predictions of one section and one data set can be compared"
            )


def _pairs(rows: Rows, references: Sequence[Report], reading: Reading, uncertain: Uncertain) -> ReportPairs:
    return pair([reading.generated(row["generated"]) for row in rows], references, uncertain)


def _split(members: Sequence[Statistics], groups: Mapping[str, Sequence[ReportPairs]]) -> dict[str, list[Statistics]]:
    result, first = {}, 0
    for name, group in groups.items():
        result[name] = list(members[first : first + len(group)])
        first += len(group)
    return result


def _table(
    families: Mapping[str, Mapping[str, Sequence[Statistics]]],
    names: Sequence[str],
    lower: Set[str],
    permutations: int,
    method: Method,
    options: Mapping[str, int],
) -> tuple[ComparedMetric, ...]:
    figures: dict[str, dict[str, Figure]] = {name: {} for name in names}
    gaps: dict[tuple[str, str], Difference] = {}
    for groups in families.values():
        base = next(iter(groups.values()))
        for place, (system, members) in enumerate(groups.items()):
            for name, figure in _figures(members, method, options).items():
                figures.get(name, {})[system] = figure
            if place:
                found = differences(base, members, permutations=permutations, **options)
                gaps |= {(name, system): gap for name, gap in found.items() if name in figures}
    adjusted = holm({key: gap.p for key, gap in gaps.items()})
    return tuple(
        ComparedMetric(
            name,
            figures[name],
            {system: Gap(gap, adjusted[metric, system]) for (metric, system), gap in gaps.items() if metric == name},
            name not in lower,
        )
        for name in names
    )


def _figures(members: Sequence[Statistics], method: Method, options: Mapping[str, int]) -> dict[str, Figure]:
    ranges = intervals([members], method=method, **options)
    values = [member.values() for member in members]
    result = {}
    for name in members[0].names:
        seeds = tuple(one[name] for one in values)
        result[name] = Figure(float(np.mean(seeds)), ranges.get(name), seeds, members[0].count)
    return result
