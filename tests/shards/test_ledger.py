"""One integer says where training is; every study exactly once per epoch whatever the ranks."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.errors import UserError
from rrg.shards.ledger import Ledger, Place, deal
from rrg.shards.order import epoch_order


def test_span_is_the_epochs_one_after_another():
    ledger = Ledger([3, 4, 3], seed=5)
    expected = [Place(e, int(i), 0) for e in range(3) for i in epoch_order([3, 4, 3], 5, e)]
    assert ledger.span(0, 30) == expected
    assert ledger.span(7, 17) == expected[7:24]
    assert [ledger.locate(p) for p in range(30)] == expected
    assert ledger.span(3, 0) == []
    assert ledger.epoch_length == 10


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    st.integers(0, 5),
    st.integers(1, 40),
    st.lists(st.integers(1, 30), max_size=12),
)
def test_any_cutting_of_the_stream_gives_the_same_samples(shard_sizes, seed, window, cuts):
    whole = Ledger(shard_sizes, seed, window).span(0, sum(cuts))
    ledger = Ledger(shard_sizes, seed, window)
    starts = np.cumsum([0, *cuts])
    parts = [ledger.span(int(s), c) for s, c in zip(starts, cuts, strict=False)]
    assert list(chain.from_iterable(parts)) == whole


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=5).flatmap(
        lambda sizes: st.tuples(st.just(sizes), st.lists(st.integers(0, 4), min_size=sum(sizes), max_size=sum(sizes)).filter(any))
    ),
    st.integers(1, 50),
)
def test_repeats_hold_in_every_epoch(sizes_and_repeats, window):
    sizes, repeats = sizes_and_repeats
    ledger = Ledger(sizes, 2, window, np.array(repeats))
    assert ledger.epoch_length == sum(repeats)
    for epoch in range(3):
        places = ledger.span(epoch * sum(repeats), sum(repeats))
        assert {p.epoch for p in places} == {epoch}
        assert sorted((p.index, p.occurrence) for p in places) == [(i, k) for i, n in enumerate(repeats) for k in range(n)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_study_once_per_epoch_for_any_number_of_ranks(ranks):
    """Three epochs in global batches of 24: what the ranks hold together is the ledger's stream, step by step."""
    sizes, batch = [20, 30, 14], 24
    lengths = np.random.default_rng(0).integers(10, 200, sum(sizes))
    seen: Counter[tuple[int, int]] = Counter()
    for step in range(3 * sum(sizes) // batch):
        places = Ledger(sizes, 11, 16).span(step * batch, batch)
        dealt = deal([int(lengths[p.index]) for p in places], ranks, micro_batch=2)
        mine = [places[i] for rank in dealt for micro in rank for i in micro]
        assert sorted(mine, key=repr) == sorted(places, key=repr)
        seen.update((p.epoch, p.index) for p in mine)
    assert seen == Counter({(e, i): 1 for e in range(3) for i in range(sum(sizes))})


def test_changing_ranks_midway_changes_nothing():
    stream = Ledger([9, 8], 3).span(0, 60)
    resumed = Ledger([9, 8], 3)
    assert resumed.span(0, 25) + resumed.span(25, 12) + Ledger([9, 8], 3).span(37, 23) == stream


@pytest.mark.parametrize("repeats", [np.zeros(3, int), np.array([], int)])
def test_refuses_an_empty_epoch(repeats):
    with pytest.raises(UserError, match="no study"):
        Ledger([len(repeats)], 0, repeats=repeats)


@pytest.mark.parametrize("repeats", [np.array([1, 2]), np.array([1.0, 1, 1]), np.array([1, -1, 1])])
def test_refuses_repeats_that_do_not_fit(repeats):
    with pytest.raises(ValueError, match="repeats"):
        Ledger([3], 0, repeats=repeats)


def test_refuses_negative_positions():
    with pytest.raises(ValueError, match="count from 0"):
        Ledger([3], 0).span(-1, 2)


batches = st.lists(st.integers(0, 500), min_size=1, max_size=120)


@given(batches, st.integers(1, 9), st.integers(1, 9))
def test_deal_properties(lengths, ranks, micro_batch):
    total = len(lengths)
    micros = -(-(-(-total // ranks)) // micro_batch)  # noqa: B002 (two ceilings)
    if total < ranks * micros:
        with pytest.raises(UserError, match=r"train\.batch_size"):
            deal(lengths, ranks, micro_batch)
        return
    dealt = deal(lengths, ranks, micro_batch)
    assert dealt == deal(tuple(lengths), ranks, micro_batch)
    assert sorted(i for rank in dealt for micro in rank for i in micro) == list(range(total))
    assert {len(rank) for rank in dealt} == {micros}
    held = [sum(map(len, rank)) for rank in dealt]
    assert max(held) - min(held) <= 1
    cells = [len(micro) for rank in dealt for micro in rank]
    assert max(cells) <= micro_batch
    assert max(cells) - min(cells) <= 1
    groups = sorted(
        ((min(values), max(values)) for rank in dealt for micro in rank for values in [[lengths[i] for i in micro]]),
        reverse=True,
    )
    for longer, shorter in pairwise(groups):
        assert longer[0] >= shorter[1] or longer == shorter or longer[0] == shorter[0]  # neighbours: ranges do not cross


def test_deal_pads_less_than_the_order_given_and_balances_the_ranks():
    """What counts is the slowest rank: the sum over its micro-batches of longest sample x samples."""
    rng = np.random.default_rng(1)
    slowest, slowest_plain = 0, 0
    for _ in range(20):
        lengths = rng.lognormal(4, 0.6, 256).astype(int).tolist()
        dealt = deal(lengths, ranks=8, micro_batch=4)
        cost = [sum(len(m) * max(lengths[i] for i in m) for m in rank) for rank in dealt]
        plain = [sum(4 * max(lengths[i : i + 4]) for i in range(first, first + 32, 4)) for first in range(0, 256, 32)]
        assert sum(cost) < 1.1 * sum(lengths) < sum(plain)
        assert max(sum(lengths[i] for m in rank for i in m) for rank in dealt) < 1.25 * sum(lengths) / 8
        slowest, slowest_plain = slowest + max(cost), slowest_plain + max(plain)
    assert slowest < 0.75 * slowest_plain


def test_deal_gives_ranks_alike_work_at_each_micro_step():
    lengths = list(range(64))
    dealt = deal(lengths, ranks=4, micro_batch=4)
    for step in range(4):
        longest = [max(lengths[i] for i in rank[step]) for rank in dealt]
        assert max(longest) - min(longest) < 16


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 200))
def test_the_batch_size_that_a_refusal_proposes_is_accepted(ranks, micro_batch, total):
    try:
        deal([1] * total, ranks, micro_batch)
    except UserError as error:
        proposed = int(str(error).split("train.batch_size=")[1].split()[0])
        assert deal([1] * proposed, ranks, micro_batch)


def test_deal_refuses_an_empty_batch():
    with pytest.raises(UserError, match="batch_size"):
        deal([], 2, 2)
