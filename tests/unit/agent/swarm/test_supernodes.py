"""The swarm as a node sees it: what did not work lately is avoided for a while, which grows, and forgotten when it works."""

from __future__ import annotations

import pytest

from agent.swarm import supernodes as module
from agent.swarm.supernodes import AVOID_SECONDS_MAX, AVOID_SECONDS_MIN, Memory
from agent.values.address import Address

PLACE = ("swarms", Address("10.0.0.9", 65000))


def test_a_place_that_failed_is_avoided_for_a_minute_and_then_tried() -> None:
    """FAULTS 56."""
    memory = Memory()
    assert not memory.avoids(PLACE, 0.0)
    memory.failed(PLACE, 0.0)
    assert memory.avoids(PLACE, AVOID_SECONDS_MIN - 1.0)
    assert not memory.avoids(PLACE, AVOID_SECONDS_MIN)


def test_it_is_avoided_twice_as_long_each_time_up_to_ten_minutes() -> None:
    memory, now = Memory(), 0.0
    for seconds in (60.0, 120.0, 240.0, 480.0, AVOID_SECONDS_MAX, AVOID_SECONDS_MAX):
        memory.failed(PLACE, now)
        memory.failed(PLACE, now + 1.0)  # begun before the first failure was known
        assert memory.avoids(PLACE, now + seconds - 0.1)
        now += seconds
        assert not memory.avoids(PLACE, now)


def test_it_is_forgotten_as_soon_as_it_works() -> None:
    memory = Memory(strikes=2)
    memory.failed(PLACE, 0.0)
    memory.worked(PLACE)
    memory.failed(PLACE, 1.0)
    assert not memory.avoids(PLACE, 2.0)
    memory.failed(PLACE, 2.0)
    assert memory.avoids(PLACE, 3.0)


def test_so_many_places_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 2)
    memory = Memory()
    places = [("pieces", Address("10.0.0.1", port)) for port in (1, 2, 3)]
    for place in places:
        memory.failed(place, 0.0)
    assert [memory.avoids(place, 1.0) for place in places] == [False, True, True]
