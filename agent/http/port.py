"""A port of this process that is not free: a listener that has it is told at once, a connection that has it is waited for.

Ports from 32768 to 60999 are what Linux gives to outgoing connections; where `net.ipv4.ip_local_port_range` was made wider, a
connection of anybody on the node may happen to have 65001, and keeps it from being bound for a minute after its end (TIME_WAIT).
"""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from agent.values.address import Address

log = logging.getLogger(__name__)

WAIT_SECONDS_MAX = 65.0
"""TIME_WAIT lasts 60 s."""
RETRY_SECONDS = 0.2
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTEN = "0A"
"""TCP_LISTEN, in the kernel's table of sockets (proc(5))."""


def listening_socket(where: Address, name: str, backlog: int) -> socket.socket:
    """A socket that listens, after waiting for a connection that has its port. Raises OSError.

    What it accepts sends at once (TCP_NODELAY, which it inherits): asyncio sets that for sockets alone whose protocol is named.
    Else the second of two packets waits for the client's word on the first, which comes 40 ms later.
    """
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    until = time.monotonic() + WAIT_SECONDS_MAX
    with _ended_by_signals():
        is_told = False
        while True:
            try:
                sock = socket.create_server(where, family=family, backlog=backlog)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= until or _somebody_listens(where, family):
                    raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            if not is_told:
                log.warning("the %s waits for %s, which a connection of somebody else has at the moment", name, where)
                is_told = True
            time.sleep(RETRY_SECONDS)


def _somebody_listens(where: Address, family: int) -> bool:
    """Whether a listener has the port, on this address or on all of them. True where the kernel does not tell."""
    host, *_ = socket.getaddrinfo(*where, family, socket.SOCK_STREAM)[0][4]
    packed = ip_address(host).packed
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    ours = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    try:
        for table in _TABLES:
            with open(table, encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    _, local, _, state, *_ = line.split()
                    theirs, _, port = local.partition(":")
                    overlaps = not theirs.strip("0") or not ours.strip("0") or theirs.endswith(ours)
                    if state == _LISTEN and int(port, 16) == where.port and overlaps:
                        return True
    except OSError as error:  # a kernel without IPv6 has no second table
        return bool(error.filename != _TABLES[1])
    return False


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the process at once, which has nothing yet that it would have to end in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: sys.exit(0)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
