"""Sending trials off: as a job array to Slurm, to workers on this machine, or in this process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rrg.errors import UserError
from rrg.sweep import journal
from rrg.sweep.folder import Entry, SweepFolder
from rrg.sweep.local_queue import DEBUG, LOCAL, SLURM, waiting
from rrg.sweep.options import Sweep
from rrg.sweep.scheduler import slurm_here

CLUSTERS = (SLURM, LOCAL, DEBUG)
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_")  # how variables begin that a job is given
_SETUP = (
    "export SUBMITIT_PREEMPT_SIGNAL=USR1",
    'if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi',  # srun no longer inherits it
)
_NO_LIMIT = 1000  # trials at one time on Slurm where no limit is asked for: the cluster has its own


def choose_cluster(asked: str | None) -> str:
    """Slurm where it is, else this machine. Raises UserError where Slurm is asked for and is not here."""
    if asked == SLURM and not slurm_here():
        raise UserError("--cluster slurm: sbatch and srun are not on this machine's PATH; go to a login node, or write --local")
    return asked or (SLURM if slurm_here() else LOCAL)


def submit(folder: SweepFolder, entries: Sequence[Entry], sweep: Sweep, cluster: str, gpus: int) -> None:
    """Submit trials that neither run nor wait. `gpus` per node of a trial.

    Raises:
        UserError: Slurm refuses the job, or this machine has too few GPUs.
    """
    if not entries:
        return
    if cluster == SLURM:
        _to_slurm(folder, entries, sweep, gpus)
    elif cluster == LOCAL:
        _to_workers(folder, entries, sweep.parallel or 1, gpus)
    else:
        _here(folder, entries)


def _to_slurm(folder: SweepFolder, entries: Sequence[Entry], sweep: Sweep, gpus: int) -> None:
    from rrg.sweep.jobs import FailedJobError, FailedSubmissionError, SlurmExecutor, TrialJob

    executor = SlurmExecutor(folder.submitit, max_num_timeout=sweep.slurm.timeouts, python=os.environ.get("RRG_STEP"))
    executor.update_parameters(**_parameters(folder, sweep, gpus))
    places = [str(folder.place(entry.name).folder.resolve()) for entry in entries]
    try:
        with outside_any_job():
            jobs = executor.map_array(TrialJob(), places)
    except (FailedJobError, FailedSubmissionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.startswith("sbatch:")] or [str(error)]
        said = next((line for line in lines if "fatal" in line), lines[-1])
        raise UserError(f"{said}; change what is asked for with slurm.KEY=VALUE, or write --local to go without Slurm") from None
    for entry, job in zip(entries, jobs, strict=True):
        journal.append(folder.jobs, "submit", cluster=SLURM, job=job.job_id, trial=entry.name)


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Inside, this process looks as if no job of Slurm were around it: a job would take over what that one was given."""
    within = "SLURM_JOB_ID" in os.environ
    names = [name for name in os.environ if within and name.startswith(_OF_A_JOB) and name != "SLURM_CONF"]
    inherited = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(inherited)


def _parameters(folder: SweepFolder, sweep: Sweep, gpus: int) -> dict[str, object]:
    """The options of sbatch, by submitit's names for them."""
    asked = sweep.slurm
    given = {"partition": asked.partition, "account": asked.account, "qos": asked.qos, "cpus_per_task": asked.cpus_per_task}
    if asked.mem_gb:
        given["mem"] = f"{round(asked.mem_gb * 1024)}M"
    if gpus:
        given["gpus_per_node"] = gpus
    return {name: value for name, value in given.items() if value} | {
        "job_name": f"rrg-{folder.name}",
        "time": asked.time,
        "nodes": asked.nodes,
        "ntasks_per_node": 1,  # a launcher starts the processes of its node
        "srun_args": ["--kill-on-bad-exit=1", *shlex.split(os.environ.get("RRG_STEP_OPTIONS", ""))],
        "signal_delay_s": asked.warning,
        "array_parallelism": sweep.parallel or _NO_LIMIT,
        "setup": [*_SETUP, *asked.setup],
        "additional_parameters": {"requeue": True, **asked.more},
    }


def _to_workers(folder: SweepFolder, entries: Sequence[Entry], parallel: int, gpus: int) -> None:
    visible = _visible_gpus() if gpus > 0 else []
    if gpus * parallel > len(visible):
        raise UserError(
            f"{parallel} trials with {gpus} GPU(s) each need {gpus * parallel}, and this machine shows {len(visible)}: write "
            "parallel=N or gpus=N that fit"
        )
    submitted = sum(record["event"] == "submit" for record in journal.read(folder.jobs))
    with journal.locked(folder.queue):
        for number, entry in enumerate(entries, submitted + 1):
            journal.append(folder.jobs, "submit", cluster=LOCAL, job=f"local-{number}", trial=entry.name)
        free = [slot for slot in range(parallel) if not journal.held(folder.slots / str(slot))]
        free = free[: len(list(waiting(folder)))]
    words = [f"{slot}:{','.join(map(str, visible[slot * gpus : (slot + 1) * gpus]))}" for slot in free]
    if words:
        _start_workers(folder, words)


def _start_workers(folder: SweepFolder, words: Sequence[str]) -> None:
    """Workers are started by a process of their own session: they outlive this command and its terminal."""
    folder.submitit.mkdir(parents=True, exist_ok=True)
    log = folder.submitit / "workers.txt"
    with log.open("ab") as file:
        command = [sys.executable, "-m", "rrg.sweep.start_workers", str(folder.root.resolve()), *words]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, check=False)
    if done.returncode:
        raise UserError(f"the workers of the sweep could not be started; {log} has the reason")


def _here(folder: SweepFolder, entries: Sequence[Entry]) -> None:
    """One trial after another in this process, for looking into one that fails."""
    from rrg.sweep.supervisor import Supervisor
    from rrg.sweep.work import run_trial, stopped_by_signals

    supervisor = Supervisor(patience=25.0)
    with stopped_by_signals(supervisor):
        for entry in entries:
            if supervisor.stopping:
                break
            number = sum(record["event"] == "submit" for record in journal.read(folder.jobs)) + 1
            journal.append(folder.jobs, "submit", cluster=DEBUG, job=f"debug-{number}", trial=entry.name)
            run_trial(SweepFolder(folder.root.resolve()).place(entry.name), entry, f"debug-{number}", supervisor)


def gpus_of_trial(asked: int, cluster: str) -> int:
    """GPUs of a trial on each node: as asked, else none on Slurm, and one on a machine of one's own that has any."""
    if asked >= 0:
        return asked
    return 0 if cluster == SLURM else min(1, len(_visible_gpus()))


def _visible_gpus() -> list[int]:
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return [int(word) for word in named] if all(word.strip().isdigit() for word in named) and count else list(range(count))
