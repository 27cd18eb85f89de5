#!/bin/bash
# Measure training on this cluster:   sbatch [--nodes=N --gpus-per-node=G] slurm/benchmark.sh [RECIPE] [options of rrg bench train …]
# Variables: RRG_RECIPE, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-benchmark
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out
: "${RRG_RECIPE:=r2gengpt_mimic}"
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
preflight
each bench train "${@:-$RRG_RECIPE}"
