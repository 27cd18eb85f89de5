"""Activations and operations of the language model (formulas: docs/plan.md).

Symbols: B studies, T tokens a study, R label rows, H width, I feed-forward width, K width of keys (and of values), n heads,
V vocabulary, L layers; w bytes of a weight, a of a number in a product, r of the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rrg_kernels.report_ce.reference import SLICE
from torch import nn
from transformers.pytorch_utils import Conv1D

from rrg.plan.cost import Cost, Term
from rrg.plan.precision import Precision
from rrg.plan.workload import Workload
from rrg.recipe import Recipe

CHUNK = 256  # rows whose logits exist at one time (report_cross_entropy)
# Copies of the final hidden states, in float32, that the derivative of the last norm needs: counted by running it.
NORM_COPIES = {2: 5.5, 4: 7.0}
# Passes over what a block keeps: written and read in the forward pass with its unkept neighbours; read, and gradients, after.
PASSES = 8


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder; `linear` are the elements of its blocks' products, `gated` whether the feed-forward has a gate."""

    layers: int
    width: int
    feedforward: int
    keys: int
    heads: int
    vocabulary: int
    linear: int
    gated: bool
    dtype: torch.dtype


def decoder_shape(language: Any) -> Shape:
    """Read from the configuration, in the names that families of transformers give."""
    config = language.config.get_text_config() if hasattr(language.config, "get_text_config") else language.config
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or width // heads)
    blocks = blocks_of(language)
    linear = sum(
        m.weight.numel() for name, m in blocks.named_modules() if isinstance(m, nn.Linear | Conv1D) and ".lora_" not in f".{name}"
    )
    return Shape(
        layers=int(config.num_hidden_layers),
        width=width,
        feedforward=int(getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width),
        keys=head * int(getattr(config, "num_key_value_heads", None) or heads),
        heads=heads,
        vocabulary=language.get_output_embeddings().weight.shape[0],
        linear=linear,
        gated=any("gate" in name.rsplit(".", 1)[-1] for name, _ in blocks.named_modules()),
        dtype=language.get_input_embeddings().weight.dtype,
    )


def blocks_of(language: Any) -> nn.ModuleList:
    """The decoder's blocks."""
    return max((m for m in language.get_decoder().modules() if isinstance(m, nn.ModuleList)), key=len)


def language_cost(language: Any, recipe: Recipe, work: Workload, precision: Precision) -> Cost:
    """Of the causal model `language` (a transformers model), between prefix and loss rows."""
    shape, options = decoder_shape(language), recipe.language
    full = options.train == "full"
    tokens = work.tokens
    a = precision.product(shape.dtype)
    r = residual_bytes(shape.dtype, precision)
    block = _block_terms(shape, options, work, a, full)
    block += _lora_terms(language, tokens, a, options)
    casts = precision.casts(blocks_of(language))
    result = Cost()
    if options.gradient_checkpointing:
        one = sum(term.bytes for term in block) + casts / shape.layers
        result.kept.append(Term("inputs of the blocks", shape.layers * tokens * shape.width * r, "L·B·T·H·r"))
        result.kept.append(Term("one block, computed again", one, "(kept by a block without checkpointing)"))
    else:
        result.kept += [Term(term.name, shape.layers * term.bytes, f"L·{term.formula}") for term in block]
        if casts:
            result.kept.append(Term("weights cast to bf16", casts, "2·(elements of the blocks' products)"))
    result.kept.append(
        Term("last norm and label rows", tokens * shape.width * 4 + work.rows * shape.width * a, "B·T·H·4 + R·H·a")
    )
    if not full:
        result.inputs = (
            (1 if options.gradient_checkpointing else shape.layers) * tokens * (2 * shape.width + shape.feedforward) * a
        )
    result.inside = head_bytes(shape, work, shape.dtype)
    result.held = tokens * shape.width * (shape.dtype.itemsize + r) + work.rows * shape.width * a + result.inside
    result.transient = NORM_COPIES[min(4, max(2, r))] * 4 * tokens * shape.width
    if options.gradient_checkpointing:
        result.transient = max(result.transient, tokens * shape.feedforward * a * 5)
    _operations(result, shape, work, options.train, options.gradient_checkpointing)
    result.touched = PASSES * sum(term.bytes for term in block) * shape.layers
    return result


def residual_bytes(dtype: torch.dtype, precision: Precision) -> int:
    """Of a number of the residual stream: bf16 products added to another type give float32."""
    return dtype.itemsize if not precision.autocast or dtype == torch.bfloat16 else 4


def head_bytes(shape: Shape, work: Workload, dtype: torch.dtype) -> float:
    """What the report loss holds while it runs: logits of a chunk of rows and float32 pieces of them."""
    rows = min(CHUNK, work.rows)
    pieces = 2 * 4 * min(max(SLICE, 8 * shape.vocabulary), rows * shape.vocabulary)
    return float(rows * shape.vocabulary * dtype.itemsize + pieces)


def _block_terms(shape: Shape, options: Any, work: Workload, a: int, full: bool) -> list[Term]:
    tokens, H, inner = work.tokens, shape.width, shape.feedforward
    queries = shape.width
    if options.attention == "eager":
        scores = work.studies * shape.heads * work.sequence**2 * (4 + a)
        attention = Term("attention", tokens * a * 4 * queries + scores, "B·(T·4·H·a + n·T²·(4 + a))")
    else:
        kept = tokens * (a * 2 * (queries + shape.keys) + 4 * shape.heads)
        attention = Term("attention", kept, "B·T·(2·(H + K)·a + 4·n)")
    terms = [Term("norms", tokens * 2 * (4 * H + 4), "B·T·(8·H + 8)"), attention]
    copies, formula = (3, "3·I·a") if shape.gated else (1, "I·a")
    terms.append(Term("feed-forward", tokens * copies * inner * a, f"B·T·{formula}"))
    if full:
        inputs = tokens * a * (2 * H + H + H + inner) + tokens * 2 * H * a
        terms.append(Term("inputs of trained products", inputs, "B·T·(6·H + I)·a"))
    return terms


def _lora_terms(language: Any, tokens: int, a: int, options: Any) -> list[Term]:
    if options.train != "lora":
        return []
    block = blocks_of(language)[0]
    dropped = 4 if options.lora.dropout else 0
    wide = 0.0
    for module in block.modules():
        if hasattr(module, "lora_A"):
            inner: Any = module.lora_A["default"]  # type: ignore
            wide += inner.in_features * (dropped + a) + inner.out_features * a
    return [Term("LoRA", tokens * wide, "B·T·Σ(in·(4·[dropout] + a) + rank·a)")]


def _operations(result: Cost, shape: Shape, work: Workload, train: str, checkpointing: bool) -> None:
    """2 per weight and token in the forward pass; as many for activation gradients; as many again for weight gradients."""
    products = 2.0 * shape.linear * work.tokens
    scores = 2.0 * work.studies * work.sequence**2 * shape.width * shape.layers  # causal: half of 4·T²·H
    head = 2.0 * shape.vocabulary * shape.width * work.rows
    result.forward = products + scores + head
    result.backward = products + 2 * scores + head + (products if train == "full" else 0.0)
    if checkpointing:
        result.recomputed = products + scores
