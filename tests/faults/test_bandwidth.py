"""Row 36: many takers share an upload limit. All get everything, no faster than that, and the node's own pull does not wait."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from agent.http.ratelimit import BURST_SECONDS, QUANTUM_SECONDS, Pace
from agent.origin.client import Origin as Client
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.pieces import Layout
from hack.origin import Origin
from tests.endpoint import LAYER, REPOSITORY, Endpoint, push
from tests.origins import drain
from tests.swarm import SECONDS, Lab, piece_listener

MEBIBYTE = 1 << 20
TAKERS = 4
Serve = Callable[[Pace | None], Address]


class VirtualTime:
    """A clock for many threads that goes on when one of them sleeps, up to where that one wants to be."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()
        self._looked_at = threading.local()

    def clock(self) -> float:
        self._looked_at.time = self.now
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now = max(self.now, self._looked_at.time + seconds)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def node(tmp_path: Path, origin: Origin) -> Iterator[Endpoint]:
    """One that has pulled the layer."""
    with Endpoint(tmp_path / "has", origin) as endpoint:
        digest = push(origin).layers[0]
        endpoint.ask("manifests/1")
        assert endpoint.ask(f"blobs/{digest}").body == LAYER
        yield endpoint


@pytest.fixture
def serve(node: Endpoint) -> Iterator[Serve]:
    """Starts the node's piece server."""
    stops: list[Callable[[], None]] = []

    def start(upload: Pace | None) -> Address:
        listener = piece_listener(PieceServer(node.store, SwarmKey(""), upload).handle)
        stops.append(listener.stop)
        return listener.address

    yield start
    for stop in stops:
        stop()


def take_all(root: Path, number: int, where: Address, download: Pace | None = None) -> bool:
    """Another node takes the layer, piece by piece. Raises when one of them does not come in time."""
    digest = "sha256:" + hashlib.sha256(LAYER).hexdigest()
    store = Store(root / f"wants-{number}", quota=1 << 30, free=0, age=1.0)
    fetcher = PieceFetcher(SwarmKey(""), download)
    try:
        blob = store.receive(digest, Layout.of(len(LAYER)), public=True)
        for piece in range(blob.layout.count):
            start, end = blob.layout.span(piece)
            fetcher.fetch(blob, piece, blake3(LAYER[start:end]).digest(), where)
        return blob.whole
    finally:
        fetcher.close()
        store.close()


def kept(time: VirtualTime, size: int) -> bool:
    """Whether so many bytes took the time that they take at 1 MiB/s, but for the burst at first and the quantum at last."""
    seconds = size / MEBIBYTE
    return seconds - BURST_SECONDS - QUANTUM_SECONDS <= time.now - 1000.0 <= seconds


def test_takers_share_an_upload_limit_within_5_percent_and_all_of_them_get_everything(serve: Serve, tmp_path: Path) -> None:
    time = VirtualTime()
    where = serve(Pace(MEBIBYTE, time.clock, time.sleep))
    with ThreadPoolExecutor(TAKERS) as pool:
        assert all(pool.map(lambda number: take_all(tmp_path, number, where), range(TAKERS)))
    assert time.now - 1000.0 == pytest.approx(TAKERS * len(LAYER) / MEBIBYTE, rel=0.05)


def test_what_a_node_takes_from_others_keeps_to_its_own_limit(serve: Serve, tmp_path: Path) -> None:
    time = VirtualTime()
    assert take_all(tmp_path, 1, serve(None), Pace(MEBIBYTE, time.clock, time.sleep))
    assert kept(time, len(LAYER))


def test_what_a_node_takes_from_registries_keeps_to_the_narrowest_of_its_limits(origin: Origin) -> None:
    time = VirtualTime()
    paces = Pace(MEBIBYTE, time.clock, time.sleep), Pace(4 * MEBIBYTE, time.clock, time.sleep)
    client = Client([origin.address], [], paces=paces)
    stream = client.open_blob(origin.address, REPOSITORY, push(origin).layers[0], None)
    assert drain(stream.read_into) == LAYER
    stream.close()
    assert kept(time, len(LAYER))


def test_a_nodes_own_pull_goes_first_while_its_uploads_wait_for_their_turn(node: Endpoint, serve: Serve, tmp_path: Path) -> None:
    waiting, released = threading.Semaphore(0), threading.Event()

    def sleep(seconds: float) -> None:
        waiting.release()
        assert released.wait(SECONDS)

    where = serve(Pace(MEBIBYTE, lambda: 1000.0, sleep))  # in a time that stands still nobody's turn comes
    with ThreadPoolExecutor(TAKERS) as pool:
        taken = [pool.submit(take_all, tmp_path, number, where) for number in range(TAKERS)]
        for _ in taken:
            assert waiting.acquire(timeout=SECONDS)
        digest = "sha256:" + hashlib.sha256(LAYER).hexdigest()
        assert node.ask(f"blobs/{digest}").body == LAYER
        assert not any(result.done() for result in taken)
        released.set()
        assert all(result.result(SECONDS) for result in taken)


def test_a_supernode_with_the_narrowest_uplink_brings_a_blob_to_four_nodes_and_nobody_is_quarantined(tmp_path: Path) -> None:
    body = bytes(range(256)) * 1024 * 3  # three pieces
    with Lab(tmp_path, upload_rate=MEBIBYTE) as lab:
        digest = lab.push(body).layers[0]
        for _ in range(TAKERS):
            lab.node()
        assert lab.pull_everywhere(digest) == [body] * TAKERS
        assert {verdict for node in lab.nodes for _, _, verdict in node.fetched} == {messages.DELIVERED}
        assert lab.state()["quarantines"] == []
