#!/usr/bin/env bash
# Full-size random weights on one GPU: every batch, both placements, with and without graphs, as JSON files.
#
#     loadtest/h200.sh [OUT_DIR]
#
# Needs a bare machine with torch 2.11 or newer, transformers, numpy and safetensors; no network, no checkpoint.
# PYTHON names the interpreter. One part that fails does not stop the next; the exit code says whether any did.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-loadtest/results/h200}
python=${PYTHON:-python3}
mkdir -p "$out"
failed=0

part() { # NAME COMMAND...: run, keep the log, go on
  local name=$1
  shift
  echo "== $name: $*"
  if ! "$@" 2>&1 | tee "$out/$name.log"; then
    echo "== $name failed"
    failed=1
  fi
}

bench() { # NAME ARGUMENTS...
  local name=$1
  shift
  part "$name" "$python" -m loadtest.engine_bench --device cuda --json "$out/$name.json" "$@"
}

nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv | tee "$out/gpu.csv"
part bf16 "$python" -m loadtest.kernels.bf16 --size full --device cuda
part attention "$python" -m loadtest.kernels.attention --device cuda --json "$out/attention.json"
bench fused_small --size full --batch 1,8,32 --codec --reasoner
bench fused_large --size full --batch 64,128,256,512 --codec --reasoner --frames 20
bench fused_triton --size full --batch 1,64,256,512 --attention triton --frames 20
bench fused_1024 --size full --batch 1024 --codec --frames 10
bench fused_sampled --size full --batch 1,256 --top-k 50 --frames 20
bench split --size full --placement split --batch 1,64,256,512 --frames 20
bench calls --size full --no-graphs --batch 1,64,256 --frames 20 --baseline
if [ -f loadtest/pipeline_bench.py ]; then
  part pipeline "$python" -m loadtest.pipeline_bench --size full --device cuda --json "$out/pipeline.json"
fi
part profile "$python" -m loadtest.kernels.profile --size full --batch 1,256 --trace "$out"
exit $failed
