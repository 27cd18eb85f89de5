"""The order is a permutation, uniform in a window, near-sequential over shards, and the same for ever."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.shards.order import epoch_order, splitmix64

GOLDEN_SMALL = [9, 1, 6, 0, 4, 2, 7, 8, 5, 3]
GOLDEN_LARGE = "9864dc138fbc83cb57979d8b0c8751834640c6fb76438ff4f33fdbb729733d00"


def test_splitmix64_published_values():
    """The reference generator from seed 1234567: its state advances by gamma before each output."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + k * gamma) % 2**64 for k in range(5)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_golden_order():
    """These values may never change: a resumed run would see other samples."""
    assert epoch_order([3, 4, 3], seed=1, epoch=0).tolist() == GOLDEN_SMALL
    digest = hashlib.sha256(epoch_order([100] * 70 + [37], seed=2**40 + 5, epoch=3, window=512).astype("<i8").tobytes())
    assert digest.hexdigest() == GOLDEN_LARGE


sizes = st.lists(st.integers(0, 40), max_size=12)


@given(sizes, st.integers(-(2**70), 2**70), st.integers(0, 10_000), st.integers(1, 100))
def test_is_a_permutation_that_depends_on_nothing_else(shard_sizes, seed, epoch, window):
    order = epoch_order(shard_sizes, seed, epoch, window)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(sum(shard_sizes)))
    assert (order == epoch_order(np.array(shard_sizes, dtype=np.int32), seed, epoch, window)).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 99), st.integers(1, 30))
def test_a_sample_stays_within_two_windows_of_its_shard(shard_sizes, seed, window):
    """Where a shard's samples come is within one window either side of the shard's own run."""
    order = epoch_order(shard_sizes, seed, 0, window)
    shard = np.repeat(np.arange(len(shard_sizes)), shard_sizes)[order]
    for number, size in enumerate(shard_sizes):
        places = np.flatnonzero(shard == number)
        assert size == 0 or len(order) <= window or places[-1] - places[0] < size + 2 * window


def test_small_sets_are_shuffled_uniformly():
    """Every sample at every position equally often; also every pair of neighbours."""
    n, epochs = 12, 6000
    orders = np.stack([epoch_order([5, 4, 3], 9, epoch) for epoch in range(epochs)])
    counts = np.stack([np.bincount(orders[:, place], minlength=n) for place in range(n)])
    expected = epochs / n
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 121 + 5 * np.sqrt(2 * 121)  # (n-1)^2 degrees of freedom
    pairs = np.bincount((orders[:, :-1] * n + orders[:, 1:]).ravel(), minlength=n * n).reshape(n, n)
    expected = epochs * (n - 1) / (n * (n - 1))
    off = pairs[~np.eye(n, dtype=bool)]
    assert ((off - expected) ** 2 / expected).sum() < 132 + 6 * np.sqrt(2 * 132)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_every_permutation_of_a_tiny_set_occurs_equally_often(n):
    epochs = 4000
    seen, counts = np.unique([epoch_order([n], 5, e) for e in range(epochs)], axis=0, return_counts=True)
    factorial = [1, 1, 2, 6, 24][n]
    assert len(seen) == factorial
    assert ((counts - epochs / factorial) ** 2 / (epochs / factorial)).sum() < factorial + 6 * np.sqrt(2 * factorial)


def test_large_sets_are_spread_over_epochs():
    """Windowed: over many epochs a sample's mean position is the middle, and its spread is that of a uniform position."""
    n, epochs = 1000, 800
    places = np.empty((epochs, n))
    for epoch in range(epochs):
        places[epoch, epoch_order([25] * 40, 4, epoch, window=100)] = np.arange(n)
    deviation = n / np.sqrt(12)
    assert np.abs(places.mean(axis=0) - (n - 1) / 2).max() < 5 * deviation / np.sqrt(epochs)
    assert np.abs(places.std(axis=0) / deviation - 1).max() < 0.12


def test_neighbours_across_every_edge_meet():
    """The grid of windows moves, so over epochs the samples of one shard do not keep the same companions."""
    first = [set(epoch_order([10] * 30, 1, epoch, 20)[:20].tolist()) for epoch in range(40)]
    assert len(set().union(*first)) > 200


def test_few_shards_are_open_at_a_time():
    order = epoch_order([256] * 100, 0, 0, window=4096)
    shard = order // 256
    for start in range(0, len(order), 512):
        assert len(set(shard[start : start + 512].tolist())) <= 2 * (4096 // 256) + 2


def test_seeds_and_epochs_differ():
    orders = {tuple(epoch_order([50], seed, epoch).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_three_hundred_thousand_studies():
    order = epoch_order([256] * 1172, 3, 1)
    assert len(np.unique(order)) == 256 * 1172


def test_refuses_a_window_of_nothing():
    with pytest.raises(ValueError, match="window"):
        epoch_order([3], 0, 0, window=0)
