#!/usr/bin/env bash
# Stage two on a GPU: how long the generator of a prepared run trains, what it is worth, how long it takes to be
# judged, and how long the usual training loop takes beside it.
#
#     OUT=results eval/gpu_training.sh RUNS [--section.key value ...]
#
# RUNS is a folder as `pressmark run` fills it: leave_one_out/seed0 with data/, tokenizer/ and stages/ in it, and
# vectors/ beside it. It is copied and stays as it is. Neither the data nor polars nor FAISS is needed.
# OUT gets gpu_training.json with the wall seconds, the records of both evaluations, the training's curve, and logs.
set -uo pipefail
runs=$(realpath "$1") && OUT=$(realpath -m "${OUT:-gpu_training}") && mkdir -p "$OUT" && shift || exit 2
cd "$(dirname "$0")/.." || exit 2
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT && cp -r "$runs"/. "$work" || exit 2
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
python=${PYTHON:-python3} run=$work/leave_one_out/seed0 name=beauty-gpu failed=0 walls=()
settings=(--config "${CONFIG:-configs/beauty.yaml}" --name "$name" --run_dir "$run" --split.protocol leave_one_out)
settings+=(--models '["generator"]' "$@")

# timed STEP COMMAND...: runs it and keeps what it says, what it recorded and its wall seconds.
timed() {
    local step=$1 began=$SECONDS
    shift
    "$python" "$@" 2>&1 | tee "$OUT/$step.log"
    local status=${PIPESTATUS[0]}
    walls+=("\"$step\": {\"wall_seconds\": $((SECONDS - began)), \"status\": $status}")
    (IFS=, && echo "{${walls[*]}}") >"$OUT/gpu_training.json"
    mv eval/results/*-"$name".json "$OUT" 2>/dev/null
    ((status == 0)) || failed=1
}

timed train src/train_generator.py "${settings[@]}"
cp "$run/generator/metrics.json" "$OUT/generator-metrics.json"
timed evaluate eval/leave_one_out.py "${settings[@]}" --record true
# The schedule stays that of the whole training: what counts is how soon both are where `hf` ends.
timed bench eval/bench_training.py "${settings[@]}" --generator.training.max_seconds "${SECONDS_OF_PRESSMARK:-30}" \
    --minutes "${MINUTES_OF_HF:-0.75}" --validate_every 2 --record true
exit $failed
