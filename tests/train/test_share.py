"""`data.train_share`: which studies a learning curve trains on."""

import dataclasses
import itertools

import numpy as np
import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.system import System, in_share, open_split
from rrg.train.repeats import left_out, repeats
from tests.ngram_inputs import rewritten
from tests.synthetic import write_shards


def recipe(shards, share, *overrides):
    return load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}", f"data.train_share={share}", *overrides]).value


def chosen(shards, share, *overrides):
    split = open_split(recipe(shards, share, *overrides), "train")
    return {split.ids[i] for i in np.flatnonzero(in_share(split, recipe(shards, share, *overrides)))}


def test_shares_are_exact_nested_and_of_their_seed(drawn_shards, tmp_path):
    curve = [chosen(drawn_shards, share) for share in (0.01, 0.25, 0.5, 1.0)]
    assert [len(studies) for studies in curve] == [1, 6, 12, 24]
    assert all(small < large for small, large in itertools.pairwise(curve))
    assert chosen(drawn_shards, 0.5, "seed=7") != curve[2]
    assert chosen(write_shards(tmp_path, per_shard=5), 0.5) == curve[2], "whatever shards they lie in"


def test_an_epoch_is_of_the_share_alone_and_so_is_a_vocabulary(drawn_shards, tmp_path):
    few = recipe(drawn_shards, 0.25, "data.positive_repeats=2")
    split = open_split(few, "train")
    times = repeats(split, few)
    assert {split.ids[i] for i in np.flatnonzero(times)} == chosen(drawn_shards, 0.25)
    assert Ledger(split.shard_sizes, 42, 64, times).epoch_length == times.sum() > 6
    assert repeats(split, recipe(drawn_shards, 1.0)) is None

    def numbered(study):
        return dataclasses.replace(study, sections=dataclasses.replace(study.sections, findings=f"word{study.id}"))

    told = recipe(rewritten(drawn_shards, tmp_path, numbered), 0.25, "language.min_count=1")
    words = System.build(told, None, open_split(told, "train")).tokeniser._tokenizer.get_vocab()
    assert {word.removeprefix("word").upper() for word in words if word.startswith("word")} == chosen(told.data.shards, 0.25)


def test_a_share_without_text_is_refused(drawn_shards, tmp_path):
    kept = chosen(drawn_shards, 0.01)

    def silent(study):
        empty = dataclasses.replace(study.sections, findings="")
        return dataclasses.replace(study, sections=empty) if study.id in kept else study

    bare = recipe(rewritten(drawn_shards, tmp_path, silent), 0.01, "data.empty_reports=leave_out")
    split = open_split(bare, "train")
    assert left_out(split, bare) == 1
    with pytest.raises(UserError, match=r"data\.train_share: 0\.01 leaves no study with text"):
        repeats(split, bare)
