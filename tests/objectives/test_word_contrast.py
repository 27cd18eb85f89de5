"""The contrast of films by the words of their reports."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.options import WordsOptions
from rrg.objectives.report import Outputs


@pytest.fixture
def table():
    torch.manual_seed(0)
    return nn.Embedding(12, 6)


def batch_of(*reports):
    items = [Item(f"s{i}", Tokens([1], [2], list(ids), False), films=torch.zeros(1, 3, 4, 4)) for i, ids in enumerate(reports)]
    return collate(items)


def contrast(table, **options):
    return OBJECTIVE.build(WordsOptions(**options), context=BuildContext(facts={"embed": table}))


def test_value_equals_the_formula_by_hand(table):
    batch = batch_of([3, 4, 5], [3, 4, 4, 6], [3, 7])
    prefix = torch.randn(3, 2, 6)
    value, logs = contrast(table, sharpness=4.0)(Outputs(None, prefix, None), batch)
    terms = []
    for word in (4, 5, 6, 7):  # 3 stands in every report: it tells nothing apart
        has = torch.tensor([word in ids for ids in ([3, 4, 5], [3, 4, 6], [3, 7])])
        cosine = F.cosine_similarity(prefix, table.weight[word].expand(3, 2, 6), dim=-1)
        log_share = (4.0 * cosine).exp().sum(1).log().log_softmax(0)
        terms.append(-log_share[has].mean())
    torch.testing.assert_close(value, 3 * torch.stack(terms).mean())
    assert logs == {}


def test_a_prefix_that_holds_its_words_has_the_lower_loss_and_the_table_gets_no_gradient(table):
    batch = batch_of([3, 4], [5, 6])
    right = torch.stack([table.weight[[3, 4]], table.weight[[5, 6]]]).detach().requires_grad_()
    objective = contrast(table)
    good, _ = objective(Outputs(None, right, None), batch)
    bad, _ = objective(Outputs(None, right.flip(0), None), batch)
    assert good < bad
    good.backward()
    assert right.grad.any() and table.weight.grad is None


@pytest.mark.parametrize("reports", [([3, 4],), ([3, 4], [4, 3, 3]), ([], [])])
def test_films_that_no_word_tells_apart_give_zero_that_backpropagates(table, reports):
    batch = batch_of(*reports)
    prefix = torch.randn(len(reports), 2, 6, requires_grad=True)
    value, _ = contrast(table)(Outputs(None, prefix, None), batch)
    value.backward()
    assert value.item() == 0 and not prefix.grad.any()


def test_padding_and_repetition_of_words_do_not_count(table):
    prefix = torch.randn(2, 3, 6)
    objective = contrast(table)
    plain, _ = objective(Outputs(None, prefix, None), batch_of([3, 4], [5]))
    again, _ = objective(Outputs(None, prefix, None), batch_of([3, 4, 4, 3], [5]))
    torch.testing.assert_close(plain, again)
    assert objective.count(batch_of([3], [4])) == 2


def test_tokens_of_absent_views_do_not_count(table):
    """A film of two tokens beside a study of two films: the same value whatever stands in the padding, or how many are there."""
    batch, objective = batch_of([3, 4], [3, 5]), contrast(table, sharpness=4.0)
    prefix = torch.randn(2, 2, 6).repeat(1, 2, 1)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    spoiled = prefix.clone()
    spoiled[1, 2:] = 9.0
    values = [objective(Outputs(None, given, None, mask), batch)[0] for given in (prefix, spoiled)]
    assert torch.equal(*values)
    torch.testing.assert_close(values[0], objective(Outputs(None, prefix[:, :2], None), batch)[0])
