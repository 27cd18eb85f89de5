"""What a computing centre has and this machine has not: a container program, modules. And trainings that take no work.

The container program runs what it is asked to run, where it stands, and keeps a list of what it was asked.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

# `apptainer exec --nv --bind A,B --pwd DIR IMAGE WORD…`. Slurm signals every process of a step: this one becomes WORD….
# After the first life of a run the time limit, which a test had shortened, is long again.
_APPTAINER = """#!/bin/bash
printf '%s\\n' "$*" >>"$SITE_ASKED"
shift
while [ "${1#--}" != "$1" ]; do
    case $1 in
    --bind) shift 2 ;;
    --pwd) cd "$2" && shift 2 ;;
    *) shift ;;
    esac
done
export SITE_IMAGE=$1
shift
case "${SLURM_RESTART_COUNT:-0} $*" in
"0 "*" launcher.lives end "*) "$@" && scontrol update "JobId=$SLURM_JOB_ID" TimeLimit=60 >&2 ;;
*) exec "$@" ;;
esac
"""
# What `python -m launcher.node` would do is in $ACT; everything else is done.
_STAND_IN = f"""#!/bin/bash
[ "$2" = launcher.node ] || exec {sys.executable} "$@"
eval "$ACT"
"""


@dataclass(frozen=True)
class Site:
    """Variables of a job: `container` for one that runs in a container with modules, `idle` for one whose training is $ACT."""

    container: dict[str, str]
    idle: dict[str, str]
    asked: Path

    def commands(self) -> list[str]:
        """What the container program was asked to run, first to last."""
        return self.asked.read_text().splitlines()


def build_site(folder: Path) -> Site:
    """Programs in `folder`."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for path, text in ((programs / "apptainer", _APPTAINER), (folder / "python", _STAND_IN)):
        path.write_text(text)
        path.chmod(0o755)
    asked = folder / "asked"
    container = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "SITE_ASKED": str(asked),
        "BASH_FUNC_module%%": '() { export SITE_MODULES="$*"; }',  # a function, as a login shell exports it
        "RRG_MODULES": "gcc/13 cuda/12.4",
        "RRG_CONTAINER": "/images/rrg.sif",
        "RRG_BIND": f"{folder},/scratch",
        "RRG_OUTSIDE": sys.executable,
    }
    return Site(container, {"RRG_PYTHON": str(folder / "python"), "RRG_PREFLIGHT": "0"}, asked)
