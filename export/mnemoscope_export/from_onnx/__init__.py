"""Bundles from ONNX exports in Optimum's layout: fused and folded at graph level, without torch."""

from .export import export_onnx

__all__ = ["export_onnx"]
