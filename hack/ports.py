"""Ports for servers that are told where to listen: no two that are given out are one, whoever closes his before the other begins.

They are below those that Linux gives to outgoing connections, 32768 to 60999, one of which could have got it meanwhile.
"""

from __future__ import annotations

import errno
import itertools
import random
import socket

_PORTS = range(10_000, 32_000)
_turns = itertools.count(random.SystemRandom().randrange(len(_PORTS)))
"""A process begins anywhere, so that others that run beside it are elsewhere, and comes to a port again after all others."""


def free_port(host: str = "127.0.0.1") -> int:
    """One at which nobody listens. Raises OSError for an address that is not this machine's."""
    while True:
        port = _PORTS[next(_turns) % len(_PORTS)]
        try:
            socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return port
