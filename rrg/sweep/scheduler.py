"""What Slurm says of jobs, through squeue: it answers on every cluster, also where accounting (sacct) is not kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_AFTERWARDS = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL", "PREEMPTED"}
WAITING, RUNNING = "waiting", "running"


def slurm_here() -> bool:
    """Whether jobs can be submitted to Slurm from here."""
    return shutil.which("sbatch") is not None and shutil.which("srun") is not None


def queued() -> dict[str, str] | None:
    """Job (`12` or `12_3`) → waiting or running, of this user's jobs that have not ended; None where Slurm does not answer."""
    words = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i %T"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    found = {}
    for job, state in (line.split(None, 1) for line in done.stdout.splitlines() if len(line.split(None, 1)) == 2):
        if state.strip() not in _AFTERWARDS:
            found[job] = WAITING if state.strip() in _PENDING else RUNNING
    return found


def cancel_jobs(jobs: Sequence[str]) -> str:
    """scancel; returns what it complained of. Jobs that have ended are no complaint."""
    try:
        done = subprocess.run(["scancel", *jobs], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""
