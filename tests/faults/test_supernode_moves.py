"""FAULTS 37: a supernode comes back at another address, and has lost all that it had."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.download import planner
from agent.values.address import Address
from hack.origin import Fault
from tests.swarm import PIECE, SECONDS, Lab, free_address, noise, wait_until

NAME = "supernode-0.supernode.test"
BODY = noise(12 * PIECE + 99)
EARLIER = noise(5 * PIECE, seed=2)
SLOW = 2 << 20
"""Bytes a second from the origin: a pull takes about three seconds."""
NODES = 6


class Moving:
    """A supernode that nodes know by a name, as the chart names the pods of its StatefulSet."""

    def __init__(self, lab: Lab, patch: pytest.MonkeyPatch) -> None:
        self._lab = lab
        self._host, self._port = lab.channels[0]
        self._look_up = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        lab.channels[0] = Address(NAME, self._port)  # for the nodes, from now on

    def _getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> Any:
        return self._look_up(self._host if host == NAME else host, *arguments, **options)

    def come_back_at(self, host: str) -> None:
        lab = self._lab
        self._host, lab._pieces[0] = host, free_address()
        lab.channels[0] = Address(host, self._port)
        lab.start_supernode()
        lab.channels[0] = Address(NAME, self._port)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def test_its_agents_find_it_by_its_name_say_again_what_they_have_and_the_origin_sends_the_blob_at_most_once_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 37."""
    monkeypatch.setattr(planner, "REOPEN_SECONDS", SECONDS)  # longer than it takes to come back here
    supernode = Moving(lab, monkeypatch)
    earlier, digest = lab.push(EARLIER).layers[0], lab.push(BODY, tag="2").layers[0]
    nodes = [lab.node() for _ in range(NODES)]
    assert nodes[0].pull(earlier) == EARLIER
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW))
    with ThreadPoolExecutor(NODES) as pool:
        pulls = [pool.submit(node.pull, digest) for node in nodes]
        wait_until(lambda: all(len(node.fetched) >= 3 for node in nodes))
        assert not any(pull.done() for pull in pulls)
        lab.stop_supernode()
        before = lab.origin.blob_bytes_sent
        lab.origin.heal()
        supernode.come_back_at("127.0.0.2")
        assert {pull.result(SECONDS) for pull in pulls} == {BODY}
    assert lab.origin.blob_bytes_sent <= before + len(BODY)
    wait_until(lambda: lab.state()["nodesTotal"] == NODES)
    lab.origin.stop()
    assert lab.node().pull(earlier) == EARLIER, "which one of them holds, and has said so"
