"""Film vectors of a split from its cached features."""

from __future__ import annotations

import torch

from rrg.errors import UserError
from rrg.observations.film_vectors import FilmVectors, study_vector
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.vision.feature_cache import CacheIdentity, FeatureCache


def split_vectors(shards: ShardSet, cache: FeatureCache, identity: CacheIdentity) -> tuple[FilmVectors, list[DamagedSample]]:
    """The vectors of every study of the split whose films could be read, and the studies whose films could not.

    Raises UserError where no study has a film.
    """
    rows, kept, damaged = [], [], []
    for index in range(len(shards)):
        try:
            films, views = cache.get(index), shards.study(index).views
        except DamagedSample as damage:
            damaged.append(damage)
            continue
        if not len(films):
            study = shards.ids[index]
            damaged.append(DamagedSample(study, shards.shard_of(index), f"{study}.json", "it has no film"))
            continue
        stitched = identity.films.stitch
        planes = ["frontal"] if stitched else [views[number].plane for number in identity.films.choose(views)]
        rows.append(study_vector(films, planes))
        kept.append(index)
    if not rows:
        raise UserError(f"split {shards.split!r} of {shards.root}: no study has a film that can be read")
    ids, patients = (tuple(names[index] for index in kept) for names in (shards.ids, shards.patients))
    return FilmVectors(shards.split, ids, patients, torch.stack(rows), identity.digest), damaged
