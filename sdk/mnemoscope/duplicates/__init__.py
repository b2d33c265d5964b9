"""What is like what in a set: nearest neighbours and groups, by faiss (extra `images`)."""

from .grouping import kept_rows
from .neighbours import Nearest, nearest

__all__ = ["Nearest", "kept_rows", "nearest"]
