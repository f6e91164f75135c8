"""FAULTS 94: many ask for one manifest of 4 MiB at once, and the memory of the process that they ask stays bounded.

Real processes, whose resident memory is measured: beside what they had before, and at its most.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.http.sealed import client_context
from agent.swarm import messages
from agent.swarm.channel import Frames, frame, supernode_message
from agent.swarm.tls import SealedSocket
from agent.values.manifest import MANIFEST_BYTES_MAX
from hack.lab import Lab
from hack.lab.darner import CHANNEL_PORT, REGISTRY_PORT, Agent, Supernode
from hack.lab.process import wait_until
from hack.origin import Image, Origin, sha256
from hack.origin.image import LAYER, MANIFEST

REPOSITORY = "team/app"
AGENTS = 260
CLIENTS = 64
MEMORY_BYTES_MAX = 256 << 20
SECONDS = 100.0


def long_manifest() -> Image:
    """As many layers as a registry takes in one manifest."""
    layers = [{"mediaType": LAYER, "digest": sha256(number.to_bytes(4)), "size": number} for number in range(26_000)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layers[0], "layers": layers, "annotations": {"pad": ""}}
    document["annotations"] = {"pad": "x" * (MANIFEST_BYTES_MAX - len(json.dumps(document)))}
    return Image(json.dumps(document).encode(), {})


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        image = long_manifest()
        assert len(image.manifest) == MANIFEST_BYTES_MAX
        origin.push(REPOSITORY, "1", image)
        yield origin


class Channel:
    """An agent's end of a channel, which keeps nothing of what it hears."""

    def __init__(self, where: tuple[str, int], name: str, key: bytes) -> None:
        self._sock = socket.create_connection(where, SECONDS)
        self._sealed = SealedSocket(self._sock, client_context())
        self._sealed.prove((key,))
        self._frames = Frames()
        self.say(messages.Hello(messages.VERSION, name, "", "127.0.0.1", 1, 0, []))
        self.hear(messages.Welcome)

    def say(self, message: messages.Message) -> None:
        self._sealed.sendall(frame(message))

    def hear(self, kind: type[messages.Message]) -> messages.Message:
        while True:
            data = self._sealed.recv(256 << 10)
            assert data, "the supernode closed the connection"
            for body in self._frames.feed(data):
                if isinstance(message := supernode_message(body), kind):
                    return message

    def close(self) -> None:
        self._sock.close()


@pytest.mark.parametrize("pause", [0.0, 5.0], ids=["who read", "who do not read for a while"])
def test_260_agents_that_ask_a_supernode_for_one_manifest_of_4_mib_cost_it_less_than_256_mib(
    lab: Lab, origin: Origin, pause: float
) -> None:
    """FAULTS 94."""
    supernode = Supernode(lab.loopback("supernode"), [origin.address])
    key = (lab.directory / "swarm-key").read_bytes()
    where = (supernode.host.address, supernode.host.port(CHANNEL_PORT))
    with ThreadPoolExecutor(16) as pool:
        channels = list(pool.map(lambda number: Channel(where, f"node-{number}", key), range(AGENTS)))
    wait_until(lambda: supernode.connected_nodes() == AGENTS)
    before = supernode.process.memory_bytes("VmRSS")

    def ask(channel: Channel) -> bytes:
        answer = channel.hear(messages.Resolved)
        assert isinstance(answer, messages.Resolved)
        return answer.body

    for channel in channels:
        channel.say(messages.Resolve(1, origin.address, REPOSITORY, "1"))
    time.sleep(pause)
    with ThreadPoolExecutor(AGENTS) as pool:
        lengths = list(pool.map(lambda channel: len(ask(channel)), channels))
    grown = supernode.process.memory_bytes("VmHWM") - before
    assert lengths == [MANIFEST_BYTES_MAX] * AGENTS
    assert len(origin.asked("/manifests/")) == 1
    assert grown < MEMORY_BYTES_MAX, f"{grown >> 20} MiB"
    for channel in channels:
        channel.close()


def test_64_clients_of_one_agent_that_ask_for_one_manifest_of_4_mib_cost_it_less_than_256_mib(lab: Lab, origin: Origin) -> None:
    """FAULTS 94: by a tag, through a supernode, and again by its digest from the disk."""
    supernode = Supernode(lab.loopback("supernode"), [origin.address])
    agent = Agent(lab.loopback("node"), [supernode], [origin.address])
    wait_until(lambda: supernode.connected_nodes() == 1)
    before = agent.process.memory_bytes("VmRSS")
    prefix = f"/v2/{origin.address.replace(':', '_')}/{REPOSITORY}/manifests"

    for reference in ("1", sha256(long_manifest().manifest)):
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(contextlib.closing(agent.connection(agent.host.port(REGISTRY_PORT)))) for _ in range(CLIENTS)
            ]
            for connection in connections:
                connection.request("GET", f"{prefix}/{reference}")
            answers = [connection.getresponse() for connection in connections]  # of which none is read before all are there
            assert {answer.status for answer in answers} == {200}
            assert {len(answer.read()) for answer in answers} == {MANIFEST_BYTES_MAX}
    grown = agent.process.memory_bytes("VmHWM") - before
    assert grown < MEMORY_BYTES_MAX, f"{grown >> 20} MiB"
