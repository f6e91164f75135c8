"""Rows 54 to 57, 99 and 100: the swarm is no help to a node. Its pulls are as good as direct ones, and it says why."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.download import planner
from agent.download.planner import EVIDENCE_SECONDS
from agent.http.server import Exchange
from agent.swarm import messages
from agent.values.address import Address
from hack.origin import Fault
from supernode.tracker import seeds
from tests.forwarder import Forwarder
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, Node, noise, piece_listener

BODY = noise(12 * PIECE + 99)
OTHER = noise(12 * PIECE + 99, 2)
FIRST_SECONDS_MAX = 5.0
OFF_SECONDS = 400.0


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text("k" * 32)
    return str(tmp_path / "key")


class Pull:
    """How long a pull takes to its first bytes."""

    def __init__(self, node: Node, digest: str) -> None:
        began = time.monotonic()
        came: list[float] = []
        self.body = node.pull(digest, on_bytes=lambda count: came.append(time.monotonic() - began) if count else None)
        self.first_seconds = came[0]


def lives_from_the_origin(lab: Lab, node: Node) -> None:
    """The node's first blob begins in time, and the second does not wait again."""
    image = lab.push(BODY, OTHER)
    first, second = Pull(node, image.layers[0]), Pull(node, image.layers[1])
    assert (first.body, second.body) == (BODY, OTHER)
    assert first.first_seconds < FIRST_SECONDS_MAX
    assert second.first_seconds < EVIDENCE_SECONDS
    assert not node.sources()


# Clocks and keys.


def test_a_supernodes_clock_that_is_minutes_off_disturbs_nobody(tmp_path: Path, key: str) -> None:
    """FAULTS 54."""
    lab = Lab(tmp_path, swarm_key_file=key)
    lab.clock = lambda: time.time() + OFF_SECONDS
    with lab:
        comes_from_the_swarm(lab, [lab.node() for _ in range(3)])


@pytest.mark.parametrize("off", [OFF_SECONDS, -OFF_SECONDS])
def test_a_nodes_clock_that_is_minutes_off_disturbs_nobody(tmp_path: Path, key: str, off: float) -> None:
    """FAULTS 54."""
    with Lab(tmp_path, swarm_key_file=key) as lab:
        nodes = [lab.node(), lab.node(clock=lambda: time.time() + off), lab.node()]
        comes_from_the_swarm(lab, nodes)


def comes_from_the_swarm(lab: Lab, nodes: list[Node]) -> None:
    digest = lab.push(BODY).layers[0]
    assert set(lab.pull_everywhere(digest)) == {BODY}
    assert {verdict for node in nodes for _, _, verdict in node.fetched} == {messages.DELIVERED}
    assert lab.origin.blob_bytes_sent == len(BODY)


def test_a_node_with_another_key_lives_from_the_origin_and_says_why_once(
    tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 55."""
    (tmp_path / "other").write_text("o" * 32)
    with Lab(tmp_path, swarm_key_file=key) as lab, caplog.at_level(logging.WARNING):
        lives_from_the_origin(lab, lab.node(key=str(tmp_path / "other"), wait=False))
    records = [record for record in caplog.records if record.name == "agent.swarm.channel"]
    said = [record.getMessage() for record in records if "another swarm key" in record.getMessage()]
    assert len(said) == 1


# The supernode's pieces.


@contextlib.contextmanager
def full_backlog() -> Iterator[Address]:
    """Where connections are neither accepted nor refused: packets are dropped."""
    with contextlib.ExitStack() as open_ones:
        server = open_ones.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = open_ones.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.1)
        yield Address(*server.getsockname())


@contextlib.contextmanager
def black_hole() -> Iterator[Address]:
    """A piece server behind a link that swallows all but the first few packets."""
    over = threading.Event()

    def swallow(exchange: Exchange) -> None:
        wants_digest = exchange.request.target.endswith("?digest")
        piece = int(exchange.request.target.rpartition("/")[2].removesuffix("?digest"))
        length = min(PIECE, len(BODY) - piece * PIECE) + 32 * wants_digest
        exchange.start(200, {"Content-Length": str(length)})
        exchange.send(bytes(min(length - 1, 8 << 10)))
        while not (over.wait(0.05) or exchange.client_left()):
            continue

    listener = piece_listener(swallow)
    try:
        yield listener.address
    finally:
        over.set()
        listener.stop()


@contextlib.contextmanager
def refusing() -> Iterator[Address]:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield Address(*closed.getsockname())


@pytest.mark.parametrize("place", [refusing, full_backlog, black_hole])
def test_a_node_that_the_supernodes_pieces_do_not_reach_lives_from_the_origin(
    tmp_path: Path, place: Callable[[], contextlib.AbstractContextManager[Address]]
) -> None:
    """FAULTS 56."""
    with place() as where, Lab(tmp_path, piece_address=where) as lab:
        lives_from_the_origin(lab, lab.node())


def test_what_a_few_got_from_the_origin_the_others_get_from_them(tmp_path: Path) -> None:
    """FAULTS 56: the supernode's pieces reach nobody. Few nodes ask the origin, and the others get what these have."""
    with refusing() as where, Lab(tmp_path, piece_address=where) as lab:
        for _ in range(12):
            lab.node()
        digest = lab.push(BODY).layers[0]
        assert set(lab.pull_everywhere(digest)) == {BODY}
        asked = lab.origin.blob_bytes_sent / len(BODY)
    assert asked <= 1 + seeds.LEAVES_MAX + 1


def test_a_supernode_whose_way_to_a_registry_is_closed_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Seed 8 of tests/simulation: that of nodes is open, and what they bring the others get from them."""
    with Lab(tmp_path) as lab, caplog.at_level(logging.WARNING):
        nodes, image = [lab.node() for _ in range(3)], lab.push(BODY, OTHER)
        for node in nodes:
            node.client.sizes.learn(lab.origin.address, REPOSITORY, dict.fromkeys(image.layers, len(BODY)))
        over = threading.Event()
        for question in ("open_blob", "blob_size"):
            monkeypatch.setattr(lab.supernode._seeder.origin, question, lambda *_, **__: over.wait(SECONDS) and None)
        try:
            for digest, body in zip(image.layers, (BODY, OTHER), strict=True):
                assert set(lab.pull_everywhere(digest)) == {body}
        finally:
            over.set()
        assert lab.origin.blob_bytes_sent == len(BODY) + len(OTHER)
    assert not [record for record in caplog.records if "is no help" in record.getMessage()]


def test_a_supernode_that_does_not_find_out_how_long_a_registrys_blobs_are_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before, and nobody has told the nodes how long their blobs are."""
    with Lab(tmp_path) as lab:
        node, image = lab.node(), lab.push(BODY, OTHER)
        monkeypatch.setattr(planner, "OPEN_SECONDS_MAX", FIRST_SECONDS_MAX + 1.0)
        over = threading.Event()
        monkeypatch.setattr(lab.supernode._seeder.origin, "blob_size", lambda *_: over.wait(SECONDS) and None)
        try:
            first, second = Pull(node, image.layers[0]), Pull(node, image.layers[1])
        finally:
            over.set()
    assert (first.body, second.body) == (BODY, OTHER)
    assert first.first_seconds > FIRST_SECONDS_MAX > second.first_seconds


def test_where_no_piece_reaches_any_node_all_live_from_the_origin_and_none_waits_for_its_turn(tmp_path: Path) -> None:
    """FAULTS 56 and 57 together: 65002 is closed between all nodes, and more want the blob than have leave at once."""
    with refusing() as where, Lab(tmp_path, piece_address=where) as lab:
        for _ in range(2 * seeds.LEAVES_MAX):
            lab.node().pieces.stop()
        digest = lab.push(BODY).layers[0]
        lab.origin.fail(Fault(path="/blobs/", bytes_per_second=PIECE))  # so those that have leave have it for long
        with ThreadPoolExecutor(len(lab.nodes)) as pool:
            pulls = list(pool.map(lambda node: Pull(node, digest), lab.nodes))
        assert {pull.body for pull in pulls} == {BODY}
        assert max(pull.first_seconds for pull in pulls) < 2 * FIRST_SECONDS_MAX


# What passes.


def test_one_reset_of_the_only_source_costs_a_part_of_a_piece_and_no_ten_seconds(tmp_path: Path) -> None:
    """FAULTS 99."""
    with Lab(tmp_path) as lab:
        digest = lab.distribute(BODY)
        forwarder = Forwarder(lab.seed_address(), 3 * PIECE)
        node = lab.node()
        try:
            node.swarm.channels[0].peers[messages.SEED] = forwarder.where
            began = time.monotonic()
            assert node.pull(digest) == BODY
            assert time.monotonic() - began < FIRST_SECONDS_MAX
            assert forwarder.resets == 1
            assert lab.origin.blob_bytes_sent == len(BODY)
        finally:
            lab.nodes.remove(node)
            node.close()
            forwarder.close()
