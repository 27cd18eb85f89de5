"""Bytes of the kernels, counted from their own loads and stores."""

import pytest
import torch
from rrg_kernels.cross_attention import launch
from rrg_kernels.cross_attention.baseline import padded_eager
from rrg_kernels.cross_attention.plan import TRAFFIC
from rrg_kernels.cross_attention.published import inputs
from rrg_kernels.cross_attention.reference import Attention, Needs
from rrg_kernels.proof.traffic import counting, lower_bound
from rrg_kernels.proof.unfused import count

pytestmark = pytest.mark.interpreted
# samples, queries, heads, head width, longest context: the published sizes with fewer heads, whose bytes are in proportion
SIZES = [(8, 49, 1, 128, 128), (8, 49, 1, 128, 30), (3, 196, 1, 64, 128), (1, 576, 1, 128, 128), (2, 101, 1, 16, 127)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_forward_bytes_are_near_the_least_and_far_below_the_padded_graph(size):
    _, _, heads, head_dim, longest = size
    q, k, v, cu, null_v = inputs("cpu", torch.float16, *size)
    with counting(compute=False) as traffic:
        out, lse = launch.attend(q, k, v, cu, null_v, None, longest, Attention(heads, head_dim**-0.5))
    least = lower_bound([q, k, v, cu], [out, lse])
    assert traffic.requested <= TRAFFIC * least
    assert traffic.dram("sm_80") <= 1.05 * least  # what is asked for twice is found in L2
    padded = count(lambda: padded_eager(q, k, v, cu, null_v, heads, longest, 0.1))
    assert padded.bytes >= 4 * traffic.dram("sm_80") and padded.bytes >= 3 * traffic.requested


def test_without_shares_every_operand_is_read_once():
    size = (8, 49, 1, 64, 128)
    q, k, v, cu, null_v = inputs("cpu", torch.float16, *size)
    plan = launch.plan_forward(*size[:3], 128, 64, q.dtype)._replace(shares=1)
    with counting(compute=False) as traffic:
        out, lse = launch.attend(q, k, v, cu, null_v, None, 128, Attention(1, 0.125), plan)
    empty = int((cu.diff() == 0).sum())
    # Each program reads two 4-byte bounds; a sample without context reads the null row instead of keys and values.
    assert traffic.read == lower_bound([q, k, v], []) + 8 * 8 + empty * lower_bound([null_v], [])
    assert traffic.written == lower_bound([], [out, lse])


def test_frozen_inputs_move_no_bytes():
    """Without gradients of keys and values only the query kernel runs, and it writes dQ alone."""
    q, k, v, cu, null_v = inputs("cpu", torch.float16, 4, 49, 1, 64, 40)
    attention = Attention(1, 0.125)
    out, lse = launch.attend(q, k, v, cu, null_v, None, 40, attention)
    with counting(compute=False) as traffic:
        launch.attend_gradients(out, q, k, v, cu, null_v, None, out, lse, 40, attention, Needs(True, False, False, False))
    assert traffic.launches == 1 and traffic.written == lower_bound([], [q])
    busy = sum(lower_bound([t[b] for t in (q, out, out, lse)], []) for b in range(4) if cu[b + 1] > cu[b])
    assert traffic.read == busy + lower_bound([k, v], []) + 4 * 8
