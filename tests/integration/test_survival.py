"""The origin is lost, the supernode is lost, also in the middle of a pull: whoever can still be asked feeds the pull."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hack.lab import Lab, wait_until
from hack.lab.darner import LOG_ALL, Swarm
from hack.lab.image import PROOF, BuiltImage
from hack.lab.runtime import Containerd, Runtime

pytestmark = pytest.mark.needs_root

SLOW_BYTES_PER_SECOND = 16 << 20


@pytest.fixture
def swarm(lab: Lab, image: BuiltImage) -> Swarm:
    return Swarm(lab, image, LOG_ALL)


def test_by_tag_with_the_origin_stopped_a_node_that_never_had_the_image_pulls_it_from_the_others(swarm: Swarm) -> None:
    holders, newcomer = [swarm.agent("first"), swarm.agent("second")], swarm.agent("newcomer")
    for holder in holders:
        Containerd(holder.host, Runtime("2")).pull(swarm.image_name)
    swarm.registry.stop()
    containerd = Containerd(newcomer.host, Runtime("2"))
    containerd.pull(swarm.image_name)
    assert PROOF in containerd.run(swarm.image_name, swarm.image.command)
    received = newcomer.received_bytes()
    assert received["origin"] == 0
    assert received["peer"] > 0
    assert received["peer"] + received["supernode"] == swarm.image.size


def test_a_tag_is_still_served_when_the_origin_has_been_away_for_longer_than_the_interval(lab: Lab, image: BuiltImage) -> None:
    swarm = Swarm(lab, image, ["--tag-interval", "1s"])
    holder, newcomer = swarm.agent("holder"), swarm.agent("newcomer")
    Containerd(holder.host, Runtime("2")).pull(swarm.image_name)
    swarm.registry.stop()
    time.sleep(1)
    Containerd(newcomer.host, Runtime("2")).pull(swarm.image_name)
    assert newcomer.received_bytes()["origin"] == 0


def test_with_the_supernode_killed_a_node_that_has_nothing_pulls_from_the_origin(swarm: Swarm) -> None:
    agent = swarm.agent("alone")
    swarm.supernode.kill()
    containerd = Containerd(agent.host, Runtime("2"))
    containerd.pull(swarm.image_name)
    assert PROOF in containerd.run(swarm.image_name, swarm.image.command)
    assert agent.received_bytes()["origin"] == swarm.image.size


def test_a_node_that_starts_without_a_supernode_to_be_found_pulls_from_the_origin(swarm: Swarm) -> None:
    swarm.supernode.kill()
    agent = swarm.agent("alone")
    Containerd(agent.host, Runtime("2")).pull(swarm.image_name)
    assert agent.received_bytes()["origin"] == swarm.image.size


@pytest.mark.parametrize("runtime", [Runtime("2"), Runtime("2", parallel="transfer service")], ids=str)
def test_the_pull_that_was_under_way_when_the_supernode_died_ends(swarm: Swarm, runtime: Runtime) -> None:
    agent = swarm.agent("node")
    containerd = Containerd(agent.host, runtime)
    swarm.registry.host.shape(SLOW_BYTES_PER_SECOND)
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(containerd.pull, swarm.image_name)
        wait_until(lambda: pull.done() or agent.received_bytes()["origin"] > swarm.image.size // 5)
        assert not pull.done()
        swarm.supernode.kill()
        pull.result()
    assert PROOF in containerd.run(swarm.image_name, swarm.image.command)
    received = agent.received_bytes()
    assert received["supernode"] == received["peer"] == 0
    sent = sum(swarm.registry.blob_bytes_sent(swarm.repository).values())
    assert sent < 1.25 * swarm.image.size, "what had arrived is not fetched again"
