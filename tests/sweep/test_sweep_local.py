"""Sweeps on this machine, through submitit's own local jobs: real trainings, a failure that is mended, kills and cancellation."""

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rrg.errors import UserError
from rrg.sweep import journal
from rrg.sweep.commands import command, environment, steps
from rrg.sweep.folder import Entry, SweepFolder, find_folder
from rrg.sweep.local_queue import waiting
from rrg.sweep.state import ALIVE, states
from rrg.sweep.submission import choose_cluster, outside_any_job
from rrg.sweep.supervisor import Supervisor
from rrg.sweep.work import last_line
from tests.processes import events
from tests.refusal import call, refused
from tests.sweep.sweeps import records, scores, write_sweep


def sweep(folder, *words, code=0):
    (done,) = call(["sweep", *words], folder)
    assert done.code == code, f"{done.out}\n{done.err}"
    return done.out


def found(folder):
    return {one.entry.name: one for one in states(SweepFolder(folder))}


def until(met, what, seconds=900):
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path):
    """A test that fails leaves no worker and no training behind."""
    yield
    for path in tmp_path.glob("sweeps/*/trials/*/attempts.jsonl"):
        for number in {line["pid"] for line in records(path) if line["event"] in ("start", "step")}:
            command = Path(f"/proc/{number}/cmdline")
            if command.is_file() and str(tmp_path) in command.read_text():
                os.kill(number, signal.SIGKILL)


@pytest.mark.slow
def test_a_trial_fails_once_and_is_harvested_with_the_rest(drawn_shards, tmp_path):
    late = tmp_path / "late"
    file = write_sweep(tmp_path / "two.yaml", drawn_shards, axes={"data.shards": [str(drawn_shards), str(late)]})
    file.write_text(file.read_text().replace(f"  data.shards: {drawn_shards}\n", ""))
    folder = tmp_path / "sweeps" / "two"
    said = sweep(tmp_path, "two.yaml", "--dry-run")
    assert "2 trials in sweeps/two" in said and "data.shards" in said and not folder.exists()
    said = sweep(tmp_path, "two.yaml", "--local", "--parallel", 2)
    assert "2 of 2 trials submitted to this machine, at most 2 at one time" in said
    until(lambda: not {one.state for one in found(folder).values()} & set(ALIVE), "both to end")
    one, other = found(folder).values()
    assert (one.state, one.step, one.total, one.interruptions) == ("done", 4, 4, 0)
    assert other.state == "failed" and "rrg: " in other.error and "late" in other.error and "Traceback" not in other.error
    said = sweep(tmp_path, "status", "two")
    assert "1 done, 1 failed" in said and f"{other.entry.name}/log.txt" in said
    before = (folder / "runs" / one.entry.name / "done.json").stat().st_mtime_ns

    shutil.copytree(drawn_shards, late)
    assert "1 of 2 trials submitted to this machine" in sweep(tmp_path, "resubmit-failed", "two")
    until(lambda: found(folder)[other.entry.name].state == "done", "the other to be done")
    assert "0 of 2 trials submitted" in sweep(tmp_path, "two.yaml", "--local", "--wait"), "the same command finds nothing to do"
    assert (folder / "runs" / one.entry.name / "done.json").stat().st_mtime_ns == before
    said = sweep(tmp_path, "harvest", "sweeps/two", "--best", "rouge_l")
    assert "best cell, by rouge_l on val, protocol r2gen_iu" in said
    record = json.loads((folder / "harvest" / "val.r2gen_iu.json").read_text())
    assert [cell["seeds"] for cell in record["cells"]] == [[42], [42]]
    scored = json.loads((folder / "runs" / one.entry.name / "scores" / "val.r2gen_iu.json").read_text())
    assert record["cells"][0]["figures"]["rouge_l"]["mean"] == scored["metrics"]["rouge_l"]["value"]
    said = refused(["sweep", "two.yaml", "--local", "train.lr=0.5"], tmp_path)
    assert "began with train.lr=0.001, now the sweep says 0.5" in said


@pytest.mark.slow
def test_a_killed_trial_a_stopped_one_and_a_cancelled_one(drawn_shards, tmp_path):
    """With one worker: a trial whose process is killed fails and the next begins; cancelled ones stop; the rest go on later."""
    write_sweep(tmp_path / "long.yaml", drawn_shards, seeds=[1, 2, 3], overrides={"train.max_steps": 5000}, then={"splits": []})
    folder = tmp_path / "sweeps" / "long"
    sweep(tmp_path, "long.yaml", "--local")
    first, second, third = (f"recipe_{seed}" for seed in (1, 2, 3))

    def process(name):
        return [line["pid"] for line in records(folder / "trials" / name / "attempts.jsonl") if line["event"] == "step"][-1]

    until(lambda: found(folder)[first].step > 2, "the first trial to train")
    assert [one.state for one in found(folder).values()] == ["running", "waiting", "waiting"]
    assert "0 of 3 trials submitted" in sweep(tmp_path, "long.yaml", "--local")
    os.killpg(process(first), signal.SIGKILL)
    until(lambda: found(folder)[second].step > 2, "the second trial to train")
    assert found(folder)[first].state == "failed" and "SIGKILL" in found(folder)[first].error

    said = sweep(tmp_path, "cancel", "long")
    assert said.startswith("2 trials cancelled")
    until(lambda: not any(journal.held(slot) for slot in SweepFolder(folder).slots.glob("*")), "the worker to go")
    assert [one.state for one in found(folder).values()] == ["failed", "cancelled", "cancelled"]
    assert "0 trials cancelled" in sweep(tmp_path, "cancel", "long")
    (step,) = (line["step"] for line in records(folder / "runs" / second / "events.jsonl")[-1:])

    # The same command: all three wait again, and go on from their checkpoints. Then the worker itself is asked to leave.
    assert "3 of 3 trials submitted" in sweep(tmp_path, "long.yaml", "--local", "--parallel", "2")
    resumed = folder / "runs" / second / "events.jsonl"
    until(lambda: any(line["event"] == "resume" for line in records(resumed)), "the second trial to go on")
    (went_on,) = [line["step"] for line in records(resumed) if line["event"] == "resume"]
    assert 0 < went_on <= step and went_on >= step - 2, "a trial that is cancelled writes a checkpoint"
    workers = [line["pid"] for line in records(folder / "trials" / second / "attempts.jsonl") if line["event"] == "start"]
    os.kill(workers[-1], signal.SIGUSR1)  # as a scheduler preempts: submitit queues the worker again
    until(lambda: found(folder)[second].interruptions >= 1 and found(folder)[second].state == "running", "it to go on")
    sweep(tmp_path, "cancel", "long")
    until(lambda: not any(journal.held(slot) for slot in SweepFolder(folder).slots.glob("*")), "the workers to go")
    assert events(folder / "runs" / third) == {} or found(folder)[third].state == "cancelled"


# -- without any training -------------------------------------------------------------------------------------------------------


def bare(tmp_path, *names):
    folder = SweepFolder(tmp_path / "sweeps" / "bare")
    folder.root.mkdir(parents=True)
    folder.write_entries([Entry(name, name, 1, {}, str(tmp_path), ["val"], ["r2gen_iu"]) for name in names])
    return folder


def test_states_of_trials_on_this_machine(tmp_path):
    folder = bare(tmp_path, "new", "gone", "killed", "done", "cancelled", "queued", "stopped")
    for number, name in enumerate(("gone", "killed", "done", "cancelled", "queued", "stopped")):
        journal.append(folder.jobs, "submit", cluster="local", job=f"local-{number}", trial=name)
    journal.append(folder.jobs, "cancel", cluster="local", job="local-3", trial="cancelled")
    for number, name in ((1, "killed"), (2, "done"), (5, "stopped")):
        journal.append(folder.place(name).attempts, "start", job=f"local-{number}", pid=1)
    journal.append(folder.place("done").attempts, "done", job="local-2")
    journal.append(folder.place("stopped").attempts, "interrupted", job="local-5", why="SIGTERM")
    folder.place("killed").log.write_text("=== train\nsomething\nrrg: the disk is full\nSegmentation fault\n")
    told = {name: one.state for name, one in found(folder.root).items()}
    assert told == {
        "new": "new", "gone": "interrupted", "killed": "failed", "done": "done", "cancelled": "cancelled",
        "queued": "interrupted", "stopped": "interrupted",
    }  # fmt: skip
    assert found(folder.root)["killed"].error == "its job was killed and left no word; last line: rrg: the disk is full"
    assert [place.name for place, _ in waiting(folder)] == ["gone", "queued", "stopped"]
    worker, trial = journal.lock(folder.slots / "0"), journal.lock(folder.place("killed").lock)
    told = {name: one.state for name, one in found(folder.root).items()}
    assert (told["gone"], told["stopped"], told["killed"]) == ("waiting", "waiting", "running")
    for descriptor in (worker, trial):
        os.close(descriptor)
    scores(folder.place("killed").run, {"bleu_4": 0.1})
    assert found(folder.root)["killed"].state == "done", "what is on disk counts"
    assert found(folder.root)["done"].state == "done"


def test_a_journal_survives_torn_lines_and_many_writers(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal.append(path, "one", value=1)
    with path.open("ab") as file:
        file.write(b'{"event": "to')
    journal.append(path, "two")
    assert [record["event"] for record in journal.read(path)] == ["one", "two"]
    assert journal.read(tmp_path / "none") == []
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            for count in range(50):
                journal.append(path, "many", number=number, count=count)
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert sorted((r["number"], r["count"]) for r in journal.read(path)[2:]) == [(n, c) for n in range(8) for c in range(50)]


def test_a_lock_lasts_as_long_as_the_child_that_inherited_it(tmp_path):
    import subprocess

    path = tmp_path / "lock"
    descriptor = journal.lock(path)
    assert journal.held(path) and journal.lock(path) is None
    child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    os.close(descriptor)
    assert journal.held(path), "a trial whose worker was killed is not free"
    child.kill()
    child.wait()
    assert not journal.held(path) and not journal.held(tmp_path / "none")


def test_who_only_looks_takes_no_lock_away(tmp_path):
    path = tmp_path / "lock"
    os.close(journal.lock(path))
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as one that looks, at this moment
        assert not journal.held(path) and journal.lock(path) is None
        threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        descriptor = journal.lock(path, seconds=30.0)
    assert descriptor is not None and journal.held(path)
    os.close(descriptor)


def test_a_sweep_submitted_from_within_a_job_takes_nothing_of_it(monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1", "SRUN_CPUS_PER_TASK": "1", "SLURM_CONF": "c"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    before = dict(os.environ)
    with outside_any_job():
        assert not {"SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SRUN_CPUS_PER_TASK"} & set(os.environ)
        assert os.environ["SLURM_CONF"] == "c" and os.environ["SBATCH_ACCOUNT"] == "mine"
    assert dict(os.environ) == before
    monkeypatch.delenv("SLURM_JOB_ID")
    with outside_any_job():
        assert os.environ["SLURM_CPUS_PER_TASK"] == "1", "outside of jobs these are the user's own"


def test_a_stopped_process_has_its_time_and_then_none(tmp_path):
    """One that leaves in its own way, one that does not listen."""
    program = "import signal, sys, time; signal.signal(15, {}); print('up', flush=True); time.sleep(60)"
    polite, deaf = ([sys.executable, "-c", program.format(how)] for how in ("lambda *_: sys.exit(75)", "signal.SIG_IGN"))
    for words, patience, code in ((polite, 60.0, 75), (deaf, 0.5, -signal.SIGKILL)):
        log = tmp_path / f"log{code}"
        supervisor = Supervisor(patience)

        def ask(log=log, supervisor=supervisor):
            until(lambda: log.exists() and "up" in log.read_text(), "the process to begin")
            supervisor.ask("SIGTERM")

        thread = threading.Thread(target=ask)
        thread.start()
        assert supervisor.run(words, log, cwd=str(tmp_path), environment=dict(os.environ)) == code
        thread.join()
        assert supervisor.stopping == "SIGTERM"


def test_the_line_that_says_why(tmp_path):
    log = tmp_path / "log.txt"
    assert last_line(log) == ""
    log.write_text("=== train, job 1\nrrg: of an earlier attempt\n=== train, job 2\nstep 1\nTypeError: no\n\n")
    assert last_line(log) == "TypeError: no"
    log.write_text("x" * 100_000 + "\n=== train\n")
    assert last_line(log) == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "sweep 'nowhere': no such file"),
        (["nowhere.yaml", "--local"], "sweep 'nowhere.yaml': no such file"),
        (["statsu", "bare"], "rrg sweep statsu: no such verb and no such file"),
        (["statsu"], "rrg sweep statsu: no such verb and no such file; did you mean 'status'?"),
        (["status"], "the following arguments are required: SWEEP"),
        (["status", "bear"], "bear: no folder of a sweep (with a trials.jsonl) is there; did you mean 'bare'?"),
        (["status", "bare", "--trial", "b"], "--trial b: sweeps/bare has no such trial; legal: a"),
        (["cancel", "bare", "--force"], "unrecognized arguments: --force"),
        (["harvest", "bare"], "sweeps/bare: no trial is scored yet"),
        (["resubmit-failed", "bare", "train.lr=1"], "override train.lr: the trials stay what they are"),
        (["resubmit-failed", "bare", "slurm.tiem=1"], "slurm.tiem: no such key; did you mean 'time'"),
        (["cmeaa_table3", "--local", "--cluster", "slurm"], "not allowed with argument"),
        (["cmeaa_table3", "--parallel", "two"], "invalid int value: 'two'"),
        (["cmeaa_table3", "--parallel", "-1"], "parallel: -1 is below 0"),
        (["cmeaa_table3", "--local", "gpus=99"], "1 trials with 99 GPU(s) each need 99, and this machine shows"),
        (["cmeaa_table3", "trian.lr=1", "--dry-run"], "trian: no such key; did you mean 'train'"),
    ],
)
def test_mistakes_are_answered_in_one_line(words, says, tmp_path):
    folder = bare(tmp_path, "a")
    folder.sweep.write_text("recipe: tiny/r2gengpt_iu\n")
    assert says in refused(["sweep", *words], tmp_path, talks="gpus=99" in words)


def test_where_trials_go(tmp_path, monkeypatch):
    assert choose_cluster("local") == "local" and choose_cluster("debug") == "debug"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_cluster(None) == "local"
    with pytest.raises(UserError, match="--cluster slurm: sbatch and srun are not on this machine's PATH"):
        choose_cluster("slurm")
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert choose_cluster(None) == choose_cluster("slurm") == "slurm"


def test_one_after_another_in_this_process(tmp_path):
    """And a trial that fails at once says why."""
    write_sweep(tmp_path / "one.yaml", tmp_path / "nowhere")
    said = sweep(tmp_path, "one.yaml", "--cluster", "debug", code=1)
    (one,) = found(tmp_path / "sweeps" / "one").values()
    assert (one.state, one.cluster, one.job) == ("failed", "debug", "debug-1") and "1 failed" in said
    assert one.error.startswith("train: rrg: ") and "nowhere" in one.error
    (step,) = [line for line in records(tmp_path / "sweeps/one/trials/recipe_42/attempts.jsonl") if line["event"] == "step"]
    assert step["step"] == "train"


def test_only_what_is_lacking_is_done(tmp_path):
    folder = bare(tmp_path, "a")
    place = folder.place("a")
    entry = Entry("a", "a", 1, {}, "/", ["val", "test"], ["r2gen_iu", "findings"], ["blank"], ["bleu_1"], "last", processes=2)
    assert [step.name for step in steps(place, entry)] == [
        "train", "generate val", "generate val blank", "score val r2gen_iu", "score val findings",
        "generate test", "generate test blank", "score test r2gen_iu", "score test findings",
    ]  # fmt: skip
    scores(place.run, {"bleu_1": 0.1})
    scores(place.run, {"bleu_1": 0.1}, split="test")
    scores(place.run, {"bleu_1": 0.1}, split="test", protocol="findings")
    left = list(steps(place, entry))
    assert [step.name for step in left] == ["generate val", "generate val blank", "score val findings"]
    assert command(left[0], entry)[1:3] == ["-m", "launcher.node"] and command(left[2], entry)[1:3] == ["-m", "rrg.cli"]
    assert environment(entry)["RRG_PROCESSES_PER_NODE"] == "2" and "--checkpoint" in left[0].words
    assert left[2].words[-4:] == ("--protocol", "findings", "--metrics", "bleu_1")
    scores(place.run, {"bleu_1": 0.1}, protocol="findings")
    assert not list(steps(place, entry)) and place.finished(entry)


def test_a_folder_is_found_by_name_and_by_file(tmp_path, monkeypatch):
    folder = bare(tmp_path, "a")
    monkeypatch.chdir(tmp_path)
    for word in ("bare", "sweeps/bare", str(folder.root), "configs/sweeps/bare.yaml", "bare.yaml"):
        assert find_folder(word).root.resolve() == folder.root
