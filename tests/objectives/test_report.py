"""The likelihood of the report as an objective: a sum, its count, and a weight."""

import pytest
import torch

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.errors import UserError
from rrg.language.causal import LanguageOutput
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.report import Outputs


def objective(**options):
    built = typed_part(OBJECTIVE, {"kind": "report", **options}, "objectives.report", "report")
    return OBJECTIVE.build(built, context=BuildContext())


def test_sums_and_counts_add_up_however_the_batch_is_dealt():
    nll = torch.tensor([0.5, 1.5, 2.0, 4.0])
    lengths = [3, 1]
    whole = collate([Item(str(i), Tokens([], [1], [2] * n, False)) for i, n in enumerate(lengths)])
    report = objective(weight=0.5)
    total, logged = report(Outputs(None, None, LanguageOutput(nll, 4)), whole)
    assert (total.item(), logged, report.count(whole), report.weight) == (8.0, {}, 4, 0.5)
    parts = [collate([Item("a", Tokens([], [1], [2] * n, False))]) for n in lengths]
    rows = zip(nll.split(lengths), parts, strict=True)
    pieces = [report(Outputs(None, None, LanguageOutput(piece, 0)), part)[0] for piece, part in rows]
    assert sum(pieces).item() == total.item() and sum(map(report.count, parts)) == 4


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number(weight):
    with pytest.raises(UserError, match=r"objectives\.report\.weight"):
        objective(weight=weight)
