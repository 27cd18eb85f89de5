"""Controls: films of another study, or none."""

import copy

import pytest
import torch

from rrg.batching.feed import SplitFeed
from rrg.data.study import Study
from rrg.errors import UserError
from rrg.generate.films import BlankFilms, ShuffledFilms, substituted
from rrg.recipe import load_recipe
from rrg.shards.ledger import Place
from rrg.system import System, open_split
from tests.damage import damaged_copy


@pytest.fixture(scope="module")
def system(drawn_shards):
    overrides = [f"data.shards={drawn_shards}", "data.workers=0", "language.prompt='given {indication} see {image} :'"]
    recipe = load_recipe("tiny/r2gengpt_iu", overrides).value
    return System.build(recipe, None, open_split(recipe, "train"))


@pytest.fixture(scope="module")
def films(system):
    return system.films(open_split(system.recipe, "train"))


def item(films, system, index):
    return films.item(Place(0, index, 0), system.tokeniser, augment=False)


class Many:
    """As many studies as asked for, to look at who gives films to whom."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count


@pytest.mark.parametrize("count", [2, 3, 4, 24, 1000])
@pytest.mark.parametrize("seed", [0, 42])
def test_no_study_keeps_its_own_films_and_every_film_is_used_once(films, count, seed):
    many = copy.copy(films)
    many.shards = Many(count)
    donor = ShuffledFilms(many, seed)._donor
    assert sorted(donor) == sorted(donor.values()) == list(range(count))
    assert all(study != giver for study, giver in donor.items())


def test_shuffled_films_are_the_donors_and_everything_else_is_the_studys_own(films, system):
    shuffled = substituted(films, "shuffled", 7)
    for index in range(6):
        got, own, donor = item(shuffled, system, index), item(films, system, index), item(films, system, shuffled._donor[index])
        assert (got.study, got.tokens) == (own.study, own.tokens) and got.study != donor.study
        assert torch.equal(got.films, donor.films)
    assert substituted(films, "shuffled", 7)._donor == shuffled._donor != substituted(films, "shuffled", 8)._donor


def test_blank_films_are_the_training_mean_and_keep_the_number_of_views(films, system):
    blank = substituted(films, "blank", 0)
    assert isinstance(blank, BlankFilms)
    for index in (0, 1):
        got, own = item(blank, system, index), item(films, system, index)
        assert got.films.shape == own.films.shape and not got.films.any() and got.tokens == own.tokens


def test_own_films_are_themselves_and_other_words_are_refused(films):
    assert substituted(films, "own", 0) is films
    with pytest.raises(UserError, match="did you mean 'shuffled'"):
        substituted(films, "shufled", 0)
    alone = copy.copy(films)
    alone.shards = Many(1)
    with pytest.raises(UserError, match="split of one study"):
        ShuffledFilms(alone, 0)


def test_a_donor_that_cannot_be_read_is_the_loss_of_the_study_it_was_for(drawn_shards, system, tmp_path):
    """Otherwise the study would have no report and nobody would know why."""
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0003.0.jpg")
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}"]).value
    shuffled = substituted(system.films(open_split(recipe, "train")), "shuffled", 7)
    (receiver,) = (study for study, giver in shuffled._donor.items() if giver == 3)
    share = SplitFeed(shuffled, system.tokeniser, [[receiver, 3]])[0]
    assert [(d.study, d.member) for d in share.damaged] == [(f"S{receiver:04d}", "S0003.0.jpg")]
    assert share.batches[0].studies == ["S0003"], "its own films are not needed for its report"
    assert isinstance(shuffled.shards.study(3), Study)
