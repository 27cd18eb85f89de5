"""Whether a global batch can be dealt to the processes of a run, asked before its first step."""

from __future__ import annotations

from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.ledger import deal


def check_dealing(recipe: Recipe, world: int) -> None:
    """Raises UserError where micro-batches would be empty, or too small for an objective that compares studies."""
    options = recipe.train
    dealt = deal([1] * options.batch_size, world, options.micro_batch_size)
    alone = min(len(group) for rank in dealt for group in rank)
    together = min(sum(map(len, groups)) for groups in zip(*dealt, strict=True))
    for name, objective in recipe.objectives.items():
        if objective.kind == "mine" and (together if objective.gather else alone) < 2:
            advice = "" if objective.gather or together < 2 else f", or objectives.{name}.gather=true"
            raise UserError(
                f"objectives.{name}: compares the studies of a micro-batch; train.batch_size {options.batch_size} leaves some of "
                f"them one study: write train.batch_size and train.micro_batch_size of at least 2 a process{advice}"
            )
