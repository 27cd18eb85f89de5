"""A step with the mutual information objective: what it logs, what is clipped, and averages that a lost step leaves alone."""

import math

import pytest
import torch

from rrg.objectives.mine import LOGGED
from rrg.train.team import start
from tests.train.test_step import prepared, weights

ALIGNED = [
    "connector.kind=cmeaa",
    "connector.enhance=false",
    "connector.code_width=8",
    "connector.dropout=0",
    "objectives.mine.hidden=8",
    "objectives.mine.marginal=all_pairs",
]


@pytest.fixture(scope="module")
def team():
    return start(1)


def average(model):
    return model.objectives["mine"].estimator.log_average.clone()


def test_what_an_objective_tells_is_averaged_over_the_whole_batch(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards, *ALIGNED, micro=3)
    share = feed[0]
    with torch.no_grad():
        told = [model(batch)["mine"] for batch in share.batches]
    model.objectives["mine"].estimator.log_average.fill_(-math.inf)
    result = stepper.run(0, share)
    assert list(result.logged) == [f"mine.{name}" for name in LOGGED]
    for name in LOGGED:
        assert result.logged[f"mine.{name}"] == pytest.approx(sum(float(logs[name]) for _, logs in told) / 6, abs=1e-7)
    assert result.logged["mine.retrieval.chance"] == pytest.approx(1 / 3)
    information = result.logged["mine.information.image"] + result.logged["mine.information.report"]
    assert result.objectives["mine"] == pytest.approx(-information, abs=1e-7)
    assert result.loss == pytest.approx(result.objectives["report"] + 0.1 * result.objectives["mine"])


def test_code_adapters_and_decoder_are_trained_and_the_language_model_is_not(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards, *ALIGNED, "objectives.report=null", "train.weight_decay=0")
    before = weights(model)
    for step in range(2):  # the adapters' up-projection starts at zero
        stepper.run(step, feed[step])
    moved = {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
    part = ("connector.adapters", "connector.project", "connector.aligner.encode", "objectives.mine.")
    cancels = {"objectives.mine.estimator.last.bias"}  # in the estimate, but for the lag of the averages
    assert moved | cancels == {name for name in before if name.startswith(part)} | cancels


def test_a_lost_step_leaves_the_averages_and_the_next_goes_on_from_them(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards, *ALIGNED)
    stepper.run(0, feed[0])
    held = average(model)
    share = feed[1]
    share.batches[1].pixel_values[0, 0, 0, 0, 0] = math.nan
    assert not stepper.run(1, share).finite and torch.equal(average(model), held)
    assert stepper.run(1, feed[1]).finite
    assert not torch.equal(average(model), held) and average(model).isfinite().all()


def test_groups_are_clipped_before_all(drawn_shards, team):
    clip = ["train.clip_norm_of.connector.aligner=0.001", "train.clip_norm_of.objectives.mine=0.00001", "train.clip_norm=0.002"]
    stepper, model, feed = prepared(team, drawn_shards, *ALIGNED, *clip)
    seen = {}

    def look(*_):
        for name in ("connector.aligner", "objectives.mine", "connector", ""):
            gradients = [p.grad for other, p in model.named_parameters() if other.startswith(name) and p.grad is not None]
            seen[name] = math.sqrt(sum(float(gradient.norm()) ** 2 for gradient in gradients))

    stepper._strategy.optimizer.register_step_pre_hook(look)
    result = stepper.run(0, feed[0])
    assert list(result.group_norms) == ["connector.aligner", "objectives.mine"]
    assert result.group_norms["connector.aligner"] > 0.001 and result.group_norms["objectives.mine"] > 1e-5
    shrunk = 0.002 / result.grad_norm
    assert shrunk < 1 and seen[""] == pytest.approx(0.002, rel=1e-3)
    assert seen["connector.aligner"] == pytest.approx(0.001 * shrunk, rel=1e-2)
    assert seen["objectives.mine"] == pytest.approx(1e-5 * shrunk, rel=0.1)  # torch's clipping adds 1e-6 to the norm


def test_a_gradient_of_a_group_that_is_not_finite_loses_the_step(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards, *ALIGNED, "train.clip_norm_of.objectives.mine=1.0")
    model.objectives["mine"].text.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(model)
    assert not stepper.run(0, feed[0]).finite
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
