"""The scripts of slurm/ on a real cluster: two nodes, signals, requeues, a node that dies, budgets, chains, a benchmark."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, events, launch
from tests.slurm.site import build_site

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.multiprocess]

RECIPE = "tiny/r2gengpt_iu"
OVERRIDES = [
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.checkpoint_every=4",
    "train.validate_every=0",
    "train.threads=1",
    "train.schedule.kind=constant",
    "train.eps=1e-4",  # gradients that are zero but for rounding stay small: AdamW would blow them up to full steps
    "data.workers=0",
]
SIZE = ["--gpus-per-node=0", "--cpus-per-task=1"]  # no GPU here
# Until it is told to leave, as a training does that writes a checkpoint.
LISTEN = 'trap "exit 75" USR1 TERM; sleep 600 & wait'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def others(slurm_cluster, site, drawn_shards, tmp_path_factory):
    """Jobs beside the long one, begun before it, on the nodes that it leaves: name → (number of the job, its folder)."""
    folder = tmp_path_factory.mktemp("others")
    nodes = ["--oversubscribe", f"--nodelist={','.join(slurm_cluster.names[2:])}"]
    two, jobs = [*nodes, "--nodes=2"], {}
    chained = f"--time=5 --gpus-per-node=0 --cpus-per-task=1 --output={folder}/chain.chained"
    for name, script, words, environment in (
        # The second node fails; the first is then told to leave, as if it were interrupted.
        ("crash", "train_iu", two, {"ACT": f'[ "$SLURM_NODEID" = 0 ] || exit 1; {LISTEN}', "RRG_MAX_CRASHES": "1"}),
        # Somebody preempts it, again and again.
        (
            "preemption",
            "train_mimic",
            [*two, "--time=60"],
            {
                "ACT": f'trap "exit 75" USR1; [ "$SLURM_NODEID" = 1 ] || scancel -s USR1 -b $SLURM_JOB_ID; {LISTEN}',
                "RRG_MAX_PREEMPTIONS": "1",
            },
        ),
        # Slurm says that the time limit is near, again and again.
        (
            "limit",
            "train_mimic",
            [*two, "--time=1", "--signal=B:USR1@55"],
            {"ACT": LISTEN, "RRG_MAX_TIMEOUTS": "1", "RRG_SIGNAL_LEAD": "55"},
        ),
        # 75 in the first job, at the warning that the time limit is near; done in the one after it.
        (
            "chain",
            "train_iu",
            [f"--nodelist={slurm_cluster.names[2]}", "--time=1", "--signal=B:USR1@55"],
            {
                "ACT": f'[ -z "$RRG_CHAINED" ] || exit 0; {LISTEN}',
                "RRG_RESTART": "chain",
                "RRG_SIGNAL_LEAD": "55",
                "RRG_SBATCH": chained,
            },
        ),
    ):
        settings = {**site.idle, "RRG_OUTPUT": str(folder / name), **environment}
        output = f"--output={folder / name}.log"
        jobs[name] = (slurm_cluster.submit(*SIZE, *words, output, f"slurm/{script}.sh", **settings), folder / name)
    settings = {
        "RRG_RECIPE": RECIPE,
        "RRG_SHARDS": str(drawn_shards),
        "RRG_BENCH": str(folder / "benchmark"),
        "RRG_PREFLIGHT": "0",
    }
    words = [
        *SIZE,
        *two,
        f"--output={folder}/benchmark.log",
        "slurm/benchmark.sh",
        "--steps",
        "3",
        "--warmup",
        "1",
        *OVERRIDES[:2],
    ]
    number = slurm_cluster.submit(*words, "train.threads=1", "data.workers=0", **site.container, **settings)
    jobs["benchmark"] = (number, folder / "benchmark")
    settings = {"RRG_RECIPE": "tiny/r2gengpt_mimic", "RRG_SHARDS": str(drawn_shards), "RRG_OUTPUT": str(folder / "mimic")}
    words = [*SIZE, *two, f"--output={folder}/mimic.log", "slurm/train_mimic.sh", *OVERRIDES, "train.max_steps=2"]
    jobs["mimic"] = (slurm_cluster.submit(*words, **settings), folder / "mimic")
    return jobs


def lives(run):
    path = run / "lives.json"
    return [life["end"] for life in json.loads(path.read_text())] if path.exists() else []


def text_of(log):
    return log.read_text() if log.exists() else ""


def test_scripts_are_taken_as_they_are(slurm_cluster):
    for script in ("train_mimic", "train_iu", "evaluate", "sweep", "benchmark"):
        slurm_cluster.run("sbatch", "--test-only", *SIZE, f"slurm/{script}.sh")
    scripts = sorted(str(path) for path in (ROOT / "slurm").glob("*.sh"))
    subprocess.run(["shellcheck", "-x", *scripts], check=True, env=slurm_cluster.environment)


# What a site may have in a file of its own, here everything that changes from life to life. Only the first looks at the nodes.
# The first three would train for hours, the last one three steps more than they did.
SETUP = f"""
echo "modules: $SITE_MODULES"
life=${{SLURM_RESTART_COUNT:-0}} steps=1000000
if [ "$life" -gt 0 ]; then RRG_STRATEGY=fsdp2 RRG_PREFLIGHT=0; fi
if [ "$life" = 3 ]; then steps=$((3 + 10#$(ls "$RRG_OUTPUT/checkpoints" | sed -n 's/^step_//p' | sort | tail -n 1))); fi
RRG_RECIPE=$RRG_OUTPUT.$life.yaml
printf 'base: {ROOT}/configs/{RECIPE}.yaml\\ntrain: {{max_steps: %s}}\\n' "$steps" >"$RRG_RECIPE"
"""


def ranks_of(run):
    """The processes that train into a folder, on all nodes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if any(word.endswith(b"launcher/rank.py") for word in words[:4]) and f"output={run}".encode() in words:
                found.append(int(path.parent.name))
    return found


def heard(process, number):
    """Whether a process that is stopped was sent a signal."""
    pending = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{process}/status").read_text())[1]
    return bool(int(pending, 16) >> (number - 1) & 1)


def test_a_run_of_many_lives_trains_as_one_process(slurm_cluster, site, others, drawn_shards, tmp_path):
    """ZeRO-3 on two nodes until Slurm warns of the time limit, FSDP2 until a node dies, again until the job is requeued, and to
    the end; in a container, with modules. Then the run's reports and scores, on two nodes."""
    cluster, run, log = slurm_cluster, tmp_path / "run", tmp_path / "log"
    (tmp_path / "setup").write_text(SETUP)
    values = {"RRG_SHARDS": drawn_shards, "RRG_OUTPUT": run, "RRG_STRATEGY": "zero3", "RRG_SETUP": tmp_path / "setup"}
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in values.items())])
    place = ["--nodes=2", f"--nodelist={','.join(cluster.names[:2])}", "--time=60", f"--output={log}"]
    number = cluster.submit(*SIZE, *place, f"--export={exported}", "slurm/train_iu.sh", *OVERRIDES, **site.container)

    def told():
        return f"{cluster.job(number)}, lives {lives(run)}\n{text_of(log)[-6000:]}"

    def until(met, what):
        cluster.until(met, 900, what, told)

    def until_life(life, begins, steps):
        """The life has begun, as `begins` says of its event, and has done so many steps; its processes."""
        until(lambda: len(lives(run)) == life and len(events(run, begins)) == max(1, life - 1), f"life {life} to train")
        start = max(events(run, begins))
        until(lambda: max(events(run), default=0) >= start + steps, f"life {life} to do {steps} steps")
        return start, ranks_of(run)

    _, ranks = until_life(1, "start", 3)
    for rank in ranks:  # Slurm looks at its clock twice a minute: what is trained meanwhile would have to be trained again below
        os.kill(rank, signal.SIGSTOP)
    # From now on the script's own `--signal=B:USR1@300` is due, and the job's end is minutes away.
    cluster.run("scontrol", "update", f"JobId={number}", f"TimeLimit={cluster.minutes(number) + 4}")
    until(lambda: all(heard(rank, signal.SIGUSR1) for rank in ranks), "Slurm to warn of the time limit")
    for rank in ranks:
        os.kill(rank, signal.SIGCONT)
    until(lambda: lives(run)[0], "the first life to end")
    first = json.loads((run / "interrupted.json").read_text())
    assert len(ranks) == 2 and lives(run)[0] == "timeout", told()
    assert first["signal"] == "SIGUSR1" and (run / "checkpoints" / f"step_{first['step']:08d}").is_dir()

    start, _ = until_life(2, "resume", 1)
    assert start == first["step"] and not (run / "interrupted.json").exists()
    until(lambda: max(events(run, "checkpoint")) > start, "the second life to write a checkpoint")
    dead = cluster.nodes_of(number)[1]
    cluster.kill_node(dead)
    until(lambda: cluster.job(number).restarts == 2, "Slurm to requeue the job")
    cluster.start_node(dead)
    again, _ = until_life(3, "resume", 2)
    assert again > start, "it goes on from a checkpoint of the life that was cut off"
    cluster.run("scontrol", "requeue", number)
    ended = cluster.wait(number, 900)
    text = log.read_text()
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 3), text[-8000:]
    assert lives(run) == ["timeout", "preemption", "preemption", "done"]
    assert text.count("preflight: 2 of 2 node(s)") == 1 and text.count("2 node(s) x 1 process(es)") == 4
    assert text.count("modules: load gcc/13 cuda/12.4") == 4
    assert "zero3: 2 processes" in text and "fsdp2: 2 processes" in text
    trained = [line for line in site.commands() if "launcher.node train" in line]
    assert len(trained) == 2 * 4, "one container on each node in each life"
    inside = f"exec --nv --bind {ROOT},{site.asked.parent},/scratch --pwd {ROOT} /images/rrg.sif python3 -m launcher.node"
    assert all(line.startswith(inside) for line in trained)

    one = tmp_path / "one"
    words = ["launcher/train.py", f"{run}.3.yaml", f"data.shards={drawn_shards}", f"output={one}", *OVERRIDES]
    launch([sys.executable, *words])
    ours, theirs = events(run), events(one)
    assert sorted(ours) == sorted(theirs) == list(range(1, max(events(run, "resume")) + 4))
    for step in theirs:
        assert ours[step]["order"] == theirs[step]["order"]
        assert ours[step]["loss"] == pytest.approx(theirs[step]["loss"], abs=1e-4)

    words = ["--nodes=2", *SIZE, f"--output={log}.evaluate", "slurm/evaluate.sh", "generate.num_beams=1"]
    words += ["generate.min_new_tokens=2", "generate.max_new_tokens=4"]
    number = cluster.submit(*words, RRG_OUTPUT=str(run), RRG_CHECKPOINT="last", RRG_PREFLIGHT="0")
    assert cluster.wait(number, 600).state == "COMPLETED", text_of(tmp_path / "log.evaluate")[-5000:]
    assert len((run / "predictions" / "test.jsonl").read_bytes().splitlines()) == 6
    assert list((run / "scores").glob("test.*.json"))


def test_a_run_over_two_nodes_needs_no_more_than_recipe_and_shards(slurm_cluster, others):
    number, run = others["mimic"]
    ended, text = slurm_cluster.wait(number, 900), text_of(run.with_suffix(".log"))
    assert (ended.state, ended.code, ended.restarts) == ("COMPLETED", 0, 0), text[-5000:]
    assert lives(run) == ["done"] and json.loads((run / "done.json").read_text())["step"] == 2
    assert "preflight: 2 of 2 node(s)" in text and "2 node(s) x 1 process(es)" in text


def test_a_mistake_ends_the_job_at_once(slurm_cluster, tmp_path):
    log = tmp_path / "log"
    words = ["--nodes=2", *SIZE, f"--output={log}", "slurm/train_iu.sh"]
    number = slurm_cluster.submit(*words, RRG_SHARDS=str(tmp_path / "no"), RRG_OUTPUT=str(tmp_path / "run"))
    words = [f"--output={tmp_path / 'sweep'}", "slurm/sweep.sh"]
    outside = slurm_cluster.submit(*words, RRG_CONTAINER="rrg.sif", RRG_OUTSIDE=str(tmp_path / "no"))
    ended = slurm_cluster.wait(number)
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", 2, 0)
    assert f"shards: no folder {tmp_path / 'no'}" in log.read_text() and lives(tmp_path / "run") == ["mistake"]
    ended = slurm_cluster.wait(outside)
    assert (ended.state, ended.code) == ("FAILED", 2)
    assert (tmp_path / "sweep").read_text().startswith(f"rrg: RRG_OUTSIDE: '{tmp_path / 'no'}' is no program")


@pytest.mark.parametrize(
    ("name", "reason", "variable", "code"),
    [
        ("crash", "crash", "RRG_MAX_CRASHES", 1),
        ("preemption", "preemption", "RRG_MAX_PREEMPTIONS", 75),
        ("limit", "timeout", "RRG_MAX_TIMEOUTS", 75),
    ],
)
def test_lives_have_a_budget_and_the_job_fails_in_the_end(slurm_cluster, others, name, reason, variable, code):
    number, run = others[name]
    ended = slurm_cluster.wait(number, 600)
    text = text_of(run.with_suffix(".log"))
    assert (ended.state, ended.code, ended.restarts) == ("FAILED", code, 1), text
    assert lives(run) == [reason, reason]
    assert f"2 lives of this run ended by {reason}, {variable} allows 1" in text


def test_a_time_limit_chains_another_job(slurm_cluster, others):
    number, run = others["chain"]
    ended = slurm_cluster.wait(number, 600)
    assert (ended.state, ended.code) == ("FAILED", 75)
    slurm_cluster.until(lambda: len(lives(run)) == 2 and lives(run)[1], 120, "the chained job", lambda: lives(run))
    assert lives(run) == ["timeout", "done"]


def test_a_benchmark_over_one_and_two_nodes(slurm_cluster, site, others):
    number, folder = others["benchmark"]
    text = f"{slurm_cluster.wait(number, 600)}\n{text_of(folder.with_suffix('.log'))}"
    assert "COMPLETED" in text, text[-5000:]
    one, two = (json.loads((folder / f"nodes_{count}.json").read_text()) for count in (1, 2))
    assert [record["configuration"]["nodes"] for record in (one, two)] == [1, 2]
    assert [record["configuration"]["batch_size"] for record in (one, two)] == [4, 8], "weak scaling"
    assert {rank["machine"]["node"] for rank in two["ranks"]} == set(slurm_cluster.names[2:])
    assert one["protocol"] == two["protocol"] and not list(folder.glob("*.run"))
    told = json.dumps(two)
    assert two["measured"] and two["ranks"][1]["machine"]["variables"]["GLOO_SOCKET_IFNAME"] == "lo"
    assert str(folder.parent) not in told and str(ROOT) not in told, "nothing of where it lies or whose it is"
    assert "efficiency" in text and "studies/s" in (folder / "table.txt").read_text()
    assert (folder / "scaling.png").read_bytes()[:4] == b"\x89PNG"
    assert sum("launcher.node bench train" in line for line in site.commands()) == 3, "a container for each node of each count"
