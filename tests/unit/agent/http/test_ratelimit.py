"""Limits on bandwidth, in virtual time: what goes in all, who gets how much of it, and for how long nobody gets anything."""

from __future__ import annotations

import heapq
from collections import Counter

import pytest

from agent.http.ratelimit import BURST_SECONDS, QUANTUM_BYTES_MAX, Bucket, Pace, slowed, upload_slots
from agent.swarm.piece_client import PIECE_BYTES_PER_SECOND_MIN, PIECE_SECONDS_MAX, PIECE_STALL_SECONDS_MAX
from agent.swarm.piece_server import CONNECTIONS_MAX
from agent.values.pieces import PIECE_BYTES_MAX

MEBIBYTE = 1 << 20
RATES = [MEBIBYTE, 10 * MEBIBYTE, 125 * MEBIBYTE, 1250 * MEBIBYTE]


class VirtualTime:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pace(self, rate: int) -> Pace:
        return Pace(rate, self.clock, self.sleep)


def shared(rate: int, takers: int, seconds: float) -> tuple[Counter[int], float]:
    """Takers that want all they can get, one quantum after the other: bytes of each, and the longest that one had to wait."""
    bucket, quantum = Bucket(rate), Pace(rate).quantum
    got: Counter[int] = Counter()
    longest = 0.0
    turn = [(0.0, taker) for taker in range(takers)]
    while turn[0][0] < seconds:
        now, taker = heapq.heappop(turn)
        wait = bucket.take(quantum, now)
        longest = max(longest, wait)
        got[taker] += quantum
        heapq.heappush(turn, (now + wait, taker))
    return got, longest


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("takers", [1, 4, 64])
def test_however_many_take_they_get_the_rate_together_within_5_percent(rate: int, takers: int) -> None:
    got, _ = shared(rate, takers, 20.0)
    assert sum(got.values()) == pytest.approx(20.0 * rate, rel=0.05)


@pytest.mark.parametrize("rate", RATES)
def test_all_takers_get_the_same(rate: int) -> None:
    got, _ = shared(rate, 8, 10.0)
    assert max(got.values()) - min(got.values()) <= 2 * Pace(rate).quantum


@pytest.mark.parametrize("rate", RATES)
def test_of_as_many_connections_as_there_may_be_none_waits_so_long_that_it_looks_stalled(rate: int) -> None:
    _, longest = shared(rate, CONNECTIONS_MAX, 10.0)
    assert longest < PIECE_STALL_SECONDS_MAX


@pytest.mark.parametrize("rate", RATES)
def test_the_pieces_that_a_node_offers_to_send_at_once_arrive_before_their_takers_give_them_up(rate: int) -> None:
    slots = upload_slots(Pace(rate))
    assert slots >= 1
    assert slots * PIECE_BYTES_MAX / rate < PIECE_SECONDS_MAX + PIECE_BYTES_MAX / PIECE_BYTES_PER_SECOND_MIN


def test_a_node_without_a_limit_has_no_opinion_on_how_many_pieces_it_sends_at_once() -> None:
    assert Pace.of(0) is None
    assert upload_slots(Pace.of(0)) == 0


def test_what_nobody_used_is_caught_up_for_a_moment_only() -> None:
    bucket = Bucket(MEBIBYTE)
    bucket.take(1, 0.0)
    at_once = 0
    while not bucket.take(1024, 3600.0):
        at_once += 1024
    assert at_once == pytest.approx(BURST_SECONDS * MEBIBYTE, abs=2048)


def test_a_thread_that_wakes_up_late_costs_nothing_of_the_rate() -> None:
    bucket, now, sent = Bucket(MEBIBYTE), 0.0, 0
    while now < 20.0:
        now += bucket.take(4096, now) + 0.003
        sent += 4096
    assert sent == pytest.approx(20.0 * MEBIBYTE, rel=0.05)


@pytest.mark.parametrize("rate", RATES)
def test_a_file_is_sent_in_turns_that_leave_nothing_out(rate: int) -> None:
    time = VirtualTime()
    pace = time.pace(rate)
    sent = list(pace.turns(7, 50 * MEBIBYTE + 1))
    assert [start for start, _ in sent] == [7, *(end for _, end in sent[:-1])]
    assert sent[-1][1] == 50 * MEBIBYTE + 1
    assert max(end - start for start, end in sent) <= pace.quantum <= QUANTUM_BYTES_MAX
    assert time.now - 1000.0 == pytest.approx(50 * MEBIBYTE / rate, rel=0.05, abs=2 * BURST_SECONDS)
    assert list(pace.turns(7, 7)) == []


def test_what_is_received_keeps_to_the_narrowest_of_its_limits() -> None:
    time = VirtualTime()
    paces = time.pace(4 * MEBIBYTE), time.pace(MEBIBYTE)
    read_into = slowed(lambda buffer: len(buffer), *paces)
    buffer, received = memoryview(bytearray(256 << 10)), 0
    while received < 20 * MEBIBYTE:
        received += read_into(buffer)
    assert time.now - 1000.0 == pytest.approx(20.0, rel=0.05)


def test_the_end_of_what_is_received_is_passed_on() -> None:
    assert slowed(lambda buffer: 0, Pace(MEBIBYTE))(memoryview(bytearray(9))) == 0
