"""A Transformer decoder over words, whose input are the features of a frozen text tower with interaction adapters in it.

Spec unicrossadapter §2.5, §6. The prefix carries the encoder's output and, per stage and film, the reduced map that the text's
adapters look at. Generation is the library's own; keys and values of tower, adapters and decoder are kept from one word to the
next, and the visual side is computed once per study.

Dimensions: B studies, R rows of a search (studies times beams), V views, L positions, M memory tokens, W width, S = 3 stages, N
places of a reduced map, d adapter width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from rrg.batching.batch import Batch, Prefix
from rrg.config.context import BuildContext
from rrg.connector.prenorm import DecoderLayer, UnbiasedNorm, xavier
from rrg.errors import UserError
from rrg.language.causal import LanguageOutput
from rrg.language.decoding import Decoding
from rrg.language.guidance import Guidance
from rrg.language.layered_text import build_layered_text
from rrg.language.text_stream import FilmCache, KeptWords, TextStream
from rrg.language.tokenizer import kept_tokenizer, word_vocabulary, words_of_tokenizer
from rrg.language.word_table import pieces_of, word_table

if TYPE_CHECKING:
    from rrg.language.word_options import WordDecoderOptions

END = 0


class WordDecoderConfig(PretrainedConfig):
    """What the library asks for while it searches."""

    model_type = "rrg_word_decoder"

    def __init__(self, vocab_size: int = 1, **other: Any) -> None:
        super().__init__(**other)
        self.vocab_size, self.is_encoder_decoder = vocab_size, False
        self.bos_token_id = self.eos_token_id = self.pad_token_id = END


class WordWriter(PreTrainedModel, GenerationMixin):
    """Next-word logits from the words so far, the memory and the films' reduced maps."""

    config_class = WordDecoderConfig
    main_input_name = "input_ids"

    def __init__(self, config: WordDecoderConfig, stream: TextStream, options: WordDecoderOptions) -> None:
        super().__init__(config)
        width = stream.tower.sizes.width
        self.stream, self.mean = stream, options.views == "mean"
        self.decoder = nn.ModuleList(
            DecoderLayer(width, options.heads, 4 * width, options.dropout) for _ in range(options.layers)
        )
        self.norm = UnbiasedNorm(width)
        self.head = nn.Linear(width, config.vocab_size)
        xavier(self.decoder)

    def hidden(self, ids: Tensor, seen: dict[str, Tensor], cache: FilmCache | None = None) -> Tensor:
        """[R, L, W] behind the last norm; `seen` as `shown` gives it."""
        R, V = seen["there"].shape
        first = 0 if cache is None else cache.get_seq_length()
        kept = None if cache is None else KeptWords(cache, R)
        maps = seen["maps"].transpose(0, 1).flatten(1, 2)  # [S, R·V, N, d]
        words = self.stream(ids[:, None].expand(-1, V, -1).flatten(0, 1), list(maps), first, kept).unflatten(0, (R, V))
        there = seen["there"][..., None, None]
        x = (words * there).sum(1) / (there.sum(1).clamp_min(1) if self.mean else 1)
        for place, layer in enumerate(self.decoder):
            own = self.stream.kept + place
            keep, fixed = (None, None) if kept is None else (kept.at(own), kept.of_films(own))
            x = layer(x, seen["memory"], seen["memory_mask"], keep, fixed)
        return self.norm(x)

    def forward(self, input_ids: Tensor, past_key_values: FilmCache | None = None, **given: Any) -> CausalLMOutputWithPast:
        """Logits [R, 1, words] of the word after the last of `input_ids`, those not yet in the cache."""
        seen = {name: given[name] for name in ("memory", "memory_mask", "maps", "there")}
        logits = self.head(self.hidden(input_ids, seen, past_key_values)[:, -1:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, past_key_values: FilmCache | None = None, **given: Any
    ) -> dict[str, Any]:
        """The words that the cache has not seen, and all of the film."""
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        return {**given, "input_ids": input_ids[:, first:], "past_key_values": past_key_values}

    def get_input_embeddings(self) -> nn.Module:
        """The frozen table of words."""
        return self.stream.words

    def get_output_embeddings(self) -> nn.Module:
        """The output layer, which is trained."""
        return self.head

    def get_decoder(self) -> nn.Module:
        """What holds the frozen layers."""
        return self.stream

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """All that is given is read by `forward`."""


class BlindGuidance(Guidance):
    """Guidance whose blind side is the same decoder shown nothing."""

    def __init__(self, model: WordWriter, nothing: dict[str, Tensor], scale: float, plausibility: float) -> None:
        self._model, self._scale, self._plausibility = model, scale, plausibility
        self._nothing, self._cache = nothing, FilmCache()

    def _blind(self, input_ids: Tensor) -> Tensor:
        ids = input_ids[:, self._cache.get_seq_length() :]
        return self._model(ids, self._cache, **self._nothing).logits[:, -1].float()


class WordDecoder(nn.Module):
    """A language part: `loss` and `generate`. `tokenizer` is None on the meta device."""

    def __init__(self, model: WordWriter, tokenizer: Any, options: WordDecoderOptions) -> None:
        super().__init__()
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.synced = False  # whether generation goes on until every process is done: where weights are gathered as it goes

    @property
    def width(self) -> int:
        return int(self.model.stream.tower.sizes.width)

    @property
    def stream(self) -> TextStream:
        """The text tower with its adapters."""
        return self.model.stream

    @property
    def embedding(self) -> nn.Embedding:
        return self.model.stream.words

    @property
    def embedding_std(self) -> float:
        """Standard deviation of the input embeddings."""
        return float(self.embedding.weight.detach().float().std())

    def embed(self, ids: Tensor) -> Tensor:
        """Word ids [...] to input embeddings [..., W]."""
        return self.embedding(ids)

    def given(self, batch: Batch) -> Tensor:
        """[B, L]: what each word of the report is predicted from, the start symbol and the words before it."""
        return F.pad(batch.report_ids, (1, 0), value=END)[:, :-1]

    def loss(self, prefix: Prefix | None, batch: Batch) -> LanguageOutput:
        """Negative log-likelihood of the report's words and its end; padding does not count."""
        seen = self._hidden_from_some(shown(prefix, batch))
        rows = self.model.hidden(self.given(batch), seen)[batch.report_mask]
        nll = F.cross_entropy(self.model.head(rows).float(), batch.report_ids[batch.report_mask], reduction="none")
        return LanguageOutput(nll, int(nll.numel()))

    def _hidden_from_some(self, seen: dict[str, Tensor]) -> dict[str, Tensor]:
        if not (self.training and self.options.blind):
            return seen
        keeps = torch.rand(len(seen["there"]), device=seen["there"].device) >= self.options.blind
        return nothing_of(seen, keeps)

    @torch.no_grad()
    def generate(self, prefix: Prefix | None, batch: Batch, decoding: Decoding) -> list[str]:
        """One report per study, without the end symbol.

        Raises:
            UserError: longer reports are asked for than the text tower has positions; `mode: release`, which reads the report.
        """
        if decoding.max_new_tokens > self.stream.tower.sizes.context:
            raise UserError(
                f"generate.max_new_tokens: {decoding.max_new_tokens}, but the text tower has {self.stream.tower.sizes.context} "
                "positions; write that, or less"
            )
        if self.stream.leak:
            raise UserError("language.mode: release reads the report that is to be written, and writes none; train with intent")
        seen = shown(prefix, batch)
        rules = []
        if decoding.guidance != 1:
            blind = nothing_of(seen, torch.zeros(len(batch), dtype=torch.bool, device=batch.report_ids.device))
            rules = [BlindGuidance(self.model, blind, decoding.guidance, decoding.guidance_plausibility)]
        start = torch.full((len(batch), 1), END, device=batch.report_ids.device)
        arguments: dict[str, Any] = {**seen, **decoding.arguments(), "logits_processor": rules, "past_key_values": FilmCache()}
        writer: Any = self.model
        ids = writer.generate(start, attention_mask=torch.ones_like(start), synced_gpus=self.synced, **arguments)
        return [self._text(row) for row in ids[:, 1:].tolist()]

    def _text(self, ids: list[int]) -> str:
        words = self.tokenizer.convert_ids_to_tokens(ids[: ids.index(END)] if END in ids else ids)
        return " ".join(words)


def shown(prefix: Prefix | None, batch: Batch) -> dict[str, Tensor]:
    """What the decoder sees of the films: `memory` [B, M, W], `memory_mask` [B, M], `maps` [B, S, V, N, d], `there` [B, V].

    Raises:
        UserError: the prefix comes from a connector without interaction adapters.
    """
    if prefix is None or prefix.maps is None:
        raise UserError("language.kind: word_decoder needs connector.kind: unicrossadapter; write that, or another language.kind")
    mask = prefix.mask
    if mask is None:
        mask = torch.ones(prefix.embeds.shape[:2], dtype=torch.bool, device=prefix.embeds.device)
    there = batch.view_mask.to(prefix.embeds.dtype)
    return {"memory": prefix.embeds, "memory_mask": mask, "maps": prefix.maps, "there": there}


def nothing_of(seen: dict[str, Tensor], keeps: Tensor) -> dict[str, Tensor]:
    """Memory and maps as zeros for the studies that `keeps` [B] leaves out: how a film that is not seen looks."""
    kept = {name: seen[name] * keeps.view(-1, *[1] * (seen[name].dim() - 1)) for name in ("memory", "maps")}
    return {**seen, **kept}


def make_word_decoder(options: WordDecoderOptions, context: BuildContext) -> WordDecoder:
    """The language part with a vocabulary of the training reports, which is kept in the run directory.

    Raises:
        UserError: no reports, a text tower or tokenizer that cannot be loaded, or reports longer than the tower's context.
    """
    tower = build_layered_text(options.name, options.stages[-1], meta=context.meta)
    if options.max_report_tokens > tower.sizes.context:
        raise UserError(
            f"language.max_report_tokens: {options.max_report_tokens}, but the text tower has {tower.sizes.context} positions"
        )
    tokenizer, words = None, torch.empty(options.vocabulary, tower.sizes.width, device="meta")
    if not context.meta:
        tokenizer = _vocabulary(options, context)
        pieces, start = pieces_of(options.pieces, options.name, tower.sizes.vocabulary)
        known = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        words = word_table(known, tokenizer.unk_token_id, pieces, start, tower.pieces.weight.detach())
    tower.pieces = None  # type: ignore[assignment]  # the words have taken what they need; nothing reads it any more
    adapters = (options.adapter_width, options.adapter_heads, options.adapter_dropout)
    stream = TextStream(tower, words, options.stages, *adapters, zero=options.zero_up, leak=options.mode == "release")
    return WordDecoder(WordWriter(WordDecoderConfig(len(words)), stream, options), tokenizer, options)


def _vocabulary(options: WordDecoderOptions, context: BuildContext) -> Any:
    def make() -> Any:
        texts = context.train_texts() if context.train_texts else []
        if not texts:
            raise UserError("language: a word decoder makes its vocabulary from the training reports, and there are none")
        return word_vocabulary(texts, options.min_count, words_of_tokenizer(options.mix) if options.mix else ())

    return kept_tokenizer(context.run / "tokenizer", make) if context.run else make()
