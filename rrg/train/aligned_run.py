"""A finished alignment run, opened to be looked into: its model with the trained tensors, or as it was before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rrg.digest import digest_file
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.quarantine import Quarantine
from rrg.shards.reader import ShardSet
from rrg.system import System, open_split, with_text
from rrg.train import checkpoint
from rrg.train.evaluation import overridden
from rrg.train.inference import built
from rrg.train.phases import phases
from rrg.train.rundir import RunDirectory, read_recipe
from rrg.train.team import Team, start
from rrg.train.vectors import PairVectors, evaluation_films, joined, pair_vectors


@dataclass
class AlignedRun:
    """`made` says in a scores file which model spoke."""

    root: Path
    recipe: Recipe
    system: System
    team: Team
    folder: Path
    made: dict[str, object]

    @classmethod
    def open(cls, root: Path, which: str, overrides: Sequence[str] = (), *, trained: bool = True) -> AlignedRun:
        """With the tensors of checkpoint `which`; not `trained`: with those that training started from.

        Raises UserError: no run, one that writes reports, no such checkpoint, other frozen weights than it was trained with.
        """
        recipe = overridden(read_recipe(root), overrides)
        if recipe.writes:
            raise UserError(
                f"{root}: its recipe writes reports and aligns nothing; use rrg generate, or a run such as alta_mimic's"
            )
        phases.stage("load")
        team = start(recipe.train.threads, recipe.train.hang_seconds)
        folder = checkpoint.resolve(RunDirectory(root).checkpoints, which)
        system = built(recipe, root, team)
        state, frozen = checkpoint.read_state(folder), checkpoint.frozen_digest(system.model)
        if state.frozen != frozen:
            raise UserError(
                f"checkpoint {folder}: trained with another frozen model (digest {state.frozen[:12]}, now {frozen[:12]}): "
                "put the former one back"
            )
        if trained:
            checkpoint.load(folder, system.model)
        system.model.to(team.device).eval()
        made = {"run": recipe.name, "step": state.step, "checkpoint": digest_file(folder / "trainable.safetensors")}
        return cls(root, recipe, system, team, folder, made)

    def split(self, name: str) -> tuple[ShardSet, PairVectors]:
        """A split and the vectors of its studies that have text, in its order; every process does a part.

        Raises UserError where more studies are unreadable than `data.max_damaged` allows.
        """
        shards, team = open_split(self.recipe, name), self.team
        indices = with_text(shards, self.recipe).nonzero()[0].tolist()
        own = pair_vectors(self.system, evaluation_films(self.system, shards), indices[team.rank :: team.world], team.device)
        phases.stage("gather")
        vectors = joined(team.gather(own), shards)
        quarantine = Quarantine(None, self.recipe.data.damage_budget, len(shards))
        for damage in vectors.damaged:
            quarantine.add(damage.study, damage.shard, damage.member, damage.reason, 0)
        phases.stage("score")
        return shards, vectors

    def reports(self, shards: ShardSet, vectors: PairVectors) -> list[str]:
        """The cleaned reports of the studies of `vectors`."""
        return [self.system.tokeniser.clean(shards.study(shards.index_of(study))) for study in vectors.ids]
