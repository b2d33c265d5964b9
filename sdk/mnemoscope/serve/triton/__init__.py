"""Mnemoscope in NVIDIA's Triton Inference Server, as a model of its Python backend.

`write_model` makes the model of a bundle, `Model` is what Triton loads of it.
"""

from .model import Model
from .options import ModelOptions
from .repository import check_place, write_model

__all__ = ["Model", "ModelOptions", "check_place", "write_model"]
