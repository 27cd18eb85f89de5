"""Projections as small integers, and the order of preference."""

import pytest

from rrg.data.projections import KINDS, kind_of, rank_of
from rrg.data.study import View


@pytest.mark.parametrize(
    "word,kind",
    [
        ("PA", "PA"),
        ("pa", "PA"),
        ("AP", "AP"),
        ("AP AXIAL", "AP"),
        ("frontal", "frontal"),
        ("LATERAL", "lateral"),
        ("LL", "lateral"),
        ("lateral", "lateral"),
        ("", "unknown"),
        ("LAO", "unknown"),
        ("PORTABLE?", "unknown"),
    ],
)
def test_kinds(word, kind):
    assert KINDS[kind_of(View("0.jpg", word))] == kind


def test_the_kinds_are_rows_of_checkpoints():
    assert KINDS == ("unknown", "PA", "AP", "frontal", "lateral")


def test_the_ranking_of_the_official_script():
    words = ["PA", "AP", "LATERAL", "LL", "AP AXIAL", "AP LLD", "AP RLD", "PA RLD", "PA LLD", "LAO", "RAO", "LPO"]
    words += ["XTABLE LATERAL", "SWIMMERS", ""]
    ranks = [rank_of(View("0.jpg", word)) for word in words]
    assert ranks == sorted(ranks) and len(set(ranks)) == len(ranks)
    assert rank_of(View("0.jpg", "no such word")) == rank_of(View("0.jpg", ""))
    assert rank_of(View("0.jpg", "PA")) < rank_of(View("0.jpg", "frontal")) < rank_of(View("0.jpg", "lateral"))
