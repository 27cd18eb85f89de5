"""One optimizer step: the loss does not depend on how the batch is dealt, and what is not finite moves nothing."""

import math

import pytest
import torch

from rrg.batching.feed import SplitFeed, StepFeed
from rrg.recipe import load_recipe
from rrg.shards.ledger import Ledger
from rrg.strategy.replicas import Replicas
from rrg.system import System, open_split
from rrg.train.optim import build_optimizer
from rrg.train.step import Stepper, step_seed
from rrg.train.team import start
from tests.damage import damaged_copy


@pytest.fixture(scope="module")
def team():
    return start(1)


def prepared(team, shards, *overrides, micro=3):
    """(stepper, model, feed) of a tiny recipe with six studies a step."""
    words = [f"data.shards={shards}", "data.workers=0", "train.batch_size=6", *overrides]
    recipe = load_recipe("tiny/r2gengpt_iu", words).value
    split = open_split(recipe, "train")
    system = System.build(recipe, None, split)
    feed = StepFeed(
        system.films(split),
        system.tokeniser,
        Ledger(split.shard_sizes, 3, 64),
        batch_size=6,
        micro_batch=micro,
        rank=0,
        world=1,
        section="findings",
    )
    optimizer = build_optimizer(system.model, recipe.train)
    strategy = Replicas(system.model, optimizer, team.accelerator)
    return Stepper(system.model, strategy, recipe, team), system.model, feed


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_accumulation_gives_the_step_of_one_large_batch(drawn_shards, team):
    results, after = [], []
    for micro in (1, 2, 3, 6):
        stepper, model, feed = prepared(
            team, drawn_shards, "vision.train=full", "vision.architecture.drop_path_rate=0", "train.eps=1e-3", micro=micro
        )
        results.append([stepper.run(step, feed[step]) for step in range(3)])
        after.append(weights(model))
    for other, moved in zip(results[1:], after[1:], strict=True):
        for a, b in zip(results[0], other, strict=True):
            assert a.loss == pytest.approx(b.loss, abs=1e-5) and a.grad_norm == pytest.approx(b.grad_norm, rel=1e-3)
            assert (a.tokens, a.studies, a.truncated) == (b.tokens, b.studies, b.truncated)
        for name in moved:
            torch.testing.assert_close(moved[name], after[0][name], rtol=1e-3, atol=1e-5)


def test_the_loss_is_the_mean_over_tokens_of_the_whole_batch(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards, micro=2)
    share = feed[0]
    with torch.no_grad():
        sums = [float(model(batch)["report"][0]) for batch in share.batches]
    result = stepper.run(0, share)
    assert result.loss == pytest.approx(sum(sums) / sum(batch.tokens for batch in share.batches), abs=1e-6)
    assert result.objectives == {"report": pytest.approx(result.loss)} and result.studies == 6 and result.suspects == []


def test_weights_of_objectives_scale_the_loss(drawn_shards, team):
    one, half = (prepared(team, drawn_shards, f"objectives.report.weight={w}")[::2] for w in (1.0, 0.5))
    a, b = (stepper.run(0, feed[0]) for stepper, feed in (one, half))
    assert b.loss == pytest.approx(a.loss / 2) and b.objectives["report"] == pytest.approx(a.objectives["report"])
    assert b.grad_norm == pytest.approx(a.grad_norm / 2, rel=1e-4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_moves_nothing_and_names_the_studies(drawn_shards, team, value):
    stepper, model, feed = prepared(team, drawn_shards)
    stepper.run(0, feed[0])
    share = feed[1]
    share.batches[1].pixel_values[0, 0, 0, 0, 0] = value
    before, moments = weights(model), str(stepper._strategy.optimizer.state_dict()["state"])
    result = stepper.run(1, share)
    assert not result.finite and result.suspects == share.batches[1].studies
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())
    assert str(stepper._strategy.optimizer.state_dict()["state"]) == moments
    assert all(parameter.grad is None for parameter in model.parameters())
    assert stepper.run(1, feed[1]).finite, "the next batch is trained on as if nothing had been"


def test_a_gradient_that_overflows_is_not_finite_though_the_loss_is(drawn_shards, team):
    stepper, model, feed = prepared(team, drawn_shards)
    model.connector.project.weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(model)
    result = stepper.run(0, feed[0])
    assert math.isfinite(result.loss) and not result.finite and result.suspects == []
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_clipping_bounds_the_gradient_that_is_applied(drawn_shards, team):
    free, clipped = (prepared(team, drawn_shards, f"train.clip_norm={norm}") for norm in (0.0, 0.01))
    norms = []
    for stepper, model, feed in (free, clipped):
        seen = []
        stepper._strategy.optimizer.register_step_pre_hook(
            lambda *_, model=model, seen=seen: seen.append(
                math.sqrt(sum(float(p.grad.norm()) ** 2 for p in model.parameters() if p.grad is not None))
            )
        )
        norms.append((stepper.run(0, feed[0]).grad_norm, seen[0]))
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-4) and norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
    assert norms[1][1] == pytest.approx(0.01, rel=1e-3)


def test_a_step_of_which_nothing_can_be_read_moves_nothing_but_by_weight_decay(drawn_shards, team, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards", "S0001.json", "S0002.json")
    stepper, model, feed = prepared(team, shards, "train.weight_decay=0")
    share = SplitFeed(feed.films, feed.tokeniser, [[1, 2]])[0]
    before = weights(model)
    result = stepper.run(0, share)
    assert (result.loss, result.tokens, result.studies, result.grad_norm) == (0.0, 0, 0, 0.0) and result.finite
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_random_numbers_are_a_function_of_seed_step_micro_batch_and_rank():
    seeds = {
        step_seed(*numbers) for numbers in [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5), (12, 3, 4, 1)]
    }
    assert len(seeds) == 6 and step_seed(1, 2, 3, 4) == step_seed(1, 2, 3, 4)
    assert all(0 <= seed < 2**63 for seed in seeds)
