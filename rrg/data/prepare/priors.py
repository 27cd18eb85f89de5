"""Which study of a patient came before which."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from rrg.shards.writer import SourceStudy

Timeline = list[tuple[datetime, str]]


def link_priors(studies: Sequence[SourceStudy], moments: Mapping[str, datetime]) -> list[SourceStudy]:
    """Each study with `prior` and `prior_days` of the patient's nearest strictly earlier study among `studies`.

    `moments` holds the time of each study that has one; a study without stays unlinked. Input order is kept.
    """
    timelines: defaultdict[str, Timeline] = defaultdict(list)
    for source in studies:
        if source.study.id in moments:
            timelines[source.study.patient].append((moments[source.study.id], source.study.id))
    earlier: dict[str, tuple[str, float]] = {}
    for timeline in timelines.values():
        earlier.update(_earlier(sorted(timeline)))
    return [_linked(source, earlier.get(source.study.id)) for source in studies]


def _earlier(timeline: Timeline) -> dict[str, tuple[str, float]]:
    """(prior, gap in days) of every study but those of the first moment; studies of one moment share their prior."""
    priors: dict[str, tuple[str, float]] = {}
    before: tuple[datetime, str] | None = None
    last = timeline[0]
    for moment, study in timeline:
        if last[0] < moment:
            before = last
        if before is not None:
            priors[study] = (before[1], round((moment - before[0]).total_seconds() / 86400, 4))
        last = (moment, study)
    return priors


def _linked(source: SourceStudy, prior: tuple[str, float] | None) -> SourceStudy:
    if prior is None:
        return source
    return dataclasses.replace(source, study=dataclasses.replace(source.study, prior=prior[0], prior_days=prior[1]))
