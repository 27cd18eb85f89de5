"""Tokenizers: a pretrained one by name, or a small one made from the training reports and kept in the run directory."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrg.errors import UserError

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")


def train_tokenizer(kind: str, texts: Sequence[str], extra: str, *, min_count: int, vocabulary: int) -> Any:
    """A fast tokenizer made from `texts`: `word` (whitespace words seen at least `min_count` times) or `bpe` (byte level).

    `extra` (the prompt's own words) is always covered. Deterministic: equal texts give equal vocabularies.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "word":
        counts = Counter(word for text in texts for word in text.split())
        words = sorted({w for w, n in counts.items() if n >= min_count} | set(re.sub(r"\{\w+\}", " ", extra).split()))
        words = [w for w in words if w not in SPECIALS]
        table = {word: place for place, word in enumerate([*SPECIALS, *words])}
        tokenizer = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    elif kind == "bpe":
        tokenizer = Tokenizer(models.BPE(unk_token=None))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=list(SPECIALS), initial_alphabet=sorted(alphabet), show_progress=False
        )
        tokenizer.train_from_iterator([*texts, extra], trainer)
    else:
        raise UserError(f"language.tokenizer: {kind!r} is none of word, bpe")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


END = "<end>"


def word_vocabulary(texts: Sequence[str], min_count: int, beside: Sequence[str] = ()) -> Any:
    """R2Gen's word tokenizer (spec common §3): id 0 begins, ends and pads.

    Words seen at least `min_count` times in `texts`, those of another vocabulary `beside` them ("mix"), and `<unk>` follow in
    lexicographic order from 1.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    counts = Counter(word for text in texts for word in text.split())
    words = sorted(({word for word, n in counts.items() if n >= min_count} | set(beside) | {"<unk>"}) - {END})
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate([END, *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, bos_token=END, eos_token=END, unk_token="<unk>")


def words_of_tokenizer(folder: str) -> list[str]:
    """The words of a tokenizer that a run has kept. Raises UserError where there is none."""
    if not (Path(folder).expanduser() / "tokenizer.json").is_file():
        raise UserError(f"language.mix: {folder!r} holds no tokenizer.json; write the folder RUN/tokenizer of a run with words")
    tokenizer = kept_tokenizer(Path(folder).expanduser(), None)
    return sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens))


def kept_tokenizer(folder: Path, make: Any) -> Any:
    """The tokenizer stored in `folder`, made and stored by `make()` first where there is none. Atomic; first writer wins.

    Raises:
        UserError: what is stored there is damaged.
    """
    from transformers import PreTrainedTokenizerFast

    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        make().save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(temporary)
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception:  # noqa: BLE001 (the library raises bare Exceptions for a file that is cut short)
        raise UserError(f"tokenizer {folder}: missing files or damaged; put them back, or set output= to train anew") from None
