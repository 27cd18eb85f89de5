"""What a recipe needs to read studies, without the weights of its models: preprocessing, tokenizer, order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rrg.batching.film_policy import FilmPolicy
from rrg.batching.images import Preprocessing
from rrg.batching.tokenise import Tokeniser
from rrg.config.context import BuildContext
from rrg.config.load import Loaded
from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import section_text
from rrg.errors import UserError
from rrg.language.prompts import Prompt
from rrg.recipe import Recipe
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.stages import stage_recipe
from rrg.vision.family import VISION

_TEXTS = 2000  # reports that a recipe's own tokenizer is made from here: enough for its speed


@dataclass(frozen=True)
class Outfit:
    """How the films and reports of `recipe` are prepared. Augmentation is left out: the other ways of reading have none."""

    recipe: Recipe
    preprocessing: Preprocessing
    tokeniser: Tokeniser

    @property
    def batch_size(self) -> int:
        """Studies in a batch: what one process takes in one forward pass."""
        return self.recipe.train.micro_batch_size

    @property
    def policy(self) -> FilmPolicy:
        """The first films of a study in the order of the shard, each by itself: what every way of reading can do."""
        return FilmPolicy("stored", self.recipe.data.max_views)


def outfit_of(loaded: Loaded[Recipe], shards: ShardSet) -> Outfit:
    """Raises UserError where the recipe reads no film, or its encoder's or tokenizer's files are not there."""
    recipe = loaded.value
    if recipe.vision.kind == "none":
        raise UserError("vision.kind: none reads no film, so there is nothing to measure; name a recipe with an encoder")
    prompt = Prompt.parse(recipe.language.whole_prompt)
    if prompt.reads_prior:
        raise UserError("language.prompt: reads the prior's report, which the other ways of reading do not; leave {prior} out")
    encoder = VISION.build(recipe.vision, context=BuildContext(meta=True))
    tokeniser = Tokeniser(
        _tokenizer(loaded, shards),
        prompt,
        section=recipe.data.section,
        cleaning=recipe.data.cleaning,
        max_report_tokens=recipe.language.max_report_tokens,
    )
    return Outfit(recipe, encoder.preprocessing, tokeniser)


def _tokenizer(loaded: Loaded[Recipe], shards: ShardSet) -> Any:
    """The language model's tokenizer. One that training would make from the reports is made from the first of them."""
    options = loaded.value.language
    if options.kind == "small_llama":
        from rrg.language.tokenizer import train_tokenizer

        texts = list(_texts(loaded.value, shards))
        return train_tokenizer(
            options.tokenizer, texts, options.whole_prompt, min_count=options.min_count, vocabulary=options.vocabulary
        )
    if options.name.startswith("stage:"):
        name = options.name.removeprefix("stage:")
        if name not in loaded.value.stages:
            raise UserError(f"language.name: {options.name!r}: the recipe has no stage {name!r}; see `stages:`")
        return _tokenizer(stage_recipe(loaded, name), shards)
    return _pretrained(options.name)


def _texts(recipe: Recipe, shards: ShardSet) -> Iterator[str]:
    for index in range(min(len(shards), _TEXTS)):
        with contextlib.suppress(DamagedSample):
            yield CLEANINGS[recipe.data.cleaning](section_text(shards.study(index).sections, recipe.data.section))


def _pretrained(name: str) -> Any:
    from transformers import AutoTokenizer

    from rrg.language.embedded import resolve_language

    try:
        return AutoTokenizer.from_pretrained(resolve_language(name))
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"language.name: the tokenizer of {name!r} cannot be loaded ({reason}); write a local folder or "
            "language.name=embedded:smollm2-135m, or leave --recipe out"
        ) from None
