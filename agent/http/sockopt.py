"""How long a blocking socket waits, kept by the kernel: SO_RCVTIMEO and SO_SNDTIMEO of socket(7).

One system call then waits for all that is wanted (MSG_WAITALL of recv(2), sendfile(2)). Python's own timeouts take a `poll`
before each call and wake a thread for whatever little has come: 16 KiB at 100 Mbit/s, which was most of what a pull cost there.
And how fast one sends, where that is nobody's business but its client's.
"""

from __future__ import annotations

import contextlib
import socket
import struct

_TIMEVAL = struct.Struct("@ll")
_MICROSECONDS = 1_000_000


def wait_to_receive(sock: socket.socket, seconds: float) -> None:
    """Receiving raises BlockingIOError when nothing came for so long, and gives what has come when not all of it came."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))


def receive_at_least(sock: socket.socket, count: int) -> None:
    """Whoever waits to receive is not woken for fewer bytes, unless the peer has ended or the receive window is full."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def wait_to_send(sock: socket.socket, seconds: float) -> None:
    """Sending raises BlockingIOError when nothing was taken for so long."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(seconds))


def do_not_pace(sock: socket.socket) -> None:
    """What a listening socket accepts sends as fast as its client takes it: for clients on this machine, where no net is spared.

    BBR, where that is the system's choice, sends by a timer, on a loopback too, and that was most of what serving cost
    (docs/decisions/0013). Reno is what every system has, for whoever asks (tcp(7)).
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _timeval(seconds: float) -> bytes:
    """Zero would mean without end, so it becomes the least there is."""
    return _TIMEVAL.pack(*divmod(max(1, round(seconds * _MICROSECONDS)), _MICROSECONDS))
