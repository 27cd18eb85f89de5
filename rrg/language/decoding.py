"""How a report is written out: beam search or sampling."""

from __future__ import annotations

from dataclasses import dataclass

from rrg.config.schema import option
from rrg.errors import UserError


@dataclass
class Decoding:
    """Search settings, in Hugging Face's terms. Defaults are R2GenGPT's for IU X-Ray (spec r2gengpt §6)."""

    num_beams: int = option(3, "beams; 1 is greedy search or, with do_sample, plain sampling", least=1)
    do_sample: bool = option(False, "sample instead of searching for the most likely report")
    temperature: float = option(1.0, "softmax temperature when sampling; above 0", least=0)
    top_p: float = option(1.0, "nucleus: keep the smallest set of tokens with this probability, when sampling", above=0, most=1)
    repetition_penalty: float = option(2.0, "divides the scores of tokens generated already; 1 is off", above=0)
    length_penalty: float = option(2.0, "beam score = log-likelihood / length^penalty: above 1 prefers long reports")
    no_repeat_ngram_size: int = option(0, "forbid repeating n-grams of this size; 0 is off", least=0)
    min_new_tokens: int = option(40, "no end symbol before this many tokens", least=0)
    max_new_tokens: int = option(100, "the report is cut here", least=1)
    guidance: float = option(
        1.0, "how much more than likelihood the film counts, against the same prompt without it; 1 is off", least=0
    )
    guidance_plausibility: float = option(
        0.1, "guided tokens have at least this share of the likeliest token's probability", least=0, most=1
    )

    def check(self, path: str) -> None:
        if self.do_sample and not self.temperature:
            raise UserError(f"{path}.temperature: {self.temperature} with do_sample; write a value above 0, or do_sample=false")
        if self.min_new_tokens > self.max_new_tokens:
            raise UserError(
                f"{path}: min_new_tokens {self.min_new_tokens} and max_new_tokens {self.max_new_tokens}; write 0 <= min <= max"
            )
        if self.guidance != 1 and self.num_beams > 1:
            raise UserError(
                f"{path}.guidance: {self.guidance} with num_beams {self.num_beams}; guidance goes with greedy search and "
                "sampling: write num_beams=1, or guidance=1.0"
            )

    def arguments(self) -> dict[str, object]:
        """Keyword arguments of `generate`. Sampling settings are passed only when sampling: newer libraries refuse the rest."""
        result: dict[str, object] = {
            "num_beams": self.num_beams,
            "do_sample": self.do_sample,
            "repetition_penalty": self.repetition_penalty,
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "min_new_tokens": self.min_new_tokens,
            "max_new_tokens": self.max_new_tokens,
        }
        if self.num_beams > 1:
            result["length_penalty"] = self.length_penalty
        if self.do_sample:
            result.update(temperature=self.temperature, top_p=self.top_p)
        return result
