"""FAULTS 85: names whose look-up hangs cost the other registries nothing, on a supernode and on a node.

The look-ups hang until the test lets them go: what waits for one of them would wait for ever.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.origin import client, destinations
from agent.origin.client import Origin as OriginClient
from agent.registry import endpoint as endpoint_module
from agent.registry import manifests
from agent.swarm import messages
from agent.values.manifest import Manifest
from hack.origin import Origin
from tests.endpoint import DIGEST, IMAGE, LAYER, Endpoint, push
from tests.swarm import PIECE, REPOSITORY, Lab, RawAgent, noise, wait_until

NAMES = 200
PATIENT_SECONDS = 600.0


class Resolver:
    """Knows addresses; for every name it hangs."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.hanging = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int) -> list[tuple[Any, ...]]:
        if host.endswith(".test"):
            with self._lock:
                self.hanging += 1
            self.let_go.wait(PATIENT_SECONDS)
            raise OSError("no such name")
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))

    def of(self, origin: OriginClient) -> None:
        origin._destinations._look_up = self


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Whoever waits for a name goes on waiting, as long as the test lasts."""
    for module, name in (
        (client, "ASK_SECONDS_MAX"),
        (destinations, "LOOKUP_SECONDS_MAX"),
        (endpoint_module, "ASK_SECONDS_MAX"),
        (manifests, "WAIT_SECONDS_MAX"),
    ):
        monkeypatch.setattr(module, name, PATIENT_SECONDS)
    resolver = Resolver()
    yield resolver
    resolver.let_go.set()


def hanging(number: int, one_domain: bool) -> str:
    return f"r{number}.hang.test" if one_domain else f"hang-{number}.test"


def test_names_of_a_registry_that_hang_keep_nobody_from_what_was_loaded_of_it(tmp_path: Path, resolver: Resolver) -> None:
    """So it is where there is no registry, and its names lead to an address that nobody answers at."""
    registry, loaded = "gone.test", Manifest.of("", IMAGE.manifest)
    with Lab(tmp_path) as lab, ExitStack() as stack:
        stack.callback(resolver.let_go.set)
        node = lab.node()
        resolver.of(lab.supernode._origin)
        assert lab.supernode._tracker
        lab.supernode._tracker._tags._loaded = lambda *name: loaded if name == (registry, REPOSITORY, "loaded") else None
        agents = [stack.enter_context(RawAgent.joined(lab.channels[0], f"flood-{number}")) for number in range(8)]
        for number in range(2 * NAMES):
            agents[number % 8].say(messages.Resolve(number + 1, registry, REPOSITORY, f"not-loaded-{number}"))
        wait_until(lambda: resolver.hanging >= 1)
        assert node.swarm.channels[0].resolve(registry, REPOSITORY, "loaded", 10.0).digest == loaded.digest


@pytest.mark.parametrize("nodes", [1, 8])
@pytest.mark.parametrize("one_domain", [True, False], ids=["of one domain", "of many"])
def test_two_hundred_names_that_hang_keep_a_supernode_from_no_registry_that_answers(
    tmp_path: Path, resolver: Resolver, nodes: int, one_domain: bool
) -> None:
    """FAULTS 85: tags and blobs, asked for by one node or by several, the node that wants the healthy one among them or not."""
    with Lab(tmp_path) as lab, ExitStack() as stack:
        stack.callback(resolver.let_go.set)
        node = lab.node()
        lab.push(b"before")
        node.resolve("1")
        resolver.of(lab.supernode._origin)
        agents = [stack.enter_context(RawAgent.joined(lab.channels[0], f"flood-{number}")) for number in range(nodes)]
        for number in range(NAMES):
            registry, agent = hanging(number, one_domain), agents[number % nodes]
            agent.say(messages.Resolve(number + 1, registry, REPOSITORY, "1"))
            agent.say(messages.Open(number + 1, number.to_bytes(32, "big"), registry, REPOSITORY, b"", []))
        wait_until(lambda: resolver.hanging >= 32)
        body = noise(4 * PIECE)
        image = lab.push(body, tag="2")
        assert node.swarm.channels[0].resolve(lab.origin.address, REPOSITORY, "2", 20.0).digest == image.digest
        assert node.pull(image.layers[0]) == body
        agents[0].open(lab.origin, image.layers[0], request=1000)
        assert agents[0].hear(messages.Task).request == 1000, "nor is a node kept from it that asks for those names"
        resolver.let_go.set()


def test_of_a_registry_that_nobody_has_asked_before_the_same_is_true_for_other_nodes(tmp_path: Path, resolver: Resolver) -> None:
    """FAULTS 85: a node has its share of what is not known to answer."""
    with Lab(tmp_path) as lab, ExitStack() as stack:
        stack.callback(resolver.let_go.set)
        resolver.of(lab.supernode._origin)
        flood = stack.enter_context(RawAgent.joined(lab.channels[0], "flood"))
        for number in range(NAMES):
            flood.say(messages.Resolve(number + 1, hanging(number, False), REPOSITORY, "1"))
            flood.say(messages.Open(number + 1, number.to_bytes(32, "big"), hanging(number, False), REPOSITORY, b"", []))
        wait_until(lambda: resolver.hanging >= 32)
        body = noise(4 * PIECE)
        image = lab.push(body)
        node = lab.node()
        assert node.swarm.channels[0].resolve(lab.origin.address, REPOSITORY, "1", 20.0).digest == image.digest
        other = stack.enter_context(RawAgent.joined(lab.channels[0], "other"))
        other.open(lab.origin, image.layers[0])
        assert other.hear(messages.Task).size == len(body), "the supernode has begun to fetch it"
        resolver.let_go.set()


def test_a_node_that_asks_without_end_is_refused_and_the_others_are_not(tmp_path: Path, resolver: Resolver) -> None:
    """FAULTS 85: also where it asks for one name again and again."""
    with Lab(tmp_path) as lab, ExitStack() as stack:
        stack.callback(resolver.let_go.set)
        image = lab.push(b"layer")
        resolver.of(lab.supernode._origin)
        flood = stack.enter_context(RawAgent.joined(lab.channels[0], "flood"))
        for number in range(300):
            flood.say(messages.Resolve(number + 1, "hang.test", REPOSITORY, "1"))
        refused = flood.hear(messages.Unresolved)
        assert (refused.status, refused.code) == (503, "TOOMANYREQUESTS")
        assert lab.node().swarm.channels[0].resolve(lab.origin.address, REPOSITORY, "1", 20.0).digest == image.digest
        resolver.let_go.set()


@pytest.mark.parametrize("known", [True, False], ids=["asked before", "never asked"])
@pytest.mark.parametrize("one_domain", [True, False], ids=["of one domain", "of many"])
def test_two_hundred_pulls_of_names_that_hang_keep_a_node_from_no_other_registry(
    tmp_path: Path, resolver: Resolver, one_domain: bool, known: bool
) -> None:
    """FAULTS 85: at a node's own endpoint."""
    with Origin() as origin, Endpoint(tmp_path, origin, head_seconds=PATIENT_SECONDS) as endpoint, ExitStack() as stack:
        push(origin)
        if known:
            assert endpoint.ask("manifests/1").status == 200
        resolver.of(endpoint.client)
        stack.callback(resolver.let_go.set)
        for number in range(NAMES):
            sock = stack.enter_context(endpoint.connect())
            sock.sendall(f"GET /v2/{hanging(number, one_domain)}/{REPOSITORY}/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: resolver.hanging >= 100)
        origin.push(REPOSITORY, "2", IMAGE)
        answer = endpoint.ask("manifests/2")
        assert (answer.status, answer.body) == (200, IMAGE.manifest)
        assert endpoint.ask(f"blobs/{DIGEST}").body == LAYER
        resolver.let_go.set()
