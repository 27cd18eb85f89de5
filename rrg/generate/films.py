"""Whose films a report is written from: the study's own, or, as controls, another study's or none."""

from __future__ import annotations

import dataclasses

import torch

from rrg.batching.collate import Item
from rrg.batching.feed import Films
from rrg.batching.tokenise import Tokeniser
from rrg.errors import UserError, nearest
from rrg.shards.ledger import Place
from rrg.shards.order import epoch_order
from rrg.shards.reader import DamagedSample

FILMS = ("own", "shuffled", "blank")


class ShuffledFilms(Films):
    """Every study is shown the films of another one (and of that one's prior, where priors are read): a seeded cyclic shift of a
    shuffled order, so that none keeps its own. Text is the study's own; n-grams, which stand for what is on the films, go with
    them."""

    def __init__(self, films: Films, seed: int) -> None:
        self.__dict__.update(vars(films))
        total = len(films.shards)
        if total < 2:
            raise UserError("films=shuffled: a split of one study has no other study's films")
        order = epoch_order([total], seed, 0, total)
        self._donor = dict(zip(order.tolist(), [*order[1:].tolist(), int(order[0])], strict=True))

    def item(self, place: Place, tokeniser: Tokeniser, *, augment: bool) -> Item:
        study, prior = self.text(place.index, tokeniser)
        try:
            donor = super().item(Place(place.epoch, self._donor[place.index], place.occurrence), tokeniser, augment=augment)
        except DamagedSample as damage:  # it is this study that goes without a report
            raise DamagedSample(study.id, *damage.args[1:]) from None
        return dataclasses.replace(donor, study=study.id, tokens=tokeniser(study, prior), labels={})


class BlankFilms(Films):
    """Every film is uniformly the training mean (zero after normalisation), and no n-gram goes with it."""

    def __init__(self, films: Films) -> None:
        self.__dict__.update(vars(films))

    def item(self, place: Place, tokeniser: Tokeniser, *, augment: bool) -> Item:
        own = super().item(place, tokeniser, augment=augment)
        if own.films is None:
            raise UserError("films=blank: needs films, and this recipe reads cached features; generate with vision.cache=''")
        none = None if own.ngrams is None else ()
        return dataclasses.replace(own, films=torch.zeros_like(own.films), labels={}, ngrams=none)


def substituted(films: Films, which: str, seed: int) -> Films:
    """`films` as they are, or replaced by a control. Raises UserError for an unknown word."""
    if which not in FILMS:
        raise UserError(f"films {which!r}: {nearest(which, FILMS)}")
    if which == "own":
        return films
    return ShuffledFilms(films, seed) if which == "shuffled" else BlankFilms(films)
