"""InfoNCE of prefix and report: its value by hand, what gets a gradient, what does not count, and several processes as one."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.mine import LOGGED as MINE_LOGGED
from rrg.objectives.options import InfonceOptions
from rrg.objectives.prefix_contrast import LOGGED
from rrg.objectives.report import Outputs
from rrg.recipe import load_recipe
from tests.processes import events
from tests.strategy.ranks import train_on

WIDTH, REPORTS = 6, ([3, 4, 5], [6, 7], [3, 3, 8, 9], [6, 7], [11])


def objective(**options):
    torch.manual_seed(0)
    table = nn.Embedding(20, WIDTH)
    return OBJECTIVE.build(InfonceOptions(**options), context=BuildContext(facts={"embed": table.forward})), table


def batch_of(reports=REPORTS, blank=()):
    return collate([Item("" if i in blank else f"s{i}", Tokens([], [1], list(r), False)) for i, r in enumerate(reports)])


def outputs(mask=None):
    prefix = torch.randn(len(REPORTS), 3, WIDTH, generator=torch.Generator().manual_seed(1)).requires_grad_()
    return Outputs(None, prefix, None, mask)


def by_hand(prefix, table, reports, temperature):
    """Study by study: the mean over its partners (equal reports) of both directions."""
    image = F.normalize(prefix.mean(1), dim=1)
    text = F.normalize(torch.stack([table(torch.tensor(r)).mean(0) for r in reports]), dim=1)
    logits = image @ text.T / temperature
    terms = []
    for i, report in enumerate(reports):
        partners = [j for j, other in enumerate(reports) if other == report]
        terms += [-torch.stack([logits.log_softmax(1)[i, j], logits.log_softmax(0)[j, i]]).mean() for j in partners]
        terms[-len(partners) :] = [torch.stack(terms[-len(partners) :]).mean()]
    return torch.stack(terms).mean()


def test_the_value_by_hand_and_the_gradient():
    for temperature in (0.1, 1.0):
        made, table = objective(temperature=temperature)
        given, batch = outputs(), batch_of()
        value, told = made(given, batch)
        torch.testing.assert_close(value / 5, by_hand(given.prefix, table, REPORTS, temperature))
        assert made.count(batch) == 5 and tuple(told) == LOGGED and told["retrieval.chance"] == pytest.approx(1.0)
        value.backward()
        assert bool(given.prefix.grad.any()) and table.weight.grad is None, "the table is the language model's"
        assert not list(made.parameters())


def test_unreadable_studies_and_masked_tokens_do_not_count():
    made, _ = objective()
    mask = torch.ones(5, 3, dtype=torch.bool)
    mask[0, 2] = False
    given = outputs(mask=mask)
    moved = Outputs(None, given.prefix.detach().clone(), None, mask)
    moved.prefix[0, 2], moved.prefix[3] = torch.inf, torch.nan
    assert torch.equal(made(given, batch_of(blank=(3,)))[0], made(moved, batch_of(blank=(3,)))[0])
    few = batch_of(blank=(0, 1, 2, 3))
    alone = made(given, few)
    assert float(alone[0].detach()) == 0 and made.count(few) == 0 and made.count(batch_of(blank=(3,))) == 4
    alone[0].backward()
    assert not given.prefix.grad.any()


def test_perfect_alignment_is_told():
    made, table = objective(temperature=0.01)
    distinct = ([3, 4], [5, 6], [7, 8], [9, 10])
    prefix = torch.stack([table(torch.tensor(r)).detach() for r in distinct])
    value, told = made(Outputs(None, prefix, None), batch_of(distinct))
    assert float(value) < 0.1 and float(told["retrieval.accuracy"]) == 4
    turned, told = made(Outputs(None, prefix.roll(1, 0), None), batch_of(distinct))
    assert float(turned) > 4 and float(told["retrieval.accuracy"]) == 0


@pytest.mark.parametrize("kind,logged", [("none", set()), ("infonce", set(LOGGED)), ("mine", set(MINE_LOGGED))])
def test_an_ablation_is_one_override(kind, logged, drawn_shards):
    """`align: none | infonce | mine`, beside the likelihood of the report."""
    from tests.test_r2gengpt import batch_of, system

    connector = ["connector.kind=cmeaa", "connector.enhance=false", "connector.code_width=8"]
    built = system(drawn_shards, *connector, *([] if kind == "none" else [f"objectives.align.kind={kind}"]))
    values = built.model(batch_of(built))
    assert set(values) == ({"report"} if kind == "none" else {"report", "align"})
    assert not logged or set(values["align"][1]) == logged
    sum(value for value, _ in values.values()).backward()
    assert all(
        p.grad is not None for name, p in built.model.connector.named_parameters() if kind == "mine" or "aligner" not in name
    )


def test_settings_out_of_range():
    from rrg.errors import UserError

    for override, said in (("temperature=0", "is not above 0"), ("weight=-1", "is below 0")):
        with pytest.raises(UserError, match=f"objectives.align.*{said}"):
            load_recipe("tiny/r2gengpt_iu", ["objectives.align.kind=infonce", f"objectives.align.{override}"])
    text = ["vision.kind=none", "connector.kind=words", "train.validate_reports=false", "objectives.align.kind=infonce"]
    with pytest.raises(UserError, match=r"objectives\.align: needs films, and vision\.kind is none; write align: null"):
        load_recipe("tiny/r2gengpt_iu", text)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_train_as_one(drawn_shards, tmp_path):
    """Generative and contrastive training together, in one recipe: the same losses however studies are dealt."""
    words = [
        "tiny/r2gengpt_iu",
        f"data.shards={drawn_shards}",
        "objectives.align.kind=infonce",
        "train.batch_size=6",
        "train.max_steps=5",
        "train.validate_every=0",
        "train.eps=1e-4",
        "train.threads=1",
        "data.workers=0",
    ]
    for run, world, micro in (("one", 1, 6), ("two", 2, 3)):
        train_on(world, [*words, f"output={tmp_path / run}", f"train.micro_batch_size={micro}"], tmp_path / "log")
    one, two = events(tmp_path / "one"), events(tmp_path / "two")
    assert sorted(one) == sorted(two) == [1, 2, 3, 4, 5]
    for step in one:
        assert one[step]["objectives"] == pytest.approx(two[step]["objectives"], abs=1e-5)
        assert one[step]["logged"] == pytest.approx(two[step]["logged"], abs=1e-5)
        assert one[step]["grad_norm"] == pytest.approx(two[step]["grad_norm"], rel=1e-3)
    assert json.loads((tmp_path / "two" / "done.json").read_text())["step"] == 5
