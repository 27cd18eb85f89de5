"""`rrg bench train`: what it measures and writes, what it refuses, and results side by side."""

import json

import pytest

from rrg.cli import main
from tests.processes import Command

SMALL = ["data.workers=0", "train.threads=1", "train.batch_size=4", "train.micro_batch_size=2"]
SHOWN = {"loader", "forward", "backward", "communication", "optimizer", "bookkeeping"}


def run(arguments, log, expect=0):
    """`rrg` in a process of its own, which starts others: on a busy machine each takes its time."""
    command = Command([str(word) for word in arguments], log)
    code = command.wait(900)
    assert code == expect, command.text()
    return command.text()


def words(shards, *more):
    return ["bench", "train", "tiny/r2gengpt_iu", f"data.shards={shards}", *SMALL, "--steps", "3", "--warmup", "1", *more]


@pytest.fixture(scope="module")
def measured(drawn_shards, tmp_path_factory):
    """The result of one process, measured in a process of its own."""
    folder = tmp_path_factory.mktemp("bench")
    run(words(drawn_shards, "--json", folder / "one.json"), folder / "log")
    assert sorted(path.name for path in folder.iterdir()) == ["log", "one.json"]  # the run itself is gone
    return folder / "one.json"


def test_one_process_measures_steps_phases_and_operations(measured):
    record = json.loads(measured.read_text())
    result, (rank,) = record["result"], record["ranks"]
    assert record["protocol"]["weights"]["trained"] > 0 and record["configuration"]["processes"] == 1
    assert len(rank["step_seconds"]) == 3 and set(rank["phases"]) == SHOWN
    pairs = zip(rank["tokens"], rank["padded_tokens"], strict=True)
    assert rank["studies"] == [4, 4, 4] and all(0 < real <= padded for real, padded in pairs)
    assert sum(result["split"].values()) == pytest.approx(1, abs=1e-6)
    assert result["step_seconds"]["least"] <= result["step_seconds"]["median"] <= result["step_seconds"]["largest"]
    assert result["studies_per_second"] == pytest.approx(12 / sum(rank["step_seconds"]))
    assert 0 < result["model_flops_per_second_and_device"] < result["hardware_flops_per_second_and_device"]
    assert result["model_flops_utilisation"] is None and result["peak_memory"]["process"] > 2**20
    assert rank["machine"]["versions"]["torch"] and rank["machine"]["node"] and rank["flops_left_out"] is None


def test_two_results_side_by_side(measured, tmp_path, capsys):
    other = json.loads(measured.read_text())
    other["result"]["studies_per_second"] *= 2
    other["ranks"][0]["machine"]["node"] = "elsewhere"
    fast = tmp_path / "fast.json"
    fast.write_text(json.dumps(other))
    assert main(["bench", "train", "--compare", str(measured), str(fast)]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "studies/s" in line)
    assert "2.000" in row and "machine.node" in said and "elsewhere" in said

    shown = json.loads(fast.read_text())
    shown["configuration"]["processes"] = 4
    shown["ranks"] *= 4
    (tmp_path / "four.json").write_text(json.dumps(shown))
    assert main(["bench", "train", "--table", str(tmp_path / "four.json"), str(measured), "--out", str(tmp_path / "all")]) == 0
    capsys.readouterr()
    table = (tmp_path / "all" / "table.txt").read_text()
    assert "4 processes" in table and "50%" in table
    assert (tmp_path / "all" / "scaling.png").is_file()
    assert main(["bench", "train", "--table", str(measured), str(fast)]) == 2
    assert "both of 1 processes; use --compare for these two" in capsys.readouterr().err

    for change, key in ((("steps",), "steps"), (("settings", "train.precision"), "train.precision")):
        changed = json.loads(measured.read_text())
        place = changed["protocol"]
        for name in change[:-1]:
            place = place[name]
        place[change[-1]] = "other"
        fast.write_text(json.dumps(changed))
        for how in ("--compare", "--table"):
            assert main(["bench", "train", how, str(measured), str(fast)]) == 2
            said = capsys.readouterr().err
            assert "measured different things" in said and key in said and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--scaling", "wide"], "--scaling wide: write weak or strong"),
        (["--steps", "1"], "--steps 1: write 2 or more"),
        (["--warmup", "0"], "--warmup 0: write 1 or more"),
        (["--peak-tflops", "0"], "--peak-tflops 0: write the device's rate"),
        (["--processes", "1,x"], "--processes '1,x': write numbers with commas"),
        (["--processes", "2,2"], "--processes 2,2: write different numbers from 1"),
        (["--processes", "0"], "--processes 0: write different numbers from 1"),
        (["--nodes", "1,2"], "--nodes: goes through srun"),
        (["--nodes", "1", "--processes", "1"], "--nodes and --processes: write one of them"),
        (["--processes", "3,4"], "train.batch_size: 4 for 3 cannot become whole studies for 4"),
        (["--compare", "absent.json", "b.json"], "absent.json: No such file"),
        (["--table", "absent.json"], "absent.json: No such file"),
        (["train.lrr=1"], "train.lrr: no such key"),
    ],
)
def test_mistakes_are_one_line(drawn_shards, tmp_path, monkeypatch, capsys, more, said):
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main([*words(drawn_shards), *more]) == 2
    found = capsys.readouterr().err
    assert said in found and len(found.splitlines()) == 1, found
    assert not list(tmp_path.iterdir())


def test_no_recipe_no_result_and_more_nodes_than_there_are(drawn_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "train"]) == 2 and "name a recipe" in capsys.readouterr().err
    (tmp_path / "b.json").write_text('{"bench": "loader"}')
    assert main(["bench", "train", "--compare", "b.json", "b.json"]) == 2
    assert "b.json: no result of `rrg bench train`" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    assert main([*words(drawn_shards), "--nodes", "1,3"]) == 2
    assert "--nodes 3: the allocation has 2" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.multiprocess
def test_strong_scaling_over_two_processes(drawn_shards, tmp_path):
    out = tmp_path / "out"
    said = run(
        words(drawn_shards, "--processes", "1,2", "--scaling", "strong", "--peak-tflops", "0.1", "--out", out), tmp_path / "log"
    )
    one, two = (json.loads((out / f"processes_{count}.json").read_text()) for count in (1, 2))
    assert [len(record["ranks"]) for record in (one, two)] == [1, 2]
    assert one["protocol"] == two["protocol"] and two["configuration"]["batch_size"] == 4
    for name in ("studies", "tokens", "report_tokens", "films"):
        per_step = [sum(values) for values in zip(*(rank[name] for rank in two["ranks"]), strict=True)]
        assert per_step == one["ranks"][0][name]  # the same global batches, whoever reads them
    flops = [sum(sum(rank["model_flops"]) for rank in record["ranks"]) for record in (one, two)]
    assert flops[0] == pytest.approx(flops[1], rel=1e-9)
    assert one["result"]["blocked_in_backward"] is None and 0 <= two["result"]["blocked_in_backward"] < 1
    assert two["result"]["split"]["communication"] > 0 and two["result"]["model_flops_utilisation"] > 0
    assert "efficiency" in said and "studies/s" in (out / "table.txt").read_text()
    assert (out / "scaling.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_what_the_processes_refuse_is_said_by_the_command(drawn_shards, tmp_path):
    said = run(words(drawn_shards, "--out", tmp_path / "out", "stages.text.train.max_steps=2"), tmp_path / "log", expect=2)
    assert "stages.text: a benchmark trains no stage before it measures" in said and "Traceback" not in said
