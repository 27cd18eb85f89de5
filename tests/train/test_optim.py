"""What is trained, at which rate: groups, schedule, parameter table."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rrg.config.training import ScheduleOptions, TrainOptions
from rrg.errors import UserError
from rrg.train.optim import build_optimizer, parameter_table, rate_factor, set_rates, trained


class Small(nn.Module):
    """Parts by name as a report generator has them; what is frozen is given."""

    def __init__(self, *frozen):
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, dtype=torch.bfloat16))
        self.connector = nn.ModuleDict({"project": nn.Linear(4, 5), "norm": nn.LayerNorm(5)})
        self.language = nn.Linear(5, 6, dtype=torch.float16)
        for name in frozen:
            getattr(self, name).requires_grad_(False)


@pytest.mark.parametrize(
    "epochs,steps,base,floor", [(15, 7, 1e-4, 1e-6), (3, 1, 3e-4, 0.0), (1, 5, 1e-4, 1e-6), (4, 3, 1e-4, 5e-5)]
)
def test_the_epoch_cosine_is_torchs_stepped_once_per_epoch(epochs, steps, base, floor):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=base)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs, eta_min=floor)
    schedule = ScheduleOptions(kind="cosine_epoch", floor=floor)
    for step in range(epochs * steps):
        if step and step % steps == 0:
            optimizer.step()
            theirs.step()
        ours = base * rate_factor(schedule, step, epochs * steps, steps, base)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15)


def test_epochs_that_are_no_whole_number_of_steps():
    """24 studies in batches of 5: the rate falls with the step in which an epoch is complete."""
    schedule = ScheduleOptions(floor=0.0)
    factors = [rate_factor(schedule, step, 15, 4.8, 1.0) for step in range(15)]
    assert [step for step in range(1, 15) if factors[step] < factors[step - 1]] == [5, 10]
    assert factors[0] == 1.0 and factors[5] == pytest.approx(0.75) and factors[10] == pytest.approx(0.25)
    assert rate_factor(schedule, 3, 3, 4.8, 1.0) == 1.0, "less than an epoch stays at the base rate"


@settings(deadline=None)
@given(
    st.sampled_from(["cosine", "cosine_epoch", "constant"]),
    st.integers(0, 20),
    st.integers(1, 60),
    st.floats(0.5, 30),
    st.floats(1e-6, 1e-2),
    st.floats(0, 1e-2),
)
def test_rates_stay_between_the_floor_and_the_base_and_fall_after_the_warm_up(kind, warmup, total, per_epoch, base, floor):
    schedule = ScheduleOptions(kind=kind, warmup_steps=warmup, floor=floor)
    factors = [rate_factor(schedule, step, total, per_epoch, base) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors[:warmup])
    assert all(min(1.0, floor / base) - 1e-12 <= factor <= 1 + 1e-12 for factor in factors[warmup:])
    assert factors[:warmup] == sorted(factors[:warmup])
    assert all(b <= a + 1e-12 for a, b in zip(factors[warmup:], factors[warmup + 1 :], strict=False))


@pytest.mark.parametrize("per_epoch,epochs", [(2069 / 16, 15), (270790 / 32, 3), (24 / 5, 7), (0.5, 4), (1.0, 3)])
def test_the_last_epoch_of_the_published_curve_is_the_runs_last(per_epoch, epochs):
    total = math.ceil(epochs * per_epoch - 1e-9)
    last = rate_factor(ScheduleOptions(floor=0.0), total - 1, total, per_epoch, 1.0)
    assert last == pytest.approx(0.5 * (1 + math.cos(math.pi * (epochs - 1) / epochs)), abs=1e-6 if per_epoch >= 1 else 0.2)


def test_warm_up_is_linear_then_the_cosine_ends_at_the_floor():
    schedule = ScheduleOptions(kind="cosine", warmup_steps=4, floor=1e-5)
    factors = [rate_factor(schedule, step, 104, 10, 1e-4) for step in range(105)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert factors[54] == pytest.approx(0.1 + 0.9 / 2) and factors[104] == pytest.approx(0.1)


def test_every_part_has_its_own_rate_and_all_follow_the_schedule():
    options = TrainOptions(lr=1e-3, lr_by_part={"vision": 1e-5}, betas=[0.8, 0.95], eps=1e-6, weight_decay=0.1)
    optimizer = build_optimizer(Small("language"), options)
    assert [(g["part"], g["base_lr"]) for g in optimizer.param_groups] == [("vision", 1e-5), ("connector", 1e-3)]
    assert all(g["betas"] == (0.8, 0.95) and g["eps"] == 1e-6 and g["weight_decay"] == 0.1 for g in optimizer.param_groups)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(trained(Small("language"))))
    assert set_rates(optimizer, 0.5) == {"vision": 5e-6, "connector": 5e-4}
    assert [g["lr"] for g in optimizer.param_groups] == [5e-6, 5e-4]


def test_refusals():
    with pytest.raises(UserError, match="nothing is trained"):
        build_optimizer(Small("vision", "connector", "language"), TrainOptions())
    with pytest.raises(UserError, match=r"train\.lr_by_part\.vision: nothing of vision is trained"):
        build_optimizer(Small("vision", "language"), TrainOptions(lr_by_part={"vision": 1e-5}))


def test_the_table_names_every_parameter_once():
    model, options = Small("language"), TrainOptions(lr=1e-3, lr_by_part={"vision": 1e-5})
    rows = parameter_table(model, options)
    assert sum(row.count for row in rows) == sum(p.numel() for p in model.parameters())
    assert sum(row.tensors for row in rows) == len(list(model.parameters()))
    by_name = {(row.pattern, row.dtype): row for row in rows}
    assert by_name["vision.*.weight", "float32"].count == 12 and by_name["vision.*.weight", "bfloat16"].count == 16
    assert by_name["vision.*.weight", "float32"].lr == 1e-5 and by_name["connector.norm.bias", "float32"].lr == 1e-3
    frozen = by_name["language.*", "float16"]
    assert (frozen.tensors, frozen.count, frozen.lr, frozen.state) == (2, 36, None, "frozen")
    assert sum(row.count for row in rows if row.state == "trained") == sum(p.numel() for _, p in trained(model))


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_kinds_of_optimizer_come_back_from_a_checkpoint(optimizer, amsgrad, tmp_path):
    from rrg.train import checkpoint

    options = TrainOptions(optimizer=optimizer, amsgrad=amsgrad, weight_decay=0.1, lr=0.01)
    state = checkpoint.State(step=2, position=0, frozen="", data="")

    def walk(model, ours, steps):
        for step in steps:
            torch.manual_seed(step)
            for _, parameter in trained(model):
                parameter.grad = torch.randn_like(parameter) / (1 + step)
            ours.step()
        return [parameter.detach().clone() for _, parameter in trained(model)]

    first = Small("language")
    ours = build_optimizer(first, options)
    assert type(ours) is {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    walk(first, ours, range(2))
    folder = checkpoint.save(tmp_path, first, ours, state)
    again = Small("language")
    theirs = build_optimizer(again, options)
    checkpoint.load(folder, again, theirs)
    pairs = zip(walk(again, theirs, range(2, 4)), walk(first, ours, range(2, 4)), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_a_cosine_that_is_stopped_before_its_end_and_a_warm_up_in_epochs():
    """MAE's schedule (spec alta §7): ten epochs up, half a cosine over a hundred, of which thirty are run."""
    schedule = ScheduleOptions(kind="cosine", warmup_epochs=10, span_epochs=100, floor=0.0)
    factors = [rate_factor(schedule, step, 30 * 7, 7, 1e-4) for step in range(30 * 7)]
    assert factors[:3] == pytest.approx([1 / 70, 2 / 70, 3 / 70]) and factors[69] == 1.0
    for step in (70, 100, 209):
        assert factors[step] == pytest.approx(0.5 * (1 + math.cos(math.pi * (step / 7 - 10) / 90)))
    assert rate_factor(schedule, 700, 210, 7, 1e-4) == pytest.approx(0)
    with pytest.raises(UserError, match="span_epochs: belongs to kind cosine"):
        ScheduleOptions(span_epochs=3).check("train.schedule")
    with pytest.raises(UserError, match="warmup_epochs: 1 beside another warm-up"):
        ScheduleOptions(warmup_epochs=1, warmup_steps=2).check("train.schedule")


def test_vectors_can_go_without_weight_decay():
    model = Small("language")
    every = {name for name, _ in trained(model)}
    optimizer = build_optimizer(model, TrainOptions(weight_decay=0.05, decay_vectors=False))
    decayed = {name for group in optimizer.param_groups if group["weight_decay"] for name in group["names"]}
    assert decayed == {name for name in every if name.endswith("weight") and "norm" not in name}
    assert {name for group in optimizer.param_groups for name in group["names"]} == every
    assert set(set_rates(optimizer, 0.5)) == {"vision", "connector"}
    assert {group["weight_decay"] for group in build_optimizer(model, TrainOptions(weight_decay=0.05)).param_groups} == {0.05}
