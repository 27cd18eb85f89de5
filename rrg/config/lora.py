"""Options of low-rank adaptation, for any part that can carry it."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.ranges import check_number
from rrg.config.schema import option
from rrg.errors import UserError


@dataclass
class LoraOptions:
    """Low-rank updates of frozen Linears (spec common §7)."""

    r: int = option(16, "rank")
    alpha: int = option(16, "scale is alpha / r")
    dropout: float = option(0.1, "dropout before the low-rank path")
    targets: list[str] = option(
        [],
        "name endings of the Linears; empty takes the kind's published default; language: [all-linear] is every one but the head",
    )

    def check(self, path: str) -> None:
        if self.r < 1:
            raise UserError(f"{path}.r: {self.r} is below 1; write the rank, for example 16")
        check_number(f"{path}.alpha", self.alpha, least=1)
        if not 0 <= self.dropout < 1:
            raise UserError(f"{path}.dropout: {self.dropout}; write a probability from 0 to below 1")
