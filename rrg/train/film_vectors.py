"""The film vectors of a recipe's splits, from the feature cache that training with it reads; what is missing is computed."""

from __future__ import annotations

from collections.abc import Sequence

from rrg.config.load import Loaded
from rrg.observations.film_vectors import FilmVectors
from rrg.recipe import Recipe
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.system import open_split
from rrg.train.features import Metering, Portion, feature_store, prepare_features
from rrg.vision.study_vectors import split_vectors


def film_vectors(
    loaded: Loaded[Recipe], splits: Sequence[str], metering: Metering
) -> tuple[dict[str, tuple[ShardSet, FilmVectors]], list[DamagedSample]]:
    """Per split the opened shards and the vectors of its studies, and the studies whose films could not be read.

    Raises UserError where the recipe caches nothing, a split is not there, or no film of a split can be read.
    """
    for _ in prepare_features(loaded, splits, Portion(), metering):
        pass
    store = feature_store(loaded.value)
    found: dict[str, tuple[ShardSet, FilmVectors]] = {}
    damaged: list[DamagedSample] = []
    for split in splits:
        shards = open_split(loaded.value, split)
        vectors, unreadable = split_vectors(shards, store.open(shards), store.identity)
        found[split] = shards, vectors
        damaged += unreadable
    return found, damaged
