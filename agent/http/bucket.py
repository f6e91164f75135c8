"""When may the next bytes go, so that no more than a rate goes in all: a token bucket, by its virtual scheduling form.

Pure: time is an argument, and who waits is somebody else (`agent.http.ratelimit`). Bytes are put in line in the order in which
they are asked for, so whoever asks for one quantum after the other, waiting in between, gets the same share as all others who do
(ITU-T I.371 describes the algorithm as GCRA; a round of equal quanta is round robin).
"""

from __future__ import annotations

from dataclasses import dataclass

BURST_SECONDS = 0.05
"""What may be caught up of the time in which nobody asked, or in which a thread woke up late."""


@dataclass
class Bucket:
    rate: int
    """Bytes a second, more than 0."""
    _due: float = 0.0
    """When all that was put in line has gone, at that rate."""

    def take(self, count: int, now: float) -> float:
        """Put `count` bytes in line at the time `now`, and say in how many seconds it is their turn."""
        turn = max(self._due, now - BURST_SECONDS)
        self._due = turn + count / self.rate
        return max(0.0, turn - now)
