#!/bin/sh
# Full-size latency and throughput on the GPU of this machine; see benchmarks/gpu.py.
#   benchmarks/gpu.sh NAME [more arguments of benchmarks.gpu]
# Needs an environment with a CUDA build of PyTorch, '.[export,bench]' and at least one of
# '.[onnxruntime-gpu]', '.[tensorrt]', '.[tensorrt-rtx]'.
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
    echo "usage: benchmarks/gpu.sh NAME [arguments of python -m benchmarks.gpu]" >&2
    exit 2
fi
name=$1
shift
if ! command -v nvidia-smi >/dev/null; then
    echo "error: there is no nvidia-smi here, so no NVIDIA driver: run this on a machine with a GPU." >&2
    exit 3
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader >&2
exec "${PYTHON:-python3}" -m benchmarks.gpu --name "$name" "$@"
