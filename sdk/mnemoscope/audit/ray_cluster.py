"""A Ray cluster to work on: one of this machine that nobody else hears, or one that runs."""

from __future__ import annotations

import atexit
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mnemoscope_runtime import BackendUnavailable, InputError
from mnemoscope_runtime.wording import pip_install

__all__ = ["LOCAL", "connect", "resources", "room"]

LOCAL = "local"
_LOOPBACK = "127.0.0.1"
_SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
# what Ray does by itself on macOS and Windows: every port is the loopback address's
_UNHEARD = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# reports of use switched off, Ray still asks the services that clouds have for their machines
_UNASKED = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # port 9: nobody there
_PATIENCE = 10.0  # seconds
_STORE = 128 << 20  # bytes of shared memory, of which batches and results need next to nothing
_SLOW_START = {"agent_register_timeout_ms": 120_000}  # by default 15 s: a busy machine takes longer


def connect(address: str, cpus: float, closing: ExitStack) -> Any:
    """Ray, connected to a cluster.

    Args:
        address: As of `RayWorkers.start`.
        cpus: That a cluster of this machine must have, or more if there are more.
        closing: Given what ends the connection, or the cluster if it is started here.

    Raises:
        InputError: this process is connected to another cluster.
        BackendUnavailable: Ray is not installed, or there is no such cluster.
    """
    first = "ray" not in sys.modules  # which reads the environment once
    os.environ.update(_SILENT)
    if address == LOCAL and first:
        os.environ.update(_UNHEARD, RAY_AUTH_TOKEN=secrets.token_hex(32))  # and none in $HOME
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"Ray cannot be used: {error}. Install it with {pip_install('ray')}, or "
            "leave out --ray."
        ) from None
    if ray.is_initialized():
        if address != "auto":
            raise InputError(
                f"This process is connected to a Ray cluster, and cannot be to {address} as well. "
                'Give the address "auto" for the one it is connected to, or ray.shutdown() first.'
            )
        return ray
    told: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:  # sockets lie in the folder, and their names may not be long. Ray lets
        # everybody write into its own, so it has one inside of ours, which nobody else may enter
        short = "/tmp" if sys.platform == "darwin" else None
        folder = tempfile.mkdtemp(prefix="mnemoscope-ray-", dir=short)
        closing.callback(_remove, Path(folder))
        atexit.register(_remove, Path(folder))  # where the next cluster had Ray make it again
    closing.callback(ray.shutdown)
    try:
        if address == LOCAL:
            _start(ray, cpus, told, f"{folder}/r")
        else:
            _reach(address)
            ray.init(address, **told)
    except InputError:
        raise
    except Exception as error:  # ConnectionError, RuntimeError, bare Exception
        why = " ".join(str(error).split())
        way = "Try again" if address == LOCAL else "Run this on a node of the cluster"
        raise BackendUnavailable(
            f"The Ray cluster {address} cannot be used: {why:.1000} {way}, or leave out --ray."
        ) from None
    return ray


def _remove(folder: Path, tries: int = 20) -> None:
    """Delete a folder in which Ray's processes may still write: some outlive `shutdown`."""
    for _ in range(tries):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def room(found: Mapping[str, float], cpus: float, gpus: float) -> int:
    """How many workers have room at once.

    Args:
        found: What the cluster has, as Ray says it.
        cpus: That each takes, more than 0.
        gpus: Likewise, or 0.
    """
    most = found.get("CPU", 0) // cpus
    return int(min(most, found.get("GPU", 0) // gpus) if gpus else most)


def resources(ray: Any) -> str:
    """What a cluster has, in words."""
    found = ray.cluster_resources()
    return f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"


def _reach(address: str) -> None:
    """Ray itself looks for a cluster that is not there for several minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    if not port.isdecimal():
        raise InputError(
            f"{address!r:.200} is no address of a Ray cluster. Give local, auto, or HOST:PORT as "
            "`ray start` says it."
        )
    socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _start(ray: Any, cpus: float, told: dict[str, Any], folder: str) -> None:
    """Start a cluster of this machine; what it keeps on disk lies in a folder."""
    with _environment(_UNASKED):
        ray.init(
            LOCAL,
            num_cpus=max(math.ceil(cpus), _cores()),
            include_dashboard=False,
            object_store_memory=_STORE,
            _temp_dir=folder,
            _system_config=_SLOW_START,
            **told,
        )
    if (heard := ray.util.get_node_ip_address()) != _LOOPBACK:
        [[name, value]] = _UNHEARD.items()
        raise InputError(
            f"This process imported Ray before, so that a cluster started here would be heard at "
            f"{heard}. Set {name}={value} before it does, or start one on your own and give "
            '"auto".'
        )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Has what is started meanwhile find these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
