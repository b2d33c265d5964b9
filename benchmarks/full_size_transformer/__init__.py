"""Stable Diffusion 3 medium's step at its full size: the paper's in PyTorch against our graphs."""
