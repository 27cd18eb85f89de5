"""The text-only stand-in for the film: which words stand in the slots, and that a seed decides it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError

H, WORDS = 8, 50
TABLE = torch.nn.Embedding(WORDS, H)
torch.nn.init.orthogonal_(TABLE.weight)


def slot(**options):
    built = typed_part(CONNECTOR, {"kind": "words", "slots": 6, "noise": 0.0, **options}, "connector", "words")
    return CONNECTOR.build(built, context=BuildContext(facts={"embed": TABLE, "embedding_std": 0.5}))


def batch(*reports):
    return collate([Item(str(i), Tokens([], [1], list(ids), False)) for i, ids in enumerate(reports)])


def shown(prefix):
    """The word of each slot, found by its embedding."""
    return torch.cdist(prefix.embeds.detach(), TABLE.weight.detach()[None].expand(len(prefix.embeds), -1, -1)).argmin(-1)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, WORDS - 1), min_size=1, max_size=20, unique=True), min_size=1, max_size=4),
    st.floats(0.05, 1.0),
    st.integers(0, 2**31),
)
def test_slots_hold_words_of_the_studys_own_report_and_no_more_than_the_share(reports, keep, seed):
    torch.manual_seed(seed)
    for row, report in zip(shown(slot(keep=keep)(None, batch(*reports))), reports, strict=True):
        assert set(row.tolist()) <= set(report)
        assert 1 <= len(set(row.tolist())) <= max(1, -(-len(report) * keep // 1))


def test_padding_is_never_shown():
    torch.manual_seed(0)
    for _ in range(20):
        rows = shown(slot(keep=1.0)(None, batch(range(1, 21), [7])))
        assert set(rows[1].tolist()) == {7} and 0 not in rows


def test_a_seed_decides_everything_and_nothing_else_does():
    made, part = batch(range(1, 15), [3, 4, 5]), slot(noise=0.3)
    for _ in range(2):
        torch.manual_seed(11)
        one = part(None, made).embeds
        torch.rand(5)
        torch.manual_seed(11)
        assert torch.equal(one, part(None, made).embeds)
    torch.manual_seed(12)
    assert not torch.equal(one, part(None, made).embeds)


def test_noise_is_in_units_of_the_embedding_table():
    torch.manual_seed(0)
    made = batch(*[range(1, 15)] * 50)
    torch.manual_seed(3)
    clean = slot(slots=24)(None, made).embeds
    torch.manual_seed(3)
    noisy = slot(slots=24, noise=0.3)(None, made).embeds
    assert (noisy - clean).std().item() == pytest.approx(0.5 * 0.3, rel=0.05)


def test_a_batch_without_words_and_films_in_the_wrong_place():
    assert slot()(None, batch(())).embeds.shape == (1, 6, H)
    assert slot()(None, batch((), (4, 5))).embeds.shape == (2, 6, H)
    with pytest.raises(UserError, match=r"stages with vision\.kind: none"):
        slot()(torch.zeros(1, 1, 1, 1), batch([1]))


@pytest.mark.parametrize("options", [{"slots": 0}, {"keep": 0.0}, {"keep": 1.1}, {"noise": -0.1}, {"noise": float("nan")}])
def test_options_out_of_range(options):
    with pytest.raises(UserError, match=f"connector.{next(iter(options))}: "):
        slot(**options)
