"""How many nodes may ask a registry at once, as that is found out: in given rates and times."""

from __future__ import annotations

import pytest

from supernode.scheduler.limits import Limits
from supernode.scheduler.origins import (
    FEWER_SECONDS,
    HOLD_SECONDS,
    MORE,
    SLOW,
    SLOWER,
    STEP,
    WINDOW_PIECES,
    WINDOW_SECONDS,
    OriginLink,
)
from supernode.scheduler.state import Swarm

PIECE = 1 << 20
LIMITS = Limits(origin_slots_min=4, origin_slots_max=32)
NODES_PACE = 0.1
"""Seconds that a piece from a node takes when its taker gets nothing else."""


class Registry:
    """A link whose slots are all in use, and the pieces that come through it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.link = OriginLink(1, limits)
        self.swarm = Swarm(1, 1 << 15, seeded=0, piece_bytes=PIECE)
        self.swarm.node_pace = NODES_PACE
        self.now = 100.0

    def carry(self, rate: float, pace: float, busy: int | None = None) -> None:
        """One window in which so many pieces come in a second, each in `pace` times what a node's piece takes."""
        link = self.link
        link.busy = link.slots if busy is None else busy
        self._came(pace)  # with which a window begins
        end, seconds = self.now + max(WINDOW_SECONDS, (WINDOW_PIECES * link.slots + 1) / rate), 1 / rate
        while self.now < end:
            self.now += seconds
            self._came(pace)

    def _came(self, pace: float) -> None:
        self.link.came(self.swarm, 1, pace * NODES_PACE, 1, 0.0, self.now)


def test_more_nodes_ask_as_long_as_the_pieces_come_as_fast_as_those_of_nodes() -> None:
    registry = Registry()
    seen = [registry.link.slots]
    for _ in range(8):
        registry.carry(rate=100.0, pace=1.0)
        seen.append(registry.link.slots)
    assert seen == sorted(seen)
    assert seen[1] == int(STEP * 4)
    assert seen[-1] == LIMITS.origin_slots_max


def test_where_they_come_slower_more_are_tried_and_kept_if_they_bring_more_together() -> None:
    registry, rate = Registry(), 40.0
    for _ in range(4):
        before = registry.link.slots
        registry.carry(rate, pace=2 * SLOWER)
        assert registry.link.slots == int(STEP * before)
        rate *= MORE * 1.3


def test_a_trial_that_brings_no_more_is_taken_back_and_not_repeated_for_a_time_which_doubles() -> None:
    registry = Registry()
    for pause_seconds in (HOLD_SECONDS, 2 * HOLD_SECONDS):
        registry.carry(rate=40.0, pace=2 * SLOWER)
        assert registry.link.slots == int(STEP * 4)
        registry.carry(rate=40.0, pace=2 * SLOWER)
        assert registry.link.slots == 4
        ended = registry.now
        while registry.now < ended + pause_seconds - 2.0:
            registry.carry(rate=40.0, pace=2 * SLOWER)
            assert registry.link.slots == 4
        registry.now = ended + pause_seconds
        registry.carry(rate=40.0, pace=1.0, busy=0)  # so that no window spans the pause


def test_nothing_is_judged_while_fewer_ask_than_might() -> None:
    registry = Registry()
    for _ in range(5):
        registry.carry(rate=100.0, pace=1.0, busy=3)
    assert registry.link.slots == 4


def test_a_refusal_leaves_one_fewer_and_no_trial_goes_beyond_that() -> None:
    registry = Registry()
    registry.carry(rate=40.0, pace=2 * SLOWER)
    assert registry.link.slots == 6
    registry.link.busy = 4
    registry.link.refused_more(0.0)
    assert (registry.link.slots, registry.link.slots_max) == (3, 3)
    for pace in (2 * SLOWER, 2 * SLOWER, 1.0, 1.0):
        registry.carry(rate=40.0, pace=pace)
        assert registry.link.slots <= 3


def test_one_node_may_always_ask() -> None:
    link = OriginLink(1, LIMITS)
    link.busy = 1
    for _ in range(3):
        link.refused_more(0.0)
    assert (link.slots, link.is_free) == (1, False)


def test_never_more_ask_than_the_limit_however_well_it_goes() -> None:
    registry = Registry(Limits(origin_slots_min=2, origin_slots_max=5))
    for _ in range(9):
        registry.carry(rate=100.0, pace=0.5)
    assert registry.link.slots == 5


def test_the_rate_of_a_connection_is_known_by_its_pieces_and_a_node_far_below_it_is_slow() -> None:
    link, swarm = OriginLink(1, LIMITS), Swarm(1, 64, seeded=0, piece_bytes=PIECE)
    known = 0.0
    for _ in range(50):
        known = link.came(swarm, 1, 0.1, 1, known, 0.0)
    assert known == pytest.approx(10 * PIECE)
    assert not link.is_slow(known)
    assert link.is_slow(0.9 * SLOW * known)
    assert not link.is_slow(0.0), "of which nothing is known"


def test_a_piece_that_took_no_time_says_nothing_of_a_rate() -> None:
    link, swarm = OriginLink(1, LIMITS), Swarm(1, 64, seeded=0, piece_bytes=PIECE)
    assert link.came(swarm, 1, 0.0, 1, 7.0, 0.0) == 7.0


def test_a_registry_that_refused_one_is_tried_again_with_more_after_a_while() -> None:
    registry = Registry()
    registry.link.busy = 2
    registry.link.refused_more(-FEWER_SECONDS)
    assert registry.link.slots == 1
    registry.carry(rate=40.0, pace=1.0)
    assert registry.link.slots == 2, "one more than one, though half as many again would be the same"
