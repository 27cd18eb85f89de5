"""What is refused before the first step, because of how a batch would be dealt."""

import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.train.dealing import check_dealing


def recipe(batch, micro, gather=True):
    aligned = ["connector.kind=cmeaa", "connector.enhance=false", "objectives.mine.weight=0.1"]
    sizes = [f"train.batch_size={batch}", f"train.micro_batch_size={micro}", f"objectives.mine.gather={gather}"]
    return load_recipe("tiny/r2gengpt_iu", [*aligned, *sizes]).value


@pytest.mark.parametrize(
    "batch,micro,world,gather", [(8, 8, 1, True), (8, 1, 8, True), (8, 2, 4, False), (5, 5, 1, False), (6, 2, 3, False)]
)
def test_micro_batches_with_a_pair_are_dealt(batch, micro, world, gather):
    check_dealing(recipe(batch, micro, gather), world)


@pytest.mark.parametrize(
    "batch,micro,world,gather", [(8, 1, 1, True), (1, 1, 1, False), (8, 1, 8, False), (5, 2, 1, True), (3, 2, 2, False)]
)
def test_a_micro_batch_of_one_study_has_nothing_to_compare(batch, micro, world, gather):
    with pytest.raises(UserError, match=r"objectives\.mine: compares the studies of a micro-batch; train\.batch_size"):
        check_dealing(recipe(batch, micro, gather), world)


def test_without_such_an_objective_one_study_is_enough_and_empty_micro_batches_are_refused():
    plain = load_recipe("tiny/r2gengpt_iu", ["train.batch_size=2", "train.micro_batch_size=1"]).value
    check_dealing(plain, 2)
    with pytest.raises(UserError, match=r"train\.batch_size 2 cannot be dealt to 3 ranks"):
        check_dealing(plain, 3)
