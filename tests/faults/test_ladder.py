"""Rows 54 to 57, 99 and 100: the swarm is no help to a node. Its pulls are as good as direct ones, and it says why."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
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
from tests.swarm import PIECE, SECONDS, Lab, Node, noise, piece_listener

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


def test_a_supernode_that_does_not_get_a_registrys_blobs_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 8 of tests/simulation: the supernode's way to a registry is closed, that of nodes is open."""
    with Lab(tmp_path) as lab:
        node, image = lab.node(), lab.push(BODY, OTHER)
        assert lab.supernodes[0]
        monkeypatch.setattr(planner, "OPEN_SECONDS_MAX", FIRST_SECONDS_MAX + 1.0)
        over = threading.Event()
        monkeypatch.setattr(lab.supernodes[0]._seeder.origin, "open_blob", lambda *_: over.wait(SECONDS) and None)
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


class Forwarder:
    """A way to a server that is cut once, after so many bytes, by a reset of all its connections."""

    def __init__(self, target: Address, after_bytes: int) -> None:
        self.resets = 0
        self._target = target
        self._left = after_bytes
        self._server = socket.create_server(("127.0.0.1", 0))
        self.where = Address(*self._server.getsockname())
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="forwarder")]
        self._threads[0].start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(SECONDS)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pump, args=(source, sink), name="forwarder's way")
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(64 << 10):
                sink.sendall(data)
                self._left -= len(data)
                if self._left < 0 and not self.resets:
                    self.resets += 1
                    for sock in (source, sink):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        sock.shutdown(socket.SHUT_RD)
                    sink.close()
                    return
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def test_one_reset_of_the_only_source_costs_a_part_of_a_piece_and_no_ten_seconds(tmp_path: Path) -> None:
    """FAULTS 99."""
    with Lab(tmp_path) as lab:
        forwarder = Forwarder(lab.seed_address(), 3 * PIECE)
        node = lab.node()
        node.swarm.channels[0].peers[messages.SEED] = forwarder.where
        digest = lab.push(BODY).layers[0]
        began = time.monotonic()
        assert node.pull(digest) == BODY
        assert time.monotonic() - began < FIRST_SECONDS_MAX
        assert forwarder.resets == 1
        assert lab.origin.blob_bytes_sent == len(BODY)
        lab.nodes.remove(node)
        node.close()
        forwarder.close()
