"""Options of the connectors, by kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rrg.config.schema import option
from rrg.errors import UserError


@dataclass
class ProjectionOptions:
    takes: ClassVar[tuple[str, ...]] = ("tokens",)
    gives: ClassVar[str] = "a prefix"
    train: str = option("full", "full | frozen (stays as `weights` gives it)", choices=("full", "frozen"))
    weights: str = option(
        "", "what it starts from: stage:NAME (the connector that stage left) or a file; empty: drawn by the seed"
    )
    views: str = option(
        "mean",
        "several films of a study: mean (before projecting, as published) | concat (all tokens)",
        choices=("mean", "concat"),
    )
    max_views: int = option(2, "concat: how many view positions have an embedding", least=1)
    kind_embedding: bool = option(False, "add a learned embedding of each film's projection (PA, AP, frontal, lateral, unknown)")
    layer_norm: bool = option(True, "LayerNorm after the projection (part of the trained set)")
    prefix_scale: str = option(
        "one", "start of the LayerNorm's gain: one (as published) | embedding (the language model's embedding scale) | a number"
    )

    def check(self, path: str) -> None:
        if self.train == "frozen" and not self.weights:
            raise UserError(
                f"{path}.train: frozen, with weights that nothing has trained; write {path}.weights: stage:NAME, or full"
            )
        if self.prefix_scale not in ("one", "embedding"):
            try:
                gain = float(self.prefix_scale)
            except ValueError:
                gain = math.nan
            if not 0 < gain < math.inf:
                raise UserError(f"{path}.prefix_scale: {self.prefix_scale!r}; write one, embedding, or a number above 0")


@dataclass
class LinearOptions(ProjectionOptions):
    kind: str = option("linear", "one Linear with bias, then LayerNorm (R2GenGPT)")


@dataclass
class MlpOptions(ProjectionOptions):
    kind: str = option("mlp", "Linear, GELU, Linear, then LayerNorm")
    hidden: int = option(0, "width between the two Linears; 0 is the language model's width", least=0)


@dataclass
class CmeaaOptions(ProjectionOptions):
    kind: str = option("cmeaa", "tokens enhanced by the study's n-grams and aligned with the report (CmEAA)")
    enhance: bool = option(True, "cross-modal enhancement by n-grams; needs observations.ngrams")
    align: bool = option(True, "the aligner's image side: a code for the objective `mine`, decoded into the prefix")
    project: str = option(
        "each",
        "to the language model's width: each (of the three terms) | after (one Linear after their sum)",
        choices=("each", "after"),
    )
    code_width: int = option(256, "align: width of the image code", least=1)
    adapter_hidden: int = option(8, "RepAdapters: width of the down-projection that both share", least=1)
    adapter_groups: int = option(2, "RepAdapters: groups of the up-projection", least=1)
    adapter_scale: float = option(1.0, "RepAdapters: factor on what they add", above=0)
    temperature: float = option(1.0, "enhance: of the softmax over the two weights of a study", above=0)
    ngram_reading: str = option(
        "embedding",
        "enhance: an n-gram is the mean of its pieces' input embeddings (embedding) or last hidden states (hidden)",
        choices=("embedding", "hidden"),
    )
    context_width: int = option(0, "enhance: width of the n-grams where tokens look at them; 0 is the visual width", least=0)
    heads: int = option(8, "enhance: attention heads; they divide the visual and the context width", least=1)
    feedforward: int = option(0, "enhance: hidden width of the feed-forward; 0 is twice the visual width", least=0)
    dropout: float = option(0.1, "in RepAdapters, on attention weights and in the feed-forward", least=0, below=1)

    def check(self, path: str) -> None:
        super().check(path)
        if not (self.enhance or self.align):
            raise UserError(
                f"{path}.enhance, {path}.align: both off leave an adapter that folds into a Linear; write {path}.kind: linear"
            )
        if self.adapter_hidden % self.adapter_groups:
            raise UserError(
                f"{path}.adapter_groups: {self.adapter_groups} does not divide adapter_hidden {self.adapter_hidden}; "
                "write a divisor of it"
            )


@dataclass
class UniCrossAdapterOptions:
    takes: ClassVar[tuple[str, ...]] = ("stages",)
    gives: ClassVar[str] = "features of the films"
    kind: str = option(
        "unicrossadapter", "interaction adapters between the stages of two frozen towers, neck, encoder (UniCrossAdapter)"
    )
    adapter_width: int = option(64, "width both streams are taken down to (language.adapter_* takes the same)", least=1)
    adapter_heads: int = option(4, "attention heads of the adapters", least=1)
    dropout: float = option(0.1, "in the adapters", least=0, below=1)
    zero_up: bool = option(
        True, "the adapters' paths back start at zero; false: drawn, so that the first step disturbs the towers"
    )
    connect: bool = option(False, "a 1x1 convolution beside the attention pool, trained (in the release it is random and frozen)")
    norm: str = option(
        "group",
        "in the neck: group (a film's own channels) | batch (of the micro-batch, as published)",
        choices=("group", "batch"),
    )
    width: int = option(512, "of the neck", least=1)
    heads: int = option(8, "attention heads of the neck's gates; with one key they change nothing", least=1)
    layers: int = option(3, "of the encoder", least=1)
    encoder_heads: int = option(8, "attention heads of the encoder", least=1)
    encoder_dropout: float = option(0.1, "in the encoder", least=0, below=1)


@dataclass
class WordsOptions:
    takes: ClassVar[tuple[str, ...]] = ("no films",)
    gives: ClassVar[str] = "a prefix"
    kind: str = option("words", "text-only stages: the image slot holds embeddings of the report's own words, shuffled")
    slots: int = option(24, "prefix tokens M", least=1)
    keep: float = option(
        0.6, "largest share of the report's words that may stand in the slot; each sample draws its own share", least=0, most=1
    )
    common: float = option(
        1.0, "words in more than this share of a micro-batch's reports are not shown; 1 shows them all", above=0, most=1
    )
    observations: int = option(0, "slots that each positive observation takes, by a vector learned here; 0 shows none", least=0)
    noise: float = option(0.3, "standard deviation of Gaussian noise, in units of the embedding table's", least=0)

    def check(self, path: str) -> None:
        if not self.keep and not self.observations:
            raise UserError(f"{path}.keep: 0 and observations: 0 show nothing of the report; raise one of them")


@dataclass
class SharedSpaceOptions:
    takes: ClassVar[tuple[str, ...]] = ("tokens", "a record")
    gives: ClassVar[str] = "a shared space"
    kind: str = option("shared_space", "projection heads of two towers into one space (language.kind: text)")
    width: int = option(128, "its width", least=1)


@dataclass
class NoneOptions:
    takes: ClassVar[tuple[str, ...]] = ("no films",)
    gives: ClassVar[str] = "a prefix"
    kind: str = option("none", "no prefix: the language model alone")
