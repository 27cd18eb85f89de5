"""A BERT beside the film encoder: vectors of a report and of its words, and its masked words (spec alta §4).

B studies, L tokens (with the two special ones), H width, V vocabulary, R masked tokens of a micro-batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rrg.language.text_weights import fill_part
from rrg.vision.bottleneck import Bottleneck, adapt_behind, adapt_beside, train_adapters_and_norms

if TYPE_CHECKING:
    from rrg.language.text_options import TextOptions


class ReadReport(NamedTuple):
    """`pooled` [B, H], and `words` [B, L, H] of all positions."""

    pooled: Tensor
    words: Tensor


class WordHead(nn.Module):
    """BERT's head of masked words. Its output matrix is the embedding table, which stays frozen; only its bias is trained."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

        self.transform = BertPredictionHeadTransform(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, rows: Tensor, table: Tensor) -> Tensor:
        """[R, H] and the embedding table [V, H] → [R, V]."""
        return nn.functional.linear(self.transform(rows), table, self.bias.to(table.dtype))


class TextTower(nn.Module):
    """Reads reports. `tensors` are what the model's file holds beside the BERT, `masks` says whether masked words are predicted,
    `image` is the width of the image's vector."""

    def __init__(
        self, model: Any, tokenizer: Any, options: TextOptions, tensors: dict[str, Tensor], *, masks: bool, image: int
    ) -> None:
        super().__init__()
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("cls_projection_head.")}
        if options.train == "adapters":
            self._set_adapters()
        else:
            self.model.requires_grad_(options.train == "full")
        self.model.get_input_embeddings().requires_grad_(options.train == "full")
        self.word_head: WordHead | None = None
        self.image_input: nn.Linear | None = None
        if masks:
            with torch.device(next(model.parameters()).device):
                self.word_head = WordHead(model.config)
                self.image_input = nn.Linear(image, self.width) if options.image_input != "none" else None
            fill_part(self.word_head, tensors, "cls.predictions.")
            if self.image_input is not None:
                nn.init.xavier_uniform_(self.image_input.weight)
                nn.init.zeros_(self.image_input.bias)
                self.image_input.requires_grad_(options.image_input == "full")

    def _set_adapters(self) -> None:
        with torch.device(next(self.model.parameters()).device):
            for layer in self.model.encoder.layer:
                adapt_behind(layer.attention.output, self.width)
                adapt_beside(layer.output, self.width)
        train_adapters_and_norms(self.model)
        if self.options.adapters_start == "random":
            for module in self.model.modules():
                if isinstance(module, Bottleneck):
                    nn.init.normal_(module.up.weight, std=0.02)

    def train(self, mode: bool = True) -> TextTower:
        """Training mode; a frozen model stays in evaluation mode (no dropout)."""
        super().train(mode)
        if self.options.train == "frozen":
            self.model.eval()
        return self

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] to input embeddings [..., H]."""
        return self.embedding(ids)

    def forward(self, ids: Tensor, mask: Tensor, image: Tensor | None = None) -> ReadReport:
        """Ids and mask [B, L]; `image` [B, H] is added to every position's embedding, after its normalisation."""
        hidden = self.model.embeddings(input_ids=ids)
        if image is not None:
            hidden = hidden + image[:, None]
        words = self.model.encoder(hidden, attention_mask=mask[:, None, None, :]).last_hidden_state
        if self.options.pooling == "cls":
            return ReadReport(words[:, 0], words)
        weight = mask.to(words.dtype)[..., None]
        return ReadReport((words * weight).sum(1) / weight.sum(1).clamp_min(1), words)

    def masked_logits(self, ids: Tensor, mask: Tensor, hidden: Tensor, image: Tensor) -> Tensor:
        """[R, V] for the tokens that `hidden` [B, L] tells, in batch order, from the report without them and the image's vector
        [B, D] (spec alta §4)."""
        assert self.word_head is not None
        given = None if self.image_input is None else self.image_input(image)
        read = self(torch.where(hidden, self.tokenizer.mask_token_id, ids), mask, given)
        return self.word_head(read.words[hidden], self.embedding.weight)
