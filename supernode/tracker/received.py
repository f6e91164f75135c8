"""How many bytes all nodes received in the last 24 hours, and each of them, as they tell it themselves. Pure.

A node's word counts for itself alone, and no further than a link carries. What a node received counts on after it has left, for
it did cost an origin's link or spare it; a supernode that has started anew is told all of it again.
"""

from __future__ import annotations

from agent.values.received import ALL_BYTES_PER_HOUR_MAX, HOURS, BytesBySource, HourlyBytes, hour_of

NODES_MAX = 20_000
"""Names that are counted; of a node beyond them nothing is known. As many may be connected at once."""


class ReceivedBytes:
    """Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._all = HourlyBytes(ALL_BYTES_PER_HOUR_MAX)
        self._nodes: dict[str, HourlyBytes] = {}
        self._hour = 0

    def told(self, node: str, more: BytesBySource, age_seconds: float, now: float) -> None:
        """A node received so much more, in the hour around so many seconds ago."""
        self.look(now)
        hour = hour_of(now - age_seconds)
        known = self._nodes.get(node)
        if hour <= self._hour - HOURS or (known is None and len(self._nodes) >= NODES_MAX):
            return
        if known is None:
            known = self._nodes[node] = HourlyBytes()
        known.turn_to(self._hour)
        self._all.add(known.add(more, hour), hour)

    def look(self, now: float) -> None:
        """Forget what is too old, and the nodes of which nothing is left; once an hour there is something to do."""
        hour = hour_of(now)
        if hour == self._hour:
            return
        self._hour = hour
        for counted in (self._all, *self._nodes.values()):
            counted.turn_to(hour)
        self._nodes = {name: counted for name, counted in self._nodes.items() if any(counted.total)}

    def of(self, node: str) -> BytesBySource:
        known = self._nodes.get(node)
        return known.total if known else BytesBySource()

    @property
    def total(self) -> BytesBySource:
        return self._all.total
