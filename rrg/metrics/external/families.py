"""From a worker's results to a metric's scores: which module checks and reads the results of which metric."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrg.metrics.external import chexbert, radgraph, single
from rrg.metrics.external.result import Reading
from rrg.metrics.external.supervisor import StudyTexts


@dataclass(frozen=True)
class Family:
    """`well_formed` says whether a result has the metric's shape; `read` makes scores of results and their studies."""

    well_formed: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Sequence[Mapping[str, Any]], Sequence[StudyTexts]], Reading]


FAMILIES: dict[str, Family] = {
    "chexbert": Family(chexbert.well_formed, chexbert.read),
    **{name: Family(radgraph.well_formed, functools.partial(radgraph.read, name=name)) for name in ("radgraph", "radgraph_xl")},
    **{
        name: Family(single.well_formed, functools.partial(single.read, name=name))
        for name in ("bertscore", "radcliq_bertscore", "rate", "green")
    },
}
