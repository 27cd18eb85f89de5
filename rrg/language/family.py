"""What builds the language parts of a recipe, by kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.language.options import CausalOptions, SmallLlamaOptions
from rrg.language.text_options import TextOptions
from rrg.language.word_options import WordDecoderOptions

if TYPE_CHECKING:
    from rrg.language.causal import CausalLanguage
    from rrg.language.text_tower import TextTower
    from rrg.language.word_decoder import WordDecoder

LANGUAGE = Family("language")


@LANGUAGE.kind("causal_lm", CausalOptions)
def build_causal(options: CausalOptions, context: BuildContext) -> CausalLanguage:
    """A Hugging Face causal language model by name, folder, embedded or made by an earlier stage."""
    from rrg.language.causal import CausalLanguage
    from rrg.language.pretrained import load_pretrained

    model, tokenizer = load_pretrained(options, context)
    return CausalLanguage(model, tokenizer, options)


@LANGUAGE.kind("small_llama", SmallLlamaOptions)
def build_small_llama(options: SmallLlamaOptions, context: BuildContext) -> CausalLanguage:
    """A small Llama with random weights and a tokenizer made from the training reports."""
    from rrg.language.causal import CausalLanguage
    from rrg.language.pretrained import make_small_llama

    model, tokenizer = make_small_llama(options, context)
    return CausalLanguage(model, tokenizer, options)


@LANGUAGE.kind("text", TextOptions)
def build_text(options: TextOptions, context: BuildContext) -> TextTower:
    """A BERT beside the film encoder: it reads reports and writes none (alignment, retrieval)."""
    from rrg.language.text_tower import TextTower
    from rrg.language.text_weights import load_text

    model, tokenizer, tensors = load_text(options, context)
    masks = "masked_words" in context.facts["objectives"]
    return TextTower(model, tokenizer, options, tensors, masks=masks, image=context.facts["vision_width"])


@LANGUAGE.kind("word_decoder", WordDecoderOptions)
def build_word_decoder(options: WordDecoderOptions, context: BuildContext) -> WordDecoder:
    """A Transformer decoder over words whose input are the features of a frozen text tower with adapters between its layers."""
    from rrg.language.word_decoder import make_word_decoder

    return make_word_decoder(options, context)
