"""What builds the connector parts of a recipe, by kind.

A builder reads from the context's facts: `vision_width` (D), `language_width` (H), `embedding_std` (standard deviation of the
language model's input embeddings, None on the meta device), `embed` (token ids → embeddings), `language` (the language part),
`ngrams` (texts of the n-gram table in the order of their ids, or None) and `prior` (whether films of the previous study are among
the views).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.connector.options import (
    CmeaaOptions,
    LinearOptions,
    MlpOptions,
    NoneOptions,
    SharedSpaceOptions,
    UniCrossAdapterOptions,
    WordsOptions,
)

if TYPE_CHECKING:
    from rrg.connector.cmeaa import EnhancementAlignmentAdapter
    from rrg.connector.projection import Projection
    from rrg.connector.shared_space import SharedSpace
    from rrg.connector.unicrossadapter import UniCrossAdapter
    from rrg.connector.words import WordSlot

CONNECTOR = Family("connector")


@CONNECTOR.kind("linear", LinearOptions)
def build_linear(options: LinearOptions, context: BuildContext) -> Projection:
    """R2GenGPT's visual mapper: mean over views, one Linear, LayerNorm."""
    from rrg.connector.projection import Projection, linear

    facts = context.facts
    return Projection(linear(facts["vision_width"], facts["language_width"]), options, facts)


@CONNECTOR.kind("mlp", MlpOptions)
def build_mlp(options: MlpOptions, context: BuildContext) -> Projection:
    """A two-layer GELU projector."""
    from rrg.connector.projection import Projection, mlp

    facts = context.facts
    hidden = options.hidden or facts["language_width"]
    return Projection(mlp(facts["vision_width"], hidden, facts["language_width"]), options, facts)


@CONNECTOR.kind("cmeaa", CmeaaOptions)
def build_cmeaa(options: CmeaaOptions, context: BuildContext) -> EnhancementAlignmentAdapter:
    """CmEAA: RepAdapters, enhancement by the study's n-grams, and the image side of an alignment with the report."""
    from rrg.connector.cmeaa import EnhancementAlignmentAdapter
    from rrg.connector.ngram_embedding import NgramEmbedding, ngram_table

    ngrams = None
    if options.enhance:
        ngrams = NgramEmbedding(ngram_table(context.facts, options.ngram_reading, meta=context.meta))
    return EnhancementAlignmentAdapter(options, context.facts, ngrams)


@CONNECTOR.kind("unicrossadapter", UniCrossAdapterOptions)
def build_unicrossadapter(options: UniCrossAdapterOptions, context: BuildContext) -> UniCrossAdapter:
    """UniCrossAdapter's visual side: adapters between the stages of the film tower, fusion neck, encoder."""
    from rrg.connector.unicrossadapter import UniCrossAdapter

    return UniCrossAdapter(options, context.facts)


@CONNECTOR.kind("words", WordsOptions)
def build_words(options: WordsOptions, context: BuildContext) -> WordSlot:
    """A text-only stand-in for the film: shuffled, noisy embeddings of some of the report's words."""
    from rrg.connector.words import WordSlot

    return WordSlot(options, context.facts)


@CONNECTOR.kind("shared_space", SharedSpaceOptions)
def build_shared_space(options: SharedSpaceOptions, context: BuildContext) -> SharedSpace:
    """Heads that bring films and reports into one space; of patches and words too where an objective compares them."""
    import torch

    from rrg.connector.shared_space import SharedSpace

    facts = context.facts
    with torch.device("meta" if context.meta else "cpu"):
        heads = SharedSpace(
            options, facts["vision_width"], facts["language_width"], local="local_contrast" in facts["objectives"]
        )
    heads.start_text(facts["language"].tensors)
    return heads


@CONNECTOR.kind("none", NoneOptions)
def build_none(options: NoneOptions, context: BuildContext) -> None:
    """No prefix."""
    return None
