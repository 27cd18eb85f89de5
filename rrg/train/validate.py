"""Validation on the whole validation split: the loss, and the scores of written reports under the recipe's protocol."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rrg.batching.batch import Batch
from rrg.batching.feed import Damage, Films, SplitFeed, shares
from rrg.data.protocols import Protocol, get_protocol
from rrg.errors import UserError, nearest
from rrg.generate.engine import autocast, write_reports
from rrg.generate.worklist import WorkList
from rrg.language.causal import LanguageOutput
from rrg.metrics.reports import Cut, token_cut
from rrg.metrics.retrieval import PAIR_METRICS
from rrg.metrics.scoring import METRIC_NAMES, point_scores
from rrg.model import ReportGenerator
from rrg.recipe import Recipe
from rrg.shards.quarantine import Quarantine
from rrg.strategy.replicas import Replicas
from rrg.system import System, with_text
from rrg.train.phases import phases
from rrg.train.signals import StopRequest
from rrg.train.team import Team


def check_selection(recipe: Recipe) -> None:
    """Raises UserError where `train.select` names what validation does not compute."""
    get_protocol(recipe.score.protocol)
    legal: tuple[str, ...] = ("loss", "distinct_reports", *(METRIC_NAMES if recipe.train.validate_reports else ()))
    if not recipe.writes:
        legal = ("loss", *PAIR_METRICS)
    for name in recipe.train.select:
        if name not in legal:
            raise UserError(f"train.select.{name}: not computed in validation; {nearest(name, legal)}")


def selection_score(recipe: Recipe, metrics: dict[str, float]) -> float:
    """The weighted sum that chooses the best checkpoint."""
    return sum(weight * metrics[name] for name, weight in recipe.train.select.items())


class Validation:
    """Scores of one model on the validation split, kept per step: a killed validation is taken up where it stopped."""

    def __init__(self, system: System, films: Films, team: Team, folder: Path, strategy: Replicas, stop: StopRequest) -> None:
        self._system, self._films, self._team, self._folder, self._strategy = system, films, team, folder, strategy
        self._stop = stop
        recipe, total = system.recipe, len(films.shards)
        indices = range(total) if recipe.data.empty_reports == "keep" else with_text(films.shards, recipe).nonzero()[0].tolist()
        self._indices = list(indices)[: recipe.train.validate_studies or total]

    def result(self, step: int) -> dict[str, float] | None:
        """Metrics of a validation that is finished."""
        path = self._folder / f"step_{step:08d}.json"
        return json.loads(path.read_text())["metrics"] if path.exists() else None

    def run(self, step: int) -> dict[str, float] | None:
        """Validate now; equal metrics on every rank, None where one was asked to leave: what is written is taken up again."""
        from rrg.train.rundir import write_json

        recipe = self._system.recipe
        told = self._loss()
        if told is None:
            return None
        loss, damaged = told
        metrics = {"loss": loss}
        if recipe.train.validate_reports:
            written = self._reports(step)
            if written is None:
                return None
            rows, unreadable = written
            damaged += unreadable
            protocol = get_protocol(recipe.score.protocol)
            tokenizer = self._system.model.language.tokenizer
            cut = token_cut(tokenizer, protocol.truncate_tokens) if protocol.truncate_tokens else None
            metrics |= self._team.lead(lambda: _scores(rows, protocol, cut))
        lost = self._team.lead(lambda: self._within_budget(damaged))
        if self._team.leads:
            result = {"step": step, "studies": len(self._indices), "unreadable": lost, "metrics": metrics}
            write_json(self._folder / f"step_{step:08d}.json", result)
        self._team.wait()
        return metrics

    def _within_budget(self, damaged: Sequence[Damage]) -> list[str]:
        """Ids of the studies that could not be read. Raises UserError where there are more than `data.max_damaged` allows."""
        shards = self._films.shards
        quarantine = Quarantine(None, self._system.recipe.data.damage_budget, len(shards))
        for damage in damaged:
            quarantine.add(damage.study, damage.shard, damage.member, damage.reason, 0)
        found = {damage.study for damage in damaged}
        return [study for study in shards.ids if study in found]

    def _leave(self) -> bool:
        """Whether to leave off here. Where processes run the model together, all leave off at the same batch."""
        if not self._strategy.shards:
            return self._stop.asked
        return bool(self._team.total([self._stop.asked])[0])

    def _loss(self) -> tuple[float, list[Damage]] | None:
        """(mean negative log-likelihood per token, what could not be read on any rank); None where it was left off."""
        system, team = self._system, self._team
        model, recipe = system.model, system.recipe
        own = self._indices[team.rank :: team.world]
        size = recipe.train.micro_batch_size
        batches = [own[start : start + size] for start in range(0, len(own), size)]
        counted = len(batches)
        batches += [self._indices[:1]] * (self._strategy.rounds(counted) - counted)  # of no account: others need the company
        feed = SplitFeed(self._films, system.tokeniser, batches)
        total, damaged = [0.0, 0.0], []
        model.eval()
        torch.manual_seed(recipe.seed)  # parts that draw (noise in a text-only stage) draw the same at every validation
        everything = shares(feed, range(len(batches)), workers=recipe.data.workers, prefetch=recipe.data.prefetch)
        for number, share in enumerate(everything):
            phases.beat()
            with torch.no_grad(), autocast(recipe, team.device):
                output = self._strategy.call(functools.partial(_forward, model, share.batches[0].to(team.device)))
            if number < counted:
                damaged += share.damaged
                total[0] += float(output.nll.double().sum())
                total[1] += output.tokens
            if self._leave():
                break
        model.train()
        nll, tokens, asked = team.total([*total, self._stop.asked])
        if asked:
            return None
        return nll / max(tokens, 1.0), [damage for part in team.gather(damaged) for damage in part]

    def _reports(self, step: int) -> tuple[list[dict[str, Any]], list[Damage]] | None:
        system, team = self._system, self._team
        ids = [self._films.shards.ids[index] for index in self._indices]
        target = self._folder / f"step_{step:08d}.jsonl"
        work = WorkList(target, ids, {"step": step})
        arguments: dict[str, Any] = {"rank": team.rank, "world": team.world, "device": team.device, "progress": _beat}
        arguments |= {"strategy": self._strategy, "leave": self._leave}
        own = write_reports(system.model, self._films, system.tokeniser, work, system.recipe, **arguments)
        if team.total([own.left])[0]:
            return None
        damaged = [damage for part in team.gather(own.damaged) for damage in part]
        team.lead(lambda: work.finish([damage.study for damage in damaged]))
        # Not `splitlines`: a report may hold a line separator of Unicode.
        return [json.loads(line) for line in target.read_bytes().split(b"\n")[:-1]], damaged


def _forward(model: ReportGenerator, batch: Batch) -> LanguageOutput:
    return model.language.loss(model.prefix(batch)[1], batch)


def _beat(done: int, of: int, reports: int) -> None:
    phases.beat()


def _scores(rows: Sequence[dict[str, Any]], protocol: Protocol, cut: Cut | None) -> dict[str, float]:
    scores = point_scores(rows, protocol, cut)
    scores["distinct_reports"] = float(len({row["generated"] for row in rows}))
    return scores
