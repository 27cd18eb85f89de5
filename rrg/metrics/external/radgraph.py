"""RadGraph F1 from parsed graphs: what two reports' entities and relations have in common.

Three levels (Delbrouck et al. 2022, arXiv:2210.12186, as the `radgraph` package computes them); each is the F1 of two sets:

- simple: entities, as (words, label);
- partial: entities, as (words, label, whether it is the subject of a relation);
- complete: relations, as (words, label, relation, words of the object), words in lower case, and entities that are the subject
  of none.

A report without entities on either side scores 0. `combined`, a part of RadCliQ, is the mean of the F1 of entities and of
relations with both labels (Yu et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rrg.metrics.external.chexbert import empty_reports
from rrg.metrics.external.result import Reading
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.statistics import mean_of

# [words, label, [[relation, place of the object in the graph], …]]
Entity = Sequence[Any]
Graph = Sequence[Entity]
Items = frozenset[tuple[Any, ...]]


def entities(graph: Graph) -> Items:
    """(words, label)."""
    return frozenset((words, label) for words, label, _ in graph)


def entities_with_relation(graph: Graph) -> Items:
    """(words, label, has relation)."""
    return frozenset((words, label, bool(relations)) for words, label, relations in graph)


def entities_and_relations(graph: Graph) -> Items:
    """(words, label, relation, words of the object), or (words, label) where there is no relation."""
    alone = {(words, label) for words, label, found in graph if not found}
    related = {
        (words.lower(), label, relation, graph[target][0].lower()) for words, label, found in graph for relation, target in found
    }
    return frozenset(alone | related)


def relations(graph: Graph) -> Items:
    """(words, label, words of the object, its label, relation)."""
    return frozenset(
        (words, label, *graph[target][:2], relation) for words, label, related in graph for relation, target in related
    )


def f1(found: Items, truth: Items) -> float:
    """F1 of two sets; 0 where they have nothing in common."""
    common = len(found & truth)
    return 2 * common / (len(found) + len(truth)) if common else 0.0


LEVELS: dict[str, Callable[[Graph], Items]] = {
    "simple": entities,
    "partial": entities_with_relation,
    "complete": entities_and_relations,
}


def scores(generated: Graph, reference: Graph) -> dict[str, float]:
    """Every level of LEVELS, and `combined`."""
    levels = {level: f1(items(generated), items(reference)) for level, items in LEVELS.items()}
    both = [f1(items(generated), items(reference)) for items in (entities, relations)]
    return {**levels, "combined": sum(both) / 2}


def well_formed(result: Mapping[str, Any]) -> bool:
    """Whether a worker's result has this metric's shape."""
    return all(_graph(result.get(side)) for side in ("generated", "reference"))


def _graph(graph: Any) -> bool:
    if not isinstance(graph, list) or not all(isinstance(entity, list) and len(entity) == 3 for entity in graph):
        return False
    plain = all(isinstance(words, str) and isinstance(label, str) and isinstance(found, list) for words, label, found in graph)
    return plain and all(_relation(pair, len(graph)) for _, _, found in graph for pair in found)


def _relation(pair: Any, count: int) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    return isinstance(pair[0], str) and type(pair[1]) is int and 0 <= pair[1] < count


def read(results: Sequence[Mapping[str, Any]], texts: Sequence[StudyTexts], name: str = "radgraph") -> Reading:
    """Scores of N results: `<name>_simple`, `_partial`, `_complete`, `_combined`, each the mean over studies."""
    rows = [scores(result["generated"], result["reference"]) for result in results]
    columns = {f"{name}_{level}": [row[level] for row in rows] for level in (*LEVELS, "combined")}
    without = sum(not result[side] for result in results for side in ("generated", "reference"))
    return Reading(
        tuple(mean_of(score, np.array(column, dtype=np.float64)) for score, column in columns.items()),
        columns,
        {"reports_without_entities": without, "empty_reports": empty_reports(texts)},
    )
