"""Activations and operations of the connector (formulas: docs/plan.md).

Symbols: B studies, M prefix tokens, D visual width, H language width, K n-grams of a study, h heads; a bytes of a number in a
product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rrg.plan.cost import Cost, Term
from rrg.plan.precision import Precision
from rrg.plan.workload import Workload
from rrg.recipe import Recipe


def connector_cost(connector: Any, recipe: Recipe, work: Workload, width: int, out: int, precision: Precision) -> Cost:
    """`width` D of the visual tokens, `out` H of the prefix."""
    result = Cost()
    if connector is None:
        return result
    rows = work.studies * work.prefix
    trained = any(parameter.requires_grad for parameter in connector.parameters())
    products = sum(m.weight.numel() for m in connector.modules() if isinstance(m, (nn.Linear, nn.Conv1d)))
    result.forward = 2.0 * rows * products
    if not trained:
        return result
    result.backward = 2 * result.forward
    a = precision.product(torch.float32)
    result.kept.append(Term("prefix norm", rows * out * precision.norm(a), "B·M·H·l"))
    if recipe.connector.kind == "cmeaa":
        result.kept += _cmeaa(connector, recipe, work, width, out, a, precision)
    else:
        result.kept.append(Term("inputs of products", rows * _wide(connector) * a, "B·M·Σin·a"))
    casts = precision.casts(connector)
    if casts:
        result.kept.append(Term("weights cast to bf16", casts, "2·(elements of the products)"))
    result.touched = 8 * result.kept_bytes
    return result


def _wide(connector: Any) -> int:
    """Numbers a token that trained products keep: their inputs, and the input of what follows a wide one."""
    inputs = [m.in_features for m in connector.modules() if isinstance(m, nn.Linear)]
    return sum(inputs) + (inputs[-1] if len(inputs) > 1 else 0)


def _cmeaa(connector: Any, recipe: Recipe, work: Workload, D: int, H: int, a: int, precision: Precision) -> list[Term]:
    options = recipe.connector
    B, M, K = work.studies, work.prefix, work.ngrams
    terms = [Term("adapters and projection", B * M * (2 * D + 2 * H) * a, "B·M·(2·D + 2·H)·a")]
    if not options.enhance:
        return terms
    inner = options.feedforward or 2 * D
    terms.append(Term("enhancement, visual side", B * M * (7 * D + 2 * D + 3 * inner) * a, "B·M·(9·D + 3·F)·a"))
    C = options.context_width or D
    terms.append(Term("enhancement, n-grams", B * K * (H + 9 * C) * a, "B·K·(H + 9·C)·a"))
    lists = 3 if options.dropout and not precision.gpu else 0  # with dropout PyTorch's CPU attention keeps its scores
    kept = 4 * B * (options.heads * lists * (M * M + K * K) + 4 * (M * D + K * C))
    terms.append(Term("self-attentions", kept, "4·B·(3·h·(M² + K²) + 4·(M·D + K·C))"))
    return terms
