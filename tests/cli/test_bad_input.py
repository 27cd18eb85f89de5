"""Every mistake is answered with one clear line: what is wrong, where, what to write instead. Exit 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rrg.cli import COMMANDS
from tests.damage import damaged_copy
from tests.processes import ROOT, events, run
from tests.refusal import call, refused
from tests.synthetic import film, write_shards

QUICK = [
    "data.workers=0",
    "train.threads=1",
    "train.max_steps=2",
    "train.schedule.kind=constant",
    "train.validate_every=0",
    "generate.num_beams=1",
    "generate.min_new_tokens=1",
    "generate.max_new_tokens=3",
]


def train(shards, *overrides, recipe="tiny/r2gengpt_iu"):
    return ["train", recipe, f"data.shards={shards}", "output=run", *QUICK, *overrides]


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def finished(drawn_shards, tmp_path_factory):
    """A run of two steps, for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    run([*train(drawn_shards), f"output={folder / 'run'}"], folder / "log")
    return folder / "run"


# -- recipes and overrides ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["train.lrr=1"], "train.lrr: no such key; did you mean 'lr'"),
        (["trian.lr=1"], "trian: no such key; did you mean 'train'"),
        (["train.lr=fast"], "train.lr: 'fast' is not a number"),
        (["train.max_steps=2.5"], "train.max_steps: 2.5 is not a whole number or null"),
        (["vision.kind=swim"], "vision.kind: no vision part is called 'swim'; did you mean 'swin'"),
        (["objectives.mine.kind=mien"], "objectives.mine.kind: no objective part is called 'mien'"),
        (["train.lr"], "override 'train.lr': write key=value"),
        (
            ["train.select={bleu4: 1}", "train.validate_every=1"],
            "train.select.bleu4: not computed in validation; did you mean 'bleu_4'",
        ),
        (["score.protocol=r2gen"], "score.protocol: 'r2gen' is none of r2gen_iu"),
        (["score.protocol=impression"], "score.protocol: 'impression' scores impression, and data.section is 'findings'"),
        (["train.batch_size=0"], "train.batch_size: 0 is below 1"),
        (["seed=-1"], "seed: -1 is below 0"),
        ([f"seed={2**63}"], f"seed: {2**63} is above {2**63 - 1}"),
    ],
)
def test_settings(overrides, says, drawn_shards, tmp_path):
    assert says in refused(train(drawn_shards, *overrides), tmp_path)
    assert left(tmp_path) == []


def test_recipes(drawn_shards, tmp_path):
    assert "recipe 'r2gengpt_ui': no such file; did you mean 'r2gengpt_iu'" in refused(["train", "r2gengpt_ui"], tmp_path)
    (tmp_path / "broken.yaml").write_text("train: [1")
    assert "broken.yaml: not readable as YAML at line" in refused(["train", "broken.yaml"], tmp_path)
    assert left(tmp_path) == ["broken.yaml"]


# -- shards ---------------------------------------------------------------------------------------------------------------------


def test_shards_that_are_not_there(tmp_path):
    assert "data.shards: empty; name the folder that `rrg prepare` wrote" in refused(train("''"), tmp_path)
    said = refused(train("nowhere"), tmp_path)
    assert "nowhere" in said and "prepare" in said
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(train("empty"), tmp_path)
    assert left(tmp_path) == ["empty"]


def test_a_truncated_tar(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards")
    os.truncate(shards / "train-000001.tar", 9000)
    before = left(tmp_path)
    said = refused(train("shards"), tmp_path)
    assert "train-000001.tar has 9000 bytes, the manifest says" in said and "copy it again" in said
    assert left(tmp_path) == before


def test_a_missing_index_and_a_broken_manifest(drawn_shards, tmp_path):
    shards = damaged_copy(drawn_shards, tmp_path / "shards")
    (shards / "val-000000.index.jsonl").unlink()
    assert "val-000000.index.jsonl is missing" in refused(train("shards"), tmp_path)
    (shards / "manifest.json").write_text("{")
    assert "manifest" in refused(train("shards"), tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("workers", "ranks"), [(0, 1), (1, 1), (0, 2)])
def test_a_truncated_film_inside_a_shard(drawn_shards, tmp_path, workers, ranks):
    """Whichever process meets it, all stop together with the same line."""
    damaged_copy(drawn_shards, tmp_path / "shards", "S0003.0.jpg")
    words = train("shards", "train.batch_size=24", f"data.workers={workers}")
    said = refused(words, tmp_path, talks=True, ranks=ranks)
    assert "1 damaged studies, data.max_damaged 0" in said and "S0003" in said and "damaged.jsonl" in said
    assert not (tmp_path / "run" / "checkpoints").exists(), "no step was taken"
    assert json.loads((tmp_path / "run" / "damaged.jsonl").read_text())["member"] == "S0003.0.jpg"


def test_more_processes_than_studies_in_a_batch(drawn_shards, tmp_path):
    said = refused(train(drawn_shards, "train.batch_size=1"), tmp_path, ranks=2)
    assert "train.batch_size 1 cannot be dealt to 2 ranks" in said and "write train.batch_size=2" in said
    assert left(tmp_path) == []


# -- models ---------------------------------------------------------------------------------------------------------------------


def test_models_that_are_not_there(drawn_shards, tmp_path):
    """And the run can be started in the same directory once the name is right."""
    for name in (f"{tmp_path}/no/swin", "swin", "no-one/has-this"):
        said = refused(train(drawn_shards, f"vision={{kind: vit, name: '{name}'}}"), tmp_path)
        assert "vision.name" in said and name in said and "write" in said
    for name in (f"{tmp_path}/no/llm", "no-one/has-this", "stage:text", "embedded:llama", ""):
        said = refused(train(drawn_shards, f"language={{kind: causal_lm, name: '{name}'}}"), tmp_path)
        assert "language.name" in said and name in said
    assert left(tmp_path) == []
    assert call(train(drawn_shards, "train.max_steps=1"), tmp_path)[0].code == 0


def llama(folder: Path, seed: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rrg.language.tokenizer import train_tokenizer

    words = train_tokenizer("word", ["the lungs are clear ."], "report :", min_count=1, vocabulary=0)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, eos_token_id=2
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)


def test_a_frozen_model_that_changed_and_shards_that_changed(drawn_shards, tmp_path):
    llama(tmp_path / "llm", 0)
    language = "language={kind: causal_lm, name: llm, dtype: float32}"
    assert call(train(drawn_shards, language), tmp_path)[0].code == 0
    before = (tmp_path / "run" / "checkpoints" / "step_00000002" / "trainable.safetensors").read_bytes()
    llama(tmp_path / "llm", 1)
    said = refused(train(drawn_shards, language, "train.max_steps=4"), tmp_path)
    assert "the frozen model changed since (digest" in said and "set output=" in said
    assert "trained with another frozen model" in refused(["generate", "run", "--checkpoint", "last"], tmp_path)
    llama(tmp_path / "llm", 0)
    other = write_shards(tmp_path / "other", (23, 6, 6))
    assert "the training shards changed since (digest" in refused(train(other, language, "train.max_steps=4"), tmp_path)
    assert sorted(events(tmp_path / "run")) == [1, 2] and not (tmp_path / "run" / "predictions" / "test.jsonl").exists()
    shutil.copytree(drawn_shards, tmp_path / "moved")
    assert call(train("moved", language, "train.max_steps=3"), tmp_path)[0].code == 0, "a folder may move"
    assert (tmp_path / "run" / "checkpoints" / "step_00000002" / "trainable.safetensors").read_bytes() == before


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_model_folder(drawn_shards, tmp_path, damaged):
    llama(tmp_path / "llm", 0)
    file = tmp_path / "llm" / damaged
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    said = refused(train(drawn_shards, "language={kind: causal_lm, name: llm, dtype: float32}"), tmp_path)
    assert "language.name: 'llm' cannot be loaded" in said


def test_weights_that_are_not_there_or_of_another_shape_are_not_made_up(drawn_shards, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    llama(tmp_path / "llm", 0)
    file = tmp_path / "llm" / "model.safetensors"
    tensors = load_file(file)
    language = "language={kind: causal_lm, name: llm, dtype: float32}"
    save_file({name: tensor for name, tensor in tensors.items() if "norm" not in name}, file, {"format": "pt"})
    assert "'llm' lacks 3 of its weights (for example model.layers.0.input_layernorm.weight)" in refused(
        train(drawn_shards, language), tmp_path
    )
    save_file({**tensors, "model.norm.weight": torch.ones(3)}, file, {"format": "pt"})
    assert "language.name: 'llm' cannot be loaded" in refused(train(drawn_shards, language), tmp_path, talks=True)


# -- run directories ------------------------------------------------------------------------------------------------------------


def test_run_directories_that_cannot_be_written(drawn_shards, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in ("file/run", "file", "/proc/run"):
        said = refused([*train(drawn_shards), f"output={output}"], tmp_path)
        assert f"run directory {output}: not writable" in said and "set output=" in said
    assert left(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_another_experiment_in_the_directory_of_a_run(finished, drawn_shards, tmp_path):
    before = left(finished)
    said = refused([*train(drawn_shards, "train.lr=0.5"), f"output={finished}"], tmp_path)
    assert "was started with train.lr=0.001, now it is 0.5" in said
    assert left(finished) == before


def test_a_damaged_checkpoint(finished, drawn_shards, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "step_00000002" / "trainable.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    for words in (train(drawn_shards, "train.max_steps=3"), ["generate", "run", "--checkpoint", "last"]):
        said = refused(words, tmp_path)
        assert "step_00000002/trainable.safetensors: missing or damaged; remove its folder" in said
    (file.parent / "state.json").write_text("{")
    assert "state.json is missing or damaged" in refused(["generate", "run", "--checkpoint", "last"], tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generate", "."], ".: no run directory"),
        (["generate", "nowhere"], "nowhere: no run directory"),
        (["generate", "{run}", "--checkpoint", "99"], "no checkpoint '99'; there are: best, last, 2"),
        (["generate", "{run}", "--checkpoint", "best"], "no validation has chosen a best checkpoint"),
        (["generate", "{run}", "--split", "tset"], "--split: invalid choice: 'tset'"),
        (["generate", "{run}", "--films", "none"], "--films: invalid choice: 'none'"),
        (["generate", "{run}", "train.lr=1"], "override train.lr: the model is what the run trained"),
        (["generate", "{run}", "generate.num_beam=1"], "generate.num_beam: no such key"),
        (["generate", "{run}", "generate.num_beams=0"], "generate.num_beams: 0 is below 1"),
        (["generate", "{run}", "--checkpoint", "last", "data.shards=gone"], "gone"),
        (["generate"], "required: RUN"),
        (["view", "nowhere"], "nowhere: not a run directory, there is no such folder"),
        (["view", "."], "not a run directory"),
        (["score", "nowhere.jsonl", "--protocol", "findings", "--shards", "none"], "nowhere.jsonl: predictions cannot be read"),
        (["score", "{run}/events.jsonl", "--protocol", "findings", "--shards", "none"], "lacks study"),
        (["score", "{run}/config.yaml", "--protocol", "findings", "--shards", "none"], "config.yaml line 1: not JSON"),
        ([], "required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train"], "required: recipe"),
        (["train", "tiny/r2gengpt_iu", "--lr", "3"], "unrecognized arguments: --lr"),
    ],
)
def test_commands(words, says, finished, tmp_path):
    before = left(finished)
    assert says in refused([word.format(run=finished) for word in words], tmp_path)
    assert left(tmp_path) == [] and left(finished) == before


def test_broken_predictions(tmp_path):
    good = json.dumps({"study": "S1", "generated": "a", "reference": "b", "section": "findings", "split": "test"})
    for text, says in (
        (f"{good}\n{good[:30]}\n", "broken.jsonl line 2: not JSON"),
        (f"{good}\n{good}\n", "study S1 has two predictions"),
        ("", "has no predictions"),
        (good.replace("findings", "impression"), "was generated for section 'impression'"),
        (good.replace('"a"', "1"), "line 1: generated is not text"),
    ):
        (tmp_path / "broken.jsonl").write_text(text)
        said = refused(["score", "broken.jsonl", "--protocol", "findings", "--shards", "none", "--json", "out.json"], tmp_path)
        assert says in said and "broken.jsonl" in said
        assert left(tmp_path) == ["broken.jsonl"]


# -- prepare --------------------------------------------------------------------------------------------------------------------


def prepare(folder: Path, records: list[dict]) -> list[str]:
    """The command for an annotation of these records; films of train, val and test are there under their ids."""
    (folder / "images").mkdir(exist_ok=True)
    annotation: dict[str, list] = {"train": [], "val": [], "test": []}
    for record in records:
        annotation[record["split"]].append(record)
    (folder / "annotation.json").write_text(json.dumps(annotation))
    return ["prepare", "iu-xray", "--annotation", "annotation.json", "--images", "images", "--out", "out", "--workers", "1"]


def record(folder: Path, study: str, split: str, **more) -> dict:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / f"{study}.jpg").write_bytes(film(0, 1))
    return {"id": study, "split": split, "report": "The lungs are clear.", "image_path": [f"{study}.jpg"], **more}


def studies(folder: Path) -> list[dict]:
    return [record(folder, f"CXR{number}_IM-1", split) for number, split in enumerate(("train", "val", "test"))]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "images" / "CXR1_IM-1.jpg").write_bytes(film(0, 1)[:-200]), "CXR1_IM-1"),
        (lambda f: (f / "images" / "CXR1_IM-1.jpg").write_bytes(b""), "CXR1_IM-1"),
        (
            lambda f: (f / "images" / "CXR1_IM-1.jpg").unlink(),
            "study CXR1_IM-1: no image images/CXR1_IM-1.jpg; --images is the folder",
        ),
        (lambda f: (f / "annotation.json").write_text('{"train": ['), "annotation.json"),
        (lambda f: (f / "annotation.json").unlink(), "annotation.json"),
    ],
)
def test_films_and_annotations(change, says, tmp_path):
    words = prepare(tmp_path, studies(tmp_path))
    change(tmp_path)
    assert says in refused(words, tmp_path, talks=True)
    assert not (tmp_path / "out" / "manifest.json").exists() and not list(tmp_path.glob("out/.*"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("CXR0_IM-1", "train"), "study CXR0_IM-1 is listed twice"),
        (("CXR0_IM-2", "test"), "patient CXR0 is in two splits, train and test (study CXR0_IM-2)"),
        (("IM-2", "test"), "study 'IM-2': an id begins with its patient's CXR number"),
        (("CXR9_IM-1", "test", {"image_path": ["../../secret.jpg"]}), "path '../../secret.jpg' is not inside the image folder"),
        (("CXR9_IM-1", "test", {"report": None}), "test[1] (CXR9_IM-1): key 'report' is missing or not a string"),
    ],
)
def test_studies(more, says, tmp_path):
    study, split, *rest = more
    words = prepare(tmp_path, [*studies(tmp_path), record(tmp_path, study, split, **(rest[0] if rest else {}))])
    assert says in refused(words, tmp_path)
    assert not (tmp_path / "out").exists()


# -- the program itself --------------------------------------------------------------------------------------------------------


def test_the_installed_command_answers_as_the_module_does(tmp_path):
    """The interpreter's own start, once: no traceback, no warning of a library before the line."""
    for words in ([], ["train", "tiny/r2gengpt_iu", "train.lrr=1"]):
        command = [sys.executable, "-m", "rrg.cli", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and done.stderr.startswith("rrg: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command, tmp_path):
    (outcome,) = call([command, "--help"], tmp_path)
    assert outcome.code == 0 and outcome.err == ""
    assert "example" in outcome.out and f"rrg {command}" in outcome.out.partition("example")[2]
    (outcome,) = call(["--help"], tmp_path)
    assert outcome.code == 0 and all(f"{name} " in outcome.out for name in COMMANDS)
