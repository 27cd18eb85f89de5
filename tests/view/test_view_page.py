"""The whole page: what it holds, what it escapes, what it must never load, and what it says of missing parts."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fabricated_run import REPORTS, score_record, write_events, write_predictions

from rrg.errors import UserError
from rrg.view.page import render

VOID = {"meta", "img", "input", "br", "link"}
LOADS = ("src", "href", "action", "srcset", "poster", "data", "background", "formaction", "xlink:href")


class Tree(HTMLParser):
    """Checks that tags are balanced, and collects attributes and the text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def words(html: str) -> str:
    return " ".join(Tree(html).text.split())


def test_a_finished_run_has_every_part_in_order(run: Path):
    html = render(run)
    text = words(html)
    assert [match for match in re.findall(r"<h2>([^<]+)</h2>", html)] == [
        "Scores", "Observations", "Training", "Reports", "Parameters", "Run",
    ]  # fmt: skip
    assert "not there yet" not in text
    pieces = ("tiny-swin", "Yes: findings F1 0.400", "METEOR is missing: no Java runtime here", "All 5 studies")
    more = ("1 ×, 2 steps repeated", "100 trained (1.00 %)", "versions.torch", "protocol: r2gen_iu", "patient data")
    for piece in pieces + more:
        assert piece in text, piece
    assert html.count('src="data:image/jpeg;base64,') == 2 * len(REPORTS)


def test_nothing_can_be_loaded(run: Path):
    html = render(run)
    tree = Tree(html)
    for tag, name, value in tree.attributes:
        if name in LOADS:
            assert value.startswith(("#", "data:image/jpeg;base64,")), (tag, name, value[:60])
        assert not name.startswith("on"), (tag, name)
        assert name != "style", (tag, value)
    assert not {"link", "iframe", "object", "embed", "base"} & set(tree.tags)
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html
    assert "url(" not in html
    policy = next(value for tag, name, value in tree.attributes if tag == "meta" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_text_of_others_is_escaped_everywhere(run: Path):
    bad = '</p></script><script>alert("x")</script><img src=x onerror=alert(1)> & \'"'
    write_predictions(run / "predictions" / "test.jsonl", [(f"{bad}", f"{bad} one two three", f"{bad} one two three")])
    record = score_record()
    record["controls"][bad] = record["controls"]["constant"] | {"description": bad}
    record["metrics"][bad] = {"value": None, "missing": bad}
    record["protocol"] = {"name": bad, "section": bad}
    record["observations"][bad] = record["observations"]["Edema"]
    (run / "scores" / "test.r2gen_iu.json").write_text(json.dumps(record))
    (run / "environment.json").write_text(json.dumps({bad: bad}))
    (run / "parameters.json").write_text(json.dumps({"rows": [{"pattern": bad, "dtype": bad, "state": bad}]}))
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": "resume", "step": 1, "time": bad, "why": bad}) + "\n")
        file.write(json.dumps({"event": "validation", "step": 1, "metrics": {bad: 1}}) + "\n")
    config = (run / "config.yaml").read_text().replace("name: tiny-swin", f"name: {json.dumps(bad)}")
    (run / "config.yaml").write_text(config)
    tree = Tree(render(run))
    assert tree.tags.count("script") == 1
    assert tree.tags.count("img") == 0
    assert not [name for _, name, _ in tree.attributes if name.startswith("on")]


def test_a_run_that_has_only_begun(bare: Path):
    text = words(render(bare))
    for command in ("rrg score", "rrg train RECIPE", f"rrg generate {bare} --split test"):
        assert f"not there yet: run {command}" in text
    assert "Not scored yet" in text


@pytest.mark.parametrize("part", ["events.jsonl", "parameters.json", "environment.json", "predictions", "scores"])
def test_any_part_may_be_missing(run: Path, part: str):
    path = run / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "not there yet" in words(render(run))


def test_reports_of_another_split_are_pointed_at(run: Path):
    text = words(render(run, "val"))
    assert f"There are reports of split test: rrg view {run} --split test" in text


def test_shards_that_are_gone_leave_the_text(run: Path, tmp_path: Path):
    shutil.rmtree(tmp_path / "shards")
    html = render(run)
    assert "Films are not shown: there are no shards at" in words(html)
    assert html.count("film not available") == len(REPORTS)
    assert "<img" not in html


def test_fewer_studies_than_there_are(run: Path):
    html = render(run, studies=2)
    assert "2 of 5 studies of split test" in words(html)
    assert html.count("<article") == 2
    assert "<article" not in render(run, studies=0)
    with pytest.raises(UserError, match="negative"):
        render(run, studies=-1)


def test_the_same_run_gives_the_same_page(run: Path):
    assert render(run) == render(run)


def test_stages_are_shown_in_the_order_of_the_recipe(run: Path):
    for name in ("align", "words"):
        (run / "stages" / name).mkdir(parents=True)
        (run / "stages" / name / "config.yaml").write_text(f"name: {name}\n")
        write_events(run / "stages" / name / "events.jsonl")
    with (run / "config.yaml").open("a") as file:
        file.write("stages:\n  words: {}\n  align: {}\n")
    text = words(render(run))
    assert text.index("Stage before: words") < text.index("Stage before: align")
    assert "12 steps, loss 4 → 9, best at step 6." in text


def test_a_second_protocol_is_shown_below_the_recipes_own(run: Path):
    record = score_record(0.9) | {"protocol": {"name": "another", "section": "findings"}}
    (run / "scores" / "test.another.json").write_text(json.dumps(record))
    text = words(render(run))
    assert "Yes: findings F1 0.400" in text
    assert "Scores under 1 other protocol" in text


def test_scores_and_events_of_strange_shape_do_not_break_the_page(run: Path):
    (run / "scores" / "test.r2gen_iu.json").write_text(json.dumps({"metrics": [], "controls": 3, "observations": None}))
    (run / "parameters.json").write_text(json.dumps({"rows": "none"}))
    with (run / "events.jsonl").open("a") as file:
        file.write('{"event": "validation", "step": 3, "metrics": null}\n{"event": "checkpoint"}\n{"event": "unheard of"}\n')
    render(run)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.yaml", "a: [", "not a YAML recipe"),
        ("config.yaml", "- a\n- b\n", "expected a recipe with keys"),
        ("parameters.json", "{", "damaged, not JSON"),
        ("environment.json", "[]", "expected one JSON object"),
        ("scores/test.r2gen_iu.json", "\x00", "damaged, not JSON"),
        ("predictions/test.jsonl", "{}\n{}\n", "line 1: not a prediction"),
    ],
)
def test_damaged_files_are_named_without_their_text(run: Path, name: str, content: str, says: str):
    (run / name).write_text(content)
    with pytest.raises(UserError, match=says) as error:
        render(run)
    assert name.rsplit("/", 1)[-1] in str(error.value)


def test_a_prediction_that_is_still_being_written_is_left_out_and_said(run: Path):
    path = run / "predictions" / "test.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    text = words(render(run))
    assert "All 4 studies" in text
    assert "The last line of the predictions is incomplete" in text


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_run(tmp_path: Path, name: str):
    with pytest.raises(UserError, match="not a run directory"):
        render(tmp_path / name)
