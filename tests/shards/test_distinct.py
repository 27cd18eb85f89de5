"""Repeats among names, found through digests, are those that a dictionary would find."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rrg.shards import distinct
from rrg.shards.distinct import Digests, repeated, shared

NAMES = st.lists(st.sampled_from([f"p{number}" for number in range(12)] + ["", "é"]), max_size=20)


@given(NAMES)
def test_repeated(names):
    expected = [name for name, count in Counter(names).items() if count > 1]
    assert repeated(Digests(names), lambda: names) == expected
    assert len(Digests(names).distinct()) == len(set(names))


@given(st.lists(NAMES, max_size=4))
def test_shared(groups):
    owners = [(name, group) for group, names in enumerate(groups) for name in names]
    expected = [name for name in dict.fromkeys(name for name, _ in owners) if sum(name in names for names in groups) > 1]
    assert shared(map(Digests, groups), lambda: owners) == expected


def test_equal_digests_of_different_names_are_no_repeat(monkeypatch):
    monkeypatch.setattr(distinct, "_digest", len)
    assert repeated(Digests(["aa", "bb", "c"]), lambda: ["aa", "bb", "c"]) == []
    assert shared([Digests(["aa"]), Digests(["bb"])], lambda: [("aa", 0), ("bb", 1)]) == []


def test_names_are_not_read_again_where_nothing_repeats():
    def never():
        raise AssertionError

    assert repeated(Digests(["a", "b"]), never) == [] and shared([Digests(["a"]), Digests(["b"])], never) == []
    assert repeated(Digests(), never) == [] and shared([], never) == []
