"""How a model is trained: optimizer, learning rate over time, clipping, checkpoints, validation."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.ranges import check_number
from rrg.config.schema import check_choice, flatten, option, section
from rrg.errors import UserError


@dataclass
class ScheduleOptions:
    kind: str = option("cosine_epoch", "cosine_epoch (a step down each epoch, as published) | cosine (every step) | constant")
    warmup_steps: int = option(0, "linear warm-up")
    warmup_ratio: float = option(0.0, "linear warm-up as a share of all steps, rounded up; where warmup_steps is 0")
    warmup_epochs: float = option(0.0, "linear warm-up in epochs, rounded up to a step; where the other two are 0")
    floor: float = option(1e-6, "learning rate at the end of the cosine, for the base rate; other rates in proportion")
    span_epochs: float = option(0.0, "cosine: epochs it is drawn over, where the run stops before its end; 0 is the run's length")

    def check(self, path: str) -> None:
        check_choice(f"{path}.kind", self.kind, ("cosine_epoch", "cosine", "constant"))
        check_number(f"{path}.warmup_steps", self.warmup_steps, least=0)
        check_number(f"{path}.warmup_ratio", self.warmup_ratio, least=0, most=1)
        for name in ("warmup_epochs", "span_epochs"):
            check_number(f"{path}.{name}", getattr(self, name), least=0)
        if self.warmup_steps and self.warmup_ratio:
            raise UserError(
                f"{path}.warmup_ratio: {self.warmup_ratio} beside warmup_steps: {self.warmup_steps}; write 0 for one of them"
            )
        if self.warmup_epochs and (self.warmup_steps or self.warmup_ratio):
            raise UserError(f"{path}.warmup_epochs: {self.warmup_epochs} beside another warm-up; write 0 for one of them")
        if self.span_epochs and self.kind != "cosine":
            raise UserError(f"{path}.span_epochs: belongs to kind cosine, and kind is {self.kind}; write 0")
        check_number(f"{path}.floor", self.floor, least=0)


_LEAST = {
    "batch_size": 1,
    "micro_batch_size": 1,
    "max_steps": 1,
    "weight_decay": 0,
    "clip_norm": 0,
    "clip_value": 0,
    "max_nonfinite": 0,
    "checkpoint_every": 1,
    "keep": 1,
    "validate_every": 0,
    "validate_studies": 0,
    "log_every": 1,
    "threads": 0,
    "hang_seconds": 0,
}


@dataclass
class TrainOptions:
    batch_size: int = option(8, "studies per optimizer step, over all processes and accumulation steps")
    micro_batch_size: int = option(8, "studies per forward pass and process; accumulation follows from it")
    epochs: float = option(15.0, "passes over the training split; ignored where max_steps is given")
    max_steps: int | None = option(None, "optimizer steps")
    precision: str = option("bf16", "bf16 (autocast; master weights stay float32) | fp32")
    lr: float = option(1e-4, "base learning rate")
    lr_by_part: dict[str, float] = option({}, "learning rate of a part: vision, connector, language, objectives")
    optimizer: str = option("adamw", "adamw (weight decay apart from the gradient) | adam (added to the gradient)")
    amsgrad: bool = option(False, "divide by the largest second moment so far (Reddi et al. 2018)")
    betas: list[float] = option([0.9, 0.999], "decay of the two moments")
    eps: float = option(1e-8, "added to the root of the second moment")
    weight_decay: float = option(0.01, "on all trained tensors as published")
    decay_vectors: bool = option(True, "weight decay on vectors too: biases, gains of norms, scales")
    clip_norm: float = option(0.0, "largest gradient norm; 0 is no clipping (as published)")
    clip_value: float = option(0.0, "largest absolute entry of a gradient, after the norms; 0 is no clipping")
    clip_norm_of: dict[str, float] = option(
        {}, "largest gradient norm of some parameters, clipped first: prefix of their names -> norm, as {objectives.mine: 1.0}"
    )
    schedule: ScheduleOptions = section(ScheduleOptions, "learning rate over time: a pure function of the step")
    max_nonfinite: int = option(0, "steps with a non-finite loss or gradient to skip before giving up")
    checkpoint_every: int = option(500, "steps between checkpoints")
    keep: int = option(2, "newest checkpoints kept, beside the best")
    validate_every: float = option(1.0, "epochs between validations; 0 is never")
    validate_studies: int = option(0, "validate on the first this many studies; 0 is the whole split")
    validate_reports: bool = option(True, "write reports when validating (else only the loss)")
    select: dict[str, float] = option(
        {"bleu_4": 0.5, "cider": 0.5}, "best checkpoint: largest weighted sum of validation metrics; {loss: -1} for the loss"
    )
    log_every: int = option(10, "steps between lines on a log that is no terminal")
    threads: int = option(0, "CPU threads per process; 0 shares the cores among the processes of the machine")
    hang_seconds: float = option(600.0, "a process without progress for so long ends the run on all of them; 0 is never")

    def __post_init__(self) -> None:
        # Names of parameters have dots, which an override (train.clip_norm_of.objectives.mine=1) takes for sections.
        named = dict(flatten(self.clip_norm_of)) if self.clip_norm_of else {}
        self.clip_norm_of = {name: norm for name, norm in named.items() if norm is not None}

    def check(self, path: str) -> None:
        for name, least in _LEAST.items():
            check_number(f"{path}.{name}", getattr(self, name), least=least)
        for name in ("epochs", "lr", "eps"):
            check_number(f"{path}.{name}", getattr(self, name), above=0)
        check_choice(f"{path}.precision", self.precision, ("bf16", "fp32"))
        check_choice(f"{path}.optimizer", self.optimizer, ("adamw", "adam"))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"{path}.betas: {self.betas}; write two numbers from 0 to below 1")
        for name, rate in self.lr_by_part.items():
            check_choice(f"{path}.lr_by_part", name, ("vision", "connector", "language", "objectives"))
            check_number(f"{path}.lr_by_part.{name}", rate, above=0)
        for name, norm in self.clip_norm_of.items():
            if not isinstance(norm, (int, float)) or isinstance(norm, bool):
                raise UserError(f"{path}.clip_norm_of.{name}: {norm!r} is not a number; write a norm above 0")
            check_number(f"{path}.clip_norm_of.{name}", norm, above=0)
        for name, weight in self.select.items():
            check_number(f"{path}.select.{name}", weight)
        if not self.select:
            raise UserError(f"{path}.select: empty; write validation metrics with weights, for example {{loss: -1}}")
