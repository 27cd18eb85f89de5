"""Activations and operations of the encoder of films (formulas: docs/plan.md).

Frozen, nothing is kept; with a feature cache it is not run at all. Symbols: F films, N tokens, D width and I feed-forward width
of a stage; a bytes of a number in a product, l of one that a LayerNorm keeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from rrg.plan.cost import Cost, Term
from rrg.plan.precision import Precision
from rrg.plan.workload import Workload
from rrg.recipe import Recipe

_HIERARCHICAL = ("swin", "swinv2")


class Stage(NamedTuple):
    """Blocks of equal shape; `window` is how many tokens attend to one another."""

    blocks: int
    tokens: int
    width: int
    feedforward: int
    heads: int
    window: int


def stages_of(encoder: Any) -> Iterator[Stage]:
    """The transformer stages of an encoder; a residual network has none."""
    config, side = encoder.backbone.config, encoder.preprocessing.size
    if encoder.kind in _HIERARCHICAL:
        across, width = side // config.patch_size, config.embed_dim
        for depth, heads in zip(config.depths, config.num_heads, strict=True):
            yield Stage(depth, across**2, width, int(width * config.mlp_ratio), heads, min(across, config.window_size) ** 2)
            across, width = across // 2, width * 2
        return
    if encoder.kind == "resnet":
        return
    tokens = (side // config.patch_size) ** 2 + 1
    inner = int(getattr(config, "intermediate_size", 0) or config.hidden_size * getattr(config, "mlp_ratio", 4))
    blocks = sum(1 for m in encoder.modules() if type(m).__name__.endswith(("Layer", "EncoderLayer")) and hasattr(m, "mlp"))
    yield Stage(blocks or config.num_hidden_layers, tokens, config.hidden_size, inner, config.num_attention_heads, tokens)


def vision_cost(encoder: Any, recipe: Recipe, work: Workload, precision: Precision) -> Cost:
    """Of the films of one micro-batch."""
    result = Cost()
    if encoder is None or recipe.vision.cache:
        return result
    films, train = work.studies * work.views, recipe.vision.train
    a = precision.product(encoder.dtype)
    stages = list(stages_of(encoder))
    result.forward = _operations(encoder, stages, films)
    if train == "frozen":
        widest = max((s.tokens * (s.feedforward * 2 + s.width * 6) for s in stages), default=0)
        result.held = 0.0
        result.transient = films * (widest * max(a, 4 if precision.gpu else a) + 12 * work.side**2)
        result.touched = films * sum(s.blocks * s.tokens * (8 * s.width + 3 * s.feedforward) * a * 2 for s in stages)
        return result
    for number, stage in enumerate(stages, 1):
        name = f"stage {number}" if len(stages) > 1 else "blocks"
        per = _block(stage, train, a, precision, recipe, encoder.kind)
        result.kept.append(Term(name, films * stage.blocks * stage.tokens * per, _FORMULAS[train]))
    if not stages:
        result.kept.append(Term("convolutions", films * _feature_maps(encoder, work.side) * 3 * a, "F·3·(feature maps)·a"))
    casts = precision.casts(encoder)
    if casts:
        result.kept.append(Term("weights cast to bf16", casts, "2·(elements of the products)"))
    result.backward = result.forward * (2.0 if train == "full" else 1.0)
    result.touched = 8 * result.kept_bytes
    return result


_FORMULAS = {
    "full": "F·N·(2·l·D + attention + 3·D·a + 2·I·a)",
    "lora": "F·N·(2·l·D + 4·D·a + I·a + Σ in·(4·[dropout] + a) + rank·a)",
}


def _block(stage: Stage, train: str, a: int, precision: Precision, recipe: Recipe, kind: str) -> float:
    """Bytes a token and block."""
    D, inner = stage.width, stage.feedforward
    norm = 2 * precision.norm(a) * D
    if train == "lora":
        options = recipe.vision.lora
        each = D * ((4 if options.dropout else 0) + a) + options.r * a
        return norm + 4 * D * a + 4 * stage.heads + inner * a + each * (len(options.targets) or 2)
    # A window's learned bias is trained: the scores are computed in float32 and kept, with queries, keys and values.
    scored = 12 * D + 4 * stage.heads * stage.window
    attention = scored if kind in _HIERARCHICAL else 4 * D * a + 4 * stage.heads
    return norm + attention + 3 * D * a + 2 * inner * a


def _operations(encoder: Any, stages: list[Stage], films: int) -> float:
    if not stages:
        return 2.0 * films * _convolved(encoder)
    blocks = sum(s.blocks * s.tokens * (4 * s.width**2 + 2 * s.width * s.feedforward + 2 * s.window * s.width) for s in stages)
    return 2.0 * films * blocks


def _maps(encoder: Any, side: int) -> Iterator[tuple[nn.Conv2d, int]]:
    """Every convolution of a residual network with the places of its output."""
    config = encoder.backbone.config
    across = side // 4
    for number, stage in enumerate(encoder.backbone.encoder.stages):
        across = across // 2 if number or config.downsample_in_first_stage else across
        for module in stage.modules():
            if isinstance(module, nn.Conv2d):
                yield module, across**2


def _feature_maps(encoder: Any, side: int) -> float:
    return float(sum(conv.out_channels * places for conv, places in _maps(encoder, side)))


def _convolved(encoder: Any) -> float:
    side = encoder.preprocessing.size
    return float(sum(conv.weight.numel() * places for conv, places in _maps(encoder, side)))


def input_bytes(encoder: Any, recipe: Recipe, work: Workload) -> float:
    """Of the micro-batch itself: films in float32, or cached features in the precision of the run."""
    if encoder is None:
        return 0.0
    if recipe.vision.cache:
        return float(work.studies * work.views * work.visual * encoder.width * (2 if recipe.train.precision == "bf16" else 4))
    return float(work.studies * work.views * 3 * work.side**2 * torch.float32.itemsize)
