#!/bin/bash
# Measure training on this cluster:   sbatch [--nodes=N --gpus-per-node=G] slurm/benchmark.sh [options of rrg bench train, key=value …]
# Variables: RRG_RECIPE, RRG_SHARDS, RRG_BENCH (folder of the results), RRG_COUNTS (1,N), and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-benchmark
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.out
: "${RRG_RECIPE:=r2gengpt_mimic}" "${RRG_SHARDS:=shards/mimic}" "${RRG_BENCH:=bench/$SLURM_JOB_ID}" "${RRG_COUNTS:=1,$SLURM_JOB_NUM_NODES}"
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
preflight --output "$RRG_BENCH" --shards "$RRG_SHARDS"
outside bench train "$RRG_RECIPE" data.shards="$RRG_SHARDS" --nodes "${RRG_COUNTS%,1}" --out "$RRG_BENCH" "$@"
