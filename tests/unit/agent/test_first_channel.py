"""The start of an agent waits a little for its supernodes, so that the first pulls need not go to the origin."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent.swarm import messages
from agent.swarm.channel import frame
from agent.swarm.supernodes import Supernodes
from agent.values.address import Address
from tests.swarm import knows_nothing

HELLO = messages.Hello(messages.VERSION, "node-1", "", "127.0.0.1", 65002, 0, [])


@contextmanager
def started(*supernodes: Address) -> Iterator[Supernodes]:
    swarm = Supernodes(supernodes, lambda: HELLO, lambda _: None, knows_nothing)
    swarm.start()
    try:
        yield swarm
    finally:
        swarm.stop()


def waited_seconds(swarm: Supernodes, seconds: float) -> float:
    began = time.monotonic()
    swarm.wait_for_one(seconds)
    return time.monotonic() - began


def test_an_agent_without_supernodes_waits_for_none() -> None:
    with started() as swarm:
        assert waited_seconds(swarm, 10) < 5


def test_a_supernode_that_answers_ends_the_wait() -> None:
    welcome = frame(messages.Welcome(messages.VERSION, "supernode", 30.0, "127.0.0.1", 65002))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(welcome)
                connection.recv(1 << 16)
                connection.recv(1)  # until the agent leaves

        greeting = threading.Thread(target=greet)
        greeting.start()
        with started(Address(*listener.getsockname())) as swarm:
            assert waited_seconds(swarm, 10) < 5
            assert swarm.owners("sha256:x") == swarm.channels
        greeting.join(5)


def test_a_supernode_that_is_not_there_is_waited_for_no_longer_than_said() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with started(Address(*nobody.getsockname())) as swarm:
            assert 0.1 <= waited_seconds(swarm, 0.1) < 5
            assert swarm.owners("sha256:x") == []
