"""Options of low-rank adaptation, for any part that can carry it."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.schema import option


@dataclass
class LoraOptions:
    """Low-rank updates of frozen Linears (spec common §7)."""

    r: int = option(16, "rank", least=1)
    alpha: int = option(16, "scale is alpha / r", least=1)
    dropout: float = option(0.1, "dropout before the low-rank path", least=0, below=1)
    targets: list[str] = option(
        [],
        "name endings of the Linears; empty takes the kind's published default; language: [all-linear] is every one but the head",
    )
