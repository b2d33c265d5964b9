"""From an ONNX export in Optimum's layout to what a bundle of it holds."""
