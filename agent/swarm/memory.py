"""What did not work from this node lately, so that the next blob does not wait for it again.

Shared by all downloads. A place is a node's piece server, a supernode's swarms or a supernode itself, named by a word and an
address. It is forgotten as soon as something comes from there, and after a while in any case.
"""

from __future__ import annotations

import threading

from agent.values.address import Address

AVOID_SECONDS_MIN = 60.0
AVOID_SECONDS_MAX = 600.0
"""Twice as long each time that it fails again, up to this."""
PLACES_MAX = 4096
"""The oldest are forgotten beyond that."""

Place = tuple[str, Address]


class Memory:
    def __init__(self, strikes: int = 1) -> None:
        """A place is avoided when it has failed so many times, without a success between them."""
        self._strikes = strikes
        self._lock = threading.Lock()
        self._failed: dict[Place, tuple[int, float, float]] = {}
        """How often, until when it is avoided, and for how long that is."""

    def failed(self, place: Place, now: float) -> None:
        with self._lock:
            count, until, seconds = self._failed.pop(place, (0, now, AVOID_SECONDS_MIN / 2))
            if count + 1 >= self._strikes and now >= until:  # else it was begun before the last failure was known
                seconds = min(2 * seconds, AVOID_SECONDS_MAX)
                until = now + seconds
            self._failed[place] = count + 1, until, seconds
            if len(self._failed) > PLACES_MAX:
                self._failed.pop(next(iter(self._failed)))

    def worked(self, place: Place) -> None:
        with self._lock:
            self._failed.pop(place, None)

    def avoids(self, place: Place, now: float) -> bool:
        with self._lock:  # else a place that is being written is missing for a moment
            count, until, _ = self._failed.get(place, (0, now, 0.0))
        return count >= self._strikes and now < until
