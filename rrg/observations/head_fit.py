"""Fitting the observation head: class-balanced on training studies, weight decay and thresholds chosen on validation studies.

S studies, F features.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError, nearest
from rrg.observations.calibration import FEWEST, GOALS, Goal, calibrate
from rrg.observations.film_vectors import FilmVectors, check_same
from rrg.observations.image_head import ImageHead, ObservationClassifier, predicted
from rrg.observations.probabilities import Probabilities


@dataclass(frozen=True)
class HeadOptions:
    """How the head is fitted. `hidden` 0 is linear; of `decays` the one with the highest validation precision is kept.

    `goal` is what the thresholds are chosen for (see `calibrate`); `most_weight` bounds how much heavier a positive counts than a
    negative. Raises UserError for a value out of range.
    """

    hidden: int = 0
    dropout: float = 0.1
    goal: Goal = "each"
    decays: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 3e-1, 1.0)
    learning_rate: float = 1e-3
    epochs: int = 40
    batch_size: int = 256
    most_weight: float = 50.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.decays or min(self.decays) < 0 or self.hidden < 0 or not 0 <= self.dropout < 1:
            raise UserError("observation head: weight decays and hidden width are at least 0, dropout from 0 to below 1")
        if self.goal not in GOALS:
            raise UserError(f"observation head: goal {self.goal!r}; {nearest(self.goal, GOALS)}")
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0 or self.most_weight < 1:
            raise UserError("observation head: epochs, batch size and most_weight are at least 1, learning_rate above 0")


@dataclass(frozen=True)
class Targets:
    """`positive` float32 [S, 14] and `counted` bool [S, 14]: uncertain labels, and studies without any, do not count."""

    positive: Tensor
    counted: Tensor

    @classmethod
    def of(cls, ids: tuple[str, ...], labels: Mapping[str, Mapping[str, int]]) -> Targets:
        """From the labels of these studies. What is not mentioned is negative."""
        rows = [labels.get(study, {}) for study in ids]
        values = torch.tensor([[row.get(name, 0) for name in OBSERVATIONS] for row in rows]).reshape(-1, len(OBSERVATIONS))
        labelled = torch.tensor([bool(row) for row in rows], dtype=torch.bool)
        return cls((values == 1).float(), (values != -1) & labelled[:, None])

    @property
    def rates(self) -> Tensor:
        """float32 [14]: share of positives among what counts."""
        return (self.positive * self.counted).sum(0) / self.counted.sum(0).clamp_min(1)


def fit_image_head(
    train: FilmVectors,
    val: FilmVectors,
    labels: Mapping[str, Mapping[str, int]],
    options: HeadOptions | None = None,
    *,
    made: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageHead:
    """Fit a head on training studies, choose its weight decay and thresholds on validation studies; equal inputs, equal bytes.

    Args:
        labels: study → labels, of both splits; they are what the head is to say, never what it sees.

    Raises:
        UserError: the splits are not train and val, their features differ, no study has labels, or no observation is positive.
    """
    options = options or HeadOptions()
    if (train.split, val.split) != ("train", "val"):
        raise UserError(f"an observation head is fitted on train and calibrated on val, not on {train.split} and {val.split}")
    check_same(train, val)
    wanted, held = Targets.of(train.ids, labels), Targets.of(val.ids, labels)
    for split, targets in (("train", wanted), ("val", held)):
        if not (targets.positive * targets.counted).any():
            raise UserError(f"no study of split {split!r} has a positive label; an observation head cannot be fitted")
    tried: list[tuple[float, ObservationClassifier]] = []
    for number, decay in enumerate(options.decays):
        model = _fit(train.x, wanted, decay, options)
        tried.append((mean_precision(predicted(model, val.x), held), model))
        if progress is not None:
            progress(number + 1, len(options.decays))
    best = max(range(len(tried)), key=lambda number: tried[number][0])
    model = tried[best][1]
    scores, rates = predicted(model, val.x), wanted.rates.numpy().astype(np.float64)
    thresholds = calibrate(scores, held.positive.numpy(), held.counted.numpy(), rates, goal=options.goal)
    chosen = {"decay": options.decays[best], "validation_precision": [round(precision, 6) for precision, _ in tried]}
    return ImageHead(model, thresholds, train.features, {"options": asdict(options), **chosen, **(made or {})})


def cross_fitted(train: FilmVectors, labels: Mapping[str, Mapping[str, int]], head: ImageHead, folds: int = 5) -> Probabilities:
    """Probabilities of training studies by heads that have not seen them, with the options and the weight decay of `head`.

    What a model is given for a training study should be as uncertain as what it is given for a new one. Patients are dealt to
    `folds` heads by a hash of their name. Raises UserError where one fold holds all patients.
    """
    options = HeadOptions(**{**head.made["options"], "decays": (head.made["decay"],)})
    held = [zlib.crc32(patient.encode()) % folds for patient in train.patients]
    values = np.zeros((len(train), len(OBSERVATIONS)), np.float32)
    targets = Targets.of(train.ids, labels)
    for fold in sorted(set(held)):
        outside = torch.tensor([place != fold for place in held])
        if not outside.any():
            raise UserError(f"{len(set(train.patients))} training patients are too few for {folds} folds; ask for fewer")
        fitted = Targets(targets.positive[outside], targets.counted[outside])
        model = _fit(train.x[outside], fitted, options.decays[0], options)
        values[~outside.numpy()] = predicted(model, train.x[~outside])
    return Probabilities(train.ids, values)


def mean_precision(probabilities: npt.NDArray[np.float32], targets: Targets, fewest: int = FEWEST) -> float:
    """Mean over observations of the average precision (area under precision and recall), few positives left out."""
    found = []
    for place in range(len(OBSERVATIONS)):
        rows = targets.counted[:, place].numpy()
        positive = targets.positive[:, place].numpy()[rows] > 0
        if positive.sum() < fewest:
            continue
        ranked = positive[np.argsort(-probabilities[rows, place], kind="stable")]
        found.append(float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean()))
    return float(np.mean(found)) if found else 0.0


def _fit(x: Tensor, targets: Targets, decay: float, options: HeadOptions) -> ObservationClassifier:
    """Adam on binary cross-entropy, positives weighted by negatives / positives, plus decay / 2 · ‖weights‖²."""
    with torch.random.fork_rng(devices=[]), _one_thread():
        torch.manual_seed(options.seed)
        model = ObservationClassifier(x.shape[1], options.hidden, options.dropout)
        model.mean.copy_(x.mean(0))
        # A feature that never changes stays 0; one that hardly does is not blown up.
        spread = x.std(0, unbiased=False)
        model.spread.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        _minimise(model, x, targets, decay, options)
    return model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """A sum over threads depends on their number, and so small a model gains nothing from a second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _minimise(model: ObservationClassifier, x: Tensor, targets: Targets, decay: float, options: HeadOptions) -> None:
    positive_weight = ((1 - targets.rates) / targets.rates.clamp_min(1e-9)).clamp(1.0, options.most_weight)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    optimiser = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    batches = -(-len(x) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, batches * options.epochs)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(x)).split(options.batch_size):
            target, counted = targets.positive[rows], targets.counted[rows].float()
            loss = F.binary_cross_entropy_with_logits(
                model(x[rows]), target, counted, pos_weight=positive_weight, reduction="sum"
            )
            penalty = sum((weight.square().sum() for weight in weights), torch.zeros(()))
            optimiser.zero_grad()
            (loss / counted.sum().clamp_min(1) + decay / 2 * penalty).backward()
            optimiser.step()
            schedule.step()
