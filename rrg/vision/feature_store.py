"""Where the features of a frozen encoder are kept for a folder of shards, built and opened."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rrg.batching.film_policy import FilmPolicy
from rrg.shards.reader import ShardSet
from rrg.shards.reading import cache_root
from rrg.vision.feature_cache import CacheIdentity, FeatureCache

if TYPE_CHECKING:
    import torch

    from rrg.vision.encoders import VisionEncoder
    from rrg.vision.feature_build import BuildReport


@dataclass
class FeatureStore:
    """`cache` is `vision.cache` of a recipe: a folder, or `auto`: one named after its identity, beside the shards at `root`, or
    below `$RRG_CACHE/features` (`~/.cache/rrg/features`) of this machine where the shards lie behind a URL."""

    encoder: VisionEncoder
    cache: str
    root: str
    precision: str
    films: FilmPolicy

    @functools.cached_property
    def identity(self) -> CacheIdentity:
        """What the features are; hashes the weights."""
        return CacheIdentity.of(self.encoder, "bfloat16" if self.precision == "bf16" else "float32", self.films)

    @property
    def folder(self) -> Path:
        if self.cache != "auto":
            return Path(self.cache)
        beside = cache_root() if "://" in self.root else Path(self.root)
        return beside / "features" / self.identity.digest[:12]

    def build(
        self,
        shards: ShardSet,
        *,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> BuildReport:
        """Compute what the folder lacks for `shards`: this rank's part. All ranks must be done before one reads."""
        from rrg.vision.feature_build import build_features

        arguments = {"device": device, "rank": rank, "world": world, "progress": progress, "identity": self.identity}
        return build_features(self.encoder.to(device), shards, self.folder, **arguments)  # type: ignore[arg-type]

    def open(self, shards: ShardSet) -> FeatureCache:
        """The finished features of one split. Raises UserError where they are not finished, or another encoder's."""
        return FeatureCache(self.folder, shards, self.identity)
