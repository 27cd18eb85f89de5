"""The training run: stages, then the recipe itself. Running the same command again carries on where it stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from rrg.batching.feed import Share, StepFeed, shares
from rrg.config.load import Loaded
from rrg.errors import UserError
from rrg.recipe import Recipe
from rrg.shards.ledger import Ledger
from rrg.shards.quarantine import Quarantine
from rrg.shards.reader import ShardSet
from rrg.shards.reading import Traffic
from rrg.stages import stage_recipe
from rrg.strategy.family import check_strategies, place, take_over
from rrg.system import System, check_inputs, open_split
from rrg.train import checkpoint
from rrg.train.announcing import tell_parameters, tell_strategy, tell_studies
from rrg.train.clipping import clipped_groups
from rrg.train.dealing import check_dealing
from rrg.train.events import EventLog
from rrg.train.guard import NonFiniteGuard
from rrg.train.leaving import leave, taught, unquantised
from rrg.train.optim import build_optimizer, parameter_table, rate_factor, set_rates
from rrg.train.pair_validation import PairValidation
from rrg.train.phases import phases
from rrg.train.progress import Reporter
from rrg.train.repeats import repeats, require_labels
from rrg.train.resuming import restore
from rrg.train.rundir import RunDirectory, write_json
from rrg.train.signals import Interrupted, StopRequest
from rrg.train.step import Stepper
from rrg.train.team import Team, start
from rrg.train.validate import Validation, check_selection, selection_score
from rrg.train.watchdog import watched
from rrg.train.writer import CheckpointWriter
from rrg.vision.feature_cache import FeatureCache


def train(loaded: Loaded[Recipe]) -> Path:
    """Train every stage of the recipe that is not done yet, then the recipe; returns the run directory.

    Raises:
        Interrupted: a signal asked to leave; a checkpoint of the step it names is written, the same command carries on.
        RunError: a process of the run is gone, hangs or has no memory left.
    """
    phases.reset()
    with StopRequest().listening() as stop:
        team = start(loaded.value.train.threads, loaded.value.train.hang_seconds, loaded.value.strategy)
        root = Path(loaded.value.output)
        directory = RunDirectory(root)
        with watched(team, loaded.value.train.hang_seconds, directory.failures, stop):
            new = team.lead(lambda: directory.open(loaded))
            try:
                if not directory.done.exists():
                    check_strategies(loaded, team.world)
                    check_inputs(loaded.value, ("train", "val"))
                for name in loaded.value.stages:
                    Run(stage_recipe(loaded, name), root, team, stop).train()
                Run(loaded, root, team, stop).train()
            except (UserError, OSError):
                if new and team.leads:
                    directory.abandon()
                raise
            except Interrupted as left:
                if team.leads:
                    write_json(directory.interrupted, {"signal": left.why, "step": left.step})
                if left.step is not None:  # all ranks leave before the same step
                    team.end()
                raise
            team.end()
        return root


class Run:
    """One recipe in its run directory. `root` is the outermost run directory, where stages and tokenizer live."""

    def __init__(self, loaded: Loaded[Recipe], root: Path, team: Team, stop: StopRequest) -> None:
        self.recipe, self.team, self._stop = loaded.value, team, stop
        self.directory = RunDirectory(Path(self.recipe.output))
        self.reporter = Reporter(team.leads, self.recipe.train.log_every)
        self._root = root
        check_selection(self.recipe)
        check_dealing(self.recipe, team.world)
        team.lead(lambda: self.directory.open(loaded))

    def train(self) -> None:
        """To the end of the run, from wherever it is."""
        if self._finished():
            self.reporter.say(f"{self.recipe.name}: finished already, in {self.directory.root}")
            return
        self._build()
        state = restore(self._system, self._shards, self._optimizer, self.directory.checkpoints, self.team)
        self._share()
        self._events = EventLog(self.directory.events, self.directory.tensorboard, state.step) if self.team.leads else None
        self._announce(state)
        try:
            with self._stop.deferred():
                self._train(state)
                self._finish(state)
        finally:
            self._writer.close()

    def _finished(self) -> bool:
        """Whether the run is at its end. With a constant rate, a later command may ask for another length."""
        if not self.directory.done.exists():
            return False
        asked = self._length()
        return json.loads(self.directory.done.read_text()).get("length", asked) == asked

    def _length(self) -> list[float | None]:
        return [self.recipe.train.epochs, self.recipe.train.max_steps]

    # -- what a run is made of ------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        recipe, team = self.recipe, self.team
        # The training command opens these two splits and no other: selection on the test split is not possible.
        self._shards, validation = open_split(recipe, "train"), open_split(recipe, "val")
        if not team.leads:  # rank 0 makes what is made once (a tokenizer, a cache of weights); the others read it
            team.wait()
        self._system = System.build(recipe, self._root, self._shards)
        clipped_groups(self._system.model, recipe.train.clip_norm_of)  # a wrong name is told before features are computed
        if team.leads:
            team.wait()
        place(self._system.model, team.device, recipe.strategy if team.world > 1 else "ddp")
        caches = [self._features(shards) for shards in (self._shards, validation)]
        films = self._system.films(self._shards, caches[0])
        ledger = Ledger(self._shards.shard_sizes, recipe.seed, recipe.data.window, repeats(self._shards, recipe))
        if any(options.kind == "observations" for options in recipe.objectives.values()):
            require_labels(self._shards)
        self._feed = StepFeed(
            films,
            self._system.tokeniser,
            ledger,
            batch_size=recipe.train.batch_size,
            micro_batch=recipe.train.micro_batch_size,
            rank=team.rank,
            world=team.world,
            section=recipe.data.section,
        )
        self._epoch = ledger.epoch_length / recipe.train.batch_size  # steps, not whole
        self._total = recipe.train.max_steps or math.ceil(recipe.train.epochs * self._epoch - 1e-9)
        self._optimizer = build_optimizer(self._system.model, recipe.train)
        self._rows = parameter_table(self._system.model, recipe.train)
        self._validated = self._system.films(validation, caches[1])
        self._quarantine = Quarantine(self.directory.damaged, recipe.data.damage_budget, len(self._shards))

    def _features(self, shards: ShardSet) -> FeatureCache | None:
        if not self._system.caches:
            return None
        team = self.team
        report = self.reporter.counting(f"features of {shards.split}")
        with phases("features"):
            self._system.build_features(shards, device=team.device, rank=team.rank, world=team.world, progress=report)
        team.wait()
        return self._system.features(shards)

    def _share(self) -> None:
        """Hand model and optimizer to the strategy, now that they hold what the run carries on from."""
        model, recipe, team = self._system.model, self.recipe, self.team
        self._strategy = take_over(recipe, model, self._optimizer, team.accelerator)
        self._stepper = Stepper(model, self._strategy, recipe, team)
        validation = Validation if self.recipe.writes else PairValidation
        self._validation = validation(self._system, self._validated, team, self.directory.validation, self._strategy, self._stop)
        self._writer = CheckpointWriter(self.directory.checkpoints, recipe.train.keep)

    def _announce(self, state: checkpoint.State) -> None:
        recipe, say = self.recipe, self.reporter.say
        tell_parameters(self._rows, recipe.name, self.reporter, self.directory.parameters if self.team.leads else None)
        where = f"carrying on at step {state.step} of {self._total}" if state.step else f"{self._total} steps"
        say(f"{recipe.name}: {where}, {self.team.world} process(es), run directory {self.directory.root}")
        told = tell_strategy(recipe, self._strategy, self.reporter) | tell_studies(recipe, self._shards, self.reporter)
        if state.inputs:
            told["inputs"] = state.inputs
        self._log("resume" if state.step else "start", state.step, world=self.team.world, total_steps=self._total, **told)

    # -- the loop -------------------------------------------------------------------------------------------------------------

    def _train(self, state: checkpoint.State) -> None:
        self._traffic = Traffic()  # of this rank's loader workers, in this command
        guard = NonFiniteGuard(self.directory.nonfinite, self.recipe.train.max_nonfinite, state.skipped)
        if state.step and self._due(state.step):  # killed between a checkpoint and the end of its validation
            self._validate(state)
        self._system.model.train()
        with self.reporter.steps(self.recipe.name, state.step, self._total) as bar:
            waiting = time.perf_counter()
            phases.begin(state.step + 1)
            phases.take(state.step)  # what led here is no part of the first step
            for share in phases.each("loader", self._shares(state.step)):
                started = time.perf_counter()
                self._traffic += share.traffic
                damaged, asked, unwritten = self.team.total([len(share.damaged), self._stop.asked, self._writer.failed])
                if unwritten:
                    self._settle()
                if asked:
                    self._interrupt(state)
                if damaged:
                    self._quarantined(share, state.step)
                rates = set_rates(self._optimizer, self._rate(state.step))
                result = self._stepper.run(state.step, share)
                if not result.finite:
                    suspects = [study for part in self.team.gather(result.suspects) for study in part]
                    studies = self._feed.studies(state.step)
                    guard.skip(state.step, result.loss, result.grad_norm, suspects, studies, self.team.leads)
                    self._log("nonfinite", state.step + 1, suspects=suspects)
                state.step += 1
                state.position = state.step * self.recipe.train.batch_size
                state.skipped = guard.skipped
                state.truncated += result.truncated
                now = time.perf_counter()
                seconds = max(now - waiting, 1e-9)
                self._log(
                    "step",
                    state.step,
                    epoch=state.step / self._epoch,
                    **result.record(),
                    lr=rates,
                    order=self._feed.fingerprint(state.step - 1),
                    studies_per_s=result.studies / seconds,
                    tokens_per_s=result.tokens / seconds,
                    loader_wait_s=started - waiting,
                    step_s=seconds,
                    read=share.traffic.record(),
                    phases=phases.take(state.step),
                )
                bar.step(
                    state.step, result.loss, result.studies / seconds, result.tokens / seconds, (started - waiting) / seconds
                )
                self._keep(state)
                phases.take(state.step)  # checkpoint and validation are no part of a step
                phases.begin(state.step + 1)
                waiting = time.perf_counter()

    def _shares(self, first: int) -> Iterator[Share]:
        data = self.recipe.data
        return shares(self._feed, range(first, self._total), workers=data.workers, prefetch=data.prefetch)

    def _rate(self, step: int) -> float:
        options = self.recipe.train
        return rate_factor(options.schedule, step, self._total, self._epoch, options.lr)

    def _quarantined(self, share: Share, step: int) -> None:
        """All ranks learn of damaged studies, so that all stop together when there are too many."""
        damages = [damage for part in self.team.gather(share.damaged) for damage in part]

        def record() -> None:
            for damage in damages:
                self._quarantine.add(damage.study, damage.shard, damage.member, damage.reason, step)

        self.team.lead(record)
        self._log("damaged", step, studies=[damage.study for damage in damages])

    def _due(self, step: int) -> bool:
        """Whether a validation belongs to `step`: at the end of every `validate_every` epochs, and at the end."""
        every = self.recipe.train.validate_every
        if not every:
            return False
        span = every * self._epoch
        return step == self._total or math.floor(step / span + 1e-9) > math.floor((step - 1) / span + 1e-9)

    def _keep(self, state: checkpoint.State) -> None:
        due = self._due(state.step)
        if due or state.step == self._total or state.step % self.recipe.train.checkpoint_every == 0:
            self._save(state)
        if due:
            self._validate(state)

    def _save(self, state: checkpoint.State) -> None:
        """Copy what a checkpoint holds; it is written while training goes on."""
        with phases("checkpoint"):
            self._settle()
            taken = checkpoint.snapshot(self._system.model, self._strategy, self.team.leads)
            if self.team.leads:
                self._writer.submit(taken, state)

    def _settle(self) -> None:
        """Until the last checkpoint is written. Raises UserError, on every rank, where it could not be."""
        for step in self.team.lead(self._writer.settle):
            self._log("checkpoint", step)

    def _validate(self, state: checkpoint.State) -> None:
        """Validate the checkpoint of `state.step`, then write it again with what is the best so far."""
        self._settle()
        metrics = self._validation.result(state.step)
        if metrics is None:
            with phases("validation"):
                metrics = self._validation.run(state.step)
        if metrics is None:
            self._interrupt(state)
        score = selection_score(self.recipe, metrics)
        best = not state.best or score > state.best["score"] or state.best["step"] == state.step
        if best:
            state.best = {"step": state.step, "score": score}

        def keep() -> None:
            checkpoint.mark(self.directory.checkpoints, state)
            checkpoint.retain(self.directory.checkpoints, self.recipe.train.keep, state.best["step"])

        self.team.lead(keep)
        self._log("validation", state.step, metrics=metrics, best=best, score=score)
        said = ", ".join(
            f"{name} {value:.4f}" for name, value in metrics.items() if name in self.recipe.train.select or name == "loss"
        )
        self.reporter.say(f"{self.recipe.name} step {state.step}: validation {said}{' (best so far)' if best else ''}")
        self._system.model.train()

    def _interrupt(self, state: checkpoint.State) -> NoReturn:
        """On every rank, before the same step: a checkpoint of what is done. Raises Interrupted."""
        if state.step:
            self._save(state)
            self._settle()
        why = self.team.lead(lambda: self._stop.name)
        self._log("interrupted", state.step, signal=why)
        if self._events is not None:
            self._events.close()
        raise Interrupted(why, state.step)

    def _finish(self, state: checkpoint.State) -> None:
        self._settle()
        if self.team.leads:
            self._leave(state)
        own = self._shards.traffic + (self._traffic if self.recipe.data.workers else Traffic())
        read = sum(self.team.gather(own), Traffic()).record()
        self._log("end", state.step, truncated=state.truncated, skipped=state.skipped, damaged=self._quarantine.count, read=read)
        self.reporter.say(
            f"{self.recipe.name}: done after {state.step} steps; reports cut at max_report_tokens: {state.truncated}, steps "
            f"skipped: {state.skipped}, studies unreadable: {self._quarantine.count}"
        )
        if self._events is not None:
            self._events.close()
        self.team.wait()
        if self.team.leads:
            write_json(self.directory.done, {"step": state.step, "best": state.best, "length": self._length()})
        self.team.wait()

    def _leave(self, state: checkpoint.State) -> None:
        """What the best checkpoint has for others; a model that is in parts here is built again, whole."""
        language, connector = taught(self.recipe, self.directory.root != self._root, self._system.model)
        if not (language or connector):
            return
        recipe, best = unquantised(self.recipe), state.best.get("step", state.step)
        whole = self._strategy.name == "ddp" and recipe is self.recipe
        model = self._system.model if whole else System.build(recipe, self._root, self._shards).model
        if state.best or not whole:
            checkpoint.load(checkpoint.resolve(self.directory.checkpoints, str(best)), model)
        leave(model, self.directory, language, connector)

    def _log(self, event: str, step: int, **values: object) -> None:
        if self._events is not None:
            self._events.write(event, step, **values)
