"""DeepSpeed's sizes as `rrg plan` reads them, and what they make of a plan."""

from __future__ import annotations

import json

import pytest

from rrg.errors import UserError
from rrg.plan.buckets import Buckets, buckets_of
from rrg.plan.strategies import _arrivals


def launched(folder, monkeypatch, **options):
    file = folder / "deepspeed.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 3} | options}))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))


def test_sizes_of_the_file_that_a_run_is_launched_with(tmp_path, monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    assert buckets_of("zero3") == Buckets(reduce=50_000_000), "this program's own"
    assert buckets_of("fsdp2") == Buckets()
    launched(tmp_path, monkeypatch, overlap_comm=True, stage3_max_live_parameters=3e8, stage3_max_reuse_distance=200_000_000)
    assert buckets_of("zero3") == Buckets(live=300_000_000, reuse=200_000_000)
    assert buckets_of("zero2") == Buckets(live=300_000_000, reuse=200_000_000, reducers=2)


@pytest.mark.parametrize("value", ["auto", None, {}])
def test_a_size_that_is_no_number(value, tmp_path, monkeypatch):
    launched(tmp_path, monkeypatch, stage3_prefetch_bucket_size=value)
    with pytest.raises(
        UserError, match=r"zero_optimization\.stage3_prefetch_bucket_size: .* is no number of elements; write one"
    ):
        buckets_of("zero3")


def test_the_last_buckets_of_a_forward_pass():
    assert _arrivals(20.0, 5.0, 10.0) == [(0.75, 10.0), (1.0, 5.0)]
    assert _arrivals(4.0, 2.0, 6.0) == [(1.0, 6.0), (1.0, 0.0)], "one bucket holds table and blocks"
    assert _arrivals(0.0, 0.0, 0.0) == []
