"""The swarm as a node sees it: which supernodes there are; what did not work lately is avoided for a while, which grows."""

from __future__ import annotations

import time

import pytest

from agent.swarm import supernodes as module
from agent.swarm.supernodes import AVOID_SECONDS_MAX, AVOID_SECONDS_MIN, LEAVE_SECONDS, SUPERNODES_MAX, Memory, Supernodes
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


# Which supernodes there are.


class FakeChannel:
    """A channel that connects when the test says so."""

    def __init__(self, where: Address, *_: object) -> None:
        self.where = where
        self.up = False
        self.life: list[str] = []

    def start(self) -> None:
        self.life.append("started")

    def stop(self) -> None:
        self.life.append("stopped")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def supernode(number: int) -> Address:
    return Address(f"supernode-{number}.supernode.darner.svc.cluster.local", 65004)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "Channel", FakeChannel)
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def swarm(clock: Clock) -> Supernodes:
    return Supernodes((), *[lambda *_: None] * 3)  # type: ignore[list-item, return-value]


def hosts(swarm: Supernodes) -> set[Address]:
    return {channel.where for channel in swarm.channels}


def connect(swarm: Supernodes, *numbers: int) -> None:
    for channel in swarm.channels:
        channel._sock = None
        channel.up = channel.where in {supernode(number) for number in numbers}  # type: ignore[misc]


def test_a_supernode_that_is_named_is_connected_to_and_one_that_is_known_stays_as_it_is(swarm: Supernodes) -> None:
    swarm.use((supernode(0),))
    (first,) = swarm.channels
    swarm.use((supernode(0), supernode(1)))
    assert hosts(swarm) == {supernode(0), supernode(1)}
    assert swarm.channels[0] is first
    assert [channel.life for channel in swarm.channels] == [["started"], ["started"]]  # type: ignore[attr-defined]


def test_no_answer_and_no_other_names_make_a_node_leave_a_supernode_that_is_connected(swarm: Supernodes, clock: Clock) -> None:
    swarm.use((supernode(0), supernode(1)))
    connect(swarm, 0, 1)
    for found in ((), (supernode(7),), tuple(map(supernode, range(100, 200)))):
        clock.now += LEAVE_SECONDS
        swarm.use(found)
        assert {supernode(0), supernode(1)} <= hosts(swarm)
        assert len(swarm.channels) <= SUPERNODES_MAX


def test_one_that_is_lost_and_no_longer_named_is_tried_for_a_while_and_then_left(swarm: Supernodes, clock: Clock) -> None:
    swarm.use((supernode(0), supernode(1)))
    connect(swarm, 0)
    gone = swarm.channels[1]
    clock.now += LEAVE_SECONDS - 1
    swarm.use((supernode(0),))
    assert gone in swarm.channels, "a pod's name is missing while the pod moves"
    clock.now += 1
    swarm.use((supernode(0),))
    assert hosts(swarm) == {supernode(0)}
    assert gone.life == ["started", "stopped"]  # type: ignore[attr-defined]
    swarm.use((supernode(0), supernode(1)))
    assert hosts(swarm) == {supernode(0), supernode(1)}


def test_names_that_are_none_leave_room_for_those_that_are_named_next(swarm: Supernodes) -> None:
    swarm.use((supernode(0),))
    connect(swarm, 0)
    swarm.use(tuple(map(supernode, range(1, SUPERNODES_MAX + 50))))
    assert len(swarm.channels) == SUPERNODES_MAX
    swarm.use((supernode(0), supernode(9999)))
    assert {supernode(0), supernode(9999)} <= hosts(swarm)
    assert len(swarm.channels) == SUPERNODES_MAX


def test_those_of_the_settings_are_there_for_good(clock: Clock) -> None:
    swarm = Supernodes((supernode(0),), *[lambda *_: None] * 3)  # type: ignore[list-item, return-value]
    clock.now += 2 * LEAVE_SECONDS
    swarm.use((supernode(1),))
    assert hosts(swarm) == {supernode(0), supernode(1)}


def test_keys_belong_to_the_same_supernode_whoever_named_it_first(swarm: Supernodes) -> None:
    swarm.use((supernode(2), supernode(0)))
    swarm.use((supernode(1), supernode(0), supernode(2)))
    connect(swarm, 0, 1, 2)
    order = [channel.where for channel in swarm.owners("sha256:7")]
    swarm.channels = swarm.channels[::-1]
    assert [channel.where for channel in swarm.owners("sha256:7")] == order
