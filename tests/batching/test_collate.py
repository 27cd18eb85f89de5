"""Padding, masks and views of a micro-batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.batching.collate import Item, collate
from rrg.batching.tokenise import Tokens


def item(name, before=(), after=(9,), report=(5, 2), films=None, features=None, truncated=False):
    return Item(name, Tokens(list(before), list(after), list(report), truncated), films=films, features=features)


ROWS = st.lists(st.tuples(*[st.lists(st.integers(1, 99), max_size=7)] * 3), min_size=1, max_size=5)


@settings(deadline=None)
@given(ROWS)
def test_text_comes_back_whatever_its_lengths(rows):
    batch = collate([item(str(place), *row) for place, row in enumerate(rows)])
    for ids, mask, piece, left in (
        (batch.before_ids, batch.before_mask, 0, True),
        (batch.after_ids, batch.after_mask, 1, True),
        (batch.report_ids, batch.report_mask, 2, False),
    ):
        assert ids.shape == mask.shape == (len(rows), max(len(row[piece]) for row in rows))
        assert ids.dtype == torch.long and mask.dtype == torch.bool
        for got, there, row in zip(ids, mask, rows, strict=True):
            assert got[there].tolist() == row[piece]
            assert not got[~there].any()
            assert there.tolist() == sorted(there.tolist(), reverse=not left)
    assert batch.tokens == sum(len(row[2]) for row in rows)
    assert batch.pixel_values is None and batch.features is None and batch.view_mask.shape == (len(rows), 0)


def test_padding_does_not_depend_on_the_id_that_pads():
    """Id 0 is a real token of some vocabularies; only the mask tells padding."""
    batch = collate([item("a", report=(0, 0, 2)), item("b", report=(0,))])
    assert batch.report_mask.tolist() == [[True, True, True], [True, False, False]]
    assert batch.tokens == 4


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_views_of_any_number_are_masked(counts):
    films = [torch.full((count, 3, 2, 2), float(place + 1)) for place, count in enumerate(counts)]
    batch = collate([item(str(place), films=film) for place, film in enumerate(films)])
    assert batch.pixel_values.shape == (len(counts), max(counts), 3, 2, 2)
    assert batch.view_mask.sum(1).tolist() == counts
    for place, count in enumerate(counts):
        assert (batch.pixel_values[place, :count] == place + 1).all()
        assert not batch.pixel_values[place, count:].any()


def test_features_keep_their_type_and_give_the_view_mask():
    features = [torch.ones(2, 4, 3, dtype=torch.bfloat16), torch.ones(1, 4, 3, dtype=torch.bfloat16)]
    batch = collate([item(str(place), features=value) for place, value in enumerate(features)])
    assert batch.features.dtype == torch.bfloat16 and batch.pixel_values is None
    assert batch.view_mask.tolist() == [[True, True], [True, False]]


def test_a_study_without_films_beside_one_with_films_has_no_views():
    batch = collate([item("a"), item("b", films=torch.ones(2, 3, 2, 2))])
    assert batch.view_mask.tolist() == [[False, False], [True, True]]
    assert not batch.pixel_values[0].any()


def test_one_item_with_nothing_to_learn():
    batch = collate([item("", before=(), after=(), report=())])
    assert len(batch) == 1 and batch.tokens == 0 and batch.report_ids.shape == (1, 0)


def test_truncated_reports_are_counted():
    assert collate([item("a", truncated=True), item("b"), item("c", truncated=True)]).truncated == 2


def test_moving_keeps_everything():
    batch = collate([item("a", films=torch.ones(1, 3, 2, 2), truncated=True)])
    moved = batch.to("cpu")
    assert moved.studies == ["a"] and moved.truncated == 1 and moved.features is None
    assert batch.to("meta").pixel_values.device.type == "meta"


def test_an_empty_batch_is_a_mistake_of_the_program():
    with pytest.raises(ValueError):
        collate([])


def test_n_grams_are_padded_to_the_longest_of_the_micro_batch():
    def rows(*ngrams):
        return collate([Item(str(place), Tokens([1], [2], [3], False), ngrams=row) for place, row in enumerate(ngrams)])

    batch = rows((4, 0, 9), (), (7,))
    assert batch.ngram_ids.tolist() == [[4, 0, 9], [0, 0, 0], [7, 0, 0]]
    assert batch.ngram_mask.tolist() == [[True, True, True], [False] * 3, [True, False, False]], "0 is an id like any other"
    empty = rows((), ())
    assert empty.ngram_ids.tolist() == [[0], [0]] and empty.ngram_ids.dtype == torch.long and not empty.ngram_mask.any()
    assert rows(None, None).ngram_ids is None and rows(None, None).ngram_mask is None
    assert batch.to("meta").ngram_ids.device.type == "meta"
