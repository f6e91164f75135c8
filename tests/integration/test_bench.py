"""The benchmark's rollouts bring whole images, and what they count is what there was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.bench.direct import pull_directly
from hack.bench.faults import silent
from hack.bench.puller import Door, Puller, PullError
from hack.bench.rollout import pull_all, roll_out, seconds_of
from hack.bench.site import Plan, Site, site
from hack.bench.zones import ZoneCounters

pytestmark = pytest.mark.needs_root

PLAN = Plan(nodes=2, layers=2, mbit=400, image_bytes=8 << 20, zones=2)


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with site(PLAN) as place:
        yield place


def test_a_rollout_brings_each_node_the_image_and_takes_it_from_the_origin_once(place: Site) -> None:
    outcome = roll_out(place)
    assert len(outcome.seconds) == len(outcome.first_byte_seconds) == PLAN.nodes
    assert outcome.origin_bytes == outcome.image_bytes > PLAN.image_bytes
    assert sum(outcome.received.values()) == pytest.approx(PLAN.nodes)


def test_direct_pulls_take_it_from_the_origin_once_for_each_node(place: Site) -> None:
    assert pull_directly(place).origin_images == PLAN.nodes


def test_what_crosses_zones_is_counted_from_its_first_byte(place: Site) -> None:
    counters = ZoneCounters(place)
    assert counters.crossed_bytes() == 0
    outcome = roll_out(place)
    assert counters.crossed_bytes() > outcome.image_bytes, "one node stands in the other zone, and everybody else in the first"


def test_a_pull_that_fails_is_an_error_and_no_time(place: Site) -> None:
    door = place.agents_door("1")
    puller = Puller(place.agents[0].host, Door(door.address, door.port, door.path, "none"))
    pull_all([puller])
    with pytest.raises(PullError, match="404"):
        seconds_of(puller)


def test_a_link_that_is_silent_says_nothing_until_it_is_mended(place: Site) -> None:
    victim, asking = place.agents[1], place.supernode.host
    silent(victim)
    with pytest.raises(TimeoutError):
        asking.connect(65002, victim.host.address, timeout_seconds=0.2)
    victim.host.mend()
    asking.connect(65002, victim.host.address).close()
