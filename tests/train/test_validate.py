"""Validation: what may select a checkpoint, and texts that try to break its files."""

import json

import pytest

from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.train import loop
from rrg.train.validate import check_selection, selection_score
from tests import synthetic

TEXT_ONLY = ["vision.kind=none", "connector.kind=words", "language.train=full", "train.validate_reports=false"]
STRANGE = 'The lungs\u2028are clear.\x85\u2029 The heart is \x0b\x1c normal \U0001f9b4 \\n "quoted".'


def recipe(*overrides):
    return load_recipe("tiny/r2gengpt_iu", overrides).value


@pytest.mark.parametrize(
    "select", ["{loss: -1}", "{bleu_4: 0.5, cider: 0.5}", "{distinct_reports: 1}", "{rouge_l: 1, loss: -0.1}"]
)
def test_what_validation_computes_may_select(select):
    check_selection(recipe(f"train.select={select}"))


@pytest.mark.parametrize(
    "overrides,said",
    [
        (["train.select={bleu4: 1}"], "train.select.bleu4: not computed in validation; did you mean 'bleu_4'"),
        (["train.select={accuracy: 1}"], "train.select.accuracy"),
        ([*TEXT_ONLY, "train.select={bleu_4: 1}"], "train.select.bleu_4: not computed in validation"),
    ],
)
def test_anything_else_is_refused_with_the_nearest_name(overrides, said):
    with pytest.raises(UserError) as caught:
        check_selection(recipe(*overrides))
    assert said in str(caught.value)


def test_the_score_is_the_weighted_sum():
    assert selection_score(recipe("train.select={loss: -1, bleu_4: 2}"), {"loss": 3.0, "bleu_4": 0.5, "cider": 9.0}) == -2.0


def test_separators_of_unicode_in_a_report_break_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "CASES", ((STRANGE, {}), *synthetic.CASES))
    shards = synthetic.write_shards(tmp_path, (8, 5, 1), views=1)
    words = [f"data.shards={shards}", f"output={tmp_path / 'run'}", "data.workers=0", "train.threads=1", "train.max_steps=1"]
    short = ["generate.num_beams=1", "generate.min_new_tokens=1", "generate.max_new_tokens=3"]
    root = loop.train(load_recipe("tiny/r2gengpt_iu", [*words, *short]))
    rows = [json.loads(line) for line in (root / "validation" / "step_00000001.jsonl").read_bytes().split(b"\n")[:-1]]
    assert len(rows) == 5 and any("\u2028" in row["reference"] for row in rows)
    assert json.loads((root / "validation" / "step_00000001.json").read_text())["metrics"]["distinct_reports"] >= 1
