"""CmEAA's alignment objective: its value by hand, what gets a gradient, what does not count."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed
from rrg.errors import UserError
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.information import marginal_pairs
from rrg.objectives.mine import LOGGED, first_occurrences, retrieval_accuracy, study_key
from rrg.objectives.options import MineOptions
from rrg.objectives.report import Outputs
from rrg.train.optim import kept_buffers

WORDS, WIDTH, CODE = 20, 6, 4
REPORTS = ([3, 4, 5], [6, 7], [3, 3, 8, 9], [10], [11, 12, 4])


def mine(**options):
    torch.manual_seed(0)
    table = nn.Embedding(WORDS, WIDTH)
    facts = {"embed": table.forward, "code_width": CODE, "language_width": WIDTH}
    objective = OBJECTIVE.build(MineOptions(**{"hidden": 8, **options}), context=BuildContext(facts=facts))
    with torch.no_grad():
        for parameter in objective.estimator.parameters():
            parameter.mul_(3.0)  # scores of different pairs that differ
    return objective, table


def batch_of(reports=REPORTS, studies=None):
    studies = studies or [f"s{i}" for i in range(len(reports))]
    rows = zip(studies, reports, strict=True)
    return collate([Item(study, Tokens([1], [2], list(ids), False), films=torch.zeros(1, 3, 2, 2)) for study, ids in rows])


def code_of(studies=5, seed=1):
    return torch.randn(studies, CODE, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def outputs(code):
    return Outputs(None, None, None, None, code)


def scores(objective, a, z):
    """T as the specification writes it."""
    part = objective.estimator
    hidden = F.relu(part.second(F.relu(part.first(torch.cat([a, z], 1)))))
    return 10 * torch.tanh(part.last(hidden).squeeze(1) / 10)


def by_hand(objective, table, code, batch, partners):
    """(I_c, I_r) of the printed algorithm; `partners[p][i]` is the row of Z that row i meets in its p-th marginal pair."""
    vectors = torch.stack(
        [table.weight[ids[mask]].mean(0) for ids, mask in zip(batch.report_ids, batch.report_mask, strict=True)]
    )
    report = objective.text(vectors)
    fused = code + report
    found = []
    for source in (code, report):
        marginal = torch.cat([scores(objective, source, fused[list(row)]) for row in partners])
        found.append(scores(objective, source, fused).mean() - (marginal.logsumexp(0) - math.log(len(marginal))))
    return found


def in_order(batch):
    """Places of the studies in the order in which a shift counts."""
    return sorted(range(len(batch)), key=lambda place: study_key(batch.studies[place]))


def shifted(batch, shift):
    order = in_order(batch)
    partners = [0] * len(order)
    for place, row in enumerate(order):
        partners[row] = order[(place + shift) % len(order)]
    return partners


def test_a_derangement_gives_the_value_of_the_printed_algorithm():
    objective, table = mine()
    batch, code = batch_of(), code_of()
    torch.manual_seed(5)
    value, logs = objective(outputs(code), batch)
    candidates = [by_hand(objective, table, code, batch, [shifted(batch, shift)]) for shift in range(1, 5)]
    image, report = next(pair for pair in candidates if math.isclose(-5 * sum(pair).item(), value.item(), abs_tol=1e-5))
    assert set(logs) == set(LOGGED)
    torch.testing.assert_close(logs["information.image"] / 5, image.detach())
    torch.testing.assert_close(logs["information.report"] / 5, report.detach())
    assert float(logs["retrieval.chance"]) == pytest.approx(1.0) and objective.count(batch) == 5


def test_all_pairs_and_all_derangements_are_the_same_pairs():
    every = [shifted(batch_of(), shift) for shift in range(1, 5)]
    for options in ({"marginal": "all_pairs"}, {"marginal": "several", "derangements": 9}):
        objective, table = mine(**options)
        code = code_of()
        value, _ = objective(outputs(code), batch_of())
        torch.testing.assert_close(value, -5 * sum(by_hand(objective, table, code, batch_of(), every)))


@pytest.mark.parametrize("marginal", ["derangement", "several", "all_pairs"])
def test_code_text_projection_and_critic_get_gradients_and_the_embeddings_none(marginal):
    objective, table = mine(marginal=marginal)
    code = code_of()
    objective(outputs(code), batch_of())[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters() if parameter.ndim > 1)
    assert code.grad.any(1).all() and table.weight.grad is None


def test_the_order_of_the_studies_does_not_matter():
    """Ranks deal a batch out by length: the pairs that are drawn belong to studies, not to places."""
    values = []
    for order in (range(5), (3, 0, 4, 2, 1)):
        objective, _ = mine()
        torch.manual_seed(3)
        batch = batch_of([REPORTS[i] for i in order], [f"s{i}" for i in order])
        values.append(objective(outputs(code_of()[list(order)]), batch)[0])
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("studies", [["s0"], ["", "s1"], ["", ""]])
def test_fewer_than_two_studies_give_zero_with_every_parameter_in_the_graph(studies):
    objective, _ = mine()
    code = code_of(len(studies))
    batch = batch_of(REPORTS[: len(studies)], studies)
    value, logs = objective(outputs(code), batch)
    value.backward()
    assert value.item() == 0 and objective.count(batch) == 0
    assert set(logs) == set(LOGGED) and not any(logs.values())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in (code, *objective.parameters()))
    assert objective.estimator.log_average.tolist() == [-math.inf] * 2


def test_studies_that_could_not_be_read_do_not_count():
    objective, _ = mine(marginal="all_pairs")
    code = code_of()
    studies = ["s0", "", "s2", "s3", ""]
    value, _ = objective(outputs(code), batch_of(studies=studies))
    objective.estimator.log_average.fill_(-math.inf)
    kept = [0, 2, 3]
    alone, _ = objective(outputs(code[kept]), batch_of([REPORTS[i] for i in kept], [studies[i] for i in kept]))
    torch.testing.assert_close(value, alone)
    assert objective.count(batch_of(studies=studies)) == 3
    value.backward()
    assert not code.grad[[1, 4]].any() and code.grad[kept].any(1).all()


def test_averages_start_at_the_first_batch_move_by_the_rate_and_rest_in_evaluation():
    objective, _ = mine(rate=0.25, marginal="all_pairs")
    seen = []
    for seed in range(3):
        objective(outputs(code_of(seed=seed)), batch_of())
        seen.append(objective.estimator.log_average.exp())
    alone = []
    for seed in range(3):
        fresh, _ = mine(marginal="all_pairs")
        fresh(outputs(code_of(seed=seed)), batch_of())
        alone.append(fresh.estimator.log_average.exp())
    torch.testing.assert_close(seen[0], alone[0])
    torch.testing.assert_close(seen[1], 0.25 * alone[1] + 0.75 * alone[0])
    torch.testing.assert_close(seen[2], 0.25 * alone[2] + 0.75 * seen[1])
    objective.eval()
    objective(outputs(code_of(seed=9)), batch_of())
    assert torch.equal(objective.estimator.log_average.exp(), seen[2])
    assert [name for name, _ in kept_buffers(nn.ModuleDict({"objectives": nn.ModuleDict({"mine": objective})}))] == [
        "objectives.mine.estimator.log_average"
    ]


def test_the_correction_leaves_the_value_and_scales_the_marginal_gradient_by_mean_over_average():
    gradients, values = [], []
    for corrected, average in ((True, 0.7), (False, 0.7), (True, math.inf)):
        objective, _ = mine(corrected=corrected, marginal="all_pairs", rate=0.01)
        objective.estimator.log_average.fill_(math.log(average))
        means = mean_exp(objective, batch_of(), code_of())
        value, _ = objective(outputs(code_of()), batch_of())
        values.append(value)
        # Of one term at a time: the image's. The joint part is what is left with an infinite average.
        gradients.append(image_gradient(objective, average))
    assert torch.equal(values[0], values[1])
    factor = means[0] / (0.01 * means[0] + 0.99 * 0.7 + 1e-6)
    for corrected, biased, joint in zip(*gradients, strict=True):
        torch.testing.assert_close(corrected - joint, (biased - joint) * factor, rtol=1e-3, atol=1e-6)


def mean_exp(objective, batch, code):
    fresh, _ = mine(marginal="all_pairs")
    fresh(outputs(code), batch)
    return fresh.estimator.log_average.exp()


def image_gradient(objective, average):
    """Gradient of I_c by the last layer, from an average as given."""
    objective.estimator.log_average.fill_(math.log(average))
    rows = objective._samples(code_of(), batch_of()).rows.detach()
    image, text = rows.chunk(2, 1)
    marginal = marginal_pairs("all_pairs", len(rows), 1, 0)
    estimate = objective.estimator((image, text), image + text, marginal)
    return torch.autograd.grad(estimate.information[0], list(objective.estimator.parameters()))


def test_the_branch_is_float32_under_autocast():
    objective, _ = mine(marginal="all_pairs")
    plain, _ = objective(outputs(code_of()), batch_of())
    objective.estimator.log_average.fill_(-math.inf)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = objective(outputs(code_of()), batch_of())
        half, _ = objective(outputs(code_of().detach().bfloat16().requires_grad_()), batch_of())
    assert torch.equal(plain, cast) and half.dtype == torch.float32


@pytest.mark.parametrize("samples", [2, 3, 8, 33])
def test_no_pair_for_independence_is_a_joint_one(samples):
    rows = torch.arange(samples)
    for seed in range(20):
        for kind, most in (("derangement", 1), ("several", 4)):
            partners = marginal_pairs(kind, samples, 4, seed).partners
            assert len(partners) == min(most, samples - 1)
            assert not (partners == rows).any() and (partners.sort(1).values == rows).all()
            assert len({tuple(row) for row in partners.tolist()}) == len(partners)
    assert len({marginal_pairs("derangement", samples, 1, seed).partners[0, 0].item() for seed in range(40)}) >= min(
        samples - 1, 5
    )


def test_pooling_of_the_report():
    batch = batch_of()
    assert first_occurrences(batch.report_ids, batch.report_mask).sum(1).tolist() == [3, 2, 3, 1, 3]
    objective, table = mine(pooling="distinct")
    torch.testing.assert_close(objective.report_vector(batch)[2], table.weight[[3, 8, 9]].mean(0))
    normed, table = mine(text_norm=True)
    vector = normed.report_vector(batch)
    torch.testing.assert_close(vector.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(vector[3], F.layer_norm(table.weight[10], (WIDTH,)))
    empty = batch_of(([], [3]))
    assert not mine()[0].report_vector(empty)[0].any()


def test_retrieval_counts_ties_as_chance_does():
    text = torch.eye(5)
    assert retrieval_accuracy(2 * text + 7.0, text) == 1.0  # whatever the length and the common part
    assert retrieval_accuracy(text.roll(1, 0), text) == 0.0
    assert retrieval_accuracy(torch.ones(5, 3), torch.randn(5, 3)).item() == pytest.approx(0.2)
    twins = torch.eye(4)[[0, 0, 1, 2]]
    assert retrieval_accuracy(twins, twins).item() == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)


def test_refusals():
    for key, value in (("marginal", "none"), ("pooling", "max"), ("rate", 0.0), ("rate", 1.5), ("hidden", 0), ("bound", -1.0)):
        with pytest.raises(UserError, match=rf"objectives\.mine\.{key}"):
            typed(MineOptions, {key: value}, "objectives.mine")
    with pytest.raises(UserError, match=r"objectives\.mine: needs connector\.align: true"):
        OBJECTIVE.build(MineOptions(), context=BuildContext(facts={"code_width": None}))
