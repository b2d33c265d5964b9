"""Engines that are built ahead of time, for one kind of machine, and kept in files."""

from .files import EngineKey, read_engine, write_engine

__all__ = ["EngineKey", "read_engine", "write_engine"]
