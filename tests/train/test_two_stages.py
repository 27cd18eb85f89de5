"""Projector, then LoRA: one command trains both, each is taken up where it stopped, and the losses are those of the record."""

import json
import shutil

import pytest
from safetensors.torch import load_file

from tests.processes import ROOT, events, run

STEPS = 4
SHORT = [
    f"train.max_steps={STEPS}",
    f"stages.align.train.max_steps={STEPS}",
    "train.checkpoint_every=2",
    "train.validate_every=0",
    "train.threads=1",
    "data.workers=0",
    "generate.max_new_tokens=4",
]

pytestmark = pytest.mark.slow


def arguments(shards, output):
    return ["train", "tiny/gla_ai4biomed_rrg24", f"data.shards={shards}", f"output={output}", *SHORT]


@pytest.fixture(scope="module")
def whole(drawn_shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(arguments(drawn_shards, folder / "run"), folder / "log")
    return folder / "run"


def final(folder):
    checkpoint = folder / "checkpoints" / f"step_{STEPS:08d}"
    return {name: (checkpoint / name).read_bytes() for name in ("trainable.safetensors", "optimizer.safetensors", "state.json")}


def stopped(folder):
    """As a run is that was killed before its last steps."""
    (folder / "done.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoints" / f"step_{STEPS:08d}")
    for left in ("connector.safetensors", "language"):
        path = folder / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def test_the_losses_of_both_stages_are_those_of_the_record(whole):
    """`tests/golden/tiny_gla_ai4biomed.json`: as they were when it was written. A change that means to move them writes them
    anew; no other may."""
    golden = json.loads((ROOT / "tests" / "golden" / "tiny_gla_ai4biomed.json").read_text())
    for name, folder in (("align", whole / "stages" / "align"), ("lora", whole)):
        found = events(folder)
        assert [found[step]["loss"] for step in sorted(found)] == pytest.approx(golden[name], rel=2e-4), name


def test_each_stage_keeps_what_it_trained_and_nothing_else(whole):
    align = load_file(whole / "stages" / "align" / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors")
    left = load_file(whole / "stages" / "align" / "connector.safetensors")
    assert align.keys() == left.keys() and all(align[name].equal(left[name]) for name in align), "the projector, nothing else"
    assert not (whole / "stages" / "align" / "language").exists() and not (whole / "connector.safetensors").exists()
    lora = load_file(whole / "checkpoints" / f"step_{STEPS:08d}" / "trainable.safetensors")
    assert all("lora_" in name for name in lora) and len(lora) == 2 * 7 * 2
    merged = load_file(whole / "language" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in merged)


def test_a_stage_that_was_stopped_is_taken_up_and_ends_bitwise_equal(drawn_shards, whole, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(whole, target)
    stopped(target)
    said = run(arguments(drawn_shards, target), tmp_path / "log")
    assert "/align: finished already" in said and f"carrying on at step 2 of {STEPS}" in said
    assert final(target) == final(whole)
    stopped(target / "stages" / "align")
    for name in ("checkpoints", "language"):
        shutil.rmtree(target / name)
    for name in ("done.json", "events.jsonl"):
        (target / name).unlink()
    said = run(arguments(drawn_shards, target), tmp_path / "second")
    assert f"/align: carrying on at step 2 of {STEPS}" in said
    assert final(target) == final(whole) and final(target / "stages" / "align") == final(whole / "stages" / "align")
    connector = target / "stages" / "align" / "connector.safetensors"
    assert connector.read_bytes() == (whole / "stages" / "align" / "connector.safetensors").read_bytes()

    stopped(target)
    connector.write_bytes(connector.read_bytes()[:-4] + b"\x00\x00\x80?")
    said = run(arguments(drawn_shards, target), tmp_path / "third", expect=2)
    assert "is not what was written" in said.splitlines()[-1] and "Traceback" not in said
    shutil.copy(whole / "stages" / "align" / "connector.safetensors", connector)
    run(arguments(drawn_shards, target), tmp_path / "fourth")
    assert final(target) == final(whole)


def test_reports_are_written_from_both_stages_and_exported_a_line_each(whole):
    run(["generate", whole, "--checkpoint", "last"], whole / "log")
    predictions = whole / "predictions" / "test.jsonl"
    assert len(predictions.read_text().splitlines()) == 6
    lines = whole / "lines.txt"
    run(["score", predictions, "--protocol", "rrg24_findings", "--rrg24", lines], whole / "log")
    written = [" ".join(json.loads(row)["generated"].split()) for row in predictions.read_text().splitlines()]
    assert lines.read_text().split("\n") == [*written, ""]
