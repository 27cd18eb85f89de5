"""The order of samples: a pure function of (seed, epoch, dataset index).

Shards are permuted, then samples inside windows of the resulting sequence, so that at any time only the few shards under a
window are read. Keys come from SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
and not from a library's generator, whose streams may change with its version and would then change every run that is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_SHARDS, _SAMPLES, _GRID = 1, 2, 3  # salts: one independent stream for each use


def splitmix64(state: np.ndarray) -> np.ndarray:
    """SplitMix64's output for each state; uint64 in, uint64 out, a bijection."""
    mixed = state + np.uint64(_GAMMA)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _stream(seed: int, epoch: int, salt: int) -> np.uint64:
    """A 64-bit key that depends on every bit of its three parts."""
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, salt):
        key = splitmix64(key ^ np.uint64(part & _MASK))
    return np.uint64(key[0])


def _keys(seed: int, epoch: int, salt: int, count: int) -> np.ndarray:
    """uint64 [count], all different: xor with one key and SplitMix64 are both bijections."""
    return splitmix64(np.arange(count, dtype=np.uint64) ^ _stream(seed, epoch, salt))


def epoch_order(shard_sizes: Sequence[int], seed: int, epoch: int, window: int = 4096) -> np.ndarray:
    """Dataset indices in the order of one epoch.

    Args:
        shard_sizes: samples per shard; dataset indices count through the shards in this order.
        window: samples shuffled together. Where all fit into one window the result is a uniform shuffle.

    Returns:
        int64 [N], a permutation of range(N) with N = sum(shard_sizes).
    """
    if window < 1:
        raise ValueError(f"window {window}: at least 1")
    sizes = np.asarray(shard_sizes, dtype=np.int64)
    if sizes.ndim != 1 or (sizes < 0).any():
        raise ValueError("shard sizes are a flat sequence of counts")
    total = int(sizes.sum())
    sequence = _shard_sequence(sizes, np.argsort(_keys(seed, epoch, _SHARDS, len(sizes)), kind="stable"))
    keys = _keys(seed, epoch, _SAMPLES, total)[sequence]
    if total <= window:
        return sequence[np.argsort(keys, kind="stable")]
    # The grid of windows moves from epoch to epoch, or samples on either side of an edge would never meet.
    shift = int(_stream(seed, epoch, _GRID) % np.uint64(window))
    windows = (np.arange(total) + shift) // window
    return sequence[np.lexsort((keys, windows))]


def _shard_sequence(sizes: np.ndarray, shards: np.ndarray) -> np.ndarray:
    """int64 [N]: the indices of each shard in turn, shards in the order given."""
    starts = np.cumsum(sizes) - sizes
    picked = sizes[shards]
    ends = np.cumsum(picked)
    return np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(starts[shards] - (ends - picked), picked)
