#!/bin/bash
# Reports of a split and their scores:   RRG_OUTPUT=runs/x sbatch slurm/evaluate.sh [generate.num_beams=4 …]
# Variables: RRG_OUTPUT (the run), RRG_SPLIT, RRG_CHECKPOINT, and those of slurm/job.sh (docs/cluster.md).
#SBATCH --job-name=rrg-evaluate
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=02:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
: "${RRG_OUTPUT:=runs/r2gengpt_iu}" "${RRG_SPLIT:=test}" "${RRG_CHECKPOINT:=best}"
RRG_SCRIPT=slurm/evaluate.sh
# shellcheck source=slurm/job.sh
source "${RRG_HOME:-$SLURM_SUBMIT_DIR}/slurm/job.sh"
prepare
preflight --output "$RRG_OUTPUT"
code=0
begin "$RRG_OUTPUT/predictions"
each generate "$RRG_OUTPUT" --split "$RRG_SPLIT" --checkpoint "$RRG_CHECKPOINT" "$@" || code=$?
finish "$RRG_OUTPUT/predictions" "$code"
once score "$RRG_OUTPUT/predictions/$RRG_SPLIT.jsonl"
