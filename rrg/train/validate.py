"""Validation on the whole validation split: the loss, and the scores of written reports under the recipe's protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rrg.batching.feed import Films, SplitFeed, shares
from rrg.data.protocols import Protocol, get_protocol
from rrg.errors import UserError, nearest
from rrg.generate.engine import autocast, write_reports
from rrg.generate.worklist import WorkList
from rrg.metrics.reports import Cut, token_cut
from rrg.metrics.scoring import METRIC_NAMES, point_scores
from rrg.recipe import Recipe
from rrg.system import System
from rrg.train.team import Team


def check_selection(recipe: Recipe) -> None:
    """Raises UserError where `train.select` names what validation does not compute."""
    get_protocol(recipe.score.protocol)
    legal = ("loss", "distinct_reports", *(METRIC_NAMES if recipe.train.validate_reports else ()))
    for name in recipe.train.select:
        if name not in legal:
            raise UserError(f"train.select.{name}: not computed in validation; {nearest(name, legal)}")


def selection_score(recipe: Recipe, metrics: dict[str, float]) -> float:
    """The weighted sum that chooses the best checkpoint."""
    return sum(weight * metrics[name] for name, weight in recipe.train.select.items())


class Validation:
    """Scores of one model on the validation split, kept per step: a killed validation is taken up where it stopped."""

    def __init__(self, system: System, films: Films, team: Team, folder: Path) -> None:
        self._system, self._films, self._team, self._folder = system, films, team, folder
        total = len(films.shards)
        most = system.recipe.train.validate_studies
        self._indices = list(range(min(most, total) if most else total))

    def result(self, step: int) -> dict[str, float] | None:
        """Metrics of a validation that is finished."""
        path = self._folder / f"step_{step:08d}.json"
        return json.loads(path.read_text())["metrics"] if path.exists() else None

    def run(self, step: int) -> dict[str, float]:
        """Validate now; equal metrics on every rank."""
        from rrg.train.rundir import write_json

        recipe = self._system.recipe
        metrics = {"loss": self._loss()}
        if recipe.train.validate_reports:
            rows = self._reports(step)
            protocol = get_protocol(recipe.score.protocol)
            tokenizer = self._system.model.language.tokenizer
            cut = token_cut(tokenizer, protocol.truncate_tokens) if protocol.truncate_tokens else None
            metrics |= self._team.lead(lambda: _scores(rows, protocol, cut))
        if self._team.leads:
            write_json(self._folder / f"step_{step:08d}.json", {"step": step, "studies": len(self._indices), "metrics": metrics})
        self._team.wait()
        return metrics

    def _loss(self) -> float:
        """Mean negative log-likelihood per token."""
        system, team = self._system, self._team
        model, recipe = system.model, system.recipe
        own = self._indices[team.rank :: team.world]
        size = recipe.train.micro_batch_size
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        feed = SplitFeed(self._films, system.tokeniser, batches)
        total = [0.0, 0.0]
        model.eval()
        torch.manual_seed(recipe.seed)  # parts that draw (noise in a text-only stage) draw the same at every validation
        for share in shares(feed, range(len(batches)), workers=recipe.data.workers, prefetch=recipe.data.prefetch):
            batch = share.batches[0].to(team.device)
            with torch.no_grad(), autocast(recipe, team.device):
                output = model.language.loss(model.prefix(batch)[1], batch)
            total[0] += float(output.nll.double().sum())
            total[1] += output.tokens
        model.train()
        nll, tokens = team.total(total)
        return nll / max(tokens, 1.0)

    def _reports(self, step: int) -> list[dict[str, Any]]:
        system, team = self._system, self._team
        ids = [self._films.shards.ids[index] for index in self._indices]
        target = self._folder / f"step_{step:08d}.jsonl"
        work = WorkList(target, ids, {"step": step})
        arguments: dict[str, Any] = {"rank": team.rank, "world": team.world, "device": team.device}
        damaged = write_reports(system.model, self._films, system.tokeniser, work, system.recipe, **arguments)
        lost = [damage.study for part in team.gather(damaged) for damage in part]
        team.lead(lambda: work.finish(lost))
        return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def _scores(rows: Sequence[dict[str, Any]], protocol: Protocol, cut: Cut | None) -> dict[str, float]:
    scores = point_scores(rows, protocol, cut)
    scores["distinct_reports"] = float(len({row["generated"] for row in rows}))
    return scores
