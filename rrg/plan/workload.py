"""What one micro-batch on one GPU consists of: how many studies, films and tokens."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from rrg.errors import UserError
from rrg.language.prompts import Prompt
from rrg.recipe import Recipe

PIECES_A_WORD = 1.3  # sub-word pieces per word or mark of English text, Llama's tokenizer
FIELD_PIECES = 24  # a study's field in the prompt (indication, comparison)
NGRAMS = 24  # n-grams of a study, where the recipe reads any


@dataclass(frozen=True)
class Workload:
    """Lengths in tokens, of one study. `report` is the longest, to which a micro-batch may be padded."""

    studies: int
    views: int
    side: int
    visual: int
    prefix: int
    before: int
    after: int
    report: int
    ngrams: int

    @property
    def start(self) -> int:
        """Tokens before the report: begin symbol, prompt and prefix."""
        return 1 + self.before + self.prefix + self.after

    @property
    def sequence(self) -> int:
        return self.start + self.report

    @property
    def tokens(self) -> int:
        """Tokens of the micro-batch in the language model."""
        return self.studies * self.sequence

    @property
    def rows(self) -> int:
        """Label rows of the micro-batch."""
        return self.studies * self.report

    def of(self, studies: int) -> Workload:
        """The same with another number of studies."""
        return dataclasses.replace(self, studies=studies)


def workload(recipe: Recipe, model: Any, *, report_tokens: int | None = None, prompt: tuple[int, int] | None = None) -> Workload:
    """Of the recipe's micro-batch. `prompt` gives the tokens before and after the image slot; without it they are estimated.

    Raises:
        UserError: `report_tokens` is not between 1 and language.max_report_tokens.
    """
    longest = recipe.language.max_report_tokens
    if report_tokens is not None and not 1 <= report_tokens <= longest:
        raise UserError(
            f"--report-tokens {report_tokens}: reports are cut at language.max_report_tokens {longest}; write 1 to {longest}"
        )
    vision = model.vision
    views = 0 if vision is None else 1 if recipe.data.stitch else recipe.data.max_views
    shown = views * (2 if recipe.data.prior == "films" else 1)
    visual = 0 if vision is None else vision.tokens
    before, after = prompt or _estimated_prompt(recipe)
    return Workload(
        studies=recipe.train.micro_batch_size,
        views=shown,
        side=0 if vision is None else vision.preprocessing.size,
        visual=visual,
        prefix=_prefix(recipe, visual, shown),
        before=before,
        after=after,
        report=report_tokens or longest,
        ngrams=NGRAMS if recipe.reads_ngrams else 0,
    )


def _prefix(recipe: Recipe, visual: int, views: int) -> int:
    options = recipe.connector
    if options.kind == "none":
        return 0
    if options.kind == "words":
        return int(options.slots)
    if getattr(options, "views", "mean") == "concat":
        return visual * views
    return visual * (2 if recipe.data.prior == "films" else 1)


def _estimated_prompt(recipe: Recipe) -> tuple[int, int]:
    prompt = Prompt.parse(recipe.language.whole_prompt)
    return _pieces(prompt.before, recipe), _pieces(prompt.after, recipe)


def _pieces(text: str, recipe: Recipe) -> int:
    fields = re.findall(r"(?<!\{)\{(\w+)\}(?!\})", text)
    plain = re.sub(r"(?<!\{)\{\w+\}(?!\})", "", text)
    words = re.findall(r"\w+|[^\w\s]", plain)
    prior = recipe.language.max_report_tokens
    return math.ceil(PIECES_A_WORD * len(words)) + sum(prior if field == "prior" else FIELD_PIECES for field in fields)
