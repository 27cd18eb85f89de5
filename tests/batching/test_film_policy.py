"""Which films of a study are used: never none of a study that has one, never one twice, at most so many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.batching.film_policy import POLICIES, FilmPolicy
from rrg.data.projections import KINDS
from rrg.data.study import View
from rrg.errors import UserError

WORDS = ("PA", "AP", "LATERAL", "LL", "AP AXIAL", "LAO", "SWIMMERS", "", "frontal", "lateral")


def views(*words):
    return tuple(View(f"{number}.jpg", word) for number, word in enumerate(words))


@pytest.mark.parametrize(
    "name,words,chosen",
    [
        ("stored", ("LATERAL", "", "PA"), [0, 1, 2]),
        ("frontal_first", ("LATERAL", "", "PA", "LL", "AP"), [2, 4, 0, 3, 1]),
        ("frontal", ("LATERAL", "PA", "", "AP"), [1, 3]),
        ("frontal", ("LATERAL", "LL"), [0]),
        ("frontal", ("",), [0]),
        ("frontal_lateral", ("LL", "LATERAL", "AP", "PA"), [2, 0]),
        ("frontal_lateral", ("PA", "AP"), [0]),
        ("frontal_lateral", ("LL", ""), [0]),
        ("frontal_lateral", ("LAO", ""), [0]),
        ("ranked", ("", "SWIMMERS", "LL", "LATERAL", "AP", "PA", "AP"), [5, 4, 6, 3, 2, 1, 0]),
    ],
)
def test_policies(name, words, chosen):
    assert FilmPolicy(name).choose(views(*words)) == chosen
    assert FilmPolicy(name, 1).choose(views(*words)) == chosen[:1]


@given(
    st.sampled_from(sorted(POLICIES)), st.lists(st.sampled_from(WORDS), max_size=6), st.none() | st.integers(1, 4), st.booleans()
)
def test_every_choice_is_films_of_the_study(name, words, most, stitch):
    policy, given = FilmPolicy(name, most, stitch), views(*words)
    chosen = policy.choose(given)
    assert len(chosen) == len(set(chosen)) <= (len(words) if most is None else min(most, len(words)))
    assert set(chosen) <= set(range(len(words))) and bool(chosen) == bool(words)
    assert len(policy.kinds(given)) == (min(1, len(words)) if stitch else len(chosen))


def test_the_kind_of_a_stitched_picture_is_that_of_its_films_where_they_agree():
    def kinds(*words):
        return [KINDS[kind] for kind in FilmPolicy("stored", 2, stitch=True).kinds(views(*words))]

    assert kinds("PA") == ["PA"] and kinds("LATERAL", "LL") == ["lateral"] and kinds("PA", "LATERAL") == ["unknown"]
    assert kinds("PA", "PA", "LATERAL") == ["PA"], "the third film is not in the picture"


def test_an_unknown_word_is_refused():
    with pytest.raises(UserError, match=r"data\.views: 'frontals'.*did you mean 'frontal'"):
        FilmPolicy("frontals")
