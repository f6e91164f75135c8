"""How many nodes ask a registry at once, and for how much: found out by trying, as nobody says what a registry carries. Pure.

Nodes get the pieces that nobody has from their origins, in runs of neighbouring pieces, a run being one request. As long as such
a piece comes as fast as its taker's link allows, the registry has more to give. Where it comes slower, the registry's link is the
limit, or what it gives one connection: then half as many runs again are tried, and kept if they bring more together. What did
not help is left alone for a time, which doubles. The lengths of runs follow guided self-scheduling (Polychronopoulos and Kuck
1987): a share of what is left, so that all end together, and no longer than what comes in a second.
"""

from __future__ import annotations

from math import inf
from typing import Final

from supernode.scheduler.limits import Limits
from supernode.scheduler.state import Swarm

WINDOW_SECONDS: Final = 0.25
WINDOW_PIECES: Final = 2
"""Of each connection: over so much, and so long, a registry's rate is measured. One piece of each would be as many as happen to
end just then."""
SLOWER: Final = 1.15
"""Times what a piece takes from another node: a piece that takes longer is held up by the registry."""
STEP: Final = 1.5
"""Times as many runs at once are tried."""
MORE: Final = 1.2
"""Times the rate before: so much must they bring to be kept."""
SLOW: Final = 0.5
"""Times the rate of all connections: a node with less is granted runs only where there is no other."""
HOLD_SECONDS: Final = 10.0
HOLD_SECONDS_MAX: Final = 600.0
FEWER_SECONDS: Final = 600.0
"""How long no more are tried than before it refused one."""
RATE_WEIGHT: Final = 0.25
"""Of the newest piece in what is known of a connection's rate."""


class OriginLink:
    """A registry as a source of all swarms. Rates are in bytes a second."""

    def __init__(self, number: int, limits: Limits) -> None:
        self.number = number
        self.slots = limits.origin_slots_min
        """Nodes that may be asking it at once."""
        self.slots_max = limits.origin_slots_max
        self.busy = 0
        """Nodes that are."""
        self.pause_until = -inf
        self.is_whole = False
        """It does not know ranges: a run goes on to the blob's end."""
        self._limits = limits
        self.connection_rate = 0.0
        """What one connection brings, smoothed; 0 when nobody knows."""
        self._since = -inf
        """When the measuring began that is under way."""
        self._bytes = 0.0
        self._pieces = 0
        self._paces = 0.0
        """The sum of how slow its pieces were, each as a multiple of what a node's piece takes; 0 when that is not known."""
        self._slots_before = 0
        """How many there were before the trial that is under way; 0 when there is none."""
        self._rate_before = 0.0
        self._fewer_until = -inf
        self._hold_until = -inf
        self._hold_seconds = HOLD_SECONDS

    @property
    def is_free(self) -> bool:
        return self.busy < self.slots

    @property
    def is_wide(self) -> bool:
        """Whether it has been found to carry more nodes at once than ask it at first."""
        return self.slots > self._limits.origin_slots_min and not self._slots_before

    def run_length(self, swarm: Swarm, missing: int, rate: float) -> int:
        """Pieces of the next run of a node to which so much comes (0: nobody knows), where `missing` are left to be fetched.

        All of the last pieces wait for the slowest of those that were granted them. So whose link nobody knows is granted few,
        and one alone where that takes a run's time already.
        """
        limits, usual = self._limits, rate or self.connection_rate
        in_time = limits.run_seconds / swarm.piece_bytes
        few = min(limits.run_pieces_min, int(usual * in_time)) if usual else limits.run_pieces_min
        fair = missing // (2 * self.slots)
        short = limits.run_bytes_max // swarm.piece_bytes
        return max(1, few, min(fair, int(rate * in_time), short))

    def is_slow(self, rate: float) -> bool:
        """Whether a node to which so much comes is much slower than others at this registry."""
        return 0.0 < rate < SLOW * self.connection_rate

    def came(self, swarm: Swarm, pieces: int, seconds: float, taking: int, known: float, now: float) -> float:
        """Pieces of one connection came in that time, while so many were on their way to their node.

        Returns at which rate such pieces come to that node, which was `known` before.
        """
        size = float(pieces * swarm.piece_bytes)
        if seconds > 0.0:
            rate = size / seconds
            known = known + (rate - known) * RATE_WEIGHT if known else rate
            of_all = self.connection_rate
            self.connection_rate = of_all + (rate - of_all) * RATE_WEIGHT if of_all else rate
        self._measure(swarm, size, pieces, seconds, taking, now)
        return known

    def _measure(self, swarm: Swarm, size: float, pieces: int, seconds: float, taking: int, now: float) -> None:
        if self.busy < self.slots:  # what it could have brought is not seen
            self._begin(inf)
            return
        if self._since == inf or self._since == -inf:
            self._begin(now)
            return
        self._bytes += size
        self._pieces += pieces
        if swarm.node_pace:
            self._paces += seconds / max(1, taking) / swarm.node_pace
        if now - self._since >= WINDOW_SECONDS and self._pieces >= WINDOW_PIECES * self.slots:
            self._judge(self._bytes / (now - self._since), self._paces / self._pieces, now)
            self._begin(now)

    def refused_more(self, now: float) -> None:
        """It answered to one of those that ask it that they are too many, which it may have been for a while only."""
        self.slots_max = max(1, min(self.slots_max, self.busy - 1))
        self._fewer_until = now + FEWER_SECONDS
        self._slots_before = 0
        self.slots = min(self.slots, self.slots_max)

    def _judge(self, rate: float, pace: float, now: float) -> None:
        before = self._slots_before
        if now >= self._fewer_until:
            self.slots_max = self._limits.origin_slots_max
        if 0.0 < pace <= SLOWER:
            self._slots_before = 0
            self._grow(rate)
        elif before and rate < MORE * self._rate_before:
            self.slots = before
            self._slots_before = 0
            self._hold_until = now + self._hold_seconds
            self._hold_seconds = min(HOLD_SECONDS_MAX, 2 * self._hold_seconds)
        elif before or now >= self._hold_until:
            self._grow(rate)

    def _grow(self, rate: float) -> None:
        more = min(max(self.slots + 1, int(STEP * self.slots)), self.slots_max)
        if more > self.slots:
            self._slots_before, self._rate_before = self.slots, rate
            self.slots = more
        else:
            self._slots_before = 0

    def _begin(self, at: float) -> None:
        self._since, self._bytes, self._pieces, self._paces = at, 0.0, 0, 0.0
