"""Study → what the model reads of it: prepared films or cached features, those of its prior, and its text."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rrg.batching.collate import Item
from rrg.batching.film_policy import FilmPolicy
from rrg.batching.images import Augmentation, Preprocessing
from rrg.batching.pictures import prepare_pictures
from rrg.batching.priors import Priors, days_since
from rrg.batching.tokenise import Tokeniser, Tokens
from rrg.data.study import Study
from rrg.shards.ledger import Place
from rrg.shards.reader import DamagedSample, ShardSet


class NgramSource(Protocol):
    """What tells the n-grams of a study."""

    def ids(self, study: Study) -> tuple[int, ...]:
        """Places in the n-gram table. Raises UserError where the study has no labels that a model may be given."""


class FeatureSource(Protocol):
    """Cached visual features of one split, in the order of its shards."""

    shape: tuple[int, int]  # tokens a view, width

    def get(self, index: int) -> Tensor:
        """[V, N, D]. Raises DamagedSample where a film could not be read when the cache was made."""


@dataclass(frozen=True)
class Shown:
    """One study as the encoder sees it: `films` [V, 3, S, S], or `features` [V, N, D], or neither, and a kind per view."""

    study: Study
    kinds: tuple[int, ...] = ()
    films: Tensor | None = None
    features: Tensor | None = None


class Films:
    """The studies of one split. `prior`: whether the films of a study's prior are read too, after its own. `ngrams`: what tells
    the n-grams that go with the films of a study; None where the recipe reads none."""

    def __init__(
        self,
        shards: ShardSet,
        preprocessing: Preprocessing | None,
        augmentation: Augmentation,
        cache: FeatureSource | None,
        policy: FilmPolicy,
        seed: int,
        prior: bool = False,
        ngrams: NgramSource | None = None,
    ) -> None:
        self.shards, self._cache, self._policy, self._seed = shards, cache, policy, seed
        self._preprocessing, self._augmentation = preprocessing, augmentation
        self._prior_films = prior and (cache is not None or preprocessing is not None)
        self._ngrams = ngrams
        self._links: Priors | None = None

    def blank(self, tokens: Tokens) -> Item:
        """A study without films or text, for a micro-batch of which nothing could be read."""
        none = None if self._ngrams is None else ()
        if self._cache is not None:
            return Item("", tokens, features=torch.zeros(1, *self._cache.shape), ngrams=none)
        if self._preprocessing is None:
            return Item("", tokens, ngrams=none)
        size = self._preprocessing.size
        return Item("", tokens, films=torch.zeros(1, 3, size, size), ngrams=none)

    def text(self, index: int, tokeniser: Tokeniser) -> tuple[Study, Study | None]:
        """What the tokeniser reads: the study without its films, and its prior where the prompt has a place for it.

        Raises DamagedSample.
        """
        study = self.shards.study(index)
        prior = self._priors.find(study) if tokeniser.reads_prior else None
        return study, None if prior is None else self._of_prior(study, prior, films=False).study

    def prior_of(self, study: Study, tokeniser: Tokeniser) -> str | None:
        """The id of the prior that is read with `study`; None where it has none, or the shards do not hold it."""
        index = self._priors.find(study) if self.reads_prior(tokeniser) else None
        return None if index is None else self.shards.ids[index]

    def reads_prior(self, tokeniser: Tokeniser) -> bool:
        """Whether anything of a study's prior is read: its films, or its report for the prompt."""
        return self._prior_films or tokeniser.reads_prior

    def item(self, place: Place, tokeniser: Tokeniser, *, augment: bool) -> Item:
        """Raises DamagedSample where a member of the study, or of a prior that is read, cannot be read or decoded."""
        own = self._shown(place.index, place, augment, prior=False)
        draw = study_draw(self._seed, place.epoch if augment else None, self._key(place, prior=False))
        tokeniser = tokeniser.drawn(draw, training=augment)
        wanted = self.reads_prior(tokeniser)
        index = self._priors.find(own.study) if wanted else None
        if index is None:
            absent = wanted and own.study.prior is not None
            return self._item(own, None, tokeniser(own.study), draw, prior_absent=absent)
        before = self._of_prior(own.study, index, films=self._prior_films, place=place, augment=augment)
        tokens = tokeniser(own.study, before.study if tokeniser.reads_prior else None)
        return self._item(own, before, tokens, draw)

    def _item(self, own: Shown, prior: Shown | None, tokens: Tokens, draw: int, prior_absent: bool = False) -> Item:
        item = dataclasses.replace(_item(own, prior, tokens, prior_absent), draw=draw)
        return item if self._ngrams is None else dataclasses.replace(item, ngrams=self._ngrams.ids(own.study))

    @property
    def _priors(self) -> Priors:
        if self._links is None:
            self._links = Priors(self.shards)
        return self._links

    def _of_prior(self, study: Study, index: int, *, films: bool, place: Place | None = None, augment: bool = False) -> Shown:
        """The prior of `study`. Damage to it is the loss of the study that it was wanted for: nothing is left out in silence."""
        try:
            if not films or place is None:
                return Shown(self.shards.study(index))
            return self._shown(index, place, augment, prior=True)
        except DamagedSample as damage:
            raise DamagedSample(study.id, *damage.args[1:]) from None

    def _shown(self, index: int, place: Place, augment: bool, *, prior: bool) -> Shown:
        if self._cache is not None:
            study, features = self.shards.study(index), self._cache.get(index)
            kinds = self._policy.kinds(study.views)
            return Shown(study, kinds, features=features[: len(kinds)])
        if self._preprocessing is None:
            return Shown(self.shards.study(index))
        sample = self.shards.read(index)
        films = prepare_pictures(
            sample,
            self.shards.shard_of(index),
            self._policy,
            self._preprocessing,
            self._augmentation if augment else None,
            seed=self._seed,
            epoch=place.epoch,
            key=self._key(place, prior),
            paired=self._augmentation.pair_prior,
        )
        return Shown(sample.study, self._policy.kinds(sample.study.views), films=films)

    def _key(self, place: Place, prior: bool) -> str:
        """What augmentation is seeded by: the study, its repetition in the epoch, and whether the film is its prior's."""
        key = self.shards.ids[place.index] + (f"#{place.occurrence}" if place.occurrence else "")
        return f"{key}/prior" if prior and not self._augmentation.pair_prior else key


def study_draw(seed: int, epoch: int | None, key: str) -> int:
    """What random choices about one study are seeded by: a pure function of seed, epoch (None in evaluation) and study."""
    text = f"{seed}\0{'evaluation' if epoch is None else epoch}\0{key}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _item(own: Shown, prior: Shown | None, tokens: Tokens, prior_absent: bool = False) -> Item:
    kinds, days = own.kinds, (0.0,) * len(own.kinds)
    films, features = own.films, own.features
    if prior is not None:
        kinds, days = kinds + prior.kinds, days + (days_since(own.study),) * len(prior.kinds)
        films = films if films is None or prior.films is None else torch.cat([films, prior.films])
        features = features if features is None or prior.features is None else torch.cat([features, prior.features])
    return Item(own.study.id, tokens, films, features, own.study.labels, kinds, days, prior_absent)
