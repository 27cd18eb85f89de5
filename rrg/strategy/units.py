"""What is gathered together when weights are sharded: blocks of the language model and of the encoder of films, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from rrg.language.causal import CausalLanguage
from rrg.model import ReportGenerator


def units(model: ReportGenerator) -> list[nn.Module]:
    """Modules to shard, inner before outer: each is called as a module wherever its weights are used.

    The output head is among them unless it shares the table of the input embedding.
    """
    found: list[nn.Module] = []
    if model.vision is not None:
        found += [*_blocks(model.vision), model.vision]
    if not isinstance(model.language, CausalLanguage):  # towers and decoders of one's own are small, and trained
        return [unit for unit in found if any(not parameter.requires_grad for parameter in unit.parameters())]
    language: Any = model.language.model
    decoder, embedding, head = language.get_decoder(), language.get_input_embeddings(), language.get_output_embeddings()
    found += [*_blocks(decoder), embedding]
    if head.weight is not embedding.weight:
        found.append(head)
    found.append(decoder)
    return [unit for unit in found if any(not parameter.requires_grad for parameter in unit.parameters())]


def ends(model: ReportGenerator) -> tuple[Any, Any]:
    """(output head, input embedding) of the language model; of other language parts none."""
    if not isinstance(model.language, CausalLanguage):
        return None, None
    language: Any = model.language.model
    return language.get_output_embeddings(), language.get_input_embeddings()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Elements of the innermost lists of modules, each before what contains it."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            for block in child:
                inner = list(_blocks(block))
                yield from inner
                if next(block.parameters(), None) is not None:
                    yield block
        else:
            yield from _blocks(child)
