"""ONNX Runtime on NVIDIA GPUs."""
