"""Steps that are not finite: counted, listed with their studies, refused beyond the budget."""

import json
import math

import pytest

from rrg.errors import UserError
from rrg.train.guard import NonFiniteGuard

STUDIES = [f"S{number}" for number in range(20)]


def test_within_the_budget_steps_are_listed(tmp_path):
    guard = NonFiniteGuard(tmp_path / "nonfinite.jsonl", 2, 0)
    guard.skip(4, math.inf, math.nan, ["S3"], STUDIES, True)
    guard.skip(9, 1.0, math.inf, [], STUDIES, True)
    assert guard.skipped == 2
    records = [json.loads(line) for line in (tmp_path / "nonfinite.jsonl").read_text().splitlines()]
    assert [(r["step"], r["loss"], r["grad_norm"], r["suspects"]) for r in records] == [
        (4, "inf", "nan", ["S3"]),
        (9, "1.0", "inf", []),
    ]
    assert records[1]["studies"] == STUDIES


def test_beyond_it_the_suspects_are_named_or_else_all_studies(tmp_path):
    with pytest.raises(UserError, match=r"step 4: .*1 such steps, train\.max_nonfinite is 0.*studies: S3;"):
        NonFiniteGuard(tmp_path / "a.jsonl", 0, 0).skip(4, math.nan, 1.0, ["S3"], STUDIES, True)
    with pytest.raises(UserError, match=r"studies: S0, S1, .*S7;") as caught:
        NonFiniteGuard(tmp_path / "b.jsonl", 0, 0).skip(4, 1.0, math.nan, [], STUDIES, True)
    assert "S8" not in str(caught.value) and "b.jsonl" in str(caught.value)
    assert (tmp_path / "b.jsonl").exists()


def test_the_count_goes_on_where_a_resumed_run_had_it_and_only_the_lead_writes(tmp_path):
    guard = NonFiniteGuard(tmp_path / "nonfinite.jsonl", 3, 2)
    guard.skip(5, math.nan, 1.0, ["S1"], STUDIES, False)
    assert not (tmp_path / "nonfinite.jsonl").exists()
    with pytest.raises(UserError, match="4 such steps"):
        guard.skip(6, math.nan, 1.0, ["S1"], STUDIES, False)
