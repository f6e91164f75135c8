"""FAULTS 101, with real processes and links: no rollout waits for the supernode's link, which is narrow or becomes so.

How near a rollout comes to a direct pull, and to the bound, `make bench` measures (`origin-10x-weak`, `origin-slowing`) on a
machine that does nothing else. Here the links are slow and much is allowed, yet far less than it would take through the
supernode: four times a direct pull, and ten times the bound.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hack.bench.faults import LOST_AFTER_BOUNDS
from hack.bench.puller import Door, Puller
from hack.bench.rollout import Disturbance, Outcome, pull_all, roll_out, seconds_of
from hack.bench.site import MBIT, Plan, Site, bound_seconds, site
from hack.lab.process import wait_until

pytestmark = pytest.mark.needs_root

PLAN = Plan(nodes=4, mbit=8, image_bytes=8 << 20)
TIMES_MAX = 2.5
ORIGIN_IMAGES_MAX = 1.5
"""A piece that comes late to one node, on a busy machine, is granted to another one too."""
SUPERNODE_IMAGES_MAX = 0.25


def is_carried_by_nodes(outcome: Outcome) -> bool:
    return outcome.origin_images <= ORIGIN_IMAGES_MAX and outcome.supernode_images <= SUPERNODE_IMAGES_MAX


def directly(place: Site) -> float:
    """Seconds of the slowest of all nodes, each of which pulls from the registry itself."""
    _, tag = place.new_image()
    return slowest(place, place.origins_door(tag))


def slowest(place: Site, door: Door) -> float:
    """Seconds of the slowest of all nodes."""
    pullers = [Puller(agent.host, door) for agent in place.agents]
    pull_all(pullers)
    return max(map(seconds_of, pullers))


def come_back_empty(place: Site) -> None:
    """The nodes have gone, and as many have come."""
    for agent in place.agents:
        agent.kill()
    wait_until(lambda: not place.supernode.connected_nodes())
    for agent in place.agents:
        shutil.rmtree(agent.store)
        agent.start()
    place.wait_until_connected()


def test_a_supernode_with_a_quarter_of_a_nodes_link_makes_no_rollout_slower() -> None:
    with site(replace(PLAN, origin_times=10, supernode_times=0.25)) as place:
        outcome = roll_out(place)
        assert is_carried_by_nodes(outcome)
        assert max(outcome.seconds) < TIMES_MAX * directly(place)


def test_a_supernode_that_slows_to_a_twentieth_in_the_middle_of_a_rollout_holds_nobody_up() -> None:
    with site(PLAN) as place:
        after = LOST_AFTER_BOUNDS * bound_seconds(PLAN.image_bytes, PLAN.nodes, PLAN.rate, PLAN.rate)
        slows = Disturbance(None, after, lambda: place.supernode.host.shape(PLAN.mbit * MBIT // 20))
        outcome = roll_out(place, slows)
        assert is_carried_by_nodes(outcome)
        assert outcome.ratio < TIMES_MAX


def test_what_it_alone_has_of_an_image_when_the_nodes_have_gone_holds_up_no_later_pull() -> None:
    """It would take more than ten times a direct pull, and five are allowed. (Of several nodes, some leave for the registry.)"""
    plan = Plan(nodes=1, mbit=40, image_bytes=32 << 20, origin_times=10)
    with site(plan) as place:
        image, tag = place.new_image()
        slowest(place, place.agents_door(tag))
        wait_until(lambda: place.supernode.holds(image.layers))
        come_back_empty(place)
        place.supernode.host.shape(plan.mbit * MBIT // 10)
        sent = place.supernode.host.sent_bytes()
        assert slowest(place, place.agents_door(tag)) < 2 * TIMES_MAX * directly(place)
        assert place.supernode.host.sent_bytes() > sent + image.size // 16, "it has sent some of it, too"
