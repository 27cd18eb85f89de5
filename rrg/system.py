"""A recipe brought to life: the model with what it needs to read studies. Training and generation both start here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrg.batching.films import Films
from rrg.batching.report_text import ReportReader
from rrg.batching.tokenise import Tokeniser, words_of
from rrg.config.context import BuildContext
from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import section_text
from rrg.errors import UserError
from rrg.language.prompts import Prompt
from rrg.model import build_model
from rrg.observations.study_ngrams import StudyNgrams
from rrg.recipe import Recipe
from rrg.shards.reader import DamagedSample, ShardSet
from rrg.vision.feature_cache import FeatureCache
from rrg.vision.feature_store import FeatureStore


def open_split(recipe: Recipe, split: str) -> ShardSet:
    """The studies of one split. Raises UserError where shards are not named or not whole, or no study has the section."""
    if not recipe.data.shards:
        raise UserError("data.shards: empty; name the folder that `rrg prepare` wrote, for example data.shards=shards/iu")
    shards = ShardSet(recipe.data.shards, split, recipe.data.reading)
    check_cache(shards, recipe.data.window)
    if not with_text(shards, recipe).any():
        raise UserError(f"data.section: no study of {split!r} in {recipe.data.shards} has any text in {recipe.data.section!r}")
    return shards


def with_text(shards: ShardSet, recipe: Recipe) -> np.ndarray:
    """[N] bool: the studies that have any text in the recipe's section."""
    return np.any([shards.words(section) > 0 for section in words_of(recipe.data.section)], axis=0)


def in_share(shards: ShardSet, recipe: Recipe) -> np.ndarray:
    """[N] bool: the studies of `data.train_share`, at least one. Chosen by study id and seed, whatever shards they lie in; those
    of a smaller share are among those of a larger one."""
    chosen = np.ones(len(shards), dtype=bool)
    if recipe.data.train_share < 1:
        keys = [hashlib.sha256(f"{recipe.seed}:{study}".encode()).digest() for study in shards.ids]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        chosen[order[max(1, round(recipe.data.train_share * len(keys))) :]] = False
    return chosen


def check_cache(shards: ShardSet, window: int) -> None:
    """Raise UserError for a cache in which shuffled reading would evict blocks before they are used up."""
    reading, held = shards.reading, sum(shard.bytes for shard in shards.manifest.of_split(shards.split))
    if "://" not in shards.root or reading is None or not reading.cache_bytes:
        return
    wanted = min(held, round(2 * window * held / len(shards)))  # the windows on either side of an edge
    if reading.cache_bytes < wanted:
        raise UserError(
            f"data.cache_gb: {reading.cache_bytes / 1e9:g} holds less than the {wanted / 1e9:.3g} GB that two windows of "
            f"{window} studies of {shards.split!r} span, so most would be fetched again and again: write at least "
            f"{wanted / 1e9:.3g}, a smaller data.window, or 0 to ask for each study alone"
        )


def study_ngrams(recipe: Recipe) -> StudyNgrams | None:
    """What tells the n-grams of a study; None where the recipe reads none. Raises UserError where there is no such table."""
    return StudyNgrams(recipe.observations, recipe.data.section) if recipe.reads_ngrams else None


def check_inputs(recipe: Recipe, splits: Sequence[str]) -> None:
    """Whether the studies of `splits` have what the recipe reads beside the shards. Raises UserError where they have not: before
    features are computed and stages are trained."""
    ngrams = study_ngrams(recipe)
    if ngrams is not None:
        for split in splits:
            ngrams.check(open_split(recipe, split), recipe.data.damage_budget)


def _texts(shards: ShardSet, recipe: Recipe) -> list[str]:
    """The cleaned target texts of the training split, of the share that is trained on. Studies that cannot be read are left out:
    training counts them when it meets them."""
    texts, clean = [], CLEANINGS[recipe.data.cleaning]
    for index in np.flatnonzero(in_share(shards, recipe)).tolist():
        with contextlib.suppress(DamagedSample):
            texts.append(clean(section_text(shards.study(index).sections, recipe.data.section)))
    return texts


def _tokeniser(model: Any, recipe: Recipe) -> Any:
    """What turns a study into the ids that the language part reads."""
    data, language = recipe.data, recipe.language
    settings = {"section": data.section, "cleaning": data.cleaning, "max_report_tokens": language.max_report_tokens}
    if not recipe.writes:
        return ReportReader(model.language.tokenizer, shuffle=language.shuffle_sentences, share=language.masked, **settings)
    return Tokeniser(model.language.tokenizer, Prompt.parse(language.whole_prompt), **settings)


@dataclass
class System:
    """`root` is the run directory of the recipe, or of the recipe that a stage belongs to: tokenizers and stages live there."""

    recipe: Recipe
    model: Any  # a ReportGenerator, or TwoTowers
    tokeniser: Any  # a Tokeniser, or a ReportReader
    root: Path | None
    ngrams: StudyNgrams | None = None

    @classmethod
    def build(cls, recipe: Recipe, root: Path | None, train: ShardSet | None) -> System:
        """Seeded: equal recipes give equal initial weights. `train` gives the texts that a tokenizer may be made from."""

        texts = None if train is None else functools.partial(_texts, train, recipe)
        ngrams = study_ngrams(recipe)
        context = BuildContext(run=root, train_texts=texts, ngrams=None if ngrams is None else ngrams.table.ngrams)
        torch.manual_seed(recipe.seed)
        model = build_model(recipe, context)
        return cls(recipe, model, _tokeniser(model, recipe), root, ngrams)

    @functools.cached_property
    def _store(self) -> FeatureStore:
        recipe = self.recipe
        arguments = (recipe.vision.cache, recipe.data.shards, recipe.train.precision, recipe.data.films)
        return FeatureStore(self.model.vision, *arguments)

    @property
    def caches(self) -> bool:
        """Whether this recipe reads cached features instead of films."""
        return bool(getattr(self.recipe.vision, "cache", ""))

    def build_features(
        self,
        shards: ShardSet,
        *,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compute what the feature cache lacks for `shards`: this rank's part. All ranks must be done before one reads."""
        self._store.build(shards, device=device, rank=rank, world=world, progress=progress)

    def features(self, shards: ShardSet) -> FeatureCache:
        """The finished cache of one split. Raises UserError where it is not finished, or another encoder's."""
        return self._store.open(shards)

    def films(self, shards: ShardSet, cache: FeatureCache | None = None) -> Films:
        """What the vision part reads from `shards`, with the n-grams; `cache` holds the features of that split.

        Raises UserError where the recipe reads n-grams and studies lack the labels that tell which.
        """
        if self.ngrams is not None:
            self.ngrams.check(shards, self.recipe.data.damage_budget)
        vision = self.model.vision
        return Films(
            shards,
            None if vision is None else vision.preprocessing,
            self.recipe.augment.augmentation(),
            cache,
            self.recipe.data.films,
            seed=self.recipe.seed,
            prior=self.recipe.data.prior == "films",
            ngrams=self.ngrams,
        )
