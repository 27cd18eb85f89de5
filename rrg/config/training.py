"""How a model is trained: optimizer, learning rate over time, clipping, checkpoints, validation."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.schema import check_choice, flatten, option, section
from rrg.errors import UserError


@dataclass
class ScheduleOptions:
    kind: str = option(
        "cosine_epoch",
        "cosine_epoch (a step down each epoch, as published) | cosine (every step) | constant",
        choices=("cosine_epoch", "cosine", "constant"),
    )
    warmup_steps: int = option(0, "linear warm-up", least=0)
    warmup_ratio: float = option(
        0.0, "linear warm-up as a share of all steps, rounded up; where warmup_steps is 0", least=0, most=1
    )
    warmup_epochs: float = option(0.0, "linear warm-up in epochs, rounded up to a step; where the other two are 0", least=0)
    floor: float = option(1e-6, "learning rate at the end of the cosine, for the base rate; other rates in proportion", least=0)
    span_epochs: float = option(
        0.0, "cosine: epochs it is drawn over, where the run stops before its end; 0 is the run's length", least=0
    )

    def check(self, path: str) -> None:
        if self.warmup_steps and self.warmup_ratio:
            raise UserError(
                f"{path}.warmup_ratio: {self.warmup_ratio} beside warmup_steps: {self.warmup_steps}; write 0 for one of them"
            )
        if self.warmup_epochs and (self.warmup_steps or self.warmup_ratio):
            raise UserError(f"{path}.warmup_epochs: {self.warmup_epochs} beside another warm-up; write 0 for one of them")
        if self.span_epochs and self.kind != "cosine":
            raise UserError(f"{path}.span_epochs: belongs to kind cosine, and kind is {self.kind}; write 0")


@dataclass
class TrainOptions:
    batch_size: int = option(8, "studies per optimizer step, over all processes and accumulation steps", least=1)
    micro_batch_size: int = option(8, "studies per forward pass and process; accumulation follows from it", least=1)
    epochs: float = option(15.0, "passes over the training split; ignored where max_steps is given", above=0)
    max_steps: int | None = option(None, "optimizer steps", least=1)
    precision: str = option("bf16", "bf16 (autocast; master weights stay float32) | fp32", choices=("bf16", "fp32"))
    lr: float = option(1e-4, "base learning rate", above=0)
    lr_by_part: dict[str, float] = option({}, "learning rate of a part: vision, connector, language, objectives", above=0)
    optimizer: str = option(
        "adamw", "adamw (weight decay apart from the gradient) | adam (added to the gradient)", choices=("adamw", "adam")
    )
    amsgrad: bool = option(False, "divide by the largest second moment so far (Reddi et al. 2018)")
    betas: list[float] = option([0.9, 0.999], "decay of the two moments", least=0, below=1)
    eps: float = option(1e-8, "added to the root of the second moment", above=0)
    weight_decay: float = option(0.01, "on all trained tensors as published", least=0)
    decay_vectors: bool = option(True, "weight decay on vectors too: biases, gains of norms, scales")
    clip_norm: float = option(0.0, "largest gradient norm; 0 is no clipping (as published)", least=0)
    clip_value: float = option(0.0, "largest absolute entry of a gradient, after the norms; 0 is no clipping", least=0)
    clip_norm_of: dict[str, float] = option(
        {},
        "largest gradient norm of some parameters, clipped first: prefix of their names -> norm, as {objectives.mine: 1.0}",
        above=0,
    )
    schedule: ScheduleOptions = section(ScheduleOptions, "learning rate over time: a pure function of the step")
    max_nonfinite: int = option(0, "steps with a non-finite loss or gradient to skip before giving up", least=0)
    checkpoint_every: int = option(500, "steps between checkpoints", least=1)
    keep: int = option(2, "newest checkpoints kept, beside the best", least=1)
    validate_every: float = option(1.0, "epochs between validations; 0 is never", least=0)
    validate_studies: int = option(0, "validate on the first this many studies; 0 is the whole split", least=0)
    validate_reports: bool = option(True, "write reports when validating (else only the loss)")
    select: dict[str, float] = option(
        {"bleu_4": 0.5, "cider": 0.5}, "best checkpoint: largest weighted sum of validation metrics; {loss: -1} for the loss"
    )
    log_every: int = option(10, "steps between lines on a log that is no terminal", least=1)
    threads: int = option(0, "CPU threads per process; 0 shares the cores among the processes of the machine", least=0)
    hang_seconds: float = option(600.0, "a process without progress for so long ends the run on all of them; 0 is never", least=0)

    def __post_init__(self) -> None:
        # Names of parameters have dots, which an override (train.clip_norm_of.objectives.mine=1) takes for sections.
        named = dict(flatten(self.clip_norm_of)) if self.clip_norm_of else {}
        self.clip_norm_of = {name: norm for name, norm in named.items() if norm is not None}

    def check(self, path: str) -> None:
        if len(self.betas) != 2:
            raise UserError(f"{path}.betas: {self.betas}; write two numbers from 0 to below 1")
        for name in self.lr_by_part:
            check_choice(f"{path}.lr_by_part", name, ("vision", "connector", "language", "objectives"))
        for name, norm in self.clip_norm_of.items():
            if not isinstance(norm, (int, float)) or isinstance(norm, bool):
                raise UserError(f"{path}.clip_norm_of.{name}: {norm!r} is not a number; write a norm above 0")
        if not self.select:
            raise UserError(f"{path}.select: empty; write validation metrics with weights, for example {{loss: -1}}")
