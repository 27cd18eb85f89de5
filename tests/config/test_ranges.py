"""What a number or a word of a recipe may be: said by the option itself, held to, and told to who asks."""

import dataclasses
import typing
from dataclasses import dataclass

import pytest

from rrg.config.explain import options
from rrg.config.ranges import Range
from rrg.config.schema import option, typed
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError
from rrg.language.family import LANGUAGE
from rrg.objectives.family import OBJECTIVE
from rrg.recipe import Recipe
from rrg.sweep.options import Sweep
from rrg.vision.family import VISION

FAMILIES = (VISION, CONNECTOR, LANGUAGE, OBJECTIVE)
# Every finite number is legal for these, or their section holds them to more than a range (augment: rrg.batching.images).
FREE = {"layer", "length_penalty", "select"} | {field.name for field in dataclasses.fields(Recipe().augment)}


@dataclass
class Oven:
    heat: float = option(180.0, "degrees", above=0, most=300)
    share: float = option(0.5, "of the door", least=0, below=1)
    minutes: int | None = option(None, "null bakes for ever", least=1)
    mode: str = option("air", "air | grill", choices=("air", "grill"))
    trays: list[int] = option([1], "by height", least=1)
    weights: dict[str, float] = option({}, "of a tray", above=0)
    modes: list[str] = option([], "one after another", choices=("air", "grill"))
    free: float = option(0.0, "any number")


@pytest.mark.parametrize(
    "data,said",
    [
        ({"heat": 0}, "oven.heat: 0.0 is not above 0; write a number above 0, up to 300"),
        ({"heat": 301}, "oven.heat: 301.0 is above 300; write a number above 0, up to 300"),
        ({"share": -0.1}, "oven.share: -0.1 is below 0; write a number from 0 to below 1"),
        ({"share": 1.0}, "oven.share: 1.0 is not below 1; write a number from 0 to below 1"),
        ({"minutes": 0}, "oven.minutes: 0 is below 1; write a number at least 1"),
        ({"mode": "steam"}, "oven.mode: 'steam' is none of air, grill"),
        ({"trays": [2, 0]}, "oven.trays: 0 is below 1; write a number at least 1"),
        ({"weights": {"upper": -1.0}}, "oven.weights.upper: -1.0 is not above 0; write a number above 0"),
        ({"modes": ["air", "steam"]}, "oven.modes: 'steam' is none of air, grill"),
        ({"free": float("nan")}, "oven.free: nan is not a finite number"),
        ({"heat": float("inf")}, "oven.heat: inf is not a finite number; write a number above 0, up to 300"),
    ],
)
def test_what_is_outside_is_refused_with_what_may_be_written(data, said):
    with pytest.raises(UserError) as caught:
        typed(Oven, data, "oven")
    assert str(caught.value) == said


def test_the_ends_that_belong_to_a_range_and_null_are_taken():
    oven = typed(
        Oven, {"heat": 300, "share": 0, "minutes": None, "trays": [1, 9], "weights": {}, "modes": ["grill"], "free": -1e9}
    )
    assert (oven.heat, oven.share, oven.minutes) == (300.0, 0.0, None)


def test_ranges_in_words():
    words = [
        str(Range(*bounds))
        for bounds in ((), (0,), (None, 0), (0, None, 1), (None, 0, 1), (0, None, None, 1), (None,) * 2 + (5,))
    ]
    assert words == ["", "at least 0", "above 0", "from 0 to 1", "above 0, up to 1", "from 0 to below 1", "up to 5"]
    assert {row.key: row.type for row in options(Oven)}["minutes"] == "a whole number or null, at least 1"


def leaves(cls):
    """(name, type, metadata) of every plain option below a dataclass."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if "section" in field.metadata:
            yield from leaves(field.metadata["section"])
        elif "range" in field.metadata:
            yield field.name, hints[field.name], field.metadata


def test_every_number_of_a_recipe_has_bounds_and_every_choice_is_told():
    kinds = [kind.options for family in FAMILIES for kind in family.kinds.values()]
    for cls in (Recipe, Sweep, *kinds):
        for name, hint, metadata in leaves(cls):
            numeric = any(word in str(hint) for word in ("int", "float")) and "Any" not in str(hint)
            assert not numeric or str(metadata["range"]) or name in FREE, f"{cls.__name__}.{name}: no bounds"
            told = metadata["doc"]
            missing = [] if "--help" in told or name == "protocols" else [w for w in metadata["choices"] or () if w not in told]
            assert not missing, f"{cls.__name__}.{name}: {missing} not in its meaning"
