"""How a report is written out: beam search or sampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rrg.config.schema import option
from rrg.errors import UserError


@dataclass
class Decoding:
    """Search settings, in Hugging Face's terms. Defaults are R2GenGPT's for IU X-Ray (spec r2gengpt §6)."""

    num_beams: int = option(3, "beams; 1 is greedy search or, with do_sample, plain sampling")
    do_sample: bool = option(False, "sample instead of searching for the most likely report")
    temperature: float = option(1.0, "softmax temperature when sampling; above 0")
    top_p: float = option(1.0, "nucleus: keep the smallest set of tokens with this probability, when sampling")
    repetition_penalty: float = option(2.0, "divides the scores of tokens generated already; 1 is off")
    length_penalty: float = option(2.0, "beam score = log-likelihood / length^penalty: above 1 prefers long reports")
    no_repeat_ngram_size: int = option(0, "forbid repeating n-grams of this size; 0 is off")
    min_new_tokens: int = option(40, "no end symbol before this many tokens")
    max_new_tokens: int = option(100, "the report is cut here")
    guidance: float = option(1.0, "how much more than likelihood the film counts, against the same prompt without it; 1 is off")
    guidance_plausibility: float = option(0.1, "guided tokens have at least this share of the likeliest token's probability")

    def check(self, path: str) -> None:
        if self.num_beams < 1:
            raise UserError(f"{path}.num_beams: {self.num_beams} is below 1; write 1 for greedy search")
        if self.do_sample and not 0 < self.temperature < math.inf:
            raise UserError(f"{path}.temperature: {self.temperature} with do_sample; write a value above 0, or do_sample=false")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens or self.max_new_tokens < 1:
            raise UserError(
                f"{path}: min_new_tokens {self.min_new_tokens} and max_new_tokens {self.max_new_tokens}; write 0 <= min <= max"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"{path}.top_p: {self.top_p}; write a probability above 0, or 1.0 for all tokens")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(f"{path}.repetition_penalty: {self.repetition_penalty}; write 1.0 for none")
        if not math.isfinite(self.length_penalty):
            raise UserError(f"{path}.length_penalty: {self.length_penalty}; write a number, 1.0 for the mean log-likelihood")
        if self.no_repeat_ngram_size < 0:
            raise UserError(f"{path}.no_repeat_ngram_size: {self.no_repeat_ngram_size}; write 0 for off")
        self._check_guidance(path)

    def _check_guidance(self, path: str) -> None:
        if not 0 <= self.guidance < math.inf:
            raise UserError(f"{path}.guidance: {self.guidance}; write 1.0 for none, or a factor such as 1.5")
        if self.guidance != 1 and self.num_beams > 1:
            raise UserError(
                f"{path}.guidance: {self.guidance} with num_beams {self.num_beams}; guidance goes with greedy search and "
                "sampling: write num_beams=1, or guidance=1.0"
            )
        if not 0 <= self.guidance_plausibility <= 1:
            raise UserError(f"{path}.guidance_plausibility: {self.guidance_plausibility}; write a share between 0 and 1")

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
