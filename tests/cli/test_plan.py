"""`rrg plan`: what it prints and writes, and what mistakes are answered with."""

from __future__ import annotations

import json

import pytest

from rrg.cli import main
from tests.refusal import refused

TINY = ["tiny/r2gengpt_iu", "--gpu", "a100-40g"]


def test_tables_recommendation_and_record(tmp_path, capsys):
    out = tmp_path / "plan.json"
    assert main(["plan", *TINY, "--gpus", "16", "--json", str(out), "train.batch_size=128"]) == 0
    printed = capsys.readouterr().out
    for word in ("weights", "loss head", "MFU", "if all were trained", "hsdp", "Write strategy=ddp train.micro_batch_size=8"):
        assert word in printed
    record = json.loads(out.read_text())
    rows = {row["strategy"]: row for row in record["strategies"]}
    assert list(rows) == ["ddp", "zero2", "zero3", "fsdp2", "hsdp"] and all(row["fits"] for row in rows.values())
    assert rows["hsdp"]["traffic"]["between"] < rows["fsdp2"]["traffic"]["between"], "only gradients leave the node"
    assert rows["ddp"]["memory"]["weights"] > rows["hsdp"]["memory"]["weights"] > rows["fsdp2"]["memory"]["weights"]
    names = ("weights", "gradients", "optimizer", "activations", "head", "buffers")
    for row in rows.values():
        assert row["memory"]["total"] == pytest.approx(sum(row["memory"][name] for name in names))
    assert record["activations"]["language"] and all(term["formula"] for term in record["activations"]["language"])
    assert rows["ddp"]["pace"]["model_flops"] <= rows["ddp"]["pace"]["hardware_flops"]


def test_a_7b_model_on_gpus_that_fit_and_that_do_not(tmp_path, capsys):
    assert main(["plan", "cmeaa_mimic", "--gpus", "1", "--gpu", "v100-16g"]) == 0
    printed = capsys.readouterr().out
    assert "Nothing fits: ddp holds least" in printed and "language.gradient_checkpointing=true" in printed
    assert "has no bf16 products" in printed and "every strategy is the whole model" in printed
    out = tmp_path / "plan.json"
    words = ["plan", "cmeaa_mimic", "--gpus", "8", "--gpu", "a100-40g", "--json", str(out)]
    totals = []
    for more in (["language.dtype=float16"], [], ["language.gradient_checkpointing=true"]):
        assert main([*words, *more]) == 0
        totals.append(json.loads(out.read_text())["strategies"][0]["memory"]["total"])
    printed = capsys.readouterr().out
    assert "train.batch_size 6 cannot be dealt to 8 processes: planned with 48" in printed
    assert printed.count("note: language.dtype=float16 under train.precision=bf16") == 1, "what is as published has no copies"
    assert totals[0] - totals[1] > 12e9, "no copies of the weights"
    assert totals[1] - totals[2] > 3e9, "no activations but the inputs of blocks"


def test_list_of_gpus(capsys):
    assert main(["plan", "--gpu", "LIST"]) == 0
    assert "h100-80g" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--gpu", "a100-60g"], "--gpu a100-60g: no such GPU; did you mean 'a100-80g'"),
        (["--gpus", "0"], "--gpus 0: write 1 or more"),
        (["--gpus", "12"], "--gpus 12: no whole number of nodes of 8; write --gpus-per-node too"),
        (["--gpus", "8", "--gpus-per-node", "3"], "--gpus-per-node 3: does not divide --gpus 8"),
        (["--network", "0"], "--network 0: gigabits per second of a node; write a number above 0"),
        (["--gpus", "64", "train.batch_size=8"], "train.batch_size 8 cannot be dealt to 64 ranks"),
        (["--report-tokens", "61"], "--report-tokens 61: reports are cut at language.max_report_tokens 60; write 1 to 60"),
        (["--prompt-tokens", "6"], "--prompt-tokens '6': write two numbers, such as 6,24"),
        (["--dry-run", "--only", "zero3"], "--only zero3: no strategy that can run dry; legal: ddp, fsdp2, hsdp"),
        (["--only", "hsdp"], "--only hsdp: shards within a node and replicates between nodes"),
        (["--json", "nowhere/plan.json"], "--json nowhere/plan.json: no folder nowhere; make it first"),
        (
            ["language.kind=causal_lm", "language.name=no/model"],
            "the shape of 'no/model' is not known without its files",
        ),
    ],
)
def test_mistakes(words, says, tmp_path):
    assert says in refused(["plan", "tiny/r2gengpt_iu", *words], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_recipe(tmp_path):
    assert "name a recipe, for example `rrg plan cmeaa_mimic" in refused(["plan"], tmp_path)


@pytest.mark.parametrize("recipe", ["tiny/unicrossadapter_iu", "tiny/alta_mimic"])
def test_reports_that_no_causal_language_model_writes(recipe, tmp_path):
    assert "whose reports a causal language model writes (language.kind causal_lm, small_llama)" in refused(
        ["plan", recipe], tmp_path
    )
