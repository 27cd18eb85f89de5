"""Vectors of a split in parts: a process may have no study, or none that can be read."""

import numpy as np
import pytest
import torch

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from rrg.train.vectors import evaluation_films, joined, pair_vectors
from tests.damage import damaged_copy

CPU = torch.device("cpu")


def test_parts_of_more_processes_than_studies_are_those_of_one(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0001.json")
    words = [f"data.shards={shards}", "data.section=findings", "data.workers=0", "train.micro_batch_size=1"]
    recipe = load_recipe("tiny/alta_mimic", [*words, "score.protocol=r2gen_iu"]).value
    split = open_split(recipe, "train")
    system = System.build(recipe, None, split)
    films = evaluation_films(system, split)
    whole = joined([pair_vectors(system, films, [0, 1, 2], CPU)], split)
    parts = [pair_vectors(system, films, own, CPU) for own in ([2], [1], [], [0])]
    together = joined(parts, split)
    assert together.ids == whole.ids == (split.ids[0], split.ids[2])
    assert [damage.study for damage in together.damaged] == [damage.study for damage in whole.damaged] == [split.ids[1]]
    np.testing.assert_array_equal(together.similarity, whole.similarity)
    with pytest.raises(UserError, match=r"split 'train' of .*: no study could be read"):
        joined(parts[1:3], split)
