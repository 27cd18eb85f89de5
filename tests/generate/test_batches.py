"""Which batches a process writes: those of the split, whoever writes them and whatever is done."""

import pytest

from rrg.generate.engine import own_batches
from rrg.generate.worklist import WorkList
from rrg.recipe import load_recipe
from rrg.system import System, open_split


@pytest.fixture(scope="module")
def built(drawn_shards):
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={drawn_shards}", "language.prompt='{indication} {image} :'"]).value
    system = System.build(recipe, None, open_split(recipe, "train"))
    return system, system.films(open_split(recipe, "train"))


def row(films, index):
    return {"study": films.shards.ids[index], "generated": ""}


@pytest.mark.parametrize("world", [1, 2, 3, 20])
def test_batches_do_not_depend_on_processes_or_on_what_is_done(built, tmp_path, world):
    system, films = built
    work = WorkList(tmp_path / "train.jsonl", films.shards.ids, {})

    def of_all():
        return [own_batches(films, system.tokeniser, work, 4, rank, world) for rank in range(world)]

    (whole,) = [own_batches(films, system.tokeniser, work, 4, 0, 1)]
    assert of_all() == [whole[rank::world] for rank in range(world)]
    work.append(0, [row(films, index) for index in [*whole[1], *whole[3][:2]]])  # a batch, and of another a torn part
    left = [batch for batch in whole if batch != whole[1]]
    assert sorted(batch for share in of_all() for batch in share) == sorted(left)


def test_a_part_of_the_split_is_read_by_its_own_places(built, tmp_path):
    """Where studies without a report are left out of a validation, places in the list are not places in the split."""
    system, films = built
    work = WorkList(tmp_path / "val.jsonl", [films.shards.ids[index] for index in (2, 7, 11)], {})
    (first, second) = own_batches(films, system.tokeniser, work, 2, 0, 1)
    assert sorted([*first, *second]) == [2, 7, 11]
