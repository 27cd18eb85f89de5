"""Options of the word decoder over a frozen text tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rrg.config.schema import option
from rrg.errors import UserError
from rrg.language.prompts import Prompt


@dataclass
class WordDecoderOptions:
    takes: ClassVar[str] = "features of the films"
    kind: str = option("word_decoder", "a Transformer decoder over words, on a frozen text tower with adapters (UniCrossAdapter)")
    name: str = option(
        "openai/RN101", "text tower: file with the tensors of OpenAI's RN101 or RN50, random:tiny, or embedded:minilm"
    )
    pieces: str = option(
        "openai/clip-vit-base-patch32",
        "tokenizer of the text tower, folder or Hugging Face name: words are embedded by their pieces",
    )
    train: str = option(
        "frozen",
        "the text tower: frozen, but for its positional embeddings; adapters and decoder are trained",
        choices=("frozen",),
    )
    mode: str = option(
        "intent",
        "intent | release (leaks words of the report as the published code does; for study, writes nothing)",
        choices=("intent", "release"),
    )
    stages: list[int] = option(
        [4, 8, 12], "layers of the text tower after which adapters sit; those behind the last are dropped", least=1
    )
    adapter_width: int = option(64, "width of the adapters, as connector.adapter_width", least=1)
    adapter_heads: int = option(4, "attention heads of the adapters", least=1)
    adapter_dropout: float = option(0.1, "in the adapters", least=0, below=1)
    zero_up: bool = option(True, "the adapters' paths back into the tower start at zero")
    views: str = option("sum", "word features beside the films of a study: sum (as published) | mean", choices=("sum", "mean"))
    layers: int = option(3, "of the decoder", least=1)
    heads: int = option(8, "attention heads of the decoder", least=1)
    dropout: float = option(0.1, "in the decoder", least=0, below=1)
    blind: float = option(0.0, "share of the training studies whose films are not shown, for generate.guidance", least=0, below=1)
    prompt: str = option("{image}", "text with exactly one {image}; the decoder reads none")
    max_report_tokens: int = option(
        59, "words of a report with its end; longer ones are cut in training (counted in the events)", least=1
    )
    min_count: int = option(3, "keep words seen at least this often in the training reports", least=1)
    mix: str = option("", "tokenizer folder of another run, whose words are added (the published vocabulary is IU's and MIMIC's)")
    vocabulary: int = option(4348, "words with the end symbol, where there are no reports to count them in (plans)", least=1)

    @property
    def whole_prompt(self) -> str:
        """The prompt as the tokeniser reads it."""
        return self.prompt

    @property
    def writes(self) -> bool:
        """Whether this part writes reports."""
        return True

    @property
    def exported(self) -> bool:
        """Whether a trained model of its own is left in the run directory."""
        return False

    def check(self, path: str) -> None:
        Prompt.parse(self.prompt, f"{path}.prompt")
        if self.prompt.strip() != "{image}":
            raise UserError(f"{path}.prompt: {self.prompt!r}; a word decoder reads no prompt, write {{image}} alone")
        if len(self.stages) != 3 or sorted(set(self.stages)) != self.stages or self.stages[0] < 1:
            raise UserError(f"{path}.stages: {self.stages}; write three ascending numbers of layers, as [4, 8, 12]")
        if not self.name:
            raise UserError(f"{path}.name: empty; write a file in OpenAI's layout, random:tiny or embedded:minilm")
