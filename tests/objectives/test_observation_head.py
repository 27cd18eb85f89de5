"""The fourteen observations from the visual tokens."""

import pytest
import torch
from torch.nn import functional as F

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError
from rrg.objectives.family import OBJECTIVE
from rrg.objectives.options import ObservationsOptions
from rrg.objectives.report import Outputs
from rrg.recipe import load_recipe

LABELS = ({"Edema": 1, "Fracture": 0}, {"Edema": -1, "No Finding": 1}, {})


def head(**options):
    torch.manual_seed(0)
    return OBJECTIVE.build(ObservationsOptions(**options), context=BuildContext(facts={"vision_width": 5}))


def batch_of(labels=LABELS, views=(1, 2, 2)):
    items = [
        Item(str(i), Tokens([], [1], [2], False), features=torch.randn(v, 3, 5), labels=given)
        for i, (given, v) in enumerate(zip(labels, views, strict=True))
    ]
    return collate(items)


def test_loss_by_hand_with_uncertain_and_unlabelled_left_out():
    batch, objective = batch_of(), head(sharpness=0, positive_weight=3.0)
    value, _ = objective(Outputs(batch.features, None, None), batch)
    expected = 0.0
    for study, given in enumerate(LABELS[:2]):
        tokens = batch.features[study, : 1 + study].reshape(-1, 5)
        logits = objective.head(tokens).mean(0)
        for place, name in enumerate(OBSERVATIONS):
            if given.get(name) != -1:
                target = float(given.get(name) == 1)
                loss = F.binary_cross_entropy_with_logits(logits[place], torch.tensor(target))
                expected += loss * (3.0 if target else 1.0)
    torch.testing.assert_close(value, torch.as_tensor(expected))
    assert objective.count(batch) == 14 + 13


@pytest.mark.parametrize("sharpness", [0.0, 2.0])
def test_absent_views_do_not_count(sharpness):
    batch, objective = batch_of(), head(sharpness=sharpness)
    alone = batch_of(LABELS[:1], (1,))
    alone.features = batch.features[:1, :1]
    together = objective.logits(batch.features, batch.view_mask)[0]
    torch.testing.assert_close(together, objective.logits(alone.features, alone.view_mask)[0])


def test_pooling_goes_from_mean_to_maximum():
    tokens, mask = torch.randn(2, 2, 4, 5), torch.ones(2, 2, dtype=torch.bool)
    z = head().head(tokens).reshape(2, 8, 14)
    torch.testing.assert_close(head(sharpness=1e-3).logits(tokens, mask), z.mean(1), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(head(sharpness=500.0).logits(tokens, mask), z.amax(1), rtol=1e-2, atol=1e-2)


def test_a_batch_without_labels_gives_zero():
    batch, objective = batch_of(({}, {}), (1, 1)), head()
    value, _ = objective(Outputs(batch.features, None, None), batch)
    assert value.item() == 0 and objective.count(batch) == 0


def test_read_from_the_prefix_masked_tokens_do_not_count():
    facts = {"vision_width": 5, "language_width": 7}
    objective = OBJECTIVE.build(ObservationsOptions(reads="prefix"), context=BuildContext(facts=facts))
    batch, prefix = batch_of(), torch.randn(3, 6, 7)
    mask = torch.ones(3, 6, dtype=torch.bool)
    whole, _ = objective(Outputs(batch.features, prefix, None), batch)
    torch.testing.assert_close(objective(Outputs(batch.features, prefix, None, mask), batch)[0], whole)
    mask[:, 4:] = False
    cut, _ = objective(Outputs(batch.features, prefix[:, :4], None), batch)
    torch.testing.assert_close(objective(Outputs(batch.features, prefix, None, mask), batch)[0], cut)
    with pytest.raises(UserError, match=r"objectives\.observations\.reads: 'films' is none of tokens, prefix"):
        load_recipe("tiny/r2gengpt_iu", ["objectives.observations.kind=observations", "objectives.observations.reads=films"])
