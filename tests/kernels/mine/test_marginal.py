"""Which pairs are marginal, and what is refused."""

import pytest
import torch
from rrg_kernels.mine import Marginal
from rrg_kernels.mine.marginal import marginal_pairs

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch", [2, 3, 8, 13])
def test_every_shift_is_a_derangement(batch):
    partners = Marginal.shifts(batch, range(1, batch)).partners
    assert partners.shape == (batch - 1, batch)
    assert torch.equal(Marginal.permutations(partners).partners, partners)
    assert not (partners == torch.arange(batch)).any()
    assert partners[0, 0] == 1 and partners[-1, 0] == batch - 1
    assert torch.equal(Marginal.shifts(batch, 1).partners, partners[:1])


@pytest.mark.parametrize(
    "table,words",
    [
        ([[1, 0, 2]], "row 0 of permutations leaves 2 in its place"),
        ([[1, 2, 0], [0, 2, 1]], "row 1 of permutations leaves 0"),
        ([[1, 2, 2]], "row 0 of permutations does not hold each"),
        ([[1, 2, 3]], "row 0 of permutations does not hold each"),
        ([[1.0, 0.0]], r"give \[P, B\] integers"),
        ([[True, False]], r"give \[P, B\] integers"),
        ([[[1, 0]]], r"give \[P, B\] integers"),
        (torch.empty(0, 4, dtype=torch.long), "P ≥ 1|P at least 1"),
        ([0], "leaves 0 in its place"),  # the only permutation of one row
    ],
)
def test_what_is_no_derangement_is_refused(table, words):
    with pytest.raises(ValueError, match=words):
        Marginal.permutations(torch.as_tensor(table))


@pytest.mark.parametrize("batch,by", [(4, 0), (4, 4), (4, -1), (1, 1), (4, []), (5, [1, 5])])
def test_shifts_that_bring_a_row_back_are_refused(batch, by):
    with pytest.raises(ValueError, match=f"from 1 to {batch - 1}"):
        Marginal.shifts(batch, by)


def test_a_batch_of_one_and_a_table_for_another_batch_are_refused():
    with pytest.raises(ValueError, match="a batch of 1 has no marginal pairs"):
        Marginal.all_pairs(with_joint=True).check(1, CPU)
    with pytest.raises(ValueError, match="permutations of 4 rows for a batch of 5"):
        Marginal.shifts(4, 1).check(5, CPU)
    with pytest.raises(ValueError, match=r"permutations on cpu, the batch on meta: write marginal.to\('meta'\)"):
        Marginal.shifts(4, 1).check(4, torch.device("meta"))
    Marginal.shifts(2, 1).check(2, CPU)


def test_pairs_are_counted():
    assert marginal_pairs(7, None, True) == 49
    assert marginal_pairs(7, None, False) == 42
    assert marginal_pairs(7, Marginal.shifts(7, [1, 3]).partners, False) == 14
    assert Marginal.all_pairs().to("cpu") == Marginal.all_pairs()
