"""Limits on bandwidth: when the next bytes may go, and threads that wait until it is their turn to send or receive.

A limit is one `Pace`, shared by all threads that it is for. No limit is None, and bytes that have none never pass here. Nobody
gets more than a quantum at a time, a few milliseconds' worth, so that of hundreds of connections none looks stalled to its other
end. What a node sends to its own runtime, on loopback, is never limited: it waits for nobody's uploads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.http.wire import ReadInto
from agent.values.pieces import PIECE_BYTES_MAX

BURST_SECONDS = 0.05
"""What may be caught up of the time in which nobody asked, or in which a thread woke up late."""
QUANTUM_SECONDS = 0.004
"""512 connections that share an upload have their turns every 2 s at the latest: the other end waits 3 s
(`agent.swarm.piece_client`)."""
QUANTUM_BYTES_MAX = 1 << 20
IN_HAND_SECONDS = 10.0
"""Within so long, at the limit, the pieces have to go that are on their way at once: they have 10 s and more
(`agent.swarm.piece_client`)."""


@dataclass
class Bucket:
    """A token bucket, by its virtual scheduling form (ITU-T I.371 describes the algorithm as GCRA). Pure: time is an argument.

    Bytes are put in line in the order in which they are asked for, so whoever asks for one quantum after the other, waiting in
    between, gets the same share as all others who do: a round of equal quanta is round robin.
    """

    rate: int
    """Bytes a second, more than 0."""
    _due: float = 0.0
    """When all that was put in line has gone, at that rate."""

    def take(self, count: int, now: float) -> float:
        """Put `count` bytes in line at the time `now`, and say in how many seconds it is their turn."""
        turn = max(self._due, now - BURST_SECONDS)
        self._due = turn + count / self.rate
        return max(0.0, turn - now)


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

    def turns(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The bytes `start` to `end` in parts, each as soon as it may be sent."""
        while start < end:
            upto = min(end, start + self.quantum)
            self.wait(upto - start)
            yield start, upto
            start = upto

    def pieces_in_hand(self, length: int) -> int:
        """How many pieces of `length` bytes may be on their way at once so that all of them are there in time; at least 1."""
        return max(1, int(self.rate * IN_HAND_SECONDS / length))


def upload_slots(pace: Pace | None) -> int:
    """How many pieces a node offers to send at once, whatever their length; 0, no opinion, without a limit."""
    return pace.pieces_in_hand(PIECE_BYTES_MAX) if pace else 0


def slowed(read_into: ReadInto, *paces: Pace) -> ReadInto:
    """`read_into` within one limit or more. What was received is paid before more is asked for."""
    quantum = min(pace.quantum for pace in paces)

    def read_slowly(buffer: memoryview) -> int:
        count = read_into(buffer[:quantum])
        for pace in paces:
            pace.wait(count)
        return count

    return read_slowly
