"""What is like what in a set: nearest neighbours of unit vectors, by faiss (extra `images`)."""

from .neighbours import Nearest, nearest

__all__ = ["Nearest", "nearest"]
