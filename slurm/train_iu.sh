#!/bin/bash
# Train a recipe on IU X-Ray:   sbatch [--nodes=N --gpus-per-node=G …] slurm/train_iu.sh [key=value …]
# Variables: RRG_RECIPE, RRG_SHARDS, RRG_OUTPUT, RRG_STRATEGY, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-iu
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
: "${RRG_RECIPE:=r2gengpt_iu}" "${RRG_SHARDS:=shards/iu}" "${RRG_STRATEGY:=ddp}"
RRG_SCRIPT=slurm/train_iu.sh
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
train "$RRG_RECIPE" strategy="$RRG_STRATEGY" "$@"
