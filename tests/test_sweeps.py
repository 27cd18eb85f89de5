"""Sweep files: a recipe, seeds, and named variants of dotted overrides. Every cell of every file is a legal recipe."""

import functools
import itertools
import json
from pathlib import Path

import pytest
import torch
import yaml

from rrg.config.context import BuildContext
from rrg.config.schema import flatten, plain
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError
from rrg.objectives.family import OBJECTIVE
from rrg.recipe import load_recipe

SWEEPS = sorted((Path(__file__).resolve().parents[1] / "configs" / "sweeps").glob("*.yaml"))


def read(path):
    return yaml.safe_load(path.read_text())


def overrides(variant):
    """`key=value` as on a command line: JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in variant.items()]


@functools.cache
def cells(path):
    """(variant, seed, recipe) of a sweep."""
    sweep, found = read(path), []
    for (name, variant), seed in itertools.product(sweep["variants"].items(), sweep["seeds"]):
        words = [*overrides(variant), f"seed={seed}", f"name={path.stem}_{name}_{seed}"]
        found.append((name, seed, load_recipe(sweep["recipe"], words).value))
    return found


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_is_a_legal_recipe_of_its_own(path):
    assert read(path).keys() == {"recipe", "seeds", "variants"} and path.read_text().startswith("# ")
    base = load_recipe(read(path)["recipe"]).value
    seen = {}
    for name, seed, recipe in cells(path):
        assert recipe.seed == seed and recipe.output.endswith(f"{name}_{seed}")
        said = dict(flatten(plain(recipe)))
        variant = read(path)["variants"][name]
        for key, value in flatten(variant) if variant else ():
            assert value is None or said[key] == value, "what the variant says holds"
        seen[name, seed] = {key: value for key, value in said.items() if key not in ("name", "output")}
    assert len({json.dumps(cell, sort_keys=True) for cell in seen.values()}) == len(seen)
    assert len(seen) == len(read(path)["seeds"]) * len(read(path)["variants"])
    for cell in seen.values():  # the comparison is of what the variant says and of nothing else
        assert all(cell[f"train.{name}"] == getattr(base.train, name) for name in ("batch_size", "epochs", "lr"))


def by_variant(name):
    (path,) = (path for path in SWEEPS if path.stem == name)
    return {variant: recipe for variant, _, recipe in cells(path)}


def test_variants_of_table_2_are_what_the_paper_takes_away():
    table = by_variant("cmeaa_table2")
    assert [recipe.connector.kind for recipe in table.values()] == ["linear", "cmeaa", "cmeaa", "cmeaa"]
    parts = {name: (getattr(r.connector, "enhance", None), getattr(r.connector, "align", None)) for name, r in table.items()}
    assert list(parts.values()) == [(None, None), (True, False), (False, True), (True, True)]
    for name, recipe in table.items():
        enhances, aligns = parts[name]
        assert recipe.reads_ngrams == bool(enhances) and ("mine" in recipe.objectives) == bool(aligns)
        assert bool(recipe.train.clip_norm_of) == bool(aligns)
    assert table["d_both"].connector == load_recipe("recipes/cmeaa_iu").value.connector


def test_widths_of_table_3():
    assert [r.connector.code_width for r in by_variant("cmeaa_table3").values()] == [32, 64, 128, 256, 512]


def test_variants_have_the_trained_parameters_of_their_parts():
    def trained(recipe):
        facts = {"vision_width": 1024, "language_width": 4096, "embedding_std": None, "embed": None, "ngrams": None}
        context = BuildContext(meta=True, facts={**facts, "prior": False, "language": None})
        with torch.device("meta"):
            connector = CONNECTOR.build(recipe.connector, context=context)
            context.facts["code_width"] = getattr(connector, "code_width", None)
            objectives = [OBJECTIVE.build(options, context=context) for options in recipe.objectives.values()]
        return sum(p.numel() for part in (connector, *objectives) for p in part.parameters() if p.requires_grad)

    table = by_variant("cmeaa_table2")
    linear, align, statistics = 4_206_592, 3_150_336, 197_377
    shared, up, weights = 8_200, 5_120, 2_050
    enhance = 4_195_328 + 12_595_200 + 6_144 + 12_589_056
    assert trained(table["a_linear"]) == linear
    assert trained(table["b_enhance"]) == linear + shared + 2 * up + weights + enhance
    assert trained(table["d_both"]) == 36_960_523
    assert trained(table["c_align"]) == linear + shared + up + align + statistics
    narrow = by_variant("cmeaa_table3")["k32"]
    k, wide, hidden = 32, 4096, 256
    statistics = (2 * k * hidden + hidden) + (hidden * hidden + hidden) + hidden + 1
    codes = 2 * (wide * k + k) + k * wide + wide
    assert trained(narrow) == linear + shared + 2 * up + weights + enhance + codes + statistics


def test_a_sweep_is_no_recipe():
    with pytest.raises(UserError, match="no such key"):
        load_recipe("sweeps/cmeaa_table2")
    with pytest.raises(UserError, match="no such file") as caught:
        load_recipe("cmeaa_table")
    assert "cmeaa_table2" not in str(caught.value)
