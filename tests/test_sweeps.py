"""The sweeps that come with the project: every cell of every file is a legal recipe that differs in what its file says."""

import functools
import json
from pathlib import Path

import pytest
import torch

from rrg.config.context import BuildContext
from rrg.config.schema import flatten, plain
from rrg.connector.family import CONNECTOR
from rrg.errors import UserError
from rrg.objectives.family import OBJECTIVE
from rrg.recipe import load_recipe
from rrg.sweep.expansion import expand
from rrg.sweep.reading import read_sweep

SWEEPS = sorted((Path(__file__).resolve().parents[1] / "configs" / "sweeps").glob("*.yaml"))


@functools.cache
def expanded(path):
    return expand(read_sweep(path), Path("sweeps") / path.stem)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_is_a_legal_recipe_of_its_own(path):
    found = expanded(path)
    sweep = found.asked.sweep
    assert path.read_text().startswith("# ") and "val" in sweep.then.splits, "a cell is chosen on the validation split"
    seen = {}
    for trial in found.trials:
        recipe = trial.recipe.value
        assert recipe.seed == trial.seed and recipe.output == f"sweeps/{path.stem}/runs/{trial.cell}_{trial.seed}"
        said = dict(flatten(plain(recipe)))
        for key, value in flatten(sweep.variants.get(trial.values.get("variant"), {}) or {}):
            assert value is None or value == {} or said[key] == value, "what the variant says holds"
        for key, value in trial.values.items():
            assert key == "variant" or said[key] == value, "what the axis says holds"
        seen[trial.cell, trial.seed] = {key: value for key, value in said.items() if key not in ("name", "output")}
    assert len({json.dumps(cell, sort_keys=True) for cell in seen.values()}) == len(seen) == len(found.trials)
    cells = max(1, len(sweep.variants))
    for values in sweep.axes.values():
        cells *= len(values)
    assert len(seen) == cells * len(sweep.seeds)
    # The comparison is of what the file says and of nothing else.
    base = dict(flatten(plain(found.base.value)))
    for cell in seen.values():
        for key in ("train.batch_size", "train.epochs", "train.lr"):
            assert cell[key] == base[key] or key in sweep.axes


def by_cell(name):
    (path,) = (path for path in SWEEPS if path.stem == name)
    return {trial.cell: trial.recipe.value for trial in expanded(path).trials}


def test_variants_of_table_2_are_what_the_paper_takes_away():
    table = by_cell("cmeaa_table2")
    assert [recipe.connector.kind for recipe in table.values()] == ["linear", "cmeaa", "cmeaa", "cmeaa"]
    parts = {name: (getattr(r.connector, "enhance", None), getattr(r.connector, "align", None)) for name, r in table.items()}
    assert list(parts.values()) == [(None, None), (True, False), (False, True), (True, True)]
    for name, recipe in table.items():
        enhances, aligns = parts[name]
        assert recipe.reads_ngrams == bool(enhances) and ("mine" in recipe.objectives) == bool(aligns)
        assert bool(recipe.train.clip_norm_of) == bool(aligns)
    assert table["d_both"].connector == load_recipe("recipes/cmeaa_iu").value.connector


def test_widths_of_table_3():
    assert [r.connector.code_width for r in by_cell("cmeaa_table3").values()] == [32, 64, 128, 256, 512]


def test_variants_have_the_trained_parameters_of_their_parts():
    def trained(recipe):
        facts = {"vision_width": 1024, "language_width": 4096, "embedding_std": None, "embed": None, "ngrams": None}
        context = BuildContext(meta=True, facts={**facts, "prior": False, "language": None})
        with torch.device("meta"):
            connector = CONNECTOR.build(recipe.connector, context=context)
            context.facts["code_width"] = getattr(connector, "code_width", None)
            objectives = [OBJECTIVE.build(options, context=context) for options in recipe.objectives.values()]
        return sum(p.numel() for part in (connector, *objectives) for p in part.parameters() if p.requires_grad)

    table = by_cell("cmeaa_table2")
    linear, align, statistics = 4_206_592, 3_150_336, 197_377
    shared, up, weights = 8_200, 5_120, 2_050
    enhance = 4_195_328 + 12_595_200 + 6_144 + 12_589_056
    assert trained(table["a_linear"]) == linear
    assert trained(table["b_enhance"]) == linear + shared + 2 * up + weights + enhance
    assert trained(table["d_both"]) == 36_960_523
    assert trained(table["c_align"]) == linear + shared + up + align + statistics
    narrow = by_cell("cmeaa_table3")["code_width-32"]
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
