"""A limit on bandwidth, whoever asks when and for what: in no span of time more goes than it allows; turns keep their order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.http.ratelimit import BURST_SECONDS, Bucket

RATES = st.integers(1 << 20, 10 << 30)
ASKS = st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(1, 1 << 20)), min_size=1, max_size=200)
"""After how many seconds somebody asks again, and for how many bytes."""


def turns(bucket: Bucket, asks: list[tuple[float, int]]) -> list[tuple[float, float, int]]:
    """When each was asked for, when its turn came, and its bytes."""
    now, came = 0.0, []
    for after, count in asks:
        now += after
        came.append((now, now + bucket.take(count, now), count))
    return came


@given(RATES, ASKS)
def test_over_no_span_of_time_more_goes_than_the_rate_and_a_moment_of_it(rate: int, asks: list[tuple[float, int]]) -> None:
    came = turns(Bucket(rate), asks)
    for first, (_, begin, _) in enumerate(came):
        gone = 0
        for _, turn, count in came[first:]:
            assert gone <= rate * (turn - begin + BURST_SECONDS) * (1 + 1e-9) + 1
            gone += count


@given(RATES, ASKS)
def test_turns_come_in_the_order_in_which_they_were_asked_for(rate: int, asks: list[tuple[float, int]]) -> None:
    came = [turn for _, turn, _ in turns(Bucket(rate), asks)]
    assert came == sorted(came)


@given(RATES, ASKS)
def test_nobody_waits_for_more_than_what_was_asked_for_before(rate: int, asks: list[tuple[float, int]]) -> None:
    before = 0
    for asked, turn, count in turns(Bucket(rate), asks):
        assert turn - asked <= before / rate + 1e-6
        before += count


@given(RATES, st.integers(1, 1 << 20))
def test_whoever_asks_of_an_idle_limit_has_its_turn_at_once(rate: int, count: int) -> None:
    bucket = Bucket(rate)
    bucket.take(count, 0.0)
    assert bucket.take(count, count / rate + 1.0) == pytest.approx(0.0)
