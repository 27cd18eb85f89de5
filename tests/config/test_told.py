"""`rrg config diff`: what two recipes differ in, as one tells it, fits a screen for every two that are shipped."""

import itertools
from pathlib import Path

from rrg.config.explain import ABSENT, told
from rrg.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(file.stem for file in (ROOT / "configs" / "recipes").glob("*.yaml"))
SCREEN = 60


def rows(left, right):
    """What the command shows."""
    return [row for row in told(left, right) if row.key not in ("name", "output")]


def test_two_shipped_recipes_differ_by_less_than_a_screen():
    loaded = {name: load_recipe(f"recipes/{name}").value for name in RECIPES}
    lengths = {(a, b): len(rows(loaded[a], loaded[b])) for a, b in itertools.combinations(RECIPES, 2)}
    assert len(RECIPES) >= 10 and min(lengths.values()) > 0, "no two recipes are one"
    too_long = {pair: length for pair, length in lengths.items() if length > SCREEN}
    assert not too_long, "merge settings that say one thing, or leave to defaults what is theirs"
    for (a, b), length in lengths.items():
        assert length == len(rows(loaded[b], loaded[a])), (a, b)


def test_a_section_that_one_side_has_is_one_row():
    bare = load_recipe("recipes/gla_ai4biomed_rrg24").value
    other = load_recipe("recipes/gla_ai4biomed_rrg24", ["language.lora.r=64", "language.lora.targets=[q_proj]"]).value
    changed = [(row.key, row.left) for row in told(bare, other)]
    assert changed == [("language.lora.r", 128), ("language.lora.targets", ["all-linear"])]
    words = ["vision.kind=none", "connector.kind=none", "train.validate_reports=false"]
    text, tiny = load_recipe("tiny/r2gengpt_iu", words).value, load_recipe("tiny/r2gengpt_iu").value
    shown = {row.key: row for row in told(tiny, text)}
    assert shown["vision.lora"].left == {"r": 2} and shown["vision.lora"].right == ABSENT
    assert not any(key.startswith("vision.lora.") for key in shown)
