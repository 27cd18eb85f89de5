"""Validation of two towers on the whole validation split: the loss, and recall of reports by films and films by reports."""

from __future__ import annotations

import torch

from rrg.batching.feed import SplitFeed, shares
from rrg.generate.engine import autocast
from rrg.metrics.retrieval import both_ways, equal_texts, own_pairs
from rrg.train.phases import phases
from rrg.train.validate import Validation
from rrg.train.vectors import PairVectors, evaluation_films, joined, pair_vectors


class _LeftError(Exception):
    """A signal asked to leave between two batches."""


class PairValidation(Validation):
    """Losses are worked out in micro-batches of each process by itself, as training without gathering would: they can be compared
    between the steps of a run, not between runs of other micro-batches. Recall is over all studies."""

    def run(self, step: int) -> dict[str, float] | None:
        """Validate now; equal metrics on every rank, None where one was asked to leave: another time it begins again."""
        from rrg.train.rundir import write_json

        team = self._team
        own = self._indices[team.rank :: team.world]
        metrics = self._losses(own)
        found = None if metrics is None else self._vectors(own)
        if metrics is None or team.total([found is None])[0]:
            return None
        vectors = joined(team.gather(found), self._films.shards)
        similarity = vectors.similarity
        metrics |= both_ways(similarity, own_pairs(len(similarity))).values()
        read = both_ways(similarity, equal_texts(self._texts(vectors.ids))).values()
        metrics |= {f"{name}_equal": value for name, value in read.items()}
        lost = team.lead(lambda: self._within_budget(vectors.damaged))
        if team.leads:
            result = {"step": step, "studies": len(self._indices), "unreadable": lost, "metrics": metrics}
            write_json(self._folder / f"step_{step:08d}.json", result)
        team.wait()
        return metrics

    def _texts(self, ids: tuple[str, ...]) -> list[str]:
        shards = self._films.shards
        return [self._system.tokeniser.clean(shards.study(shards.index_of(study))) for study in ids]

    def _vectors(self, own: list[int]) -> PairVectors | None:
        """None where this rank was asked to leave."""
        system = self._system

        def leave(studies: int) -> None:
            if self._leave():
                raise _LeftError

        try:
            return pair_vectors(system, evaluation_films(system, self._films.shards), own, self._team.device, leave)
        except _LeftError:
            return None

    def _losses(self, own: list[int]) -> dict[str, float] | None:
        """`loss`, weighted as in training, and `loss.NAME` of each objective; None where a rank was asked to leave."""
        system, team, recipe = self._system, self._team, self._system.recipe
        model, size = system.model, recipe.train.micro_batch_size
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        feed = SplitFeed(self._films, system.tokeniser, batches)
        sums = dict.fromkeys(model.objectives, 0.0)
        counts = dict.fromkeys(model.objectives, 0.0)
        model.eval()
        for share in shares(feed, range(len(batches)), workers=recipe.data.workers, prefetch=recipe.data.prefetch):
            phases.beat()
            batch = share.batches[0].to(team.device)
            with torch.no_grad(), autocast(recipe, team.device):
                outputs = model(batch)
            for name, (value, _) in outputs.items():
                sums[name] += float(value)
                counts[name] += model.objectives[name].count(batch)
            if self._leave():
                break
        model.train()
        *totals, asked = team.total([*sums.values(), *counts.values(), self._stop.asked])
        if asked:
            return None
        losses = {name: value / max(count, 1.0) for name, value, count in zip(sums, totals, totals[len(sums) :], strict=False)}
        return {
            "loss": sum(model.objectives[name].weight * value for name, value in losses.items()),
            **{f"loss.{name}": value for name, value in losses.items()},
        }
