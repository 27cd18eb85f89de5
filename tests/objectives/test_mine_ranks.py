"""Alignment over several processes: the value, gradients and averages of one, and nobody waits for a rank that has no study."""

import pytest
import torch

from rrg.objectives.options import MineOptions
from tests.objectives.alignment_on_ranks import STEPS, losses_of_a_broken_study, trained

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]
SETTINGS = {
    "derangement": MineOptions(hidden=8),
    "all_pairs": MineOptions(hidden=8, marginal="all_pairs", corrected=False, pooling="distinct"),
    "alone": MineOptions(hidden=8, gather=False),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return {world: trained(folder / str(world), world, SETTINGS) for world in (1, 2, 3)}


@pytest.mark.parametrize("setting", ["derangement", "all_pairs"])
def test_gathered_samples_give_the_run_of_one_process(runs, setting):
    one = runs[1][0][setting]
    assert one["sums_0"][0] != 0 and one["sums_2"].tolist() == one["sums_3"].tolist() == [0.0] * 5  # one study; none
    for world in (2, 3):
        for rank in runs[world]:
            assert rank[setting].keys() == one.keys()
            for name, tensor in one.items():
                torch.testing.assert_close(rank[setting][name], tensor, rtol=1e-4, atol=1e-6, msg=f"{name} on {world}")


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_rank_has_the_same_averages_gradients_and_weights(runs, world, setting):
    first, *others = (rank[setting] for rank in runs[world])
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first.keys() | other.keys())


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_for_themselves_follow_those_that_have_pairs(runs, world):
    run = runs[world][0]["alone"]
    averages = [run[f"averages_{step}"] for step in range(len(STEPS))]
    assert not torch.equal(averages[0], averages[1]), "a rank is blank, and follows the others"
    assert torch.equal(averages[1], averages[2]) and torch.equal(averages[2], averages[3]), "no pair anywhere"
    assert not torch.equal(averages[3], averages[4])
    assert not any(run[f"gradient_3.{name}"].any() for name in ("encode.weight", "objective.text.weight"))


@pytest.mark.parametrize("gather", [True, False])
def test_a_study_that_is_not_finite_shows_on_its_own_rank(tmp_path, gather):
    first, *others = losses_of_a_broken_study(tmp_path / "run", 3, MineOptions(hidden=8, gather=gather))
    assert not first.isfinite() and all(loss.isfinite() for loss in others)
