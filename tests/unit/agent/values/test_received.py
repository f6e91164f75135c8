"""Bytes of the last 24 hours: what is counted, what is forgotten, and how much is believed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.values.received import HOURS, BytesBySource, HourlyBytes, hour_of

SOME = BytesBySource(1, 2, 3)
sources = st.builds(BytesBySource, *[st.integers(0, 1 << 40)] * 3)


def test_what_came_in_the_last_24_hours_is_added_up() -> None:
    hourly = HourlyBytes()
    for hour in range(5, 5 + HOURS):
        assert hourly.add(SOME, hour) == SOME
    assert hourly.total == BytesBySource(24, 48, 72)
    assert hourly.of(5) == SOME


def test_an_hour_is_forgotten_when_another_one_takes_its_place() -> None:
    hourly = HourlyBytes()
    hourly.add(BytesBySource(origin=100), 5)
    hourly.turn_to(5 + HOURS - 1)
    assert hourly.total.origin == 100
    hourly.turn_to(5 + HOURS)
    assert hourly.total == BytesBySource()


def test_what_is_told_late_counts_in_its_own_hour_and_what_is_too_old_not_at_all() -> None:
    hourly = HourlyBytes()
    hourly.turn_to(100)
    assert hourly.add(SOME, 90) == SOME
    assert hourly.add(SOME, 100 - HOURS) == BytesBySource()
    assert (hourly.total, hourly.of(90)) == (SOME, SOME)


def test_no_more_is_believed_of_an_hour_than_a_link_carries() -> None:
    hourly = HourlyBytes(most=10)
    assert hourly.add(BytesBySource(peer=7), 1) == BytesBySource(peer=7)
    assert hourly.add(BytesBySource(peer=7), 1) == BytesBySource(peer=3)
    assert hourly.total == BytesBySource(peer=10)


def test_hours_are_those_of_a_clock() -> None:
    assert [hour_of(at) for at in (0.0, 3599.9, 3600.0)] == [0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 60), sources), max_size=40))
def test_the_ring_tells_what_a_list_of_all_that_was_added_would(added: list[tuple[int, BytesBySource]]) -> None:
    hourly, newest = HourlyBytes(1 << 62), 0
    kept: list[tuple[int, BytesBySource]] = []
    for hour, more in added:
        newest = max(newest, hour)
        if hour > newest - HOURS:
            kept.append((hour, more))
        hourly.add(more, hour)
    lately = [more for hour, more in kept if hour > newest - HOURS]
    assert hourly.total == BytesBySource(*map(sum, zip(*lately, strict=True))) if lately else not any(hourly.total)
