"""Where a server is asked: a socket that it listens at, taken before anything is opened."""

from __future__ import annotations

import os
import socket

from mnemoscope_runtime.errors import BackendError

__all__ = ["listen"]

_BACKLOG = 2048  # connections that wait to be accepted


def listen(host: str, port: int) -> socket.socket:
    """A socket of TCP.

    Args:
        host: Name or address.
        port: 0 for one that is free.

    Raises:
        BackendError: it cannot be listened at.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends at once (TCP_NODELAY) only on sockets that say that they are TCP's
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BackendError(
            f"{host} port {port} cannot be listened at: {error.strerror}. Choose another --host or "
            "--port; port 0 takes one that is free."
        ) from None
    return listener
