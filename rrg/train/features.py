"""The feature caches of a recipe, computed ahead of training by any number of processes or jobs.

The processes share nothing but the folder: each takes every n-th shard, none waits for another, and a shard is there whole or
not at all. So a part may be killed, started again or run on another day.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rrg.config.context import BuildContext
from rrg.config.load import Loaded
from rrg.data.study import SPLITS
from rrg.errors import UserError, nearest
from rrg.recipe import Recipe
from rrg.shards.manifest import read_manifest
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.shards.storage import open_storage
from rrg.stages import stage_recipe
from rrg.train.team import share_cores
from rrg.vision.family import VISION
from rrg.vision.feature_cache import feature_file, survey, write_damaged
from rrg.vision.feature_store import FeatureStore

Metering = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@dataclass(frozen=True)
class Portion:
    """Which of `of` portions of the shards is this process's own, from 0."""

    number: int = 0
    of: int = 1

    @classmethod
    def of_process(cls, part: str | None) -> Portion:
        """This process's own: of a job array (`part` I/N, I from 1) and of a launch (`torchrun`, `accelerate`) within the job.

        Raises UserError where `part` is not of that form.
        """
        job, jobs = 1, 1
        if part is not None:
            found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part)
            job, jobs = (int(found[1]), int(found[2])) if found else (0, 0)
            if not 1 <= job <= jobs:
                raise UserError(f"--part {part!r}: write I/N with I from 1 to N, for example --part 3/8")
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return cls((job - 1) * world + rank, jobs * world)


@dataclass(frozen=True)
class SplitFeatures:
    """One split after this process's portion. `computed` and `kept` (found finished) are shards of this process; `finished` of
    `shards` are done by anyone; studies, films, bytes and `damaged` are those of finished shards. `listed` is where all damaged
    studies are written, once the split is complete."""

    split: str
    folder: Path
    computed: int
    kept: int
    finished: int
    shards: int
    studies: int
    films: int
    bytes: int
    damaged: tuple[DamagedSample, ...]
    allowed: int | float
    listed: Path | None

    @property
    def complete(self) -> bool:
        return self.finished == self.shards


def prepare_features(
    loaded: Loaded[Recipe], splits: Sequence[str], portion: Portion, metering: Metering
) -> Iterator[SplitFeatures]:
    """Compute this process's portion of every feature cache that training with the recipe (and its stages) will read.

    `splits` empty: all that the shards have. `metering(what)` gives a callback for (done, in all) studies of this process.
    Raises UserError where the recipe caches nothing, or a folder holds the features of another encoder, preprocessing or
    choice of films.
    """
    recipes = [loaded.value, *(stage_recipe(loaded, name).value for name in loaded.value.stages)]
    caching = [recipe for recipe in recipes if getattr(recipe.vision, "cache", "")]
    if not caching:
        raise UserError("vision.cache: empty, so nothing is kept; write vision.cache=auto or a folder, here and in training")
    share_cores(caching[0].train.threads)
    done: set[str] = set()
    for recipe in caching:
        names = _splits(recipe, splits)
        store = feature_store(recipe)
        if str(store.folder) not in done:
            done.add(str(store.folder))
            for name in names:
                yield _portion(recipe, store, name, portion, metering)


def _splits(recipe: Recipe, asked: Sequence[str]) -> list[str]:
    if not recipe.data.shards:
        raise UserError("data.shards: empty; name the folder that `rrg prepare` wrote, for example data.shards=shards/iu")
    for name in asked:
        if name not in SPLITS:
            raise UserError(f"--splits {name!r}: {nearest(name, SPLITS)}")
    manifest = read_manifest(open_storage(recipe.data.shards, recipe.data.reading))
    there = [name for name in SPLITS if manifest.of_split(name)]
    for name in asked:
        if name not in there:
            raise UserError(f"--splits {name}: {recipe.data.shards} has {', '.join(there) or 'no shard'}")
    return list(dict.fromkeys(asked)) or there


def feature_store(recipe: Recipe) -> FeatureStore:
    """With the encoder as `System.build` would make it: vision is the first part that draws initial weights."""
    torch.manual_seed(recipe.seed)
    encoder: Any = VISION.build(recipe.vision, context=BuildContext())
    data = recipe.data
    return FeatureStore(encoder.eval(), recipe.vision.cache, data.shards, recipe.train.precision, data.films)


def _portion(recipe: Recipe, store: FeatureStore, split: str, portion: Portion, metering: Metering) -> SplitFeatures:
    shards = ShardSet(recipe.data.shards, split, recipe.data.reading)
    with metering(f"features of {split}") as progress:
        arguments: dict[str, Any] = {"rank": portion.number, "world": portion.of, "progress": progress}
        report = store.build(shards, device=_device(), **arguments)
    found = survey(store.folder, shards, store.identity)
    tables = {shard: table for shard, table in found.items() if table is not None}
    damaged = tuple(
        DamagedSample(study, shard.name, *why) for shard, table in tables.items() for study, why in table.damaged.items()
    )
    return SplitFeatures(
        split=split,
        folder=store.folder,
        computed=report.shards - report.kept,
        kept=report.kept,
        finished=len(tables),
        shards=len(found),
        studies=sum(len(table.ids) for table in tables.values()),
        films=sum(sum(table.rows) for table in tables.values()),
        bytes=sum(feature_file(store.folder, shard).stat().st_size for shard in tables),
        damaged=damaged,
        allowed=recipe.data.damage_budget,
        listed=write_damaged(store.folder, split, damaged) if damaged and len(tables) == len(found) else None,
    )


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
