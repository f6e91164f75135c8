"""Rows 54 to 57, 99 and 100 with real processes and a real network: the swarm is no help to a node, and its pulls hardly notice.

How long such a pull takes in all is measured by `make bench` (`ladder-...`, `away-...`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from agent.download.planner import EVIDENCE_SECONDS
from hack.bench.image import push, random_image
from hack.bench.puller import Door, Puller
from hack.bench.rollout import pull_all, seconds_of
from hack.lab import Lab, wait_until
from hack.lab.darner import PIECE_PORT, REGISTRY_PORT, Agent, Supernode
from hack.lab.registry import Registry
from hack.lab.trouble import Trouble, away, dropped, refused, reset, swallowed
from hack.origin.image import Image

pytestmark = pytest.mark.needs_root

IMAGE_BYTES = 8 << 20
SMALL_BYTES = 1 << 10
SLOW_BYTES_PER_SECOND = 4 << 20
OFF_SECONDS = 400.0
FIRST_SECONDS_MAX = 5.0
AWAY_SECONDS = 1.0
COPIED_SECONDS_MAX = 60.0
"""A copy that a busy machine has not given in time is taken again after ten seconds."""


@dataclass
class Place:
    """An origin that answers at once, a supernode, and agents as they are asked for."""

    registry: Registry
    supernode: Supernode
    images: int = 0

    def agent(self, name: str, clock_seconds: float = 0.0, trouble: Trouble | None = None) -> Agent:
        """On a host of its own, whose trouble is with the supernode's pieces; the supernode knows it."""
        host = self.registry.host.lab.host(name)
        host.clock_seconds = clock_seconds
        if trouble:
            trouble(host, [self.supernode.host], PIECE_PORT)
        agent = Agent(host, [self.supernode], [self.registry.name])
        wait_until(lambda: self.supernode.is_connected_to(agent))
        return agent

    def new_image(self) -> tuple[Image, str]:
        self.images += 1
        image = random_image(IMAGE_BYTES)
        push(self.registry, "lab/image", str(self.images), image)
        return image, str(self.images)

    def image_of_the_supernode(self) -> tuple[Image, str]:
        """A new image that the supernode has whole, and no node that is there."""
        image, tag = self.new_image()
        holder = self.agent(f"first{tag}")
        self.pull(holder, tag)
        wait_until(lambda: set(image.blobs) <= self._whole(), COPIED_SECONDS_MAX)
        holder.process.stop()
        wait_until(lambda: not self.supernode.is_connected_to(holder))
        return image, tag

    def _whole(self) -> set[str]:
        return {swarm["digest"] for swarm in self.supernode.state()["swarms"] if swarm["whole"]}

    def puller(self, agent: Agent, tag: str) -> Puller:
        door = Door("127.0.0.1", REGISTRY_PORT, f"/v2/{self.registry.name.replace(':', '_')}/lab/image", tag)
        return Puller(agent.host, door, checked=True)

    def pull(self, agent: Agent, tag: str) -> float:
        """How long the layer of an image took to its first byte. Raises PullError when it did not come, or with other bytes."""
        puller = self.puller(agent, tag)
        pull_all([puller])
        seconds_of(puller)
        return max(puller.first_byte_seconds.values())


def begin(lab: Lab, supernode_clock_seconds: float = 0.0) -> Place:
    registry, host = Registry(lab.host("origin")), lab.host("supernode")
    host.clock_seconds = supernode_clock_seconds
    return Place(registry, Supernode(host, [registry.name]))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Lab() as lab:
        yield begin(lab)


def everything_was_served(agent: Agent) -> bool:
    """Nothing was refused, so no answer charged a registry with anything."""
    answers = "darner_agent_registry_answers_total"
    return 0 < agent.metric(answers) == agent.metric(answers, status="ok")


def lives_from_the_origin(place: Place, agent: Agent) -> None:
    """Its first blob begins in time, and its second one does not wait again."""
    assert place.pull(agent, place.image_of_the_supernode()[1]) < FIRST_SECONDS_MAX
    assert place.pull(agent, place.image_of_the_supernode()[1]) < EVIDENCE_SECONDS
    received = agent.received_bytes()
    assert received["origin"] > 1.9 * IMAGE_BYTES
    assert received["supernode"] < SMALL_BYTES, "a config, where only large packets do not come"
    assert everything_was_served(agent)


# Clocks and keys.


def comes_from_the_swarm(place: Place, agent: Agent) -> None:
    assert place.pull(agent, place.image_of_the_supernode()[1]) < FIRST_SECONDS_MAX
    received = agent.received_bytes()
    assert received["origin"] == 0
    assert received["supernode"] > IMAGE_BYTES // 2, "the last of it is counted when it has been served"
    assert everything_was_served(agent)


@pytest.mark.parametrize("off", [OFF_SECONDS, -OFF_SECONDS])
def test_a_node_whose_clock_is_minutes_off_pulls_from_the_swarm(place: Place, off: float) -> None:
    """FAULTS 54."""
    comes_from_the_swarm(place, place.agent(f"clock{off:.0f}", clock_seconds=off))


def test_the_nodes_of_a_supernode_whose_clock_is_minutes_off_pull_from_the_swarm(lab: Lab) -> None:
    """FAULTS 54."""
    place = begin(lab, supernode_clock_seconds=-OFF_SECONDS)
    comes_from_the_swarm(place, place.agent("node"))


def test_a_node_with_another_swarm_key_lives_from_the_origin_and_says_why_once(place: Place) -> None:
    """FAULTS 55."""
    file = place.registry.host.lab.directory / "other-key"
    file.touch(mode=0o600)
    file.write_bytes(b"o" * 32)
    key = ["--swarm-key-file", str(file)]
    agent = Agent(place.registry.host.lab.host("other-key"), [place.supernode], [place.registry.name], key)
    lives_from_the_origin(place, agent)
    said = [line for line in agent.process.err.read_text().splitlines() if "WARNING" in line and "another swarm key" in line]
    assert len(said) == 1


# Port 65002.


@pytest.mark.parametrize("trouble", [refused, dropped, swallowed])
def test_a_node_that_the_supernodes_pieces_do_not_reach_lives_from_the_origin(place: Place, trouble: Trouble) -> None:
    """FAULTS 56."""
    agent = place.agent(trouble.__name__, trouble=trouble)
    lives_from_the_origin(place, agent)
    assert agent.metric("darner_agent_swarm_troubles_total", why="failing") >= 2


def test_a_node_that_the_pieces_of_other_nodes_do_not_reach_gets_them_elsewhere(place: Place) -> None:
    """FAULTS 57."""
    holder, taker = place.agent("holder"), place.agent("taker")
    dropped(taker.host, [holder.host], PIECE_PORT)
    for _ in range(2):
        image, tag = place.new_image()
        place.pull(holder, tag)
        assert place.pull(taker, tag) < FIRST_SECONDS_MAX
        assert place.registry.blob_bytes_sent("lab/image")[image.layers[0]] <= 2 * IMAGE_BYTES
    assert taker.received_bytes()["peer"] == 0
    assert everything_was_served(taker)


# What passes.


def is_pulled_through(place: Place, happens: Callable[[Agent], object]) -> None:
    """What happens in the middle of a pull, while only the supernode has pieces, ends no pull and takes no byte from the origin
    twice."""
    agent = place.agent(f"passing{place.images}")
    image, tag = place.image_of_the_supernode()
    place.supernode.host.shape(SLOW_BYTES_PER_SECOND)
    puller = place.puller(agent, tag)
    puller.start(0.0)
    wait_until(lambda: agent.received_bytes()["supernode"] > IMAGE_BYTES // 8)
    happens(agent)
    puller.join()
    seconds_of(puller)
    assert place.registry.blob_bytes_sent("lab/image")[image.layers[0]] < 1.5 * IMAGE_BYTES
    assert everything_was_served(agent)


def test_a_second_in_which_the_supernode_has_no_link(place: Place) -> None:
    """FAULTS 100."""
    is_pulled_through(place, lambda agent: away(place.supernode.host, AWAY_SECONDS))


def test_a_second_in_which_the_node_has_no_link(place: Place) -> None:
    """FAULTS 100."""
    is_pulled_through(place, lambda agent: away(agent.host, AWAY_SECONDS))


def test_a_reset_of_all_connections_to_the_only_source(place: Place) -> None:
    """FAULTS 99."""
    is_pulled_through(place, lambda agent: wait_until(lambda: reset(place.supernode.host, PIECE_PORT)))
