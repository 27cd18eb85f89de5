"""`rrg bench`: what it prints and writes, and what mistakes are answered with."""

from __future__ import annotations

import json

import pytest

from rrg.bench.loader_result import PLAIN, RRG, RRG_FULL, TARS
from rrg.cli import main
from tests.bench.conftest import SMALL, bench  # noqa: F401 (a fixture)
from tests.damage import damaged_copy

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def test_loader_measures_all_ways_over_the_same_films(bench, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "loader.json"
    words = [
        "bench",
        "loader",
        "--shards",
        bench.shards,
        "--films",
        bench.films,
        "--studies",
        18,
        "--rounds",
        2,
        "--workers",
        "0,2",
    ]
    assert main([*map(str, words), "--json", str(out), *SMALL]) == 0
    record = json.loads(out.read_text())
    films = {way: {turn["films"] for turn in record["turns"] if turn["way"] == way} for way in (RRG, TARS, RRG_FULL, PLAIN)}
    assert films == {way: {26} for way in films}, "16 studies, at most two films each"
    assert len(record["turns"]) == 2 * 4 * 2 and all(turn["seconds"] > 0 for turn in record["turns"])
    pairs = {(row["workers"], row["of"], row["over"]) for row in record["ratios"]}
    assert pairs == {(w, *pair) for w in (0, 2) for pair in ((RRG, PLAIN), (RRG, TARS), (RRG_FULL, PLAIN))}
    assert all(row["least"] <= row["median"] <= row["largest"] for row in record["ratios"])
    assert record["agreement"][f"{RRG} – {TARS}"]["largest"] == 0 and len(record["agreement"]) == 3
    assert record["inputs"][RRG_FULL]["width"] > record["inputs"][RRG]["width"] == 83
    assert set(record["parts_per_film"]) == {RRG, RRG_FULL} and record["order"]["sequential"] > 0
    assert record["setting"]["pages"]["policy"].startswith("read once") and str(tmp_path) not in out.read_text()
    printed = capsys.readouterr().out
    for word in (RRG, TARS, RRG_FULL, PLAIN, "films/s", "grey levels", "sequential reads", "decode", record["machine"]["cpu"]):
        assert word in printed


def test_loader_without_full_size_films_and_cold(bench, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "loader.json"
    words = ["bench", "loader", "--shards", str(bench.shards), "--studies", "4", "--rounds", "1", "--workers", "0,2", "--cold"]
    assert main([*words, "--json", str(out), *SMALL]) == 0
    record = json.loads(out.read_text())
    assert {row["over"] for row in record["ratios"]} == {TARS} and record["setting"]["pages"]["policy"].startswith("dropped")
    assert record["notes"] == ["webdataset with 2 workers was left out: it needs a shard for each, the selection has fewer"]
    assert record["notes"][0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--split", "tain"], "'train'"),
        (["--workers", "two"], "--workers"),
        (["--studies", "0"], "--studies"),
        (["--films", "nowhere"], "--films nowhere"),
        (["--json", "no/such/folder.json"], "no folder"),
        (["--recipe", "no_such_recipe"], "no_such_recipe"),
        (["vision.imagesize=3"], "image_size"),
        (["vision.resize=pad", "--films", "FILMS"], "pad"),
    ],
)
def test_mistakes_are_one_line(bench, words, said, capsys):  # noqa: F811
    words = [str(bench.films) if word == "FILMS" else word for word in words]
    recipe = [] if "--recipe" in words else SMALL
    assert main(["bench", "loader", "--shards", str(bench.shards), "--rounds", "1", *words, *recipe]) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("rrg: ") and error.count("\n") == 1


@pytest.mark.parametrize("member", ["S002.json", "S017.1.jpg"])
def test_a_damaged_study_is_one_line(bench, tmp_path, member, capsys):  # noqa: F811
    copy = damaged_copy(bench.shards, tmp_path / "damaged", member)
    for films in ([], ["--films", str(bench.films)]):
        assert main(["bench", "loader", "--shards", str(copy), "--studies", "20", "--rounds", "1", *films, *SMALL]) == 2
        error = capsys.readouterr().err
        assert member[:4] in error and "rrg prepare verify" in error and error.count("\n") == 1


def test_a_subject_has_to_be_named(capsys):
    assert main(["bench"]) == 2
    assert "SUBJECT" in capsys.readouterr().err
