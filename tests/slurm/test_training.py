"""The scripts of slurm/ on a real cluster: two nodes, signals, requeues, a node that dies, budgets, chains."""

import json
import subprocess
import sys

import pytest

from tests.processes import ROOT, events, launch
from tests.slurm.cluster import started

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.multiprocess]

STEPS = 60
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=10",
    "train.validate_every=0",
    "train.threads=1",
    "train.eps=1e-4",  # gradients that are zero but for rounding stay small: AdamW would blow them up to full steps
    "data.workers=0",
]
SIZE = ["--gpus-per-node=0", "--cpus-per-task=1"]  # no GPU here
# For jobs whose training is not what is tested: what `python -m launcher.node` would do is in $ACT.
STAND_IN = f"""#!/bin/bash
[ "$2" = launcher.node ] || exec {sys.executable} "$@"
eval "$ACT"
"""


@pytest.fixture(scope="module")
def cluster():
    with started(2) as found:
        yield found


@pytest.fixture(scope="module")
def others(cluster, tmp_path_factory):
    """Jobs that take time and no work, begun before the long one: name → (number of the job, run directory)."""
    folder = tmp_path_factory.mktemp("others")
    (folder / "python").write_text(STAND_IN)
    (folder / "python").chmod(0o755)
    jobs = {}
    for name, words, environment in (
        # The second node fails; the first is then told to leave, as if it were interrupted.
        (
            "crash",
            ["--time=5", "--nodes=2"],
            {"ACT": '[ "$SLURM_NODEID" = 0 ] || exit 1; trap "exit 75" TERM; sleep 60 & wait', "RRG_MAX_CRASHES": "1"},
        ),
        # 75 in the first job, at the warning that the time limit is near; done in the one after it.
        (
            "limit",
            ["--time=1", "--signal=B:USR1@55"],
            {
                "ACT": '[ -z "$RRG_CHAINED" ] || exit 0; trap "exit 75" USR1; sleep 55 & wait',
                "RRG_RESTART": "chain",
                "RRG_SIGNAL_LEAD": "55",
                "RRG_SBATCH": f"--time=5 --gpus-per-node=0 --cpus-per-task=1 --output={folder}/limit.chained",
            },
        ),
    ):
        settings = {"RRG_PYTHON": str(folder / "python"), "RRG_PREFLIGHT": "0", "RRG_OUTPUT": str(folder / name), **environment}
        number = cluster.submit(*SIZE, *words, f"--output={folder / name}.log", "slurm/train_iu.sh", **settings)
        jobs[name] = (number, folder / name)
    return jobs


def lives(run):
    path = run / "lives.json"
    return [life["end"] for life in json.loads(path.read_text())] if path.exists() else []


def test_scripts_are_taken_as_they_are(cluster):
    for script in ("train_mimic", "train_iu", "evaluate", "sweep", "benchmark"):
        cluster.run("sbatch", "--test-only", *SIZE, f"slurm/{script}.sh")
    scripts = sorted(str(path) for path in (ROOT / "slurm").glob("*.sh"))
    subprocess.run(["shellcheck", "-x", *scripts], check=True, env=cluster.environment)


def test_a_run_of_many_lives_trains_as_one_process(cluster, others, drawn_shards, tmp_path):
    """ZeRO-3 on two nodes until a signal, FSDP2 until a node dies, again until the job is requeued, and to the end."""
    run, log = tmp_path / "run", tmp_path / "log"
    # A site's own file may set anything.
    (tmp_path / "setup").write_text('[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || RRG_STRATEGY=fsdp2\n')
    environment = {
        "RRG_RECIPE": "tiny/r2gengpt_iu",
        "RRG_SHARDS": str(drawn_shards),
        "RRG_OUTPUT": str(run),
        "RRG_STRATEGY": "zero3",
        "RRG_SETUP": str(tmp_path / "setup"),
    }
    number = cluster.submit("--nodes=2", *SIZE, "--time=30", f"--output={log}", "slurm/train_iu.sh", *OVERRIDES, **environment)

    def step():
        return max(events(run), default=0)

    def until(target, life):
        def told():
            return f"step {step()}, {cluster.job(number)}\n{log.read_text()[-5000:] if log.exists() else ''}"

        cluster.until(lambda: step() >= target and len(lives(run)) >= life, 600, f"step {target} in life {life}", told)

    until(3, 1)
    cluster.run("scancel", "--signal=USR1", "--batch", number)
    cluster.until(lambda: lives(run)[0] == "preemption", 60, "the first life to end", lambda: log.read_text()[-5000:])
    first = json.loads((run / "interrupted.json").read_text())
    assert first["signal"] == "SIGUSR1" and (run / "checkpoints" / f"step_{first['step']:08d}").is_dir()

    until(first["step"] + 12, 2)
    assert not (run / "interrupted.json").exists()
    cluster.kill_node(cluster.names[1])
    cluster.until(lambda: cluster.job(number).restarts == 2, 60, "Slurm to requeue the job")
    cluster.start_node(cluster.names[1])

    resumed = events(run, "resume")
    cluster.until(
        lambda: len(events(run, "resume")) > len(resumed), 600, "the third life to resume", lambda: log.read_text()[-5000:]
    )
    until(max(events(run, "resume")) + 3, 3)
    cluster.run("scontrol", "requeue", number)
    ended = cluster.wait(number, 600)
    text = log.read_text()
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 3), text[-8000:]
    assert lives(run) == ["preemption", "preemption", "preemption", "done"]
    assert text.count("preflight: 2 of 2 node(s)") == 4 and text.count("2 node(s) x 1 process(es)") == 4
    assert "zero3: 2 processes" in text and "fsdp2: 2 processes" in text

    one = tmp_path / "one"
    command = ["launcher/train.py", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={one}", *OVERRIDES]
    launch([sys.executable, *command])
    ours, theirs = events(run), events(one)
    assert sorted(ours) == sorted(theirs) == list(range(1, STEPS + 1))
    for number in theirs:
        assert ours[number]["order"] == theirs[number]["order"]
        assert ours[number]["loss"] == pytest.approx(theirs[number]["loss"], abs=1e-4)


def test_reports_and_scores_of_a_run(cluster, drawn_shards, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    quick = [*OVERRIDES, "train.max_steps=2", "generate.num_beams=1", "generate.min_new_tokens=2", "generate.max_new_tokens=4"]
    command = ["launcher/train.py", "tiny/r2gengpt_iu", f"data.shards={drawn_shards}", f"output={run}", *quick]
    launch([sys.executable, *command])
    words = ["--nodes=2", *SIZE, f"--output={log}", "slurm/evaluate.sh"]
    number = cluster.submit(*words, RRG_OUTPUT=str(run), RRG_CHECKPOINT="last")
    assert cluster.wait(number).state == "COMPLETED", log.read_text()[-5000:]
    assert len((run / "predictions" / "test.jsonl").read_bytes().splitlines()) == 6
    assert list((run / "scores").glob("test.*.json"))


def test_a_mistake_ends_the_job_at_once(cluster, tmp_path):
    log = tmp_path / "log"
    words = ["--nodes=2", *SIZE, f"--output={log}", "slurm/train_iu.sh"]
    number = cluster.submit(*words, RRG_SHARDS=str(tmp_path / "no"), RRG_OUTPUT=str(tmp_path / "run"))
    ended = cluster.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 2, 0)
    assert f"shards: no folder {tmp_path / 'no'}" in log.read_text() and lives(tmp_path / "run") == ["mistake"]


def test_crashes_have_a_budget_and_the_job_fails_in_the_end(cluster, others):
    number, run = others["crash"]
    ended = cluster.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 1, 1)
    assert lives(run) == ["crash", "crash"]
    assert "2 lives of this run ended by crash, RRG_MAX_CRASHES allows 1" in run.with_suffix(".log").read_text()


def test_a_time_limit_chains_another_job(cluster, others):
    number, run = others["limit"]
    ended = cluster.wait(number)
    assert (ended.state, ended.code) == ("FAILED", 75)
    cluster.until(lambda: len(lives(run)) == 2 and lives(run)[1], 60, "the chained job", lambda: lives(run))
    assert lives(run) == ["timeout", "done"]
