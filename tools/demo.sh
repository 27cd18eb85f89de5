#!/usr/bin/env bash
# The main job, for real, on a synthetic cohort whose truth is known: data -> shards -> training on two processes -> reports for
# unseen patients -> scores beside controls -> a page. Run it with `make demo`.
#   RRG_DEMO=small   a cut-down version that only proves that every step works (for CI)
#   RRG_DEMO_OUT     where it goes (default: runs/demo)
set -euo pipefail
cd "$(dirname "$0")/.."
out=${RRG_DEMO_OUT:-runs/demo}
size=${RRG_DEMO:-full}
export HF_HUB_OFFLINE=1

case $size in
    full) studies=3000 overrides=() ;;
    small) studies=160 overrides=(train.max_steps=12 train.validate_studies=8) out=$out-small ;;
    *) echo "demo: RRG_DEMO is '$size'; write full or small" >&2; exit 2 ;;
esac
started=$SECONDS
say() { printf '\n\033[1m[%3ds] %s\033[0m\n' $((SECONDS - started)) "$*"; }

say "1/6 Drawing $studies synthetic studies in the layout of MIMIC-CXR-JPG, and packing them into shards"
rrg prepare phantom --out "$out/cohort" --studies "$studies" --seed 1 --size 112 --shards "$out/shards"

say "2/6 Training on two processes: first a small language model on the report text, which is then frozen; then the bridge"
accelerate launch --config_file configs/accelerate/cpu_2.yaml launcher/train.py configs/demo/phantom.yaml \
    data.shards="$out/shards" output="$out/run" "${overrides[@]}"

say "3/6 Writing reports for patients the model has never seen"
rrg generate "$out/run" --split test

say "4/6 The same with the films of other patients: does the film matter?"
rrg generate "$out/run" --split test --films shuffled

say "5/6 Scores, beside controls that know nothing of the film"
rrg score "$out/run/predictions/test.jsonl"

say "6/6 One page with everything"
rrg view "$out/run"
say "Done: open $out/run/report.html in a browser"
