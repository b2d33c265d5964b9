"""`benchmarks/gpu.sh`: a short stay on one NVIDIA GPU, part by part; see docs/gpus.md."""
