"""`rrg view`: where the page goes, and what a wrong word is answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rrg.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with three predictions and no shards."""
    folder = tmp_path / "run"
    (folder / "predictions").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: tiny\nseed: 1\n")
    record = {"generated": "The lungs are clear.", "reference": "There is cardiomegaly.", "section": "findings", "split": "test"}
    lines = [json.dumps({"study": f"S{number}", **record}) for number in range(3)]
    (folder / "predictions" / "test.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_page_is_written_into_the_run(run: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["view", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<article") == 3
    assert str(run / "report.html") in capsys.readouterr().out
    assert [path.name for path in run.glob(".*")] == []


def test_out_split_and_number_of_studies(run: Path, tmp_path: Path):
    out = tmp_path / "elsewhere.html"
    assert main(["view", str(run), "--out", str(out), "--studies", "1"]) == 0
    assert out.read_text(encoding="utf-8").count("<article") == 1
    assert main(["view", str(run), "--out", str(out), "--all"]) == 0
    assert out.read_text(encoding="utf-8").count("<article") == 3
    assert main(["view", str(run), "--out", str(out), "--split", "val"]) == 0
    assert "<article" not in out.read_text(encoding="utf-8")
    assert not (run / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{run}/predictions"], "not a run directory"),
        (["{run}/nowhere"], "no such folder"),
        (["{run}", "--split", "tset"], "did you mean 'test'"),
        (["{run}", "--studies", "-3"], "negative"),
        (["{run}", "--studies", "many"], "--studies"),
        (["{run}", "--studies", "3", "--all"], "not allowed with"),
        (["{run}", "--out", "{run}"], "is a folder"),
        (["{run}", "--out", "{run}/no/such/folder.html"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str):
    assert main(["view", *(word.format(run=run) for word in words)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["view", "--help"])
    assert stop.value.code == 0
    assert "rrg view runs/" in capsys.readouterr().out
