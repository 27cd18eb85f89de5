"""Counted operations of a step beside torch's own counter, which watches every product that is really made."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rrg.batching.feed import SplitFeed
from rrg.bench.flops import LanguageCost, MicroBatch, StepCost, front_cost
from rrg.bench.train_machine import matmul_rate, peak_of_name
from rrg.bench.train_meter import Meter
from rrg.recipe import load_recipe
from rrg.system import System, open_split
from rrg.train.phases import phases

WIDE = [  # wide enough that norms, softmax and other small things do not count
    "language.hidden_size=128",
    "language.intermediate_size=256",
    "language.attention=eager",  # the counter does not know the fused attention of a CPU
    "train.precision=fp32",
]
CPU = torch.device("cpu")


class Alone:
    """A strategy of one process, as the meter needs it."""

    name, world = "ddp", 1


def built(shards, *overrides):
    recipe = load_recipe("tiny/r2gengpt_iu", [f"data.shards={shards}", *WIDE, *overrides]).value
    split = open_split(recipe, "train")
    system = System.build(recipe, None, split)
    batch = SplitFeed(system.films(split), system.tokeniser, [range(6)])[0].batches[0]
    return recipe, system.model.train(), batch


def measured(model, batch):
    """(operations that torch counts of forward and backward, what the meter says was read)."""
    meter = Meter(CPU, 0)
    phases.reset()
    phases.begin(1)
    meter.attach(model, Alone())
    try:
        with FlopCounterMode(display=False) as counter:
            outputs = model(batch)
            sum(value for value, _ in outputs.values()).backward()
    finally:
        meter.close()
    return counter.get_total_flops(), meter.micro_batches(1)


@pytest.mark.parametrize(
    ("what", "overrides"),
    [
        ("frozen", []),
        ("checkpointing", ["language.gradient_checkpointing=true"]),
        ("vision", ["vision.train=full"]),
        ("lora", ["language.train=lora"]),
        ("full", ["language.train=full"]),
    ],
)
def test_hardware_flops_are_what_torch_counts(drawn_shards, what, overrides):
    recipe, model, batch = built(drawn_shards, *overrides)
    cost = LanguageCost.of(model)
    assert isinstance(cost, LanguageCost), cost
    step = StepCost(cost, front_cost(model, batch, recipe, CPU))
    counted, (read,) = measured(model, batch)
    assert read.tokens < read.padded * len(read.lengths) and read.films == int(batch.view_mask.sum())
    assert read.rows == batch.tokens and len(read.lengths) == len(batch)
    assert step.hardware(read) == pytest.approx(counted, rel=0.04), what
    assert step.model(read) < step.hardware(read)


def test_what_cannot_be_counted_is_said_and_peaks_are_those_of_the_table(drawn_shards):
    _, model, _ = built(drawn_shards)
    model.language.model.get_decoder().experts = torch.nn.Parameter(torch.zeros(64, 128, 256))
    assert "experts" in LanguageCost.of(model)
    model.language = torch.nn.Linear(2, 2)
    assert LanguageCost.of(model).startswith("Linear is no causal language model")
    assert peak_of_name("NVIDIA A100-SXM4-80GB") == 312e12 and peak_of_name("NVIDIA H200") == 989e12
    assert peak_of_name("NVIDIA H100 PCIe") is None and peak_of_name("Tesla T4") is None
    assert peak_of_name("NVIDIA RTX A6000") == 155e12
    assert matmul_rate(CPU, "bf16") > 0


def test_frozen_trained_and_vision_cost_two_four_and_six_operations_a_weight():
    shared = {"layers": 0, "attention": 0, "head": 0, "head_trained": False, "again": 0}
    frozen = LanguageCost(frozen=1000, trained=0, gradient=True, **shared)
    trained = LanguageCost(frozen=0, trained=1000, gradient=True, **shared)
    in_front = LanguageCost(frozen=1000, trained=0, gradient=False, **shared)
    for cost, each in ((frozen, 4), (trained, 6), (in_front, 2)):
        assert cost.forward([3, 4]) + cost.backward([3, 4]) == each * 1000 * 7
    read = MicroBatch(lengths=(3, 4), padded=4, rows=2, films=0)
    assert (read.tokens, MicroBatch((3,), 0, 1, 1).tokens) == (7, 3)
