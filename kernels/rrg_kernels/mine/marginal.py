"""Which pairs stand for the product of the marginals.

The joint pairs are always (i, i). The marginal ones are either listed, by permutations of the batch without a fixed point (no
joint pair may leak in), or all pairs of the batch, with or without the joint ones. They are given, never drawn here: a caller
that resumes a run draws the same ones from its own generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Marginal:
    """Marginal pairs of a batch; made by `permutations`, `shifts` or `all_pairs`.

    partners: [P, B] int64, z of row i is partners[p, i]; None for all pairs.
    with_joint: all B² pairs instead of the B² - B that are not joint.
    """

    partners: Tensor | None
    with_joint: bool = False

    @classmethod
    def permutations(cls, partners_pb: Tensor) -> Marginal:
        """One or several permutations of 0 … B-1, each a row. Checks them where they lie; on a GPU that waits for it, so build
        them on the CPU and move with `to`.

        Raises:
            ValueError: not [P, B] integers, a row that is no permutation, or one with a fixed point.
        """
        partners = partners_pb[None] if partners_pb.ndim == 1 else partners_pb
        if partners.ndim != 2 or not len(partners) or partners.is_floating_point() or partners.dtype == torch.bool:
            raise ValueError(
                f"permutations are {tuple(partners_pb.shape)} {partners_pb.dtype}; give [P, B] integers, P at least 1"
            )
        rows = torch.arange(partners.shape[1], device=partners.device, dtype=partners.dtype)
        strange = (partners.sort(dim=1).values != rows).any(1)
        if bool(strange.any()):
            raise ValueError(f"row {int(strange.int().argmax())} of permutations does not hold each of 0 … B-1 once")
        fixed = partners == rows
        if bool(fixed.any()):
            row, place = (int(index) for index in fixed.nonzero()[0])
            raise ValueError(f"row {row} of permutations leaves {place} in its place: a joint pair among the marginal ones")
        return cls(partners.long())

    @classmethod
    def shifts(cls, batch: int, by: int | Sequence[int]) -> Marginal:
        """Cyclic shifts, the derangements that CmEAA uses: row i is paired with row i + by, modulo B.

        Raises:
            ValueError: a shift outside 1 … B-1.
        """
        steps = [by] if isinstance(by, int) else list(by)
        if not steps or any(not 1 <= step < batch for step in steps):
            raise ValueError(f"shifts {steps} of a batch of {batch}: each must be from 1 to {batch - 1}")
        return cls((torch.arange(batch) + torch.tensor(steps)[:, None]) % batch)

    @classmethod
    def all_pairs(cls, *, with_joint: bool = False) -> Marginal:
        """Every pair of the batch; B² - B of them, or B² with the joint ones."""
        return cls(None, with_joint)

    def to(self, device: torch.device | str) -> Marginal:
        """The same pairs with the table on `device`."""
        return self if self.partners is None else Marginal(self.partners.to(device, non_blocking=True))

    def check(self, batch: int, device: torch.device) -> None:
        """Raises ValueError where the batch has no marginal pair, or the table is for another batch size or elsewhere."""
        if batch < 2:
            raise ValueError(f"a batch of {batch} has no marginal pairs; leave the objective out for it")
        if self.partners is not None and self.partners.shape[1] != batch:
            raise ValueError(f"permutations of {self.partners.shape[1]} rows for a batch of {batch}")
        if self.partners is not None and self.partners.device != device:
            raise ValueError(f"permutations on {self.partners.device}, the batch on {device}: write marginal.to({str(device)!r})")


def marginal_pairs(batch: int, partners: Tensor | None, with_joint: bool) -> int:
    """How many marginal pairs there are."""
    if partners is not None:
        return partners.numel()
    return batch * batch if with_joint else batch * (batch - 1)
