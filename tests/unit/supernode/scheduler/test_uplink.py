"""How the supernode finds out that its link is faster than a node's: what it tries, and when it stops trying."""

from __future__ import annotations

import pytest

from supernode.scheduler.state import Swarm
from supernode.scheduler.uplink import AS_FAST, PAUSE_SECONDS, PROVEN, SLOWER, STEP, TRIED, Uplink

NODES_PACE = 0.1
MOST = 14.0


@pytest.fixture
def swarm() -> Swarm:
    swarm = Swarm(1, 64, seeded=0, piece_bytes=1)
    Uplink(MOST).node_delivered(swarm, NODES_PACE)
    return swarm


def deliver(uplink: Uplink, swarm: Swarm, pace: float, now: float, times: int = 1) -> None:
    """So many pieces that were granted just now, each in a pace that counts in those of nodes."""
    for _ in range(times):
        uplink.seed_delivered(swarm, pace * NODES_PACE, granted_at=now, now=now)


def test_it_sends_more_as_long_as_its_pieces_come_as_fast_as_those_of_nodes(swarm: Swarm) -> None:
    uplink = Uplink(MOST)
    deliver(uplink, swarm, AS_FAST, now=1.0, times=10)
    assert uplink.links == pytest.approx(10 * STEP)


def test_and_no_more_than_its_limit(swarm: Swarm) -> None:
    uplink = Uplink(MOST)
    deliver(uplink, swarm, AS_FAST, now=1.0, times=1000)
    assert uplink.links == MOST


def test_it_stays_as_it_is_while_nobody_can_tell(swarm: Swarm) -> None:
    uplink = Uplink(MOST)
    deliver(uplink, swarm, (AS_FAST + SLOWER) / 2, now=1.0, times=10)
    assert uplink.links == 0.0


def test_nothing_is_judged_before_a_node_has_delivered() -> None:
    uplink, swarm = Uplink(MOST), Swarm(1, 64, seeded=0, piece_bytes=1)
    deliver(uplink, swarm, 10.0, now=1.0, times=10)
    assert uplink.links == 0.0


def test_it_sends_much_less_when_its_pieces_come_slower_and_once_for_all_that_were_on_their_way(swarm: Swarm) -> None:
    uplink = Uplink(MOST)
    deliver(uplink, swarm, AS_FAST, now=1.0, times=80)
    deliver(uplink, swarm, 2 * SLOWER, now=2.0, times=80)
    before = uplink.links
    for _ in range(80):
        uplink.seed_delivered(swarm, 9 * NODES_PACE, granted_at=1.9, now=2.1)
    assert uplink.links == before < 80 * STEP


def test_what_has_failed_is_not_tried_again_for_a_time_which_doubles(swarm: Swarm) -> None:
    uplink, now = Uplink(MOST), 0.0
    for pause_seconds in (PAUSE_SECONDS, 2 * PAUSE_SECONDS):
        deliver(uplink, swarm, AS_FAST / 2, now=now, times=20)
        assert TRIED < uplink.links < PROVEN
        while uplink.links > TRIED:
            deliver(uplink, swarm, 2 * SLOWER, now=now)
        failed_at = now
        deliver(uplink, swarm, AS_FAST / 2, now=failed_at + pause_seconds - 1, times=40)
        assert uplink.links < TRIED
        now = failed_at + pause_seconds
    deliver(uplink, swarm, AS_FAST / 2, now=now, times=40)
    assert uplink.links > TRIED


def test_whoever_was_clearly_faster_is_tried_again_soon(swarm: Swarm) -> None:
    uplink, now = Uplink(MOST), 0.0
    for _ in range(3):
        deliver(uplink, swarm, AS_FAST / 2, now=now, times=100)
        assert uplink.links > PROVEN
        while uplink.links > TRIED:
            deliver(uplink, swarm, 2 * SLOWER, now=now)
        now += PAUSE_SECONDS
