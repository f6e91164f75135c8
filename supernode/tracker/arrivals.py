"""How fast the pieces of one blob arrive at the nodes that take it: for people who wait, nothing is decided by it. Pure."""

from __future__ import annotations

from collections import deque

LOOKS = 10
"""The rate is that of so many seconds, as it is looked at once a second."""


class Arrivals:
    __slots__ = ("_looks", "pieces")

    def __init__(self) -> None:
        self.pieces = 0
        """How many have come, at all nodes together, from whatever source."""
        self._looks: deque[tuple[float, int]] = deque(maxlen=LOOKS + 1)

    def look(self, now: float) -> None:
        self._looks.append((now, self.pieces))

    @property
    def per_second(self) -> float | None:
        """Pieces that came lately; None while that is not known."""
        if len(self._looks) < 2:
            return None
        (since, before), (until, after) = self._looks[0], self._looks[-1]
        return (after - before) / (until - since) if until > since else None
