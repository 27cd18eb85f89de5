#!/bin/bash
# Submit a sweep and follow it:   sbatch slurm/sweep.sh [SWEEP] [options of rrg sweep …]
# Needs no GPU itself: the runs are jobs of their own. Variables: RRG_SWEEP, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-sweep
#SBATCH --nodes=1
#SBATCH --cpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
: "${RRG_SWEEP:=configs/sweeps/cmeaa_table2.yaml}"
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
"${container[@]}" "$RRG_PYTHON" -m rrg.cli sweep "${@:-$RRG_SWEEP}"
