"""What an export refuses: edited files, other base models, folders in the way, paths of the machine; and what a kill leaves."""

from __future__ import annotations

import json
import re
import shutil
import time

import pytest
from safetensors.torch import load_file, save_file

from rrg.errors import UserError
from rrg.export import load
from rrg.export.layout import CARD, CONFIG, DIGESTS, WEIGHTS, files_of
from rrg.export.portable import is_local, portable_recipe
from rrg.export.writing import Request, write_export
from rrg.recipe import load_recipe
from tests.processes import Command


@pytest.fixture(scope="module")
def export(plain_run, tmp_path_factory):
    return write_export(plain_run, tmp_path_factory.mktemp("out") / "plain", Request())


@pytest.fixture
def copy(export, tmp_path):
    return shutil.copytree(export, tmp_path / "copy")


def said(folder, *overrides):
    with pytest.raises(UserError) as caught:
        load(folder, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def resigned(folder):
    """A folder whose list of digests was made to fit an edit."""
    (folder / DIGESTS).write_text(json.dumps({"format": 1, "files": files_of(folder)}))
    return folder


def test_edited_missing_and_surplus_files(copy, tmp_path):
    (copy / CARD).write_text("Another card.")
    (copy / ".gitattributes").write_text("x")
    load(copy)
    (copy / "tokenizer" / "tokenizer.json").rename(tmp_path / "kept")
    assert "tokenizer/tokenizer.json is missing" in said(copy)
    (tmp_path / "kept").rename(copy / "tokenizer" / "tokenizer.json")
    for name in (CONFIG, WEIGHTS):
        held = (copy / name).read_bytes()
        (copy / name).write_bytes(held[:-2] + b"  ")
        assert f"{name}: not the file that was written" in said(copy)
        (copy / name).write_bytes(held)
    for text in ("{", "[]", '{"files": {"../x": "1"}}', '{"files": {}}'):
        (copy / DIGESTS).write_text(text)
        assert f"{DIGESTS}: " in said(copy)
    (copy / DIGESTS).unlink()
    assert "no export (it has no digests.json)" in said(copy)


def test_other_base_models_and_other_tensors_even_where_the_digests_were_made_to_fit(copy):
    path = copy / CONFIG
    held = path.read_text()
    for change, words in (
        ({"seed": 7}, "other frozen weights than those it was trained on"),
        ({"data": {"cleaning": "no"}}, "data.cleaning"),
        ({"nosuch": 1}, "nosuch: no such key"),
    ):
        config = json.loads(held)
        for key, value in change.items():
            config["recipe"][key] = {**config["recipe"][key], **value} if isinstance(value, dict) else value
        path.write_text(json.dumps(config))
        assert words in said(resigned(copy))
    path.write_text(json.dumps({**json.loads(held), "format": 2}))
    assert "has format 2, this program reads 1" in said(resigned(copy))
    path.write_text(held)
    tensors = load_file(copy / WEIGHTS)
    save_file({**tensors, "connector.more": tensors["connector.norm.weight"].clone()}, copy / WEIGHTS)
    assert "1 not in this recipe (for example connector.more)" in said(resigned(copy))
    assert "override train.lr: the model is what the run trained" in said(copy, "train.lr=1")


def test_folders_in_the_way(plain_run, export, tmp_path):
    with pytest.raises(UserError, match="an export is there"):
        write_export(plain_run, export, Request())
    (tmp_path / "mine").mkdir()
    for folder in (tmp_path / "mine", plain_run, plain_run.parent):
        with pytest.raises(UserError, match="is no export, so it is not replaced"):
            write_export(plain_run, folder, Request(force=True))
    with pytest.raises(UserError, match=r"other shards|holds no manifest"):
        write_export(plain_run, tmp_path / "new", Request(shards=str(tmp_path)))
    with pytest.raises(UserError, match="no checkpoint '9'"):
        write_export(plain_run, tmp_path / "new", Request(which="9"))
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"], "nothing half is left"


def test_a_killed_export_leaves_nothing_half_and_the_next_one_tidies(plain_run, tmp_path):
    target = tmp_path / "out" / "model"
    command = Command(["export", str(plain_run), "--out", str(target)], tmp_path / "log")
    while command.process.is_alive() and not list(tmp_path.glob("out/.model.*/model.safetensors")):
        time.sleep(0.001)
    command.kill()
    if target.exists():  # it was faster than the kill
        load(target)
        shutil.rmtree(target)
    write_export(plain_run, target, Request())
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    before = files_of(target)
    write_export(plain_run, target, Request(force=True))
    assert files_of(target) == before and [path.name for path in target.parent.iterdir()] == ["model"]


def test_no_report_and_no_path_in_any_file(plain_run, export, drawn_shards):
    told = [str(drawn_shards), str(plain_run), str(plain_run.parent), "/tmp/", "/root/", "/home/"]
    texts = {path: path.read_bytes().decode("latin-1") for path in export.rglob("*") if path.is_file()}
    reports = [json.loads(line)["reference"] for line in (plain_run / "predictions" / "test.jsonl").read_text().splitlines()]
    for path, text in texts.items():
        assert not [place for place in told if place in text], path
        assert not [report for report in reports if report in text], path
        assert not re.search(r"lungs are clear", text), path
    assert "optimizer" not in {path.stem for path in texts} and sum(map(len, texts.values())) < 200_000


def test_local_names_are_refused_until_they_are_published(tmp_path):
    folder = tmp_path / "llm"
    folder.mkdir()
    recipe = load_recipe(
        "recipes/r2gengpt_iu", [f"language.name={folder}", "vision.cache=/scratch/cache", "data.shards=/s"]
    ).value
    with pytest.raises(UserError, match=r"language.name: .* is a folder of this machine; give --language-name"):
        portable_recipe(recipe, {})
    with pytest.raises(UserError, match=r"--language-name: .* is a folder of this machine"):
        portable_recipe(recipe, {"language": "./llm"})
    data = portable_recipe(recipe, {"language": "owner/llm"})
    assert (data["language"]["name"], data["vision"]["cache"], data["data"]["shards"]) == ("owner/llm", "auto", "")
    for name, local in (
        ("microsoft/swin", False),
        ("random", False),
        ("stage:text", False),
        ("embedded:x", False),
        ("a/b/c", True),
    ):
        assert is_local(name) is local


def test_files_of_a_recipe_with_ngrams_keep_their_names_only():
    names = ["observations.ngrams=/a/t.json", "observations.train=/b/t.csv", "observations.heldout=/c/labels.jsonl"]
    data = portable_recipe(load_recipe("recipes/cmeaa_iu", names).value, {})
    assert data["observations"]["ngrams"] == "ngrams.json"
    assert (data["observations"]["train"], data["observations"]["heldout"]) == ("t.csv", "labels.jsonl")
