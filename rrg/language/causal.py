"""A causal language model that reads a visual prefix in its prompt and writes the report.

Sequence (spec r2gengpt §2): [BOS] + text before the image slot + prefix + text after it + report tokens. The first report token
is predicted from the last token of the text after the slot. Dimensions: B studies, M prefix tokens, L report tokens, H width, and
P = 1 + Nb + M + Na tokens before the report.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rrg.batching.batch import Batch, Prefix
from rrg.errors import UserError
from rrg.language.admission import admit
from rrg.language.attention import FLASH, packed_hidden
from rrg.language.decoding import Decoding
from rrg.language.gaps import closed
from rrg.language.head import ReportHead
from rrg.language.prompts import Prompt

if TYPE_CHECKING:
    from rrg.language.options import CausalOptions


@dataclass
class LanguageOutput:
    """Loss rows of a micro-batch: `nll` [R] for the supervised tokens in batch order."""

    nll: Tensor
    tokens: int


class CausalLanguage(nn.Module):
    """Any Hugging Face causal language model behind two verbs: `loss` and `generate`."""

    def __init__(self, model: Any, tokenizer: Any, options: CausalOptions) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.options = options
        self.prompt = Prompt.parse(options.whole_prompt)
        self.synced = False  # whether generation goes on until every process is done: where weights are gathered as it goes
        self._set_training(options)
        self.head = ReportHead(model)
        if tokenizer is not None:
            admit(model, self.head)

    def _set_training(self, options: CausalOptions) -> None:
        if options.train != "full":
            self.model.requires_grad_(False)
        if options.train == "lora":
            from rrg.language.lora import apply_lora

            apply_lora(self.model, options.lora)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # what is trained has float32 master weights, whatever the frozen rest is kept in
                parameter.data = parameter.data.float()
        if options.gradient_checkpointing:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.train(self.training)

    def train(self, mode: bool = True) -> CausalLanguage:
        """Training mode; a frozen language model stays in evaluation mode (no dropout), whatever its parent does."""
        super().train(mode)
        if self.options.train == "frozen":
            self.model.eval()
            if mode and self.options.gradient_checkpointing:
                self._mark_recomputing()
        return self

    def _mark_recomputing(self) -> None:
        """The library recomputes only in layers that say they train; inside, they are as still as the rest (no dropout)."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        layers: list[Any] = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for layer in layers:
            layer.training = True
            if not isinstance(layer._gradient_checkpointing_func, _StillRecomputing):
                layer._gradient_checkpointing_func = _StillRecomputing(layer._gradient_checkpointing_func)

    @property
    def width(self) -> int:
        """H, of the input embeddings: what a prefix has to have. A few families widen them inside."""
        return int(self.embedding.embedding_dim)

    @property
    def embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    @property
    def embedding_std(self) -> float:
        """Standard deviation of what `embed` gives. Some families (Gemma 3) scale the table's rows in the embedding itself."""
        table = self.embedding.weight.detach()
        some = torch.arange(min(64, len(table)), device=table.device)
        scale = self.embed(some).detach().float().norm() / table[some].float().norm().clamp_min(1e-12)
        return float(table.float().std() * scale)

    @property
    def packs(self) -> bool:
        """Whether the loss runs the studies of a batch end to end: where attention goes by cumulative lengths, and no state is
        carried from one token to the next beside it."""
        return self.model.config._attn_implementation == FLASH and not getattr(self.model, "_is_stateful", False)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] to input embeddings [..., H]."""
        return self.embedding(ids)

    def sequence(self, prefix: Prefix | None, batch: Batch, *, report: bool) -> tuple[Tensor, Tensor]:
        """(inputs_embeds [B, T, H], mask [B, T] bool) of the prompt, with the report tokens appended if `report`.

        The real tokens of a row stand side by side: padding is on the right with reports, on the left where one is to be written.
        """
        device = batch.before_ids.device
        pieces: list[Tensor] = []
        masks: list[Tensor] = []

        def add(embeds: Tensor, mask: Tensor | None) -> None:
            if embeds.shape[1]:
                pieces.append(embeds.to(self.embedding.weight.dtype))
                masks.append(torch.ones(embeds.shape[:2], dtype=torch.bool, device=device) if mask is None else mask)

        start, before, after, written = self._looked_up(batch, report=report)
        add(start, None)
        add(before, batch.before_mask)
        if prefix is not None:
            add(prefix.embeds, prefix.mask)
        add(after, batch.after_mask)
        if report:
            add(written, batch.report_mask)
        with torch.autocast(device.type, enabled=False):  # bf16 autocast refuses to join float16 pieces, as Llama-2's are
            embeds = torch.cat(pieces, 1)
        return closed(embeds, torch.cat(masks, 1), "right" if report else "left")

    def _looked_up(self, batch: Batch, *, report: bool) -> Sequence[Tensor]:
        """Embeddings [B, ·, H] of the start symbol, of the text before and after the image slot, and of the report if `report`.

        One look-up for all of them: a table in pieces is then gathered once for a micro-batch, not once for each piece of text.
        """
        bos, ids = self.tokenizer.bos_token_id, batch.before_ids
        start = ids.new_empty((len(batch), 0)) if bos is None else ids.new_full((len(batch), 1), bos)
        texts = [start, ids, batch.after_ids, batch.report_ids if report else ids[:, :0]]
        return self.embed(torch.cat(texts, 1)).split([text.shape[1] for text in texts], 1)

    def loss(self, prefix: Prefix | None, batch: Batch) -> LanguageOutput:
        """Next-token loss of the report tokens given the prefix (spec r2gengpt §3); rows are selected before the head."""
        embeds, mask = self.sequence(prefix, batch, report=True)
        decoder = self.model.get_decoder()
        if self.packs:
            hidden = packed_hidden(decoder, embeds, mask)
        else:  # right padding needs no mask where no token sees a later one
            hidden = decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
        first = mask.sum(1) - batch.report_mask.sum(1)  # the place of each report's first token
        studies, tokens = batch.report_mask.nonzero(as_tuple=True)
        rows = hidden[studies, first[studies] + tokens - 1]
        nll = self.head.rows(rows, batch.report_ids[batch.report_mask])
        return LanguageOutput(nll, int(nll.numel()))

    @torch.no_grad()
    def generate(self, prefix: Prefix | None, batch: Batch, decoding: Decoding) -> list[str]:
        """One report per study: decoded, cut at the end symbol, stripped."""
        embeds, mask = self.sequence(prefix, batch, report=False)
        pad = self.tokenizer.pad_token_id
        end = self.tokenizer.eos_token_id
        with warnings.catch_warnings():
            # Said at every call: with embeddings as input, the repetition penalty acts on generated tokens (as published).
            warnings.filterwarnings("ignore", message=".*repetition_penalty.*")
            ids = self.model.generate(
                inputs_embeds=embeds,
                attention_mask=mask.long(),
                eos_token_id=end,
                pad_token_id=end if pad is None else pad,
                logits_processor=self._guidance(prefix, batch, decoding),
                synced_gpus=self.synced,
                **decoding.arguments(),
            )
        return [self._text(row, end) for row in ids.tolist()]

    def _guidance(self, prefix: Prefix | None, batch: Batch, decoding: Decoding) -> list[Any]:
        """The rule that weighs the film against the same prompt with an empty image slot, where the decoding asks for it."""
        if decoding.guidance == 1 or prefix is None:
            return []
        from rrg.language.guidance import Guidance

        if getattr(self.model, "_is_stateful", False):
            raise UserError(
                f"generate.guidance: {type(self.model).__name__} keeps a recurrent state, which guidance cannot carry along; "
                "write guidance: 1.0"
            )
        embeds, mask = self.sequence(None, batch, report=False)
        return [Guidance(self.model, embeds, mask, decoding.guidance, decoding.guidance_plausibility)]

    def _text(self, ids: list[int], end: int) -> str:
        if end in ids:
            ids = ids[: ids.index(end)]
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def save_pretrained(self, folder: Any) -> None:
        """The model (any LoRA merged) and its tokenizer as a Hugging Face folder."""
        if hasattr(self.model, "peft_config"):
            from rrg.language.lora import folded, folded_tensors

            with folded(self.model):
                self.model.save_pretrained(folder, state_dict=folded_tensors(self.model))
        else:
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class _StillRecomputing:
    """A layer's checkpointing function, with the layer in evaluation mode whenever it runs: OPT's layers drop out by their own
    flag."""

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint

    def __call__(self, run: Any, *arguments: Any) -> Any:
        """`run` is the layer's forward bound to it, as the library hands it over."""
        return self._checkpoint(functools.partial(self._still, run), *arguments)

    @staticmethod
    def _still(run: Any, *arguments: Any) -> Any:
        layer, before = run.args[0], run.args[0].training
        layer.training = False
        try:
            return run(*arguments)
        finally:
            layer.training = before
