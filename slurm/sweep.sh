#!/bin/bash
# Submit a sweep from a node:   sbatch slurm/sweep.sh [options of rrg sweep, key=value …]
# Its trials are jobs of their own. Variables: RRG_SWEEP, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-sweep
#SBATCH --nodes=1
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.out
: "${RRG_SWEEP:=cmeaa_table2}"
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
outside sweep "$RRG_SWEEP" "$@"
