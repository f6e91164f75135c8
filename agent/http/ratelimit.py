"""Limits on bandwidth: threads that wait until it is their turn to send or receive (`agent.http.bucket` says when).

A limit is one `Pace`, shared by all threads that it is for. No limit is None: what has none goes as if this were not there.
Nobody gets more than a quantum at a time, a few milliseconds' worth, so that of hundreds of connections none looks stalled to its
other end. What a node sends to its own runtime, on loopback, is never limited: it waits for nobody's uploads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from agent.http.bucket import Bucket
from agent.values.pieces import PIECE_BYTES_MAX

QUANTUM_SECONDS = 0.004
"""512 connections that share an upload have their turns every 2 s at the latest: the other end waits 3 s
(`agent.swarm.piece_client`)."""
QUANTUM_BYTES_MAX = 1 << 20
IN_HAND_SECONDS = 10.0
"""Within so long, at the limit, the pieces have to go that are on their way at once: they have 10 s and more
(`agent.swarm.piece_client`)."""

ReadInto = Callable[[memoryview], int]
"""Puts some bytes into a buffer and says how many; 0 at the end."""


class Pace:
    """A limit of `rate` bytes a second. `clock` and `sleep` are those of the time module, but in tests."""

    def __init__(
        self, rate: int, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.rate = rate
        self.quantum = max(1, min(QUANTUM_BYTES_MAX, int(rate * QUANTUM_SECONDS)))
        self._bucket = Bucket(rate)
        self._lock = threading.Lock()
        self._clock = clock
        self._sleep = sleep

    @classmethod
    def of(cls, rate: int) -> Pace | None:
        """The limit that a setting means; 0 is none."""
        return cls(rate) if rate else None

    def wait(self, count: int) -> None:
        """Put so many bytes in line, at most a quantum, and wait for their turn."""
        with self._lock:
            seconds = self._bucket.take(count, self._clock())
        if seconds > 0:
            self._sleep(seconds)

    def pieces_in_hand(self, length: int) -> int:
        """How many pieces of `length` bytes may be on their way at once so that all of them are there in time; at least 1."""
        return max(1, int(self.rate * IN_HAND_SECONDS / length))


def upload_slots(pace: Pace | None) -> int:
    """How many pieces a node offers to send at once, whatever their length; 0, no opinion, without a limit."""
    return pace.pieces_in_hand(PIECE_BYTES_MAX) if pace else 0


def turns(pace: Pace | None, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The bytes `start` to `end` in parts, each as soon as it may be sent."""
    while pace and start < end:
        upto = min(end, start + pace.quantum)
        pace.wait(upto - start)
        yield start, upto
        start = upto
    if start < end:
        yield start, end


def slowed(read_into: ReadInto, *paces: Pace | None) -> ReadInto:
    """`read_into` within the limits that there are; without any, itself. What was received is paid before more is asked for."""
    limits = [pace for pace in paces if pace]
    if not limits:
        return read_into
    quantum = min(pace.quantum for pace in limits)

    def read_slowly(buffer: memoryview) -> int:
        count = read_into(buffer[:quantum])
        for pace in limits:
            pace.wait(count)
        return count

    return read_slowly
