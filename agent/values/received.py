"""How many bytes came in the last 24 hours, by where they came from, in buckets of an hour. Pure: time is an argument.

An agent counts its own like this, and a supernode those of all nodes. Times are in seconds on a clock that never runs backwards.
The 24 hours end with the one that is under way, so what is told is of between 23 and 24 hours.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

HOUR_SECONDS = 3600.0
HOURS = 24
NODE_BYTES_PER_HOUR_MAX = 1 << 47
"""Of one source: a link of 300 Gbit/s brings less. A node that tells more is not believed."""
ALL_BYTES_PER_HOUR_MAX = 1 << 62
_KINDS = 3


class BytesBySource(NamedTuple):
    peer: int = 0
    supernode: int = 0
    origin: int = 0

    def minus(self, less: BytesBySource) -> BytesBySource:
        """What is here and not there, never less than nothing."""
        return BytesBySource(*(max(one - other, 0) for one, other in zip(self, less, strict=True)))


def hour_of(at: float) -> int:
    return int(at // HOUR_SECONDS)


class HourlyBytes:
    """A ring of 24 hours: 600 bytes for each of ten thousand nodes."""

    __slots__ = ("_counts", "_hour", "_most")

    def __init__(self, most: int = NODE_BYTES_PER_HOUR_MAX) -> None:
        """`most` bytes of one source are counted in an hour."""
        self._counts = array("Q", bytes(8 * _KINDS * HOURS))
        self._hour = 0
        """The newest that is counted."""
        self._most = most

    def add(self, more: BytesBySource, hour: int) -> BytesBySource:
        """What was counted of it. An hour that is over 24 hours old counts no more."""
        self.turn_to(hour)
        if hour <= self._hour - HOURS:
            return BytesBySource()
        before = self.of(hour)
        after = BytesBySource(*(min(one + other, self._most) for one, other in zip(before, more, strict=True)))
        at = _KINDS * (hour % HOURS)
        self._counts[at : at + _KINDS] = array("Q", after)
        return after.minus(before)

    def turn_to(self, hour: int) -> None:
        """It is this hour now, or a later one: what has become too old is forgotten."""
        if hour - self._hour >= HOURS:
            self._counts = array("Q", bytes(8 * _KINDS * HOURS))
        for begun in range(max(self._hour + 1, hour - HOURS + 1), hour + 1):
            at = _KINDS * (begun % HOURS)
            self._counts[at : at + _KINDS] = array("Q", [0] * _KINDS)
        self._hour = max(self._hour, hour)

    def of(self, hour: int) -> BytesBySource:
        at = _KINDS * (hour % HOURS)
        return BytesBySource(*self._counts[at : at + _KINDS])

    def hours(self) -> range:
        """The hours that are counted, the oldest first."""
        return range(self._hour - HOURS + 1, self._hour + 1)

    @property
    def total(self) -> BytesBySource:
        return BytesBySource(*(sum(self._counts[kind::_KINDS]) for kind in range(_KINDS)))
