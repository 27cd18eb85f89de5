"""The harvest's figures against figures worked out by hand, what is missing, and which split may choose."""

import csv
import json
import math

import pytest

from rrg.errors import UserError
from rrg.metrics.student import t_interval, t_quantile
from rrg.sweep import journal
from rrg.sweep.folder import Entry, SweepFolder
from rrg.sweep.harvest import SEEDS, STUDIES, harvest
from rrg.sweep.plots import _by_factors
from rrg.sweep.results import write_results
from rrg.sweep.state import states
from tests.sweep.sweeps import scores


def made(tmp_path, cells, *, splits=("val",), seeds=(1, 2, 3)):
    """A sweep's folder without any run; `cells`: name → value on the axis train.lr."""
    folder = SweepFolder(tmp_path / "made")
    folder.root.mkdir()
    entries = [
        Entry(f"{cell}_{seed}", cell, seed, {"train.lr": value}, str(tmp_path), splits, ["r2gen_iu"])
        for cell, value in cells.items()
        for seed in seeds
    ]
    folder.write_entries(entries)
    return folder


def fill(folder, values, **more):
    """Scores of trials: name → BLEU-4."""
    for name, value in values.items():
        scores(folder.place(name).run, {"bleu_4": value, "rouge_l": 2 * value}, **more)


def test_quantiles_and_intervals_of_t():
    known = {1: 12.7062, 2: 4.3027, 4: 2.7764, 9: 2.2622, 30: 2.0423, 1000: 1.9623}
    for freedom, value in known.items():
        assert t_quantile(freedom, 0.975) == pytest.approx(value, abs=2e-4)
    assert t_quantile(5, 0.5) == pytest.approx(0.0) and t_quantile(2, 0.95) == pytest.approx(2.9200, abs=1e-4)
    # Of 1, 2, 3: mean 2, deviation 1, so 2 ± 4.3027 / √3.
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / math.sqrt(3), 2 + 4.30265 / math.sqrt(3)), abs=1e-4)
    assert t_interval([1.0]) is None


def test_means_over_seeds_and_the_best_cell(tmp_path):
    folder = made(tmp_path, {"a": 0.1, "b": 0.2})
    fill(folder, {"a_1": 0.1, "a_2": 0.2, "a_3": 0.3, "b_1": 0.2, "b_2": 0.2, "b_3": 0.23})
    (table,) = harvest(folder, states(folder), best="bleu_4")
    a = table.rows[0]
    assert a.figures["bleu_4"].mean == pytest.approx(0.2) and a.figures["rouge_l"].mean == pytest.approx(0.4)
    assert a.figures["bleu_4"].interval == pytest.approx((0.2 - 0.430265 / math.sqrt(3), 0.2 + 0.430265 / math.sqrt(3)), abs=1e-5)
    assert a.figures["bleu_4"].values == (0.1, 0.2, 0.3) and a.figures["bleu_4"].origin == SEEDS
    assert (table.best, table.chosen_on, table.metrics) == ("b", "val", ("bleu_4", "rouge_l"))
    assert "by bleu_4 on val, protocol r2gen_iu" in table.notes[0] and not any("careful" in note for note in table.notes)
    paths = write_results(folder, [table], plots=False)
    rows = list(csv.DictReader(paths[0].read_text().splitlines()))
    assert [row["cell"] for row in rows] == ["a", "b"] and [row["best"] for row in rows] == ["0", "1"]
    assert float(rows[0]["bleu_4_mean"]) == pytest.approx(0.2) and rows[0]["bleu_4_seeds"] == "0.1 0.2 0.3"
    record = json.loads(paths[1].read_text())
    assert record["best"] == {"cell": "b", "by": "bleu_4", "chosen_on": "val"} and record["cells"][0]["trials"] == [
        "a_1",
        "a_2",
        "a_3",
    ]


def test_equal_cells_are_told_and_numbers_that_grow_by_factors(tmp_path):
    folder = made(tmp_path, {"a": 0.1, "b": 0.2, "c": 0.4}, seeds=(1,))
    fill(folder, {"a_1": 0.3, "b_1": 0.5, "c_1": 0.5})
    (table,) = harvest(folder, states(folder), best="bleu_4")
    assert table.best == "b" and table.notes[0].endswith("; the first of 2 that are equal: c as well")
    assert _by_factors([1e-4, 3e-4, 1e-3]) and _by_factors([32, 64, 128, 256, 512]) and _by_factors([0.01, 0.03, 0.1, 0.3, 1.0])
    assert not any(map(_by_factors, ([1, 2, 3], [0.0, 0.1, 1.0], [5.0, 50.0], [0.1, 0.2, 0.3, 0.4])))


def test_one_seed_has_the_interval_over_studies(tmp_path):
    folder = made(tmp_path, {"a": 0.1}, seeds=(1,))
    fill(folder, {"a_1": 0.5})
    (table,) = harvest(folder, states(folder), best="bleu_4")
    figure = table.rows[0].figures["bleu_4"]
    assert figure.interval == pytest.approx((0.4, 0.6)) and figure.origin == STUDIES
    assert any("one seed" in note for note in table.notes)


def test_a_missing_trial_is_listed_and_its_cell_is_not_the_best(tmp_path):
    folder = made(tmp_path, {"a": 0.1, "b": 0.2})
    fill(folder, {"a_1": 0.1, "a_2": 0.1, "a_3": 0.1, "b_1": 0.9, "b_3": 0.9})
    journal.append(folder.jobs, "submit", cluster="debug", job="debug-1", trial="b_2")
    journal.append(folder.place("b_2").attempts, "start", job="debug-1")
    journal.append(folder.place("b_2").attempts, "failed", job="debug-1", step="train", code=2, error="rrg: no shards")
    (table,) = harvest(folder, states(folder), best="bleu_4")
    assert table.row("b").missing == {"b_2": "failed: train: rrg: no shards"} and table.row("b").figures["bleu_4"].mean == 0.9
    assert table.best == "a" and "1 of 6 trials are not in this table:" in table.notes
    assert harvest(folder, states(folder), best="bleu_4", partial=True)[0].best == "b"
    fill(folder, {"b_2": 0.9}, partial={"studies": 12, "predictions": 10, "without": []})
    assert harvest(folder, states(folder), best="bleu_4")[0].row("b").missing == {"b_2": "scored on 10 of 12 studies only"}


def test_the_cell_is_chosen_on_validation_where_it_was_scored(tmp_path):
    folder = made(tmp_path, {"a": 0.1, "b": 0.2}, splits=("test", "val"), seeds=(1,))
    fill(folder, {"a_1": 0.1, "b_1": 0.9}, split="test")
    (test,) = harvest(folder, states(folder), best="bleu_4")
    assert test.best == "b" and any("chosen on test itself" in note for note in test.notes)
    fill(folder, {"a_1": 0.5, "b_1": 0.4})
    val, test = harvest(folder, states(folder), best="bleu_4")
    assert (val.split, val.best, test.split, test.best, test.chosen_on) == ("val", "a", "test", "a", "val")
    assert "chosen on val (bleu_4 0.5000 there); 0.1000 on test" in test.notes[0]
    assert not any("careful" in note for note in test.notes)


def test_what_cannot_be_averaged_is_refused(tmp_path):
    folder = made(tmp_path, {"a": 0.1})
    with pytest.raises(UserError, match="no trial is scored yet"):
        harvest(folder, states(folder), best="bleu_4")
    fill(folder, {"a_1": 0.1, "a_2": 0.1})
    with pytest.raises(UserError, match=r"metric bleu4: not in the scores of val .*did you mean 'bleu_4'"):
        harvest(folder, states(folder), best="bleu4")
    fill(folder, {"a_3": 0.1}, count=9)
    with pytest.raises(UserError, match="a_1 and a_3 are scored with another number of studies"):
        harvest(folder, states(folder), best="bleu_4")
    fill(folder, {"a_3": 0.1})
    path = folder.place("a_2").scores("val", "r2gen_iu")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "protocol": {"name": "r2gen_iu", "cut": 60}}))
    with pytest.raises(UserError, match="scored with another protocol"):
        harvest(folder, states(folder), best="bleu_4")
    path.write_text("{")
    with pytest.raises(UserError, match="no scores file"):
        harvest(folder, states(folder), best="bleu_4")


def test_a_metric_that_a_seed_lacks_has_no_mean(tmp_path):
    folder = made(tmp_path, {"a": 0.1}, seeds=(1, 2))
    scores(folder.place("a_1").run, {"bleu_4": 0.1, "meteor": None})
    scores(folder.place("a_2").run, {"bleu_4": 0.3, "meteor": 0.2})
    (table,) = harvest(folder, states(folder), best="bleu_4")
    assert "meteor" not in table.rows[0].figures and table.rows[0].figures["bleu_4"].mean == pytest.approx(0.2)


def test_a_lower_metric_is_better_where_the_scores_say_so(tmp_path):
    folder = made(tmp_path, {"a": 0.1, "b": 0.2}, seeds=(1,))
    fill(folder, {"a_1": 0.1, "b_1": 0.2})
    for name in ("a_1", "b_1"):
        path = folder.place(name).scores("val", "r2gen_iu")
        record = json.loads(path.read_text())
        record["metrics"]["bleu_4"]["higher_is_better"] = False
        path.write_text(json.dumps(record))
    assert harvest(folder, states(folder), best="bleu_4")[0].best == "a"


def test_a_value_outside_its_bootstrap_interval_can_be_drawn(tmp_path):
    folder = made(tmp_path, {"a": "/data/" + "x" * 60, "b": ""}, seeds=(1,))
    for entry in folder.entries():
        scores(folder.place(entry.name).run, {"bleu_4": 0.3, "rouge_l": 0.1})
        path = folder.place(entry.name).scores("val", "r2gen_iu")
        record = json.loads(path.read_text())
        record["metrics"]["bleu_4"]["interval"] = [0.1, 0.2]
        path.write_text(json.dumps(record))
    assert (folder.harvest / "val.r2gen_iu.lr.png") in write_results(folder, harvest(folder, states(folder), best="bleu_4"))


def test_a_picture_for_every_axis(tmp_path):
    folder = SweepFolder(tmp_path / "grid")
    folder.root.mkdir()
    entries = [
        Entry(
            f"{v}-{lr}_{seed}",
            f"{v}-{lr}",
            seed,
            {"variant": v, "train.lr": lr, "fixed": 1},
            str(tmp_path),
            ["val"],
            ["r2gen_iu"],
        )
        for v in ("a", "b")
        for lr in (1e-4, 1e-3, 1e-2)
        for seed in (1, 2)
    ]
    folder.write_entries(entries)
    for number, entry in enumerate(entries[:-1]):
        scores(folder.place(entry.name).run, {"bleu_4": 0.1 + 0.01 * (number % 5), "rouge_l": 0.3, "cider": 0.2})
    tables = harvest(folder, states(folder), best="bleu_4")
    paths = write_results(folder, tables)
    pictures = [path for path in paths if path.suffix == ".png"]
    assert [path.name for path in pictures] == ["val.r2gen_iu.variant.png", "val.r2gen_iu.lr.png"], (
        "an axis of one value has none"
    )
    for path in pictures:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 10_000
