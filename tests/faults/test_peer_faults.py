"""Rows 31 to 33: a peer that lies, stalls, trickles, is dead or lacks what it claims. The blob is right all the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.http.server import Exchange
from agent.swarm import messages, piece_client
from agent.values.address import Address
from hack.origin import Fault
from tests.swarm import PIECE, SECONDS, Lab, Node, RawAgent, free_address, noise, piece_listener, wait_until

BODY = noise(16 * PIECE + 99)
PIECES = 17


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


@contextmanager
def peer(lab: Lab, digest: str, handle: Callable[[Exchange], None] | None, name: str = "bad") -> Iterator[Address]:
    """A node that says it holds the blob, and gives what `handle` gives; nobody listens there without one."""
    listener = piece_listener(handle) if handle else None
    where = listener.address if listener else free_address()
    try:
        with RawAgent.joined(lab.channels[0], name, where, (digest, len(BODY))):
            yield where
    finally:
        if listener:
            listener.stop()


def verdicts(node: Node, where: Address) -> list[int]:
    return [verdict for _, source, verdict in node.fetched if source == where]


def piece_of(exchange: Exchange) -> int:
    return int(exchange.request.target.rpartition("/")[2])


def right(exchange: Exchange) -> bytes:
    return BODY[piece_of(exchange) * PIECE : (piece_of(exchange) + 1) * PIECE]


def send(exchange: Exchange, body: bytes) -> None:
    exchange.answer(200, {}, body)


@pytest.mark.parametrize(
    "lie",
    [
        lambda exchange: send(exchange, bytes(len(right(exchange)))),
        lambda exchange: send(exchange, right(exchange)[:-1] + b"\x00"),
        lambda exchange: send(exchange, right(exchange)[:-1]),
        lambda exchange: send(exchange, right(exchange) + b"x"),
        lambda exchange: send(exchange, BODY[:PIECE]),
    ],
    ids=["zeros", "one byte", "short", "long", "another piece's bytes"],
)
def test_a_peer_that_lies_is_caught_reported_and_asked_no_more(lab: Lab, lie: Callable[[Exchange], None]) -> None:
    digest = lab.distribute(BODY)
    with peer(lab, digest, lie, "liar") as where:
        bystanders = [lab.node() for _ in range(4)]
        taker = lab.node()
        assert taker.pull(digest) == BODY
        lied = [verdict for verdict in verdicts(taker, where) if verdict != messages.DELIVERED]
        assert lied
        assert set(lied) == {messages.CORRUPT}
        wait_until(lambda: lab.state()["quarantines"])
        held = lab.state()["quarantines"]
        assert [item["name"] for item in held] == ["liar"]
        assert taker.name in held[0]["reason"]
        assert bystanders[0].pull(digest) == BODY
        assert not verdicts(bystanders[0], where)
    assert lab.origin.blob_bytes_sent == len(BODY)


def test_fifty_peers_that_have_nothing_of_what_they_claim_cost_little(lab: Lab) -> None:
    digest = lab.distribute(BODY)

    def nothing(exchange: Exchange) -> None:
        exchange.answer(404, {})

    listener = piece_listener(nothing)
    agents = [RawAgent.joined(lab.channels[0], f"empty-{number}", listener.address, (digest, len(BODY))) for number in range(50)]
    node = lab.node()
    assert node.pull(digest) == BODY
    assert len(node.fetched) < PIECES * 8, "each piece is tried a few times, and not at all fifty"
    for agent in agents:
        agent.sock.close()
    listener.stop()


def test_a_peer_that_is_dead_is_gone_round(lab: Lab) -> None:
    digest = lab.distribute(BODY)
    with peer(lab, digest, None) as where:
        node = lab.node()
        assert node.pull(digest) == BODY
        assert set(verdicts(node, where)) == {messages.UNREACHABLE}


def test_a_peer_that_dies_in_the_middle_of_a_piece_is_gone_round(lab: Lab) -> None:
    digest = lab.distribute(BODY)

    def break_off(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(PIECE)})
        exchange.send(right(exchange)[:1000])
        exchange.abort()

    with peer(lab, digest, break_off) as where:
        node = lab.node()
        assert node.pull(digest) == BODY
        assert messages.DELIVERED not in verdicts(node, where)


@pytest.mark.parametrize("first", [0, 1, 50], ids=["nothing", "a byte", "some bytes"])
def test_a_peer_that_stalls_is_not_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr(piece_client, "PIECE_STALL_SECONDS_MAX", 0.5)
    digest = lab.distribute(BODY)
    over = threading.Event()

    def stall(exchange: Exchange) -> None:
        if first:
            exchange.start(200, {"Content-Length": str(len(right(exchange)))})
            exchange.send(right(exchange)[:first])
        while not (over.wait(0.05) or exchange.client_left()):
            continue

    with peer(lab, digest, stall) as where:
        node = lab.node()
        assert node.pull(digest) == BODY
        assert set(verdicts(node, where)) == {messages.STALLED}
        over.set()


def test_a_peer_that_sends_a_byte_now_and_then_is_not_waited_for_either(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(piece_client, "PIECE_SECONDS_MAX", 0.5)
    digest = lab.distribute(BODY)
    over = threading.Event()

    def trickle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(len(right(exchange)))})
        for position in range(PIECE):
            exchange.send(right(exchange)[position : position + 1])
            if over.wait(0.05):
                return

    with peer(lab, digest, trickle) as where:
        node = lab.node()
        assert node.pull(digest) == BODY
        assert set(verdicts(node, where)) == {messages.STALLED}
        over.set()


def test_a_node_that_leaves_in_the_middle_of_a_rollout_stops_nobody(lab: Lab) -> None:
    """What it alone had is fetched once more, and nothing else."""
    digest = lab.push(BODY).layers[0]
    nodes = [lab.node() for _ in range(6)]
    leaver, others = nodes[0], nodes[1:]
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=2 * PIECE))
    with ThreadPoolExecutor(1 + len(others)) as pool:
        pull = pool.submit(leaver.pull, digest)
        wait_until(lambda: leaver.held(digest))
        rest = [pool.submit(node.pull, digest) for node in others]
        wait_until(lambda: leaver.held(digest) >= 3)
        lab.nodes.remove(leaver)
        leaver.close()
        lost = sum(request.body_bytes for request in lab.origin.asked(digest, "GET"))
        assert {other.result(SECONDS) for other in rest} == {BODY}
        assert pull.exception(SECONDS) or pull.result() == BODY
    assert lab.settled() <= len(BODY) + lost


def test_a_peer_that_was_slow_once_is_not_held_against_it_for_ever(lab: Lab) -> None:
    digest = lab.distribute(BODY)
    broken = threading.Event()
    broken.set()

    def at_first_broken(exchange: Exchange) -> None:
        if broken.is_set():
            exchange.answer(503, {})
        else:
            send(exchange, right(exchange))

    with peer(lab, digest, at_first_broken) as where:
        assert lab.node().pull(digest) == BODY
        broken.clear()

        def asked_again() -> bool:
            later = lab.node()
            assert later.pull(digest) == BODY
            return messages.DELIVERED in verdicts(later, where)

        wait_until(asked_again)
