"""Film vectors by an alignment run, for retrieving training reports (CmEAA's labels at test time, spec cmeaa §5a)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from rrg.observations.film_vectors import FilmVectors
from rrg.recipe import Recipe
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.system import open_split
from rrg.train.aligned_run import AlignedRun
from rrg.train.vectors import evaluation_films, joined, pair_vectors


def aligned_vectors(
    root: Path, recipe: Recipe, splits: Sequence[str], progress: Callable[[int, int], None], which: str = "best"
) -> tuple[dict[str, tuple[ShardSet, FilmVectors]], list[DamagedSample]]:
    """Per split of `recipe`'s shards the opened shards and the image vectors of its studies, and the studies that could not be
    read. Only films are looked at: the reports of validation and test studies have no part in it.

    Raises UserError as `AlignedRun.open` does, or where no study of a split can be read.
    """
    run = AlignedRun.open(root, which)
    opened = {split: open_split(recipe, split) for split in splits}
    total, done = sum(map(len, opened.values())), 0
    found: dict[str, tuple[ShardSet, FilmVectors]] = {}
    damaged: list[DamagedSample] = []

    def counted(count: int) -> None:
        nonlocal done
        done += count
        progress(min(done, total), total)

    for split, shards in opened.items():
        films = evaluation_films(run.system, shards)
        held = joined([pair_vectors(run.system, films, range(len(shards)), run.team.device, counted)], shards)
        patients = tuple(shards.patients[shards.index_of(study)] for study in held.ids)
        x = torch.from_numpy(held.image).float()
        found[split] = shards, FilmVectors(split, held.ids, patients, x, f"aligned:{run.made['checkpoint']}")
        damaged += [DamagedSample(lost.study, lost.shard, lost.member, lost.reason) for lost in held.damaged]
    return found, damaged
