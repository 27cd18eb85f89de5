"""One vector per study from the frozen features of its films: what the observation head and the retrieval of reports look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rrg.errors import UserError

PLANES = ("frontal", "lateral")


@dataclass(frozen=True)
class FilmVectors:
    """`x` float32 [S, F], a row per study of `ids`; `features` says what they are (a digest), `patients` whose they are."""

    split: str
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    x: Tensor
    features: str

    def __post_init__(self) -> None:
        if self.x.dim() != 2 or not len(self.ids) == len(self.patients) == len(self.x) or len(set(self.ids)) != len(self.ids):
            raise UserError(f"film vectors {tuple(self.x.shape)} of {len(self.ids)} studies, or a study twice")
        if not torch.isfinite(self.x).all():
            raise UserError(f"film vectors of split {self.split!r}: a feature is not a number; build the features again")

    def __len__(self) -> int:
        return len(self.ids)


def check_same(first: FilmVectors, second: FilmVectors) -> None:
    """Raise UserError where two splits' vectors are of different features."""
    if first.features != second.features:
        raise UserError(
            f"features of split {second.split!r} were made otherwise than those of {first.split!r}: build both with one encoder"
        )


def study_vector(films: Tensor, planes: Sequence[str]) -> Tensor:
    """Features [V, N, D] of a study's films → [2 · (2D + 1)] float32.

    Per plane (frontal, then lateral) the mean and the maximum over all tokens of its films, and 1; zeros where it has no such
    film. A film of unknown plane counts as frontal where the study has none, as lateral otherwise.
    """
    width = films.shape[-1]
    parts = []
    for plane in PLANES:
        chosen = [number for number, held in enumerate(_known(planes)) if held == plane]
        if not chosen:
            parts.append(torch.zeros(2 * width + 1))
            continue
        tokens = films[chosen].float().reshape(-1, width)
        parts.append(torch.cat([tokens.mean(0), tokens.amax(0), torch.ones(1)]))
    return torch.cat(parts)


def _known(planes: Sequence[str]) -> list[str]:
    known = list(planes)
    for number, plane in enumerate(known):
        if plane not in PLANES:
            known[number] = "lateral" if "frontal" in known else "frontal"
    return known
