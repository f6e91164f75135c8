"""By how much the supernode's link is faster than a node's: nobody says so, and the supernode finds it by trying. Pure.

A supernode that sends each piece once leaves most of a fast link idle while the piece is passed on from node to node. Whether it
can send more shows in its pace, which is what a piece would have taken had its taker got nothing else meanwhile. As long as its
pieces come as fast as those of nodes, the takers' links limit them, and it may send more at once; when they come slower, its own
does. It goes up in small steps and down in large ones, as TCP finds its share of a link (additive increase, multiplicative
decrease: Chiu and Jain 1989). Trying costs pieces that are sent twice; what has failed is left alone for a time, which doubles.
"""

from __future__ import annotations

from math import inf
from typing import Final

from supernode.scheduler.state import Swarm

NODE_WEIGHT: Final = 0.05
SEED_WEIGHT: Final = 0.1
"""Of the newest piece in what is known of a swarm's paces."""
AS_FAST: Final = 1.0
SLOWER: Final = 1.15
"""Of the nodes' pace: up to the first the supernode's link has more to give, beyond the second it has not."""
STEP: Final = 0.1
CUT: Final = 0.5
TRIED: Final = 0.6
"""Links: with fewer nothing is sent twice, so coming back below that is a failure."""
PROVEN: Final = 4.0
"""Links: with more there is no doubt that the link is faster, whatever failed before."""
PAUSE_SECONDS: Final = 600.0
PAUSE_SECONDS_MAX: Final = 86400.0
"""After the first failure, and after many: a link's rate changes with its machine, not by the hour."""


class Uplink:
    """`links` is how many nodes' links the supernode's has beyond one, 0 to `links_max`. Paces are in seconds."""

    def __init__(self, links_max: float) -> None:
        self.links = 0.0
        self._links_max = links_max
        self._cut_at = -inf
        self._pause_until = -inf
        self._pause_seconds = PAUSE_SECONDS

    def node_delivered(self, swarm: Swarm, pace: float) -> None:
        swarm.node_pace += (pace - swarm.node_pace) * (NODE_WEIGHT if swarm.node_pace else 1.0)

    def seed_delivered(self, swarm: Swarm, pace: float, granted_at: float, now: float) -> None:
        """A piece from the supernode has arrived while it had others that only it could send."""
        if granted_at < self._cut_at:  # it tells how things were before
            return
        swarm.seed_pace += (pace - swarm.seed_pace) * (SEED_WEIGHT if swarm.seed_pace else 1.0)
        if swarm.seed_pace > SLOWER * swarm.node_pace > 0.0:
            swarm.seed_pace = (AS_FAST + SLOWER) / 2 * swarm.node_pace  # not known any more
            self._cut(now)
        elif swarm.seed_pace <= AS_FAST * swarm.node_pace and (self.links >= TRIED or now >= self._pause_until):
            self.links = min(self._links_max, self.links + STEP)
            if self.links > PROVEN:
                self._pause_seconds = PAUSE_SECONDS

    def _cut(self, now: float) -> None:
        before, self.links, self._cut_at = self.links, self.links * CUT, now
        if before >= TRIED > self.links:
            self._pause_until = now + self._pause_seconds
            self._pause_seconds = min(PAUSE_SECONDS_MAX, 2 * self._pause_seconds)
