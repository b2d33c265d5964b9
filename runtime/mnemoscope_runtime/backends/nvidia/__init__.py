"""NVIDIA's driver and CUDA runtime: what the GPU backends share."""
