"""Input embeddings for a vocabulary of words from a text tower's table of word pieces (spec unicrossadapter §3).

row(word) = mean of the tower's embeddings of the word's pieces; the row of id 0 is the tower's start token; `<unk>` is the mean
of the words' rows. Nothing of it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rrg.errors import UserError

Pieces = Callable[[str], Sequence[int]]


def word_table(words: Sequence[str], unknown: int, pieces: Pieces, start: int, table: Tensor) -> Tensor:
    """[len(words), W] from `table` [V, W]; `words[0]` is the symbol that begins and ends, `words[unknown]` the unknown word.

    Raises:
        UserError: the pieces are not those of the table.
    """
    rows = torch.zeros(len(words), table.shape[1])
    for place, word in enumerate(words):
        ids = [start] if place == 0 else list(pieces(word))
        if ids and max(ids) >= len(table):
            raise UserError(
                f"language.pieces: a word has piece {max(ids)}, the text tower has {len(table)}: name the tower's own tokenizer"
            )
        if ids:
            rows[place] = table[torch.tensor(ids)].float().mean(0)
    real = [place for place in range(1, len(words)) if place != unknown]
    rows[unknown] = rows[real].mean(0) if real else 0.0
    return rows


def pieces_of(name: str, tower: str, vocabulary: int) -> tuple[Pieces, int]:
    """(word → ids of its pieces, id of the start token) for the text tower `tower`; `name` is a tokenizer's folder or name.

    A random tower has no tokenizer: a word's pieces are its bytes.

    Raises:
        UserError: the tokenizer cannot be loaded, or has no start token.
    """
    if tower.startswith("random:"):
        return lambda word: [1 + byte % (vocabulary - 1) for byte in word.encode()], 0
    from transformers import AutoTokenizer

    if tower == "embedded:minilm":
        from rrg.language.layered_text import minilm_folder

        name = str(minilm_folder())
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            f"language.pieces: {name!r}: no tokenizer there ({reason}); write the folder of the text tower's tokenizer "
            "(CLIP's vocab.json and merges.txt)"
        ) from None
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
    if start is None:
        raise UserError(f"language.pieces: {name!r} has no start token; name the text tower's own tokenizer")
    return lambda word: tokenizer(word, add_special_tokens=False)["input_ids"], int(start)
