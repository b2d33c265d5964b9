"""Engines that are built ahead of time, for one kind of machine, and kept in files."""

from .files import (
    ENGINES,
    EngineKey,
    EngineWarning,
    differences,
    find_engine,
    keys,
    read_engine,
    write_engine,
)

__all__ = [
    "ENGINES",
    "EngineKey",
    "EngineWarning",
    "differences",
    "find_engine",
    "keys",
    "read_engine",
    "write_engine",
]
