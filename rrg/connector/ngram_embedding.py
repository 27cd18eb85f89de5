"""Frozen embeddings of the n-grams of a recipe's table, made once (spec cmeaa §3).

Two readings of "embedding through the language model": the mean of the input embeddings of an n-gram's pieces, or the mean of the
model's last hidden states over them. The table is made of frozen weights, so checkpoints do not carry it. Its last row is the
null n-gram, the end symbol's embedding: the only one of a study that has none, so that attention has something to look at.

Dimensions: U n-grams in the table, B studies, K most n-grams of a study, T n-grams of all studies together, H language width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rrg.batching.tokenise import encode
from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.language.causal import CausalLanguage

READINGS = ("embedding", "hidden")
_ROWS = 64  # n-grams of equal length that run through the language model at one time


class NgramEmbedding(nn.Module):
    """Lookup in the table [U + 1, H], a buffer that is no part of the state."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the n-grams at true places of `mask` [B, K], one study after another.

        What `ids` [B, K] holds at other places is not read. A study without any has the null n-gram.

        Returns:
            ([T, H], the mask of what is shown [B, max(K, 1)]).
        """
        none = F.pad(ids, (0, int(ids.shape[1] == 0))), F.pad(mask, (0, int(mask.shape[1] == 0)))
        ids, shown = (x.clone() for x in none)
        empty = ~shown.any(1)
        ids[empty, 0] = len(self.table) - 1
        shown[empty, 0] = True
        return self.table[ids[shown]], shown


def ngram_table(facts: Mapping[str, Any], reading: str, *, meta: bool = False) -> Tensor:
    """The table of `facts["ngrams"]` and of the null n-gram, [U + 1, H] float32 on the device of the language model.

    On the meta device only its shape is right: one row where the n-grams are not known.

    Raises:
        UserError: there are no n-grams, or the tokenizer makes nothing of one.
    """
    ngrams = facts.get("ngrams")
    if meta:
        return torch.empty(len(ngrams or ()) + 1, facts["language_width"], device="meta")
    if ngrams is None:
        raise UserError(
            "connector.enhance: needs observations.ngrams, a table written by `rrg prepare ngrams`; name one, or write "
            "enhance: false"
        )
    language: CausalLanguage = facts["language"]
    pieces = [_pieces(language.tokenizer, ngram, number) for number, ngram in enumerate(ngrams)]
    pieces.append([int(language.tokenizer.eos_token_id)])
    mean = _mean_embeddings if reading == "embedding" else _mean_hidden
    return mean(language, pieces).to(language.embedding.weight.device)


def _pieces(tokenizer: Any, ngram: str, number: int) -> list[int]:
    """Token ids of one n-gram, without special tokens."""
    pieces = encode(tokenizer, ngram)
    if not pieces:
        raise UserError(f"observations.ngrams: the language model's tokenizer makes nothing of n-gram {number} ({ngram!r})")
    return pieces


@torch.no_grad()
def _mean_embeddings(language: CausalLanguage, pieces: Sequence[list[int]]) -> Tensor:
    """[U, H]: the mean of the frozen input embeddings of each n-gram's pieces."""
    table = torch.zeros(len(pieces), language.width)
    device = language.embedding.weight.device
    for number, ids in enumerate(pieces):
        table[number] = language.embed(torch.tensor(ids, device=device)).float().mean(0)
    return table


@torch.no_grad()
def _mean_hidden(language: CausalLanguage, pieces: Sequence[list[int]]) -> Tensor:
    """[U, H]: the mean of the last hidden states over each n-gram's pieces, in evaluation mode.

    The begin symbol, where the tokenizer has one, stands before the pieces as it does before a prompt, and is not in the mean.
    """
    table = torch.zeros(len(pieces), language.width)
    begin = [] if language.tokenizer.bos_token_id is None else [language.tokenizer.bos_token_id]
    decoder = language.model.get_decoder()
    modes = {module: module.training for module in language.model.modules()}
    language.model.eval()
    for rows in _of_equal_length(pieces):
        ids = torch.tensor([begin + pieces[row] for row in rows], device=language.embedding.weight.device)
        hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state
        table[list(rows)] = hidden[:, len(begin) :].float().mean(1).cpu()
    for module, mode in modes.items():
        module.training = mode
    return table


def _of_equal_length(pieces: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """Places of n-grams with equally many pieces, a few dozen together: nothing is padded."""
    order = sorted(range(len(pieces)), key=lambda place: len(pieces[place]))
    groups = [tuple(group) for _, group in itertools.groupby(order, key=lambda place: len(pieces[place]))]
    return [group[first : first + _ROWS] for group in groups for first in range(0, len(group), _ROWS)]
