"""Steps of real models under fake tensors: sizes of process groups, counted collectives, limits of time and memory."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import torch.distributed as dist

from rrg.errors import UserError
from rrg.plan.account import account, meta_model
from rrg.plan.compare import beside
from rrg.plan.dry_run import dry_run
from rrg.plan.hardware import make_cluster
from rrg.plan.planning import make_plan
from rrg.plan.workload import workload
from rrg.recipe import load_recipe
from tests.processes import ROOT, SECONDS, launch

SMALL = ["train.batch_size=128", "train.micro_batch_size=2", "language.max_report_tokens=20"]


def planned(recipe, gpus=64, *more):
    loaded = load_recipe(recipe, [*SMALL, *more])
    model = meta_model(loaded.value, 24)
    return loaded, make_plan(loaded, model, make_cluster("a100-40g", gpus, None, None), workload(loaded.value, model))


def test_replicas_on_64_ranks():
    loaded, plan = planned("tiny/cmeaa_iu")
    found = dry_run(loaded.value, "ddp", plan.cluster, plan.work)
    rows = {what: (counted, estimate) for what, counted, estimate, _ in beside(plan, found)}
    counted, estimate = rows["all-reduce, bytes of the tensors"]
    assert estimate == account(meta_model(loaded.value, 24)).trained_bytes
    assert estimate <= counted <= estimate + 2000, "the gradients, and a few figures of the step"
    assert found.peak > found.standing > 0
    assert not dist.is_initialized() and torch.zeros(2).tolist() == [0.0, 0.0], "nothing fake is left behind"


def test_shards_on_4_ranks():
    """On 64, matrices of 32 rows would be padded to twice their size."""
    loaded, plan = planned("tiny/r2gengpt_iu", 4)
    whole = dry_run(loaded.value, "ddp", plan.cluster, plan.work)
    found = dry_run(loaded.value, "fsdp2", plan.cluster, plan.work)
    assert found.standing < whole.standing
    rows = {what: (counted, estimate) for what, counted, estimate, _ in beside(plan, found)}
    counted, estimate = rows["all-gather, bytes of the tensors"]
    assert estimate / counted == pytest.approx(1, abs=0.1)


def test_refusals():
    loaded, plan = planned("tiny/r2gengpt_iu")
    with pytest.raises(UserError, match="zero3: DeepSpeed reads addresses"):
        dry_run(loaded.value, "zero3", plan.cluster, plan.work)
    with pytest.raises(UserError, match=r"cannot be dealt to 64 ranks"):
        loaded = load_recipe("tiny/r2gengpt_iu", ["train.batch_size=8"])
        model = meta_model(loaded.value)
        cluster = make_cluster("a100-40g", 64, None, None)
        make_plan(loaded, model, cluster, workload(loaded.value, model), chosen=True)


@pytest.mark.slow
def test_7b_on_64_ranks_in_its_limits(tmp_path):
    """In 8 GB; how long it takes is in docs/plan.md."""
    out = tmp_path / "plan.json"
    words = ["plan", "cmeaa_mimic", "--gpus", "64", "--gpu", "a100-40g", "--dry-run", "--json", str(out)]
    code = (
        "import resource, sys; from rrg.cli import main; code = main(sys.argv[1:]); "
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8e6; sys.exit(code)"
    )
    launch(
        [sys.executable, "-c", code, *words], timeout=SECONDS, PYTHONPATH=f"{ROOT}:{ROOT / 'kernels'}", **{"HF_HUB_OFFLINE": "1"}
    )
    record = json.loads(out.read_text())
    assert [found["strategy"] for found in record["dry_runs"]] == ["ddp", "fsdp2", "hsdp"]
    ddp, fsdp2, hsdp = record["dry_runs"]
    assert ddp["bytes"]["all-reduce"] == pytest.approx(4 * 36_960_523, rel=1e-3)
    assert fsdp2["peak"] < hsdp["peak"] < ddp["peak"]
    assert out.stat().st_size < 200_000
