#!/bin/bash
# Train a recipe on MIMIC-CXR:   sbatch [--nodes=N --gpus-per-node=G …] slurm/train_mimic.sh [key=value …]
# Variables: RRG_RECIPE, RRG_SHARDS, RRG_OUTPUT, RRG_STRATEGY, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-mimic
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
: "${RRG_RECIPE:=r2gengpt_mimic}" "${RRG_SHARDS:=shards/mimic}" "${RRG_STRATEGY:=ddp}"
RRG_SCRIPT=slurm/train_mimic.sh
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
train "$RRG_RECIPE" strategy="$RRG_STRATEGY" "$@"
