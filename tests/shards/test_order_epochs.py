"""Every study exactly once per epoch through the loader itself, whatever the ranks and workers; and how good the order is."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain

import numpy as np
import pytest

from rrg.batching.feed import StepFeed, shares
from rrg.batching.film_policy import FilmPolicy
from rrg.batching.films import Films
from rrg.batching.images import Augmentation, Preprocessing
from rrg.batching.tokenise import Tokeniser
from rrg.bench.order import OPEN_SHARDS, _opens, ledger_orders, order_quality, spearman, uniform_orders
from rrg.language.prompts import Prompt
from rrg.language.tokenizer import train_tokenizer
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.shards.reader import ShardSet
from rrg.train.repeats import repeats as repeats_of
from tests.synthetic import write_shards

STUDIES, EPOCHS = 35, 3
WORKERS = 5  # numbers of loader processes: 0 to 4
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """35 training studies in shards of 6: 26 of them with a positive finding."""
    return ShardSet(write_shards(tmp_path_factory.mktemp("odd"), (STUDIES, 1, 1), per_shard=6), "train")


@pytest.fixture(scope="module")
def tokeniser():
    made = train_tokenizer("word", ["the lungs are clear ."], "report :", min_count=1, vocabulary=0)
    return Tokeniser(made, Prompt.parse("{image} report :"), section="findings", cleaning="clean_iu", max_report_tokens=60)


def feed(shards, tokeniser, batch, rank, world, repeats=None):
    films = Films(shards, Preprocessing(8), Augmentation(), None, FilmPolicy(most=2), 5)
    ledger = Ledger(shards.shard_sizes, 5, 11, repeats)
    return StepFeed(films, tokeniser, ledger, batch_size=batch, micro_batch=4, rank=rank, world=world, section="findings")


def turns(world):
    """Loader processes by rank, in turns, until every rank's number was every one of 0 to 4 (RRG_ORDER=all), or until every
    number was met (each rank reads by itself, so ranks may differ)."""
    if os.environ.get("RRG_ORDER") == "all":
        return [[workers] * world for workers in range(WORKERS)]
    return [[(first + rank) % WORKERS for rank in range(world)] for first in range(0, WORKERS, world)]


def read(shards, tokeniser, batch, world, workers, repeats=None):
    """Study ids by step, as the ranks together read three epochs, `workers[rank]` processes each; and by rank and micro-batch."""
    positions = EPOCHS * (STUDIES if repeats is None else int(repeats.sum()))
    assert positions % batch == 0 and (positions // EPOCHS) % batch, "steps straddle epochs, and end with the last"
    steps: list[list[str]] = [[] for _ in range(positions // batch)]
    dealt = []
    for rank in range(world):
        mine = feed(shards, tokeniser, batch, rank, world, repeats)
        got = list(shares(mine, range(len(steps)), workers=workers[rank], prefetch=2))
        assert [share.number for share in got] == list(range(len(steps))) and not any(share.damaged for share in got)
        for step, share in zip(steps, got, strict=True):
            step += chain.from_iterable(micro.studies for micro in share.batches)
        dealt.append([[micro.studies for micro in share.batches] for share in got])
    return steps, dealt


def check_epochs(steps, expected):
    """After any number of positions a study was read between (whole epochs) and (epochs begun) times its number per epoch;
    at the end, exactly as often as three epochs hold it."""
    length, seen, positions = sum(expected.values()), Counter(), 0
    for step in steps:
        seen.update(step)
        positions += len(step)
        whole, begun = positions // length, -(-positions // length)
        assert all(whole * times <= seen[study] <= begun * times for study, times in expected.items())
    assert seen == {study: EPOCHS * times for study, times in expected.items()}


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_every_study_once_per_epoch_for_any_ranks_and_workers(odd, tokeniser, world):
    """A batch of 15 does not divide 35 studies: of seven steps, two straddle epochs."""
    alone, dealt = read(odd, tokeniser, 15, world, [0] * world)
    check_epochs(alone, dict.fromkeys(odd.ids, 1))
    for workers in turns(world):
        assert read(odd, tokeniser, 15, world, workers) == (alone, dealt)
    single, _ = read(odd, tokeniser, 15, 1, [0])
    assert [sorted(step) for step in alone] == [sorted(step) for step in single]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_positive_studies_as_often_as_the_recipe_says(odd, tokeniser, world):
    overrides = ["data.positive_repeats=3", f"data.shards={odd.root}"]
    repeats = repeats_of(odd, load_recipe("tiny/r2gengpt_iu", overrides).value)
    assert Counter(repeats.tolist()) == {1: 9, 3: 26}
    expected = dict(zip(odd.ids, repeats.tolist(), strict=True))
    for workers in turns(world):
        steps, _ = read(odd, tokeniser, 9, world, workers, repeats)
        check_epochs(steps, expected)


def mimic_sizes():
    """The training split of MIMIC-CXR: 222,758 studies in shards of 256, the last one short."""
    return [256] * 870 + [38]


def test_the_order_of_a_large_split_reads_near_sequentially_and_shuffles_well():
    sizes = mimic_sizes()
    ours = order_quality(ledger_orders(Ledger(sizes, 42), EPOCHS), sizes, 1024)
    uniform = order_quality(uniform_orders(sum(sizes), EPOCHS, 42), sizes, 1024)
    assert ours.sequential > 0.995 and ours.opens < 1.01
    assert uniform.sequential < 0.1 and uniform.opens > 200
    assert ours.shards_a_batch < 2 * 4096 / 256 + 2 < uniform.shards_a_batch
    # Whole shards are dealt at random: a correlation has the standard deviation 1/sqrt(870), and three or six are looked at.
    assert ours.expected == pytest.approx(1 / np.sqrt(870))
    assert ours.position_index < 3.5 * ours.expected and ours.between_epochs < 3.5 * ours.expected
    assert ours.neighbours < 2 / 4096


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_those_of_chance_for_any_seed(seed):
    sizes = [64] * 200 + [7]
    quality = order_quality(ledger_orders(Ledger(sizes, seed, 512), 4), sizes, 64)
    assert quality.position_index < 4 * quality.expected and quality.between_epochs < 4 * quality.expected
    assert quality.sequential > 0.98 and quality.neighbours < 0.01


def test_measures_on_orders_that_are_known():
    sizes = [10] * 100
    straight = [np.arange(1000), np.arange(1000)]
    quality = order_quality(straight, sizes, 10)
    assert quality.position_index == pytest.approx(1) and quality.between_epochs == pytest.approx(1)
    assert quality.neighbours == 1 and quality.opens == 1 and quality.sequential == 0.9 and quality.shards_a_batch == 1
    back = order_quality([np.arange(1000)[::-1], np.arange(1000)], sizes, 1000)
    assert back.position_index == pytest.approx(1) and back.between_epochs == pytest.approx(1) and back.neighbours == 0.5
    repeated = order_quality([np.repeat(np.arange(0, 1000, 2), 3)], sizes, 10)
    assert repeated.position_index == pytest.approx(1) and repeated.neighbours == 0 and repeated.between_epochs == 0
    assert (
        spearman(np.array([3, 1, 2]), np.array([30, 10, 20])) == pytest.approx(1) and spearman(np.array([1]), np.array([1])) == 0
    )


def test_opens_counts_shards_that_fell_out_of_the_last_ones():
    assert _opens(np.array([0, 0, 1, 0, 1])) == 2
    assert _opens(np.arange(OPEN_SHARDS).repeat(2)) == OPEN_SHARDS
    assert _opens(np.concatenate([np.arange(OPEN_SHARDS + 1), [0], [OPEN_SHARDS]])) == OPEN_SHARDS + 2
