"""Options of a text tower: a language part that reads reports and writes none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rrg.config.schema import option
from rrg.errors import UserError


@dataclass
class TextOptions:
    takes: ClassVar[str] = "a shared space"
    kind: str = option("text", "a BERT that reads the report for alignment with the film, and writes none")
    name: str = option("microsoft/BiomedVLP-CXR-BERT-specialized", "Hugging Face name, local folder, embedded:minilm, or random")
    train: str = option(
        "adapters",
        "adapters (in every layer, with the layer normalisations) | full | frozen",
        choices=("adapters", "full", "frozen"),
    )
    pooling: str = option("cls", "the report's vector: cls (first token) | mean (of its tokens)", choices=("cls", "mean"))
    max_report_tokens: int = option(128, "with the two special tokens; longer reports are cut (counted in the events)", least=3)
    shuffle_sentences: bool = option(True, "training reads a report's sentences in an order drawn for the epoch and the study")
    masked: float = option(
        0.5, "objective masked_words: share of the tokens that are hidden; special ones never are", above=0, most=1
    )
    image_input: str = option(
        "frozen",
        "how the image reaches the masked words: frozen (a random map, as released) | full (trained) | none",
        choices=("frozen", "full", "none"),
    )
    adapters_start: str = option(
        "zero", "second matrices of the adapters: zero (identity) | random (as the release's loader)", choices=("zero", "random")
    )
    dropout: float | None = option(None, "null takes the model's own", least=0, below=1)
    architecture: dict[str, Any] = option({}, "name: random: arguments of the transformers BertConfig")

    @property
    def writes(self) -> bool:
        """Whether this part writes reports."""
        return False

    @property
    def exported(self) -> bool:
        """Whether a trained model of its own is left in the run directory."""
        return False

    def check(self, path: str) -> None:
        if not self.name:
            raise UserError(f"{path}.name: empty; write a Hugging Face name, a local folder, embedded:minilm, or random")
        if self.architecture and self.name != "random":
            raise UserError(f"{path}.architecture: belongs to name random; {self.name} brings its own")
