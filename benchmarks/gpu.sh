#!/bin/sh
# What a GPU that is lent for minutes can tell; docs/gpus.md says how, and what comes out.
#   benchmarks/gpu.sh NAME [more arguments of benchmarks.gpu]
# Needs CUDA's build of PyTorch, transformers, accelerate, onnx, onnxscript, tokenizers, SciPy, and no
# network: what else is missing comes from the wheels of `python -m benchmarks.gpu.wheels`.
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
    echo "usage: benchmarks/gpu.sh NAME [arguments of python -m benchmarks.gpu]" >&2
    exit 2
fi
name=$1
shift
case " $* " in
*" --device cpu "*) ;;
*)
    if ! command -v nvidia-smi >/dev/null; then
        echo "error: there is no nvidia-smi here, so no NVIDIA driver: run this on a machine with a GPU," >&2
        echo "or rehearse with --device cpu --family toy." >&2
        exit 3
    fi
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader >&2
    ;;
esac
python=${PYTHON:-python3}
here=$(pwd)
export PYTHONPATH="$here/out/gpu/site:$here/export:$here/runtime:$here/sdk:$here${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
"$python" -m benchmarks.gpu.prepare
exec "$python" -m benchmarks.gpu --name "$name" "$@"
