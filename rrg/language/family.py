"""The language parts of a recipe: options by kind, and what builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.config.lora import LoraOptions
from rrg.config.ranges import check_number
from rrg.config.schema import check_choice, option, section
from rrg.errors import UserError
from rrg.language.conversation import conversation
from rrg.language.prompts import Prompt
from rrg.language.text_options import TextOptions
from rrg.language.word_options import WordDecoderOptions

if TYPE_CHECKING:
    from rrg.language.causal import CausalLanguage
    from rrg.language.text_tower import TextTower
    from rrg.language.word_decoder import WordDecoder

LANGUAGE = Family("language")

R2GENGPT_PROMPT = (
    "Human: <Img>{image}</Img> Generate a comprehensive and detailed diagnosis report for this chest xray image. \nAssistant:"
)


@dataclass
class CausalOptions:
    takes: ClassVar[str] = "a prefix"
    kind: str = option("causal_lm", "any Hugging Face causal language model")
    name: str = option("", "Hugging Face name, local folder, embedded:smollm2-135m, or stage:NAME (made by that stage)")
    train: str = option("frozen", "frozen | lora | full")
    dtype: str = option("bfloat16", "dtype of the frozen weights: bfloat16 | float16 | float32")
    prompt: str = option(R2GENGPT_PROMPT, "text with exactly one {image}; {indication}, {comparison}; {prior}: the report before")
    template: str = option(
        "", "conversation that language.prompt is the user's message of: libra_v0 | vicuna_v1 | plain; empty: none"
    )
    max_report_tokens: int = option(60, "reports longer than this are cut in training (counted in the events)")
    quantize: str = option("none", "frozen matrices in fewer bits, on a GPU with bitsandbytes: none | int8 | int4 (NF4)")
    attention: str = option("auto", "auto (flash-attn where it can run, else sdpa) | sdpa | eager | flash_attention_2")
    gradient_checkpointing: bool = option(False, "recompute activations in the backward pass")
    lora: LoraOptions = section(LoraOptions, "used with train: lora")

    @property
    def whole_prompt(self) -> str:
        """The prompt in its conversation. Raises UserError for a conversation that is not known."""
        return conversation(self.template, self.prompt)

    @property
    def exported(self) -> bool:
        """Whether a trained model of its own is left in the run directory."""
        return self.train != "frozen"

    def check(self, path: str) -> None:
        Prompt.parse(self.prompt, f"{path}.prompt")
        Prompt.parse(conversation(self.template, self.prompt, f"{path}.template"), f"{path}.template")
        check_choice(f"{path}.train", self.train, ("frozen", "lora", "full"))
        check_choice(f"{path}.dtype", self.dtype, ("bfloat16", "float16", "float32"))
        check_choice(f"{path}.quantize", self.quantize, ("none", "int8", "int4"))
        if self.quantize != "none" and (self.train == "full" or self.kind != "causal_lm"):
            raise UserError(f"{path}.quantize: {self.quantize} is for a pretrained base that is not trained itself; write none")
        check_choice(f"{path}.attention", self.attention, ("auto", "sdpa", "eager", "flash_attention_2"))
        if self.max_report_tokens < 1:
            raise UserError(f"{path}.max_report_tokens: {self.max_report_tokens} is below 1; write 60 (IU) or 100 (MIMIC)")


@dataclass
class SmallLlamaOptions(CausalOptions):
    """A small Llama of one's own: random weights and a tokenizer made from the training reports."""

    kind: str = option("small_llama", "a Llama of the given size with a tokenizer made from the training reports")
    dtype: str = option("float32", "dtype of the weights: float32 | bfloat16 | float16")
    prompt: str = option("{image} report :", "text with exactly one {image}")
    hidden_size: int = option(256, "width")
    layers: int = option(6, "decoder blocks")
    heads: int = option(4, "attention heads")
    intermediate_size: int = option(768, "width of the gated feed-forward")
    dropout: float = option(0.0, "attention dropout while the model itself is trained")
    tokenizer: str = option("word", "word (whitespace words) | bpe (byte level)")
    min_count: int = option(3, "word tokenizer: keep words seen at least this often in the training reports")
    vocabulary: int = option(2000, "bpe tokenizer: size")

    def check(self, path: str) -> None:
        super().check(path)
        check_choice(f"{path}.tokenizer", self.tokenizer, ("word", "bpe"))
        for name in ("hidden_size", "layers", "heads", "intermediate_size", "min_count"):
            check_number(f"{path}.{name}", getattr(self, name), least=1)
        if not 0 <= self.dropout < 1:
            raise UserError(f"{path}.dropout: {self.dropout}; write a probability from 0 to below 1")
        if self.tokenizer == "bpe":
            check_number(f"{path}.vocabulary", self.vocabulary, least=260)  # every byte and four symbols
        if self.hidden_size % self.heads:
            raise UserError(f"{path}.heads: {self.heads} does not divide hidden_size {self.hidden_size}")


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
