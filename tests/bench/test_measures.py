"""Turns, ratios, the choice of studies, the search for films, the page cache, the machine."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from rrg.bench.loader import LoaderPlan
from rrg.bench.machine import describe_machine
from rrg.bench.outfit import outfit_of
from rrg.bench.pages import drop, resident
from rrg.bench.parts import PARTS, measure_parts
from rrg.bench.selection import FilmFolder, Selection
from rrg.bench.turns import Turn, ratio, take_turns
from rrg.data.study import Study, View
from rrg.errors import UserError
from rrg.recipe import load_recipe
from rrg.shards.reader import ShardSet


class Two:
    """Two batches of three films in two studies; says when it was called."""

    def __init__(self, name, said):
        self.name, self.said = name, said

    def __call__(self, number):
        self.said.append(f"{self.name}{number}")
        for _ in range(2):
            yield type("B", (SimpleNamespace,), {"__len__": lambda self: 2})(
                view_mask=torch.tensor([[True, True], [True, False]])
            )


def test_turns_alternate_after_an_untimed_pass_of_each():
    said = []
    turns = take_turns({"a": Two("a", said), "b": Two("b", said)}, 3, before=lambda: said.append("|"))
    assert said == ["a0", "b0", "|", "a1", "|", "b1", "|", "a2", "|", "b2", "|", "a3", "|", "b3"]
    assert {name: [(turn.films, turn.studies) for turn in row] for name, row in turns.items()} == {
        name: [(6, 4)] * 3 for name in "ab"
    }


def test_a_turn_is_whole_passes_for_the_time_asked(monkeypatch):
    """By a clock on which every pass takes four seconds, and one of computing."""
    said = []
    clock = SimpleNamespace(perf_counter=lambda: 4.0 * len(said), process_time=lambda: 1.0 * len(said))
    monkeypatch.setattr("rrg.bench.turns.time", clock)
    (turn,) = take_turns({"a": Two("a", said)}, 1, seconds=9.0)["a"]
    assert turn.seconds == 12.0 and turn.films == 6 * (len(said) - 1) == 18
    assert turn.rate == 1.5 and turn.cpu_seconds == 3.0


def test_ratios_are_taken_turn_by_turn():
    ours = [Turn(10, 1, 1.0, 1.0), Turn(10, 1, 2.0, 1.0), Turn(10, 1, 1.0, 1.0)]
    theirs = [Turn(10, 1, 4.0, 2.0), Turn(10, 1, 2.0, 2.0), Turn(10, 1, 3.0, 2.0)]
    found = ratio(ours, theirs, workers=0)
    assert (found.median, found.least, found.largest) == (3, 1, 4) and found.cores.median == 2
    assert ratio(ours, theirs, workers=1).cores is None


def test_a_selection_is_whole_batches_of_the_first_studies(bench):
    selection = bench.selection(15)
    assert selection.count == 12 and selection.ids == [f"S{n:03d}" for n in range(12)]
    assert selection.tars() == ["train-000000.tar", "train-000001.tar"] and [s.id for s in selection.studies()] == selection.ids
    assert bench.selection(99).count == 20
    with pytest.raises(UserError, match="--studies 4"):
        bench.selection(3)
    with pytest.raises(UserError, match="micro_batch_size"):
        Selection.of(selection.shards, 99, 32)


def test_films_are_found_by_path_then_by_name_and_never_outside(tmp_path):
    for name in ("a/1.jpg", "a/2.JPG", "b/1.jpg", "b/3.jpeg"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).write_bytes(b"x")
    (tmp_path / "4.jpg").write_bytes(b"x")
    folder = FilmFolder(tmp_path / "films")

    def find(source):
        return folder.find(View("0.jpg", source=source))

    assert find("a/1.jpg") == find("a/1") == tmp_path / "films/a/1.jpg"
    assert find("2") == tmp_path / "films/a/2.JPG" and find("x/3.png") == find("b/3") == tmp_path / "films/b/3.jpeg"
    assert find("1") is None, "two files of that name"
    assert [find(name) for name in ("", "5", "../4", "../4.jpg", str(tmp_path / "4.jpg"))] == [None] * 5
    study = Study("S1", "P1", "train", (View("0.jpg", source="2"), View("1.jpg", source="gone")))
    with pytest.raises(UserError, match=r"1 films .* study S1 view 1 \(gone\)"):
        folder.of([study])


def test_folders_without_films_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        FilmFolder(tmp_path / "none")
    with pytest.raises(UserError, match=r"\.jpeg"):
        FilmFolder(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"studies": 0}, "--studies"),
        ({"rounds": 0}, "--rounds"),
        ({"seconds": -1.0}, "--seconds"),
        ({"workers": ()}, "--workers"),
        ({"workers": (0, -1)}, "--workers"),
        ({"shards": "http://x/y", "cold": True}, "--cold"),
    ],
)
def test_plans_that_make_no_sense_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        LoaderPlan(**{"shards": "x", **options})


def test_the_parts_of_a_film(bench):
    parts = measure_parts(bench.selection(8), bench.outfit(), 2)
    assert tuple(parts) == PARTS and all(cost.seconds > 0 and cost.core_seconds >= 0 for cost in parts.values())


def test_recipes_without_films_or_with_priors_in_the_prompt_are_refused(bench):
    text_only = ["vision.kind=none", "connector.kind=none", "language.train=full", "train.validate_reports=false"]
    with pytest.raises(UserError, match=r"vision\.kind"):
        outfit_of(load_recipe("recipes/r2gengpt_iu", text_only), ShardSet(bench.shards, "train"))
    with pytest.raises(UserError, match="prior"):
        bench.outfit("language.prompt='{prior} {image}'")
    with pytest.raises(UserError, match=r"language\.name"):
        outfit_of(load_recipe("recipes/r2gengpt_iu", ["language.name=/nowhere"]), ShardSet(bench.shards, "train"))


def test_pages_are_read_dropped_and_counted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    path.read_bytes()
    before = resident([path])
    drop([path])
    assert before is None or 0 <= resident([path]) <= before <= 1
    assert path.read_bytes() == bytes(1 << 20)


def test_the_machine_is_described_in_json():
    record = json.loads(json.dumps(describe_machine()))
    assert record["cores"] >= 1 and record["versions"]["torch"] and record["cpu"]
