"""The model's weights by part: how many are trained, how many frozen, and in which pieces a strategy gathers them.

Counted on the meta device: no file is read and nothing is allocated beyond names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rrg.config.context import BuildContext
from rrg.errors import UserError
from rrg.language.causal import CausalLanguage
from rrg.model import ReportGenerator, build_model
from rrg.recipe import Recipe
from rrg.strategy.units import units
from rrg.strategy.zero import NEGLIGIBLE

PARTS = ("vision", "connector", "language", "objectives")


@dataclass
class Part:
    """Elements and bytes of one part."""

    trained: int = 0
    frozen: int = 0
    trained_bytes: int = 0
    frozen_bytes: int = 0
    buffer_bytes: int = 0


@dataclass
class Account:
    """What a model is made of.

    Attributes:
        blocks: frozen bytes of each unit of the language model that `fully_shard` gathers in both passes.
        ends: of its table, and its head where that is another tensor; gathered in the forward pass alone.
        films: of each unit of the encoder.
        persistent_bytes: frozen bytes that ZeRO-3 keeps gathered.
        movable, movable_bytes: elements and bytes of the language model's blocks that it gathers for a pass, and needs again in
            the other.
    """

    parts: dict[str, Part] = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    films: list[int] = field(default_factory=list)
    persistent_bytes: int = 0
    movable: int = 0
    movable_bytes: int = 0

    def _sum(self, name: str) -> int:
        return sum(getattr(part, name) for part in self.parts.values())

    @property
    def trained(self) -> int:
        return self._sum("trained")

    @property
    def frozen(self) -> int:
        return self._sum("frozen")

    @property
    def trained_bytes(self) -> int:
        return self._sum("trained_bytes")

    @property
    def frozen_bytes(self) -> int:
        return self._sum("frozen_bytes")

    @property
    def buffer_bytes(self) -> int:
        return self._sum("buffer_bytes")


def meta_model(recipe: Recipe, ngrams: int = 0) -> ReportGenerator:
    """The recipe's model as shapes. `ngrams`: rows of its table, where it reads one.

    Raises:
        UserError: a model whose shape is not known without its files, or another kind of model.
    """
    table = ["n-gram"] * ngrams if recipe.reads_ngrams else None
    return generator(build_model(recipe, BuildContext(meta=True, ngrams=table)))


def generator(model: Any) -> ReportGenerator:
    """`model`, which writes reports with a causal language model. Raises UserError for any other."""
    if not isinstance(model, ReportGenerator) or not isinstance(model.language, CausalLanguage):
        raise UserError(
            "rrg plan: knows recipes whose reports a causal language model writes (language.kind causal_lm, small_llama)"
        )
    return model


def account(model: ReportGenerator) -> Account:
    """Count `model`, on any device. Shared tensors count once, for the part that is met first."""
    result = Account({name: Part() for name in PARTS})
    seen: set[int] = set()
    for name, parameter in model.named_parameters():
        if id(parameter) not in seen:
            seen.add(id(parameter))
            _add(result.parts[name.split(".", 1)[0]], parameter)
    for name, buffer in model.named_buffers():
        result.parts[name.split(".", 1)[0]].buffer_bytes += _bytes(buffer)
    _gathering(result, model)
    return result


def _add(part: Part, parameter: nn.Parameter) -> None:
    if parameter.requires_grad:
        part.trained += parameter.numel()
        part.trained_bytes += _bytes(parameter)
    else:
        part.frozen += parameter.numel()
        part.frozen_bytes += _bytes(parameter)


def _gathering(result: Account, model: ReportGenerator) -> None:
    taken: set[int] = set()
    language: Any = model.language.model
    embedding, head = language.get_input_embeddings(), language.get_output_embeddings()
    films = set() if model.vision is None else {id(p) for p in model.vision.parameters()}
    for unit in units(model):
        own = [p for p in unit.parameters() if not p.requires_grad and id(p) not in taken]
        taken.update(map(id, own))
        end = unit is embedding or unit is head
        group = result.ends if end else result.films if own and id(own[0]) in films else result.blocks
        group.append(sum(map(_bytes, own)))
    ends = {id(embedding.weight), id(head.weight)}
    inside = {id(p) for part in (model.language, model.vision) if part is not None for p in part.parameters()}
    everything = _once(model.parameters())
    small = int(sum(parameter.numel() for parameter in everything) * NEGLIGIBLE)
    for parameter in everything:
        if parameter.requires_grad:
            continue
        if id(parameter) not in inside or parameter.numel() <= small:
            result.persistent_bytes += _bytes(parameter)
        elif id(parameter) not in films | ends:  # those are used in one pass alone
            result.movable += parameter.numel()
            result.movable_bytes += _bytes(parameter)


def _once(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    return list({id(parameter): parameter for parameter in parameters}.values())


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
