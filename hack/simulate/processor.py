"""A host's processor in virtual time: cores, and the one interpreter that they share.

Work is booked when it is known and done in that order, a piece's on one core from beginning to end. What a host does for bytes,
in the kernel and in digests, may be done on all cores at once; what it does for each piece, whatever its length, is Python's,
and one interpreter runs on one core at a time. Not played: that a system divides a core among those that want it, and that a
thread which comes back from the kernel waits for the interpreter too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a piece costs the processor of a host that takes it, or sends it."""

    piece_seconds: float = 0.0
    """For each piece, of the interpreter."""
    byte_seconds: float = 0.0
    """For each byte, of any core."""

    def seconds(self, size: int) -> float:
        """Of the cores together, for a piece of `size` bytes."""
        return self.piece_seconds + size * self.byte_seconds


NOTHING = Work()
TAKING = Work(piece_seconds=1.0e-3, byte_seconds=1.5e-9)
"""As measured (docs/decisions/0039): to receive a piece, compare its digest, write it, digest it as part of its blob, and send it
to the client that reads it."""
SENDING = Work(piece_seconds=0.4e-3, byte_seconds=0.5e-9)
"""To send it to another node."""


class Processor:
    """Times are those of the clock; a core that is free since the past is free."""

    def __init__(self, cores: int) -> None:
        self._free_at = [0.0] * cores
        """When each core is free, as far as is booked."""
        self._interpreter_free_at = 0.0

    def work(self, seconds: float, since: float) -> float:
        """Book work that could be done from `since` on, which may be past: when it is done.

        It gets the core that has stood idle for the shortest time, so that the time before `since` is left to earlier work.
        """
        idle = [free_at for free_at in self._free_at if free_at <= since]
        free_at = max(idle) if idle else min(self._free_at)
        done_at = max(free_at, since) + seconds
        self._free_at[self._free_at.index(free_at)] = done_at
        return done_at

    def interpret(self, seconds: float, now: float) -> float:
        """Book work of the interpreter: when it is done.

        It is short, so that a system lets it run before what the cores have to do for bytes; that comes later by as much.
        """
        began_at = max(now, self._interpreter_free_at)
        self._interpreter_free_at = began_at + seconds
        self.work(seconds, began_at)
        return self._interpreter_free_at
