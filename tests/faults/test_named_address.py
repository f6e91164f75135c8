"""FAULTS 82: what a node says of where it is counts when it has answered there.

Loopback's other addresses are other hosts here.
"""

from __future__ import annotations

import contextlib
import http.client
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.swarm.tickets import node_proof
from agent.values.address import Address
from supernode.tracker import addresses
from supernode.tracker.addresses import is_askable, is_own
from tests.forwarder import Forwarder
from tests.swarm import PIECE, Lab, Node, RawAgent, free_address, noise, wait_until

BODY = noise(4 * PIECE)
ELSEWHERE = "127.0.0.2"
KEY = b"thirty-two-bytes-of-a-swarms-key"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What did not answer is asked again at once."""
    monkeypatch.setattr(addresses, "AGAIN_SECONDS", 0.05)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    with Lab(tmp_path, swarm_key_file=str(key)) as lab:
        yield lab


@pytest.fixture
def open_lab(tmp_path: Path) -> Iterator[Lab]:
    """Without a key, so that a liar's channel is in clear."""
    with Lab(tmp_path) as lab:
        yield lab


@contextlib.contextmanager
def host_before(target: Address) -> Iterator[Forwarder]:
    """Another host, whose port leads to a piece server."""
    forwarder = Forwarder(target, host=ELSEWHERE)
    try:
        yield forwarder
    finally:
        forwarder.close()


def located(lab: Lab, name: str) -> bool:
    tracker = lab.supernode._tracker
    assert tracker
    return tracker._by_name[name].located


def asked(carried: bytes) -> set[bytes]:
    """What has been asked of a piece server, without the numbers of pieces and questions."""
    return {line.split(b"/")[1] for line in carried.split(b"\r\n") if line.startswith(b"GET /")}


def test_a_node_whose_packets_come_from_a_tunnel_is_a_source_where_it_says_that_it_is(lab: Lab) -> None:
    ways: list[Forwarder] = []

    def through(where: Address) -> Address:
        ways.append(Forwarder(where, host=ELSEWHERE))
        return ways[0].where

    try:
        holder = lab.node(through=through)
        wait_until(lambda: located(lab, holder.name))
        digest = lab.push(BODY).layers[0]
        assert holder.pull(digest) == BODY
        taker = lab.node()
        assert taker.pull(digest) == BODY
        assert ways[0].where in taker.sources()
    finally:
        for way in ways:
            way.close()


def test_a_liar_sends_nobody_to_a_third_host_and_costs_no_pull(open_lab: Lab) -> None:
    """Neither to one where nothing of the swarm listens, nor to another node, which answers in its own name."""
    lab = open_lab
    victim, taker = lab.node(), lab.node()
    digest = lab.push(BODY).layers[0]
    with host_before(victim.pieces.address) as host:
        with RawAgent.joined(lab.channels[0], "liar", host.where, (digest, len(BODY))):
            wait_until(lambda: host.carried.count(b"GET /node/") >= 2)
            assert taker.pull(digest) == BODY
            assert lab.node().pull(digest) == BODY
            assert not located(lab, "liar")
        assert asked(bytes(host.carried)) == {b"node"}
    assert host.where not in taker.sources()


def test_an_address_that_is_each_hosts_own_is_asked_nothing() -> None:
    assert not is_askable("127.0.0.1", "10.0.0.7")
    assert not is_askable("::1", "10.0.0.7")
    assert not is_askable("::ffff:127.0.0.1", "10.0.0.7")
    assert not is_askable("169.254.169.254", "10.0.0.7")
    assert not is_askable("fe80::1", "fe80::2")
    assert not is_askable("127.0.0.1", "")
    assert is_askable("10.0.0.8", "10.0.0.7")
    assert is_askable("127.0.0.2", "127.0.0.1")


def test_an_address_is_the_connections_own_in_whichever_way_it_is_written() -> None:
    assert is_own("10.0.0.7", "10.0.0.7")
    assert is_own("10.0.0.7", "::ffff:10.0.0.7")
    assert is_own("2001:db8::7", "2001:DB8:0::7")
    assert not is_own("10.0.0.8", "10.0.0.7")
    assert not is_own("10.0.0.7", "")


def test_a_node_that_cannot_be_reached_downloads_and_is_a_source_as_soon_as_it_can(lab: Lab) -> None:
    closed = Address(ELSEWHERE, free_address().port)
    holder = lab.node(through=lambda where: closed)
    digest = lab.push(BODY).layers[0]
    assert holder.pull(digest) == BODY
    assert lab.node().pull(digest) == BODY
    assert not located(lab, holder.name)
    with _opened(closed, holder):
        wait_until(lambda: located(lab, holder.name))


@contextlib.contextmanager
def _opened(where: Address, node: Node) -> Iterator[None]:
    forwarder = Forwarder(node.pieces.address, host=where.host, port=where.port)
    try:
        yield
    finally:
        forwarder.close()


def test_a_piece_server_proves_its_own_name_alone_and_by_the_swarms_key(lab: Lab) -> None:
    node = lab.node()
    nonce = random.Random(1).randbytes(32).hex()
    shown = _ask(node.pieces.address, f"/node/{nonce}")
    assert shown == node_proof(KEY, node.name, nonce)
    assert shown != node_proof(KEY, "another", nonce)
    assert shown != node_proof(b"another key of thirty-two bytes.", node.name, nonce)
    assert _ask(node.pieces.address, "/node/short") is None


def test_what_is_no_answer_of_a_node_is_none(open_lab: Lab) -> None:
    """The supernode's own piece server, which has no node's name, among others."""
    seed = open_lab.seed_address()
    with host_before(seed) as host, RawAgent.joined(open_lab.channels[0], "supernode-0", host.where) as liar:
        wait_until(lambda: host.carried.count(b"404") >= 2)
        assert not located(open_lab, "supernode-0")
        liar.say(messages.Heartbeat())
        assert liar.hear(messages.Heartbeat)


def _ask(where: Address, target: str) -> str | None:
    connection = http.client.HTTPConnection(*where, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", target)
        return connection.getresponse().headers["Darner-Node"]
