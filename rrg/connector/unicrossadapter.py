"""UniCrossAdapter: a frozen CLIP with interaction adapters between its stages, a fusion neck and an encoder (spec
unicrossadapter).

Films and words interleave: stage i + 1 of the film tower runs on the adapted output of stage i, and the adapters look at the text
stream of the same depth. That is cut into the house's parts like this. The vision part is the film tower, and what it hands on is
its first stage, before anything trained (so it may be cached). The language part owns the text tower with the text's adapters and
the decoder. This connector runs the tower's other stages with the visual adapters, then neck and encoder; it calls both towers,
which stay their parts' own. What flows on is an ordinary prefix, with the reduced maps that the text's adapters look at.

`intent` (§4): the visual adapters and the neck look at position 0 of the text alone, the start symbol. So films depend on no word
of the report, are encoded once per study, and no later word reaches an earlier one. `release` (`language.mode`) does what the
published code does, for study: the visual side reads the whole report, and views are joined along the batch, so that a study sees
other studies' films.

Dimensions: B studies, V views, F = films that are there, N tokens of the tower's first stage, C channels, S common side, d
adapter width, L positions, W width of the text tower and the generator, M memory tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.batch import Batch, Prefix
from rrg.connector.bridge import STAGES, VisualBridge
from rrg.connector.fusion_neck import FusionNeck, channel_norm
from rrg.connector.prenorm import EncoderLayer, UnbiasedNorm, xavier
from rrg.errors import UserError
from rrg.vision.positions import sincos_positions
from rrg.vision.stages import resized

if TYPE_CHECKING:
    from rrg.connector.options import UniCrossAdapterOptions


class PoolPositions(nn.Module):
    """A copy of the attention pool's positional embedding [1 + n², C], to be trained: the tower's own stays as it is."""

    def __init__(self, table: Tensor, side: int) -> None:
        super().__init__()
        self.weight, self.side = nn.Parameter(table.detach().clone()), side

    def forward(self) -> Tensor:
        """[side², C]."""
        return resized(self.weight, self.side)


class MapEncoder(nn.Module):
    """Maps of all views to the memory: projected, placed, encoded. Fixed positions are added before and after the layers."""

    def __init__(self, channels: int, width: int, side: int, options: UniCrossAdapterOptions) -> None:
        super().__init__()
        self.project, self.enter = nn.Linear(channels, width), UnbiasedNorm(width)
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(width, options.encoder_heads, 4 * width, options.encoder_dropout) for _ in range(options.layers)
        )
        self.norm, self.dropout = UnbiasedNorm(width), nn.Dropout(options.encoder_dropout)
        self.places: Tensor  # row 0, of the CLS, is zeros
        self.register_buffer("places", sincos_positions(width, side)[0], persistent=False)
        xavier(self.layers)

    def forward(self, x_bvnc: Tensor, there_bv: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, V, N, C] → (memory [B, 1 + V·N, W], its mask, None where every film is there)."""
        B, V, N, _ = x_bvnc.shape
        places = torch.cat([self.places[:1], self.places[1:].repeat(V, 1)])
        tokens = self.enter(self.project(x_bvnc) + self.places[1:]).flatten(1, 2)
        x = torch.cat([self.cls.expand(B, 1, -1).to(tokens.dtype), self.dropout(tokens)], 1)
        mask = None if bool(there_bv.all()) else F.pad(there_bv.repeat_interleave(N, 1), (1, 0), value=True)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x + places), mask


class UniCrossAdapter(nn.Module):
    """Tokens of the film tower's first stage [B, V, N, C] to a prefix whose `maps` [B, S, V, N, d] are for the text's adapters.

    Raises:
        UserError: the vision part cannot be run stage by stage, or the language part has no text stream.
    """

    def __init__(self, options: UniCrossAdapterOptions, facts: Mapping[str, Any]) -> None:
        super().__init__()
        tower, stream = facts["vision"], getattr(facts["language"], "stream", None)
        if not hasattr(tower, "advance"):
            raise UserError("vision.kind: this connector runs the film tower stage by stage; write clip_resnet or staged_dinov2")
        if stream is None:
            raise UserError("language.kind: this connector reads a text tower; write word_decoder")
        # In a tuple: parts of the model, but not parameters of this one.
        self._towers, self._given = (tower, stream), facts["language"].given
        channels, side = tower.pooled
        maps, sides = (*tower.widths[:2], channels), (*tower.sides[:2], side)
        self.bridge = VisualBridge(
            tower.widths, tower.sides, options.adapter_width, options.adapter_heads, options.dropout, options.zero_up
        )
        self.positions = None if tower.positions is None else PoolPositions(tower.positions, tower.sides[2])
        beside = nn.Conv2d(tower.widths[2], channels, 1, bias=False)
        self.connect = nn.Sequential(beside, channel_norm(channels, options.norm)) if options.connect else None
        self.neck = FusionNeck(maps, sides, stream.tower.sizes.embed, options.width, options.heads, options.norm)
        self.encoder = MapEncoder(options.width, stream.tower.sizes.width, tower.sides[1], options)

    def forward(self, tokens: Tensor, batch: Batch) -> Prefix:
        """`tokens` [B, V, N, C] → prefix."""
        there = batch.view_mask
        fused, maps = self.films(tokens[there], self._ids(batch))
        if self._towers[1].leak:  # as released: views one behind the other along the batch, then cut by studies
            x_bvnc = fused.unflatten(0, there.shape).transpose(0, 1).reshape(*there.shape, *fused.shape[1:])
        else:
            x_bvnc = scattered(fused, there)
        memory, mask = self.encoder(x_bvnc, there)
        return Prefix(memory, mask, maps=torch.stack([scattered(v, there) for v in maps], 1))

    def _ids(self, batch: Batch) -> Tensor:
        """[F, L]: the words that the films may look at. The start symbol alone; in `release` the whole report."""
        if not self._towers[1].leak:
            return torch.zeros(int(batch.view_mask.sum()), 1, dtype=torch.long, device=batch.view_mask.device)
        if not bool(batch.view_mask.all()):
            raise UserError("language.mode: release joins views along the batch and needs equally many of every study")
        return self._given(batch).repeat_interleave(batch.view_mask.shape[1], 0)

    def films(self, x_fnc: Tensor, ids_fl: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(fused tokens [F, S·S, C], reduced maps [F, N, d] of the three stages) of each film, beside the text `ids_fl`."""
        tower, stream = self._towers
        text, v, t, scales, maps = stream.begin(ids_fl), None, None, [], []
        for stage in range(STAGES):
            x_fnc = x_fnc if stage == 0 else tower.advance(stage, x_fnc)
            text = stream.layers(stage, text)
            v, t = self.bridge.reduce(stage, tower.as_map(x_fnc), v), stream.reduce(stage, text, t)
            maps.append(v)
            x_fnc, text = tower.added(x_fnc, self.bridge.adapt(stage, v, t)), stream.adapt(stage, text, t, v)
            scales.append(tower.as_map(x_fnc))
        pooled = tower.pool(x_fnc, None if self.positions is None else self.positions())
        if self.connect is not None:
            pooled = (pooled + self.connect(scales[2])).relu()
        # The release reads the largest id, which marks an end in CLIP's vocabulary only; with one position both are the first.
        last = text[torch.arange(len(ids_fl), device=ids_fl.device), ids_fl.argmax(1)]
        fused = self.neck([*scales[:2], pooled], stream.sentence(stream.tower.end(last)))
        return fused.flatten(2).transpose(1, 2), maps


def scattered(x_fnc: Tensor, there_bv: Tensor) -> Tensor:
    """[B, V, N, C]: films back at their places, zeros where there is none."""
    placed = x_fnc.new_zeros(*there_bv.shape, *x_fnc.shape[1:])
    placed[there_bv] = x_fnc
    return placed
