"""Options of causal language models, by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rrg.config.lora import LoraOptions
from rrg.config.ranges import check_number
from rrg.config.schema import option, section
from rrg.errors import UserError
from rrg.language.conversation import conversation
from rrg.language.prompts import Prompt

R2GENGPT_PROMPT = (
    "Human: <Img>{image}</Img> Generate a comprehensive and detailed diagnosis report for this chest xray image. \nAssistant:"
)


@dataclass
class CausalOptions:
    takes: ClassVar[str] = "a prefix"
    kind: str = option("causal_lm", "any Hugging Face causal language model")
    name: str = option("", "Hugging Face name, local folder, embedded:smollm2-135m, or stage:NAME (made by that stage)")
    train: str = option("frozen", "frozen | lora | full", choices=("frozen", "lora", "full"))
    dtype: str = option(
        "bfloat16", "dtype of the frozen weights: bfloat16 | float16 | float32", choices=("bfloat16", "float16", "float32")
    )
    prompt: str = option(R2GENGPT_PROMPT, "text with exactly one {image}; {indication}, {comparison}; {prior}: the report before")
    template: str = option(
        "", "conversation that language.prompt is the user's message of: libra_v0 | vicuna_v1 | plain; empty: none"
    )
    max_report_tokens: int = option(60, "reports longer than this are cut in training (counted in the events)", least=1)
    quantize: str = option(
        "none",
        "frozen matrices in fewer bits, on a GPU with bitsandbytes: none | int8 | int4 (NF4)",
        choices=("none", "int8", "int4"),
    )
    attention: str = option(
        "auto",
        "auto (flash-attn where it can run, else sdpa) | sdpa | eager | flash_attention_2",
        choices=("auto", "sdpa", "eager", "flash_attention_2"),
    )
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
        if self.quantize != "none" and (self.train == "full" or self.kind != "causal_lm"):
            raise UserError(f"{path}.quantize: {self.quantize} is for a pretrained base that is not trained itself; write none")


@dataclass
class SmallLlamaOptions(CausalOptions):
    """A small Llama of one's own: random weights and a tokenizer made from the training reports."""

    kind: str = option("small_llama", "a Llama of the given size with a tokenizer made from the training reports")
    dtype: str = option(
        "float32", "dtype of the weights: float32 | bfloat16 | float16", choices=("float32", "bfloat16", "float16")
    )
    prompt: str = option("{image} report :", "text with exactly one {image}")
    hidden_size: int = option(256, "width", least=1)
    layers: int = option(6, "decoder blocks", least=1)
    heads: int = option(4, "attention heads", least=1)
    intermediate_size: int = option(768, "width of the gated feed-forward", least=1)
    dropout: float = option(0.0, "attention dropout while the model itself is trained", least=0, below=1)
    tokenizer: str = option("word", "word (whitespace words) | bpe (byte level)", choices=("word", "bpe"))
    min_count: int = option(3, "word tokenizer: keep words seen at least this often in the training reports", least=1)
    vocabulary: int = option(2000, "bpe tokenizer: size", least=1)

    def check(self, path: str) -> None:
        super().check(path)
        if self.tokenizer == "bpe":
            check_number(f"{path}.vocabulary", self.vocabulary, least=260)  # every byte and four symbols
        if self.hidden_size % self.heads:
            raise UserError(f"{path}.heads: {self.heads} does not divide hidden_size {self.hidden_size}")
