"""A sweep on a real Slurm cluster: a job array with a cap, a trial that fails once, a trial that is preempted, the harvest."""

import json
import shutil
import sys

import pytest

from tests.processes import ROOT
from tests.slurm.cluster import started
from tests.sweep.sweeps import records, write_sweep

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    with started(2) as running:
        yield running


def test_an_array_with_a_cap_a_trial_that_fails_once_and_the_harvest(cluster, drawn_shards, tmp_path):
    late = tmp_path / "late"
    file = write_sweep(
        tmp_path / "six.yaml",
        drawn_shards,
        overrides={"train.max_steps": 2},
        pairs=[{"train.lr": [1e-3, 1e-2, 3e-3], "data.shards": [str(drawn_shards), str(drawn_shards), str(late)]}],
        seeds=[1, 2],
        parallel=2,
        slurm={"time": 20, "warning": 60},
    )
    folder = tmp_path / "six"

    def rrg(*words, check=True):
        return cluster.run(sys.executable, "-m", "rrg.cli", "sweep", *words, seconds=200, check=check)

    def found():
        return {one["trial"]: one for one in json.loads(rrg("status", folder, "--json"))}

    shutil.copytree(drawn_shards, late)
    (late / "val-000000.index.jsonl").rename(tmp_path / "index")  # the shards of two trials are damaged, at first
    said = rrg(file, "--folder", folder, "--cluster", "slurm")
    assert "6 of 6 trials submitted to Slurm, at most 2 at one time" in said
    array = records(folder / "jobs.jsonl")[0]["job"].partition("_")[0]
    assert "ArrayTaskThrottle=2" in cluster.run("scontrol", "show", "job", array)
    assert "0 of 6 trials submitted" in rrg(file, "--folder", folder, "--cluster", "slurm"), "a second time changes nothing"
    most = 0

    def all_ended():
        nonlocal most
        states = [one["state"] for one in found().values()]
        most = max(most, states.count("running"))
        return not {"waiting", "running", "unknown"} & set(states)

    cluster.until(all_ended, 300, "the array to end", lambda: {name: one["state"] for name, one in found().items()})
    states = found()
    assert 1 <= most <= 2, "the cap holds"
    failed = sorted(name for name, one in states.items() if one["state"] == "failed")
    assert failed == ["lr-0.003_1", "lr-0.003_2"], states
    assert all("val-000000.index.jsonl is missing" in states[name]["error"] for name in failed)
    assert sum(one["state"] == "done" for one in states.values()) == 4

    (tmp_path / "index").rename(late / "val-000000.index.jsonl")
    assert "2 of 6 trials submitted to Slurm" in rrg("resubmit-failed", folder, "--wait")
    assert {one["state"] for one in found().values()} == {"done"}
    assert "0 of 6 trials submitted" in rrg("resubmit-failed", folder)
    table = rrg("harvest", folder)
    assert "3 cells" in table or "best cell" in table
    record = json.loads((folder / "harvest" / "val.r2gen_iu.json").read_text())
    assert [len(cell["seeds"]) for cell in record["cells"]] == [2, 2, 2] and not any(cell["missing"] for cell in record["cells"])


def test_a_preempted_trial_goes_on_and_a_cancelled_one_does_not(cluster, drawn_shards, tmp_path):
    file = write_sweep(
        tmp_path / "long.yaml",
        drawn_shards,
        overrides={"train.max_steps": 400},
        axes={"train.lr": [1e-3, 1e-2]},
        then={"splits": []},
        slurm={"time": 20, "warning": 60},
    )
    folder = tmp_path / "long"

    def rrg(*words):
        return cluster.run(sys.executable, "-m", "rrg.cli", "sweep", *words, seconds=200)

    def found():
        return {one["trial"]: one for one in json.loads(rrg("status", folder, "--json"))}

    rrg(file, "--folder", folder, "--cluster", "slurm")
    names = [f"lr-{rate}_42" for rate in ("0.001", "0.01")]
    cluster.until(lambda: all(found()[name]["step"] > 3 for name in names), 120, "both to train", found)
    before = found()[names[0]]
    cluster.run("scancel", "--signal=USR1", before["job"])  # as Slurm signals a job that it preempts
    cluster.until(lambda: found()[names[0]]["interruptions"] == 1, 60, "the trial to be queued again", found)
    assert "2 trials cancelled" not in rrg("cancel", folder, "--trial", names[1])
    assert found()[names[1]]["state"] in ("cancelled", "running")
    cluster.until(lambda: found()[names[1]]["state"] == "cancelled", 60, "the other to be gone", found)
    assert "0 trials cancelled" in rrg("cancel", folder, "--trial", names[1])
    resumed = folder / "runs" / names[0] / "events.jsonl"
    cluster.until(lambda: any(line["event"] == "resume" for line in records(resumed)), 120, "the trial to go on", found)
    (start,) = [line["step"] for line in records(resumed) if line["event"] == "resume"]
    assert start >= before["step"] - 1, "it goes on from the checkpoint that it was asked for"
    assert rrg("cancel", folder).startswith("1 trials cancelled")
    cluster.until(lambda: found()[names[0]]["state"] == "cancelled", 60, "the trial to be gone", found)
    assert ROOT.is_dir()
