"""What a builder may know beside its own options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class BuildContext:
    """Where and for what a part is built. Parts built earlier leave what later ones need in `facts`.

    `meta` builds shapes without memory or downloads (parameter counts, plans). `train_texts` gives the cleaned report texts of
    the training split, for tokenizers that are made from them. `ngrams` are the texts of the recipe's n-gram table, in the order
    of the ids in a batch. `run` is the run directory, where such artefacts are kept.
    """

    ngrams: Sequence[str] | None = None
    run: Path | None = None
    meta: bool = False
    train_texts: Callable[[], Sequence[str]] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
