"""Chart geometry: everything inside the box, whatever the numbers are."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from fabricated_run import step, write_events, write_jsonl
from hypothesis import given
from hypothesis import strategies as st

from rrg.view.curves import training, wait_share
from rrg.view.events import read_events
from rrg.view.plot import HEIGHT, MOST_POINTS, WIDTH, Chart, Series, draw

VALUES = st.lists(st.floats(-1e12, 1e12) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0]), max_size=40)


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


@given(VALUES, st.booleans())
def test_every_point_is_inside_the_box(values: list[float], from_zero: bool):
    drawing = draw(Chart("t", [Series("s", list(enumerate(values)))], from_zero=from_zero))
    if not any(math.isfinite(value) for value in values):
        assert drawing is None
        return
    assert drawing is not None
    ticks = [(x, 0.0) for x, _ in drawing.x_ticks] + [(0.0, y) for y, _ in drawing.y_ticks]
    for x, y in places(drawing.lines[0].path) + ticks:
        assert 0 <= x <= WIDTH
        assert 0 <= y <= HEIGHT


def test_line_is_broken_where_a_value_is_not_finite():
    drawing = draw(Chart("t", [Series("s", [(1, 1.0), (2, math.nan), (3, math.nan), (4, 2.0), (5, 3.0)])]))
    assert drawing is not None
    assert drawing.lines[0].path.count("M") == 2


def test_one_point_is_a_dot():
    drawing = draw(Chart("t", [Series("s", [(7, 0.25)])]))
    assert drawing is not None
    assert [words for _, _, words in drawing.lines[0].dots] == ["step 7: 0.25"]


def test_long_series_are_means_with_a_band():
    drawing = draw(Chart("t", [Series("s", [(n, float(n % 2)) for n in range(5000)])]))
    assert drawing is not None
    assert len(places(drawing.lines[0].path)) == MOST_POINTS
    assert len(places(drawing.lines[0].band)) == 2 * MOST_POINTS


def test_charts_of_a_run(tmp_path: Path):
    write_events(tmp_path / "events.jsonl")
    found = training(read_events(tmp_path / "events.jsonl"))
    titles = [
        "Loss",
        "Validation: BLEU-4",
        "Learning rate",
        "Gradient norm",
        "Studies per second",
        "Tokens per second",
        "Loader wait",
    ]
    assert [chart.title for chart in found.charts] == titles
    facts = dict(found.facts)
    assert facts["Steps"] == "12"
    assert facts["Studies seen"] == "48"
    assert facts["Loader wait (median)"] == "20.0% of step time"
    assert facts["Resumed"] == "1 ×, 2 steps repeated"
    assert len(found.charts[0].lines) == 2
    assert len(found.charts[0].marks) == 1
    assert found.charts[1].best is not None


def test_many_validation_metrics_are_folded_but_not_those_that_select(tmp_path: Path):
    metrics = dict.fromkeys(["loss", *"abcdef", "findings_micro_f1", "cider"], 0.5)
    write_jsonl(
        tmp_path / "events.jsonl", [step(1), {"event": "validation", "step": 1, "metrics": metrics, "score": 0.25, "best": True}]
    )
    found = training(read_events(tmp_path / "events.jsonl"), ["cider", "loss"])
    shown = [chart.title for chart in found.charts if chart.title.startswith("Validation")]
    assert shown == ["Validation: Findings F1, micro", "Validation: CIDEr"]
    assert len(found.more) == 6
    assert dict(found.facts)["Best checkpoint"] == "step 1, selection score 0.25"


def test_objectives_are_shown_where_there_are_several(tmp_path: Path):
    one, two = {"report": 1.0}, {"report": 1.0, "mine": -0.2}
    write_jsonl(tmp_path / "events.jsonl", [step(1, objectives=one)])
    assert "Objectives" not in [chart.title for chart in training(read_events(tmp_path / "events.jsonl")).charts]
    write_jsonl(tmp_path / "events.jsonl", [step(1, objectives=two), step(2, objectives=None)])
    found = next(chart for chart in training(read_events(tmp_path / "events.jsonl")).charts if chart.title == "Objectives")
    assert [line.name for line in found.lines] == ["report", "mine"]


def test_what_objectives_tell_and_norms_of_groups_are_drawn(tmp_path: Path):
    told = {"mine.information.image": 0.5, "mine.information.report": 0.1, "mine.retrieval.accuracy": 0.25}
    records = [step(1, logged=told, group_norms={"objectives.mine": 2.0}), step(2, logged=None, group_norms=None), step(3)]
    write_jsonl(tmp_path / "events.jsonl", records)
    found = {chart.title: chart for chart in training(read_events(tmp_path / "events.jsonl")).charts}
    assert [line.name for line in found["mine: information"].lines] == ["image", "report"]
    assert [line.name for line in found["mine: retrieval"].lines] == ["accuracy"]
    assert [line.name for line in found["Gradient norm"].lines] == ["gradient norm", "objectives.mine"]


def test_a_lost_loss_breaks_the_line(tmp_path: Path):
    write_jsonl(tmp_path / "events.jsonl", [step(1), step(2), step(3, loss=None), step(4), step(5)])
    assert training(read_events(tmp_path / "events.jsonl")).charts[0].lines[0].path.count("M") == 2


@pytest.mark.parametrize("seconds", [0, -1, None])
def test_wait_share_needs_a_time(tmp_path: Path, seconds: object):
    write_jsonl(tmp_path / "events.jsonl", [step(1, step_s=seconds), step(2)])
    assert wait_share(read_events(tmp_path / "events.jsonl")) == [(2, 0.2)]
