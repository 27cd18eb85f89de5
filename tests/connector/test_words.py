"""The text-only stand-in for the film: which words stand in the slots, and that a seed decides it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens
from rrg.config.context import BuildContext
from rrg.config.schema import typed_part
from rrg.connector.family import CONNECTOR
from rrg.data.study import OBSERVATIONS
from rrg.errors import UserError

H, WORDS, SLOTS = 8, 50, 6
TABLE = torch.nn.Embedding(WORDS, H)
torch.nn.init.orthogonal_(TABLE.weight)


def slot(**options):
    built = typed_part(CONNECTOR, {"kind": "words", "slots": SLOTS, "noise": 0.0, **options}, "connector", "words")
    return CONNECTOR.build(built, context=BuildContext(facts={"embed": TABLE.forward, "embedding_std": 0.5, "language_width": H}))


def batch(*reports):
    return collate([Item(str(i), Tokens([], [1], list(ids), False)) for i, ids in enumerate(reports)])


def shown(prefix):
    """Per study the words of its slots, found by their embeddings; slots of zeros hold none."""
    same = (prefix.embeds[:, :, None] == TABLE.weight).all(-1)
    blank = (prefix.embeds == 0).all(-1)
    assert (same.any(-1) != blank).all(), "a slot holds one word, or nothing"
    return [row.nonzero()[:, 1].tolist() for row in same]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, WORDS - 1), min_size=1, max_size=20, unique=True), min_size=1, max_size=4),
    st.floats(0.05, 1.0),
    st.integers(0, 2**31),
)
def test_slots_hold_words_of_the_studys_own_report_and_no_more_than_the_share(reports, keep, seed):
    torch.manual_seed(seed)
    for row, report in zip(shown(slot(keep=keep)(None, batch(*reports))), reports, strict=True):
        assert set(row) <= set(report) and len(row) == len(set(row))
        assert len(row) <= math.ceil(min(len(report), SLOTS) * keep)


def test_padding_is_never_shown_and_words_stand_anywhere():
    torch.manual_seed(0)
    part, made, places, held = slot(keep=1.0), batch(range(1, 21), [7]), set(), set()
    for _ in range(200):
        prefix = part(None, made)
        long, short = shown(prefix)
        assert set(short) <= {7} and 0 not in long
        places |= set(prefix.embeds[1].any(-1).nonzero()[:, 0].tolist())
        held.add(len(long))
    assert places == set(range(SLOTS)) and held == set(range(1, SLOTS + 1))


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
    assert slot()(None, batch(())).embeds.shape == (1, SLOTS, H)
    assert slot()(None, batch((), (4, 5))).embeds.shape == (2, SLOTS, H)
    with pytest.raises(UserError, match=r"stages with vision\.kind: none"):
        slot()(torch.zeros(1, 1, 1, 1), batch([1]))


LABELS = {"Cardiomegaly": 1, "Edema": 0, "Fracture": -1, "Support Devices": 1}


def labelled(*labels):
    """One study for each set of labels, with a report of words 1, 2 and 3."""
    return collate([Item(str(i), Tokens([], [1], [1, 2, 3], False), labels=row) for i, row in enumerate(labels)])


def observed(part, prefix):
    """Per study the observations of its slots, found by their vectors, in the order of OBSERVATIONS and with repetitions."""
    same = (prefix.embeds[:, :, None] == part.observations).all(-1)
    return [sorted(row.nonzero()[:, 1].tolist()) for row in same]


def test_positive_observations_take_their_slots_and_no_other_label_does():
    part = slot(slots=16, keep=0.0, observations=3)
    heart, devices = OBSERVATIONS.index("Cardiomegaly"), OBSERVATIONS.index("Support Devices")
    places = set()
    for seed in range(50):
        torch.manual_seed(seed)
        prefix = part(None, labelled(LABELS, {}, {"Edema": 0}))
        assert observed(part, prefix) == [sorted([heart, devices] * 3), [], []]
        assert not prefix.embeds[1:].any()
        places |= set(prefix.embeds[0].any(-1).nonzero()[:, 0].tolist())
    assert places == set(range(16))


@pytest.mark.parametrize("slots", [1, 4, 13, 14, 40])
def test_words_and_observations_share_the_slots_and_too_many_are_cut_from_the_end(slots):
    part, every = slot(slots=slots, keep=1.0, observations=1), dict.fromkeys(OBSERVATIONS, 1)
    torch.manual_seed(slots)
    prefix = part(None, labelled(every))
    words = len(set(torch.where((prefix.embeds[0][:, None] == TABLE.weight).all(-1))[0].tolist()))
    assert 1 <= words <= 3
    assert observed(part, prefix)[0] == list(range(min(len(OBSERVATIONS), slots - words)))


def test_the_vectors_of_observations_are_learned_and_only_those_shown():
    part = slot(slots=8, keep=0.0, observations=2, noise=0.3)
    assert [name for name, _ in part.named_parameters()] == ["observations"]
    assert not list(slot().parameters())
    part(None, labelled(LABELS)).embeds.square().sum().backward()
    touched = part.observations.grad.any(-1).nonzero()[:, 0].tolist()
    assert touched == sorted(OBSERVATIONS.index(name) for name, label in LABELS.items() if label == 1)


def test_something_is_shown():
    with pytest.raises(UserError, match=r"connector\.keep: 0 and observations: 0 show nothing"):
        slot(keep=0.0)


@pytest.mark.parametrize(
    "options", [{"slots": 0}, {"observations": -1}, {"keep": -0.1}, {"keep": 1.1}, {"noise": -0.1}, {"noise": float("nan")}]
)
def test_options_out_of_range(options):
    with pytest.raises(UserError, match=f"connector.{next(iter(options))}: "):
        slot(**options)
