"""Sweeps on a real Slurm cluster: a job array that a job submits, a trial that fails once, one that is preempted, the harvest."""

import json
import sys

import pytest

from rrg.sweep.folder import SweepFolder
from rrg.sweep.state import ALIVE, states
from tests.slurm.site import build_site
from tests.sweep.sweeps import records, write_sweep

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster(slurm_cluster):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PATH", "SLURM_CONF"):
            patch.setenv(name, slurm_cluster.environment[name])  # squeue is asked from this process
        yield slurm_cluster


def found(folder):
    return {one.entry.name: one for one in states(SweepFolder(folder))}


def most_at_one_time(folder):
    """By the trials' own records, each of one attempt."""
    spans = [[line["time"] for line in records(path)] for path in folder.glob("trials/*/attempts.jsonl")]
    return max(sum(span[0] <= one[0] < span[-1] for span in spans) for one in spans)


def rrg(cluster, *words):
    return cluster.run(sys.executable, "-m", "rrg.cli", "sweep", *words, seconds=900)


def until_ended(cluster, folder):
    def ended():
        return not {one.state for one in found(folder).values()} & set(ALIVE)

    cluster.until(ended, 900, "all trials to end", lambda: found(folder))


def test_an_array_with_a_cap_a_trial_that_fails_once_and_the_harvest(cluster, drawn_shards, tmp_path):
    """Submitted by slurm/sweep.sh, from within a job; trials in a container."""
    file = write_sweep(
        tmp_path / "six.yaml",
        drawn_shards,
        overrides={"train.max_steps": 2},
        axes={"train.lr": [1e-3, 1e-2, 3e-3]},
        parallel=2,
        slurm={"time": 20, "warning": 60},
    )
    folder, log = tmp_path / "six", tmp_path / "log"
    unlucky = folder / "runs" / "lr-0.003_1"
    unlucky.parent.mkdir(parents=True)
    unlucky.write_text("")  # where one trial's run directory ought to be

    site = build_site(tmp_path / "site")
    words = [f"--output={log}", "slurm/sweep.sh", "--folder", folder, "seeds=[1,2]"]
    number = cluster.submit(*words, RRG_SWEEP=str(file), **site.container)
    assert cluster.wait(number, 300).state == "COMPLETED", log.read_text()
    assert "6 of 6 trials submitted to Slurm, at most 2 at one time" in log.read_text()
    array = records(folder / "jobs.jsonl")[0]["job"].partition("_")[0]
    assert "ArrayTaskThrottle=2" in cluster.run("scontrol", "show", "job", array)
    again = rrg(cluster, file, "--folder", folder, "--cluster", "slurm", "seeds=[1,2]")
    assert "0 of 6 trials submitted" in again, "a second time changes nothing"
    until_ended(cluster, folder)
    ended = found(folder)
    assert most_at_one_time(folder) <= 2, "the cap holds"
    assert [" /images/rrg.sif python3 -u -m submitit" in line for line in site.commands()] == [True] * 6
    assert [name for name, one in ended.items() if one.state == "failed"] == [unlucky.name], ended
    assert "not writable" in ended[unlucky.name].error and "rrg: " in ended[unlucky.name].error
    assert sum(one.state == "done" for one in ended.values()) == 5
    assert "1 of 6 trials are not in this table" in rrg(cluster, "harvest", folder, "--no-plots")

    unlucky.unlink()
    assert "1 of 6 trials submitted to Slurm" in rrg(cluster, "resubmit-failed", folder)
    until_ended(cluster, folder)
    assert {one.state for one in found(folder).values()} == {"done"}
    assert "best cell, by bleu_4 on val, protocol r2gen_iu" in rrg(cluster, "harvest", folder)
    record = json.loads((folder / "harvest" / "val.r2gen_iu.json").read_text())
    assert [cell["seeds"] for cell in record["cells"]] == [[1, 2]] * 3 and not any(cell["missing"] for cell in record["cells"])
    assert (folder / "harvest" / "val.r2gen_iu.lr.png").is_file()


def test_a_preempted_trial_goes_on_and_a_cancelled_one_does_not(cluster, drawn_shards, tmp_path):
    """Preempted by Slurm's warning, after which it queues itself again, and by `scontrol requeue`, which does that for it."""
    file = write_sweep(
        tmp_path / "long.yaml",
        drawn_shards,
        overrides={"train.max_steps": 20_000},
        axes={"train.lr": [1e-3, 1e-2]},
        then={"splits": []},
        slurm={"time": 20, "warning": 60},
    )
    folder = tmp_path / "long"
    first, second = (f"lr-{rate}_42" for rate in ("0.001", "0.01"))
    journal = folder / "runs" / first / "events.jsonl"

    def until(met, what):
        cluster.until(met, 600, what, lambda: found(folder))

    def resumes():
        return [place for place, line in enumerate(records(journal)) if line["event"] == "resume"]

    def until_resumed(times):
        """Every life began at the step at which the one before it left: nothing was done twice."""
        until(lambda: len(resumes()) == times and records(journal)[-1]["event"] == "step", f"life {times + 1} to train")
        place, lines = resumes()[-1], records(journal)
        assert lines[place]["step"] == max(line["step"] for line in lines[:place])
        assert lines[place]["step"] > max([0, *(lines[before]["step"] for before in resumes()[:-1])])

    rrg(cluster, file, "--folder", folder, "--cluster", "slurm")
    until(lambda: all(one.step > 3 for one in found(folder).values()), "both to train")
    job = found(folder)[first].job
    cluster.run("scancel", "--signal=USR1", job)  # what Slurm sends before it preempts
    until(lambda: found(folder)[first].interruptions == 1, "the trial to be queued again")
    assert rrg(cluster, "cancel", folder, "--trial", second).startswith(f"1 trials cancelled: {second}")
    until(lambda: found(folder)[second].state == "cancelled", "the other to be gone")
    assert "0 trials cancelled" in rrg(cluster, "cancel", folder, "--trial", second)
    until_resumed(1)
    cluster.run("scontrol", "requeue", job)
    until_resumed(2)
    assert found(folder)[first].interruptions == 2
    assert rrg(cluster, "cancel", folder).startswith(f"1 trials cancelled: {first}")
    until(lambda: found(folder)[first].state == "cancelled", "the trial to be gone")
