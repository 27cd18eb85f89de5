"""Figures of `rrg bench train` from hand-made results: rates and efficiencies with their intervals, table, picture, machine."""

import io

import pytest
from PIL import Image

from rrg.bench.train_machine import fabric, variables
from rrg.bench.train_plot import scaling_png
from rrg.bench.train_result import efficiencies, rate
from rrg.cli.bench_train_table import written

PHASES = ("loader", "forward", "backward", "communication", "optimizer", "bookkeeping")


def record(nodes, per_node, studies, seconds):
    """A result whose steps took `seconds`, on every rank alike."""
    world, mean = nodes * per_node, sum(seconds) / len(seconds)
    keys = ("films_per_second", "tokens_per_second_and_device", "report_tokens_per_second_and_device", "padding")
    flops = {
        f"{kind}_{name}": None for kind in ("model", "hardware") for name in ("flops_per_second_and_device", "flops_utilisation")
    }
    batch = {"studies_per_step": studies}
    machine = {"node": "n1", "device": "cpu", "cpu": "c", "cores": 2, "load": 1.0, "torch_threads": 1, "versions": {"torch": "2"}}
    return {
        "protocol": {"recipe": "tiny", "steps": len(seconds), "warmup": 1, "scaling": "strong", "batch": batch},
        "configuration": {
            "nodes": nodes, "processes": world, "strategy": "ddp", "batch_size": studies, "precision": "fp32", "device": "cpu",
        },
        "result": {
            **dict.fromkeys(keys, 1.0),
            **flops,
            "step_seconds": {"median": mean, "mean": mean, "quarter": min(seconds), "three_quarters": max(seconds)},
            "studies_per_second": studies / mean,
            "split": {name: 1 / len(PHASES) for name in PHASES},
            "blocked_in_backward": None,
            "peak_memory": {"process": 2.0**30},
            "matmul_flops_per_second": 1e12,
            "peak_flops_per_second": None,
            "flops_left_out": None,
        },
        "ranks": [{"step_seconds": list(seconds), "machine": machine} for _ in range(world)],
    }  # fmt: skip


def test_rates_and_efficiencies_with_their_intervals():
    one, four = record(1, 2, 8, [1.0, 1.0, 1.0, 1.0]), record(4, 2, 8, [0.25, 0.35])
    steady, found = rate(one), rate(four)
    assert (steady.mean, steady.low, steady.high) == pytest.approx((8, 8, 8))
    # Two steps: mean 0.3, standard error 0.05, t of one degree of freedom 12.706. No time below a hundredth of the mean is meant.
    assert found.mean == pytest.approx(8 / 0.3) and found.low == pytest.approx(8 / (0.3 + 12.706 * 0.05), rel=1e-3)
    assert found.high == pytest.approx(100 * 8 / 0.3)
    first, second = efficiencies([one, four])
    assert (first.mean, first.low, first.high) == (1, 1, 1)
    assert second.mean == pytest.approx((8 / 0.3 / 8) / (8 / 2)) and second.low < second.mean < second.high
    assert second.low / second.mean == pytest.approx(found.low / found.mean), "the first does not vary"


@pytest.mark.parametrize("counts", [(1,), (1, 2), (1, 2, 4, 8, 16)])
def test_table_and_picture(counts):
    records = [record(count, 4, 8, [1 / count, 1.1 / count, 1.05 / count]) for count in counts]
    table = written(records)
    assert "median [quartiles]" in table and "95 % interval" in table and "1 node, 4 processes, ddp" in table
    assert ("16 nodes, 64 processes, ddp" in table) == (16 in counts)
    image = Image.open(io.BytesIO(scaling_png(records)))
    assert image.format == "PNG" and image.width > 1000 and not image.text


def test_the_network_of_a_node_and_what_was_set_for_it(tmp_path):
    assert fabric(tmp_path / "none") == {}
    for name, port in (("mlx5_0", "200 Gb/sec (4X HDR)\n"), ("mlx5_1", "100 Gb/sec (4X EDR)\n")):
        (tmp_path / name / "ports" / "1").mkdir(parents=True)
        (tmp_path / name / "ports" / "1" / "rate").write_text(port)
    assert fabric(tmp_path) == {"mlx5_0": "200 Gb/sec (4X HDR)", "mlx5_1": "100 Gb/sec (4X EDR)"}
    given = {"NCCL_IB_HCA": "mlx5", "NCCL_TOPO_FILE": "/home/somebody/topo.xml", "OMP_NUM_THREADS": "8", "USER": "somebody"}
    assert variables(given) == {"NCCL_IB_HCA": "mlx5", "NCCL_TOPO_FILE": "a path", "OMP_NUM_THREADS": "8"}
