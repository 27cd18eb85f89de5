"""Where a language model's weights and tokenizer come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from rrg.batching.tokenise import encode
from rrg.config.context import BuildContext
from rrg.errors import UserError
from rrg.language.architectures import published_config
from rrg.language.attention import SDPA, attention_of, choose_attention
from rrg.language.converted import shared_weights
from rrg.language.quantized import loading_arguments
from rrg.language.tokenizer import kept_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from rrg.language.options import CausalOptions, SmallLlamaOptions


def load_pretrained(options: CausalOptions, context: BuildContext) -> tuple[Any, Any]:
    """(model, tokenizer) of `options.name`; on the meta device (model of the right shape, None).

    Raises:
        UserError: no name, a folder or name that cannot be loaded, or (meta) a shape that is not known offline.
    """
    if not options.name:
        raise UserError("language.name: empty; write a Hugging Face name, a local folder, or embedded:smollm2-135m")
    if context.meta:
        return _meta_model(options), None
    quantized = loading_arguments(options.quantize, options.dtype)
    folder = _resolve(options.name, context)
    try:
        config = AutoConfig.from_pretrained(folder)
        attention = attention_of(config, options.attention, options.dtype)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        own = bool(quantized) or options.train == "full"  # weights that no process shares with another
        weights = folder if own else shared_weights(folder, config, options.dtype)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            weights, dtype=getattr(torch, options.dtype), attn_implementation=attention, output_loading_info=True, **quantized
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"language.name: {options.name!r} cannot be loaded ({reason}); write a local folder with config.json and "
            "safetensors weights, a reachable Hugging Face name, or embedded:smollm2-135m"
        ) from None
    model, loading = loaded
    model.name_or_path = model.config._name_or_path = folder
    missing = sorted(loading["missing_keys"])
    if missing:
        raise UserError(
            f"language.name: {options.name!r} lacks {len(missing)} of its weights (for example {missing[0]}), which would be "
            "random: put the whole model there"
        )
    end_symbol(tokenizer)
    return model, tokenizer


def make_small_llama(options: SmallLlamaOptions, context: BuildContext) -> tuple[Any, Any]:
    """A Llama of the given size with random weights (from torch's seed) and a tokenizer made from the training reports.

    The tokenizer is kept in the run directory, so that a resumed run reads the same one.
    """

    def make() -> Any:
        texts = context.train_texts() if context.train_texts else []
        if not texts:
            raise UserError("language: a small_llama makes its tokenizer from the training reports, and there are none")
        return train_tokenizer(
            options.tokenizer, texts, options.whole_prompt, min_count=options.min_count, vocabulary=options.vocabulary
        )

    tokenizer = None
    if not context.meta:
        tokenizer = kept_tokenizer(context.run / "tokenizer", make) if context.run else make()
    config = LlamaConfig(
        vocab_size=options.vocabulary if tokenizer is None else len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        attention_dropout=options.dropout,
        tie_word_embeddings=True,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    # A plan of shapes asks for no library of the machine it is for.
    attention = SDPA if context.meta else choose_attention(options.attention, options.dtype).name
    with torch.device("meta" if context.meta else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype), attn_implementation=attention)
    return model, tokenizer


def end_symbol(tokenizer: Any) -> int:
    """The id that ends a report. Raises UserError where the tokenizer has none, or its text form is not one id."""
    if tokenizer.eos_token_id is None:
        raise UserError("language: this tokenizer has no end symbol (eos_token); add one to its tokenizer_config.json")
    if encode(tokenizer, tokenizer.eos_token) != [tokenizer.eos_token_id]:
        raise UserError(f"language: the end symbol {tokenizer.eos_token!r} does not encode to its own id")
    return int(tokenizer.eos_token_id)


def _resolve(name: str, context: BuildContext) -> str:
    if name.startswith("stage:"):
        folder = (context.run or Path()) / "stages" / name.removeprefix("stage:") / "language"
        if not folder.is_dir():
            raise UserError(f"language.name: {name!r}: no such stage has left a language model at {folder}; see `stages:`")
        return str(folder)
    from rrg.language.embedded import resolve_language

    return resolve_language(name)


def _meta_model(options: CausalOptions) -> Any:
    config = published_config(options.name)
    if config is None:
        try:
            config = AutoConfig.from_pretrained(options.name, local_files_only=True)
        except (OSError, ValueError):
            raise UserError(f"language.name: the shape of {options.name!r} is not known without its files") from None
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype))
