"""The text side of the interaction adapters, between the layers of a frozen text tower (spec unicrossadapter §2.3, §4).

After each of three groups of layers the stream is taken down, attends to itself and to the film's reduced map of that stage, and
what comes of it is added back. In `intent` every position sees itself and those before it: position 0, the start symbol, is the
same however the report goes on, which is why the visual side may look at it. In `release` the self-attention of the adapters is
not masked, as in the published code: later words reach earlier positions.

Dimensions: F films, L positions, W width of the tower, d adapter width, N places of a film's reduced map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from transformers import DynamicCache

from rrg.connector.attention import Fixed, Keep
from rrg.connector.bridge import STAGES, CrossModalBlock, start_adapters
from rrg.language.layered_text import LayeredText, groups
from rrg.vision.adapters import freeze


class FilmCache(DynamicCache):
    """The library's cache of keys and values of words, and beside it those of what is seen, which stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}


class KeptWords:
    """Keys and values while a report is written, by the place of an attention in the model. A search may reorder or repeat the
    rows of words: they are studies (the films of a study lie with its heads), and a study's beams see the same films."""

    def __init__(self, cache: FilmCache, rows: int) -> None:
        self._cache, self._rows = cache, rows

    def at(self, place: int) -> Keep:
        """What attention `place` keeps the words' keys and values with."""

        def keep(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            heads, shape = k.shape[1], (self._rows, -1, *k.shape[2:])
            k, v = self._cache.update(k.reshape(shape), v.reshape(shape), place)
            return k.reshape(-1, heads, *k.shape[2:]), v.reshape(-1, heads, *v.shape[2:])

        return keep

    def of_films(self, place: int) -> Fixed:
        """What attention `place` keeps the keys and values of the films with."""

        def fixed(compute: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
            if place not in self._cache.seen:
                self._cache.seen[place] = compute()
            return self._cache.seen[place]

        return fixed


class TextStream(nn.Module):
    """`words` [V, W] is the frozen table of word embeddings; `ends` the layers after which the adapters sit.

    The tower is frozen but for its positional embeddings.
    """

    def __init__(
        self,
        tower: LayeredText,
        words: Tensor,
        ends: Sequence[int],
        width: int,
        heads: int,
        dropout: float,
        *,
        zero: bool,
        leak: bool,
    ) -> None:
        super().__init__()
        W = tower.sizes.width
        self.words = nn.Embedding.from_pretrained(words, freeze=True)
        self.tower = freeze(tower)
        self.tower.places.weight.requires_grad_(True)
        self.leak = leak
        self.groups = groups(len(tower.layers), ends)
        self.down = nn.ModuleList(nn.Linear(W, width) for _ in range(STAGES))
        self.up = nn.ModuleList(nn.Linear(width, W) for _ in range(STAGES))
        self.blocks = nn.ModuleList(CrossModalBlock(width, heads, dropout) for _ in range(STAGES))
        self.ladder = nn.ModuleList(nn.LayerNorm(width) for _ in range(STAGES - 1))
        for part in (self.down, self.up, self.blocks):
            start_adapters(part, self.up, zero)

    @property
    def kept(self) -> int:
        """How many attentions keep keys and values while a report is written."""
        return len(self.tower.layers) + STAGES

    def begin(self, ids_fl: Tensor, first: int = 0) -> Tensor:
        """[F, L, W] of word ids at positions `first`, `first` + 1, …"""
        return self.tower.begin(self.words(ids_fl), first)

    def layers(self, stage: int, x: Tensor, kept: KeptWords | None = None) -> Tensor:
        """The tower's own layers of a stage."""
        for place in self.groups[stage]:
            x = self.tower.layers[place](x, None if kept is None else kept.at(place))
        return x

    def reduce(self, stage: int, x: Tensor, last: Tensor | None) -> Tensor:
        """[F, L, d], with the former stage's on the ladder."""
        t = self.down[stage](x)
        return t if last is None else self.ladder[stage - 1](t + last)

    def adapt(self, stage: int, x: Tensor, t: Tensor, v: Tensor, kept: KeptWords | None = None) -> Tensor:
        """The stream with what the adapter makes of t [F, L, d] and the film's map v [F, N, d]."""
        place = len(self.tower.layers) + stage
        keep, fixed = (None, None) if kept is None else (kept.at(place), kept.of_films(place))
        return x + self.up[stage](self.blocks[stage](t, v, causal=not self.leak, keep=keep, fixed=fixed))

    def sentence(self, x_fw: Tensor) -> Tensor:
        """[F, E]: the finished features of one position in the space that the towers share."""
        return self.tower.project(x_fw)

    def forward(self, ids_fl: Tensor, maps_sfnd: Sequence[Tensor], first: int = 0, kept: KeptWords | None = None) -> Tensor:
        """[F, L, W]: word features, given the reduced maps [F, N, d] of the three stages."""
        x, last = self.begin(ids_fl, first), None
        for stage, v in enumerate(maps_sfnd):
            x = self.layers(stage, x, kept)
            last = self.reduce(stage, x, last)
            x = self.adapt(stage, x, last, v, kept)
        return self.tower.end(x)
