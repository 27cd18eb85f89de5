"""Floating-point operations of a training step, counted from the model and the lengths of what it read.

A multiplication and an addition are two operations. Of a weight matrix with N numbers, a token costs 2N forward, 2N for the
gradient of its input, and 2N for the gradient of the weights where those are trained: 6N trained, 4N frozen behind something that
is trained, 2N frozen in front of all that is (a frozen vision encoder). Attention of T tokens over L layers of width A costs
4·L·A·T² forward and twice that backward, with all T² pairs counted, as PaLM's appendix B does. Only label rows meet the head.

Model FLOPs count real tokens once. Hardware FLOPs also count padding and what gradient checkpointing computes again.
Norms, activations, softmax, embeddings, objectives beside the report's loss and the optimizer are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rrg.batching.batch import Batch
from rrg.generate.engine import autocast
from rrg.language.causal import CausalLanguage
from rrg.model import ReportGenerator
from rrg.recipe import Recipe

_UNKNOWN = 0.05  # share of a decoder's weights that may be in no matrix of a layer known here


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass read. `lengths`: real tokens of each study; `padded`: of a row with padding (0: packed)."""

    lengths: tuple[int, ...]
    padded: int
    rows: int  # label rows
    films: int

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class LanguageCost:
    """Of a causal language model. `frozen` and `trained` are numbers in weight matrices that each token meets."""

    frozen: int
    trained: int
    layers: int
    attention: int  # A: heads times head width
    head: int  # vocabulary times width
    head_trained: bool
    gradient: bool  # whether gradients flow back through it
    again: int  # numbers in matrices that a token meets a second time under gradient checkpointing; 0 without

    @classmethod
    def of(cls, model: ReportGenerator) -> LanguageCost | str:
        """Of `model.language` while its weights are whole; or, in words, why it cannot be counted."""
        language: Any = model.language
        if not isinstance(language, CausalLanguage):
            return f"{type(language).__name__} is no causal language model with layers of a known form"
        decoder, config = language.model.get_decoder(), language.model.config.get_text_config()
        matrices = list(_matrices(decoder))
        counted = sum(weight.numel() for weight in matrices)
        tables = {id(m.weight) for m in decoder.modules() if isinstance(m, nn.Embedding)}
        others = sum(p.numel() for p in decoder.parameters() if p.dim() > 1 and id(p) not in tables) - counted
        if others > _UNKNOWN * max(counted, 1):
            return f"{type(language.model).__name__} has weights that not every token meets (experts, recurrence)"
        heads = int(config.num_attention_heads)
        head = language.model.get_output_embeddings().weight
        trained = sum(weight.numel() for weight in matrices if weight.requires_grad)
        upstream = (p for part in (model.vision, model.connector) if part is not None for p in part.parameters())
        return cls(
            frozen=counted - trained,
            trained=trained,
            layers=int(config.num_hidden_layers),
            attention=heads * int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            head=head.numel(),
            head_trained=bool(head.requires_grad),
            gradient=trained > 0 or any(p.requires_grad for p in upstream),
            again=counted - _spared(decoder) if language.options.gradient_checkpointing else 0,
        )

    def forward(self, lengths: Sequence[int]) -> float:
        """Of the layers, over sequences of these lengths."""
        pairs = sum(length * length for length in lengths)
        return 2.0 * (self.frozen + self.trained) * sum(lengths) + 4.0 * self.layers * self.attention * pairs

    def backward(self, lengths: Sequence[int]) -> float:
        """Of the layers: gradients of activations, and of what is trained."""
        if not self.gradient:
            return 0.0
        pairs = sum(length * length for length in lengths)
        tokens = sum(lengths)
        return 2.0 * (self.frozen + 2 * self.trained) * tokens + 8.0 * self.layers * self.attention * pairs

    def recomputed(self, lengths: Sequence[int]) -> float:
        """Of gradient checkpointing: layers and attention forward once more."""
        if not (self.again and self.gradient):
            return 0.0
        pairs = sum(length * length for length in lengths)
        return 2.0 * self.again * sum(lengths) + 4.0 * self.layers * self.attention * pairs

    def of_head(self, rows: int) -> float:
        """Forward and backward of the head."""
        return 2.0 * self.head * rows * (1 + self.gradient + self.head_trained)


@dataclass(frozen=True)
class FrontCost:
    """Of one film through vision encoder and connector: forward, and backward."""

    forward: float = 0.0
    backward: float = 0.0


@dataclass(frozen=True)
class StepCost:
    """What a model costs. `model` and `hardware` are operations of one micro-batch."""

    language: LanguageCost
    front: FrontCost

    def model(self, batch: MicroBatch) -> float:
        """Over real tokens, everything once."""
        language = self.language
        layers = language.forward(batch.lengths) + language.backward(batch.lengths)
        return layers + language.of_head(batch.rows) + (self.front.forward + self.front.backward) * batch.films

    def hardware(self, batch: MicroBatch) -> float:
        """With padding, and with the layers once more where they are recomputed."""
        language, rows = self.language, (batch.padded,) * len(batch.lengths) if batch.padded else batch.lengths
        layers = language.forward(rows) + language.recomputed(rows) + language.backward(rows)
        return layers + language.of_head(batch.rows) + (self.front.forward + self.front.backward) * batch.films


def front_cost(model: ReportGenerator, batch: Batch, recipe: Recipe, device: torch.device) -> FrontCost:
    """Count one forward pass of vision and connector over `batch` with torch's counter; backward follows from what is trained."""
    films = int(batch.view_mask.sum())
    if model.connector is None or not films:
        return FrontCost()
    batch = batch.to(device)
    with torch.no_grad(), autocast(recipe, device), _visible_kernels():
        tokens, vision = _counted(lambda: model.encode(batch))
        if tokens is not None and not torch.is_autocast_enabled(device.type):
            tokens = tokens.to(next(model.connector.parameters()).dtype)
        _, connector = _counted(lambda: model.connector(tokens, batch))
    seen, bridge = _trained_share(model.vision), _trained_share(model.connector)
    backward = vision * (1 + seen) * (seen > 0) + connector * (bridge + (seen > 0))
    return FrontCost((vision + connector) / films, backward / films)


def _counted(work: Any) -> tuple[Any, float]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, float(counter.get_total_flops())


@contextmanager
def _visible_kernels() -> Iterator[None]:
    """Kernels of ours take their PyTorch path, whose operations can be counted."""
    before = os.environ.get("RRG_KERNELS")
    os.environ["RRG_KERNELS"] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RRG_KERNELS"]
        else:
            os.environ["RRG_KERNELS"] = before


def _matrices(module: nn.Module) -> Iterator[torch.Tensor]:
    """Weights of the linear layers, GPT-2's transposed ones included; each once."""
    seen: set[int] = set()
    for part in module.modules():
        weight = getattr(part, "weight", None)
        linear = isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
        if linear and isinstance(weight, torch.Tensor) and id(weight) not in seen:
            seen.add(id(weight))
            yield weight


def _spared(decoder: nn.Module) -> int:
    """Numbers in the last matrix of every checkpointed layer: recomputation stops when it has what the backward pass reads."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = (part for part in decoder.modules() if isinstance(part, GradientCheckpointingLayer))
    return sum(matrices[-1].numel() for layer in layers if (matrices := list(_matrices(layer))))


def _trained_share(module: nn.Module | None) -> float:
    """Of the numbers in matrices, those that are trained."""
    if module is None:
        return 0.0
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters() if p.dim() > 1]
    return sum(size for size, trained in sizes if trained) / max(sum(size for size, _ in sizes), 1)
