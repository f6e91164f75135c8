"""The piece server's side of a piece on its way between two nodes, asked by the same code that asks it in a cluster."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent import metrics
from agent.http.server import Listener
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.piece_client import PieceFetcher, TicketRefusedError
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.errors import OriginError, SourceError
from agent.values.pieces import Layout
from tests.endpoint import wait_until

CONTENT = random.Random(1).randbytes((1 << 20) + 1)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
LAYOUT = Layout.of(len(CONTENT))
OTHER_CONTENT = random.Random(2).randbytes(len(CONTENT))
OTHER = "sha256:" + hashlib.sha256(OTHER_CONTENT).hexdigest()
HALF = LAYOUT.length // 2
Fetch = Callable[..., bytes]


def digest_of(piece: int) -> bytes:
    return blake3(CONTENT[slice(*LAYOUT.span(piece))]).digest()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """A node that has the blob, and one that wants it."""
    pair = Store(tmp_path / "has", quota=1 << 30, free=0, age=1.0), Store(tmp_path / "wants", quota=1 << 30, free=0, age=1.0)
    blob = pair[0].receive(DIGEST, LAYOUT, public=True)
    for piece in range(LAYOUT.count):
        start, end = LAYOUT.span(piece)
        blob.write(start, CONTENT[start:end])
        blob.add(piece, digest_of(piece), checked=True)
    yield pair
    for store in pair:
        store.close()


@pytest.fixture
def serve(stores: tuple[Store, Store]) -> Iterator[Callable[[str], Address]]:
    """Starts a piece server of the node that has the blob, with a key."""
    listeners: list[Listener] = []

    def start(key_file: str) -> Address:
        handle = PieceServer(stores[0], SwarmKey(key_file)).handle
        where = Address("127.0.0.1", 0)
        listener = Listener(where, handle, name="piece server", connections_max=9, per_address_max=9, idle_seconds=5)
        listeners.append(listener)
        listener.start()
        return listener.address

    yield start
    for listener in listeners:
        listener.stop()


@pytest.mark.parametrize("key", [b"", b"the key of all nodes"])
def test_a_node_gets_a_whole_blob_piece_by_piece_from_another(
    stores: tuple[Store, Store], serve: Callable[[str], Address], tmp_path: Path, key: bytes
) -> None:
    (tmp_path / "key").write_bytes(key)
    key_file = str(tmp_path / "key") if key else ""
    where, fetcher = serve(key_file), PieceFetcher(SwarmKey(key_file))
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    uploaded = metrics.UPLOADED_BYTES._value.get()
    for piece in reversed(range(LAYOUT.count)):
        fetcher.fetch(wanted, piece, digest_of(piece), where)
    fetcher.close()
    assert wanted.whole
    wait_until(lambda: metrics.UPLOADED_BYTES._value.get() - uploaded == len(CONTENT))


def test_a_node_of_another_swarm_gets_nothing(
    stores: tuple[Store, Store], serve: Callable[[str], Address], tmp_path: Path
) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).write_bytes(name.encode() * 8)
    fetcher = PieceFetcher(SwarmKey(str(tmp_path / "theirs")))
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    with pytest.raises(TicketRefusedError, match="it has another swarm key") as raised:
        fetcher.fetch(wanted, 0, digest_of(0), serve(str(tmp_path / "ours")))
    assert raised.value.verdict == messages.UNREACHABLE
    fetcher.close()


def test_a_piece_is_found_wrong_by_whoever_receives_it_and_not_kept(
    stores: tuple[Store, Store], serve: Callable[[str], Address]
) -> None:
    fetcher = PieceFetcher(SwarmKey(""))
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    with pytest.raises(SourceError) as raised:
        fetcher.fetch(wanted, 0, digest_of(1), serve(""))
    assert raised.value.verdict == messages.CORRUPT
    assert wanted.held == 0
    fetcher.close()


def test_being_asked_for_a_piece_counts_as_use(stores: tuple[Store, Store], serve: Callable[[str], Address]) -> None:
    has, _ = stores
    other = "sha256:" + hashlib.sha256(b"x").hexdigest()
    blob = has.receive(other, Layout.of(1), public=True)
    blob.write(0, b"x")
    blob.add(0, blake3(b"x").digest(), checked=True)
    assert list(has.holdings()) == [DIGEST, other]
    fetcher = PieceFetcher(SwarmKey(""))
    fetcher.fetch(stores[1].receive(DIGEST, LAYOUT, public=True), 0, digest_of(0), serve(""))
    assert list(has.holdings()) == [other, DIGEST]
    fetcher.close()


@pytest.fixture
def coming(stores: tuple[Store, Store]) -> Blob:
    """A blob of a supernode's, of which half a piece has come."""
    blob = stores[0].receive(OTHER, LAYOUT, public=True)
    blob.write(0, OTHER_CONTENT[:HALF])
    blob.came(HALF)
    return blob


def come(blob: Blob, content: bytes, digest: bytes) -> None:
    """The other half of the piece, in two parts."""
    for start, end in ((HALF, HALF + 1000), (HALF + 1000, LAYOUT.length)):
        time.sleep(0.02)
        blob.write(start, content[start:end])
        if end < LAYOUT.length:
            blob.came(end)
    blob.add(0, digest, checked=True)


def test_a_piece_is_passed_on_while_it_comes_and_its_digest_follows(
    stores: tuple[Store, Store], serve: Callable[[str], Address], coming: Blob
) -> None:
    digest = blake3(OTHER_CONTENT[: LAYOUT.length]).digest()
    wanted, fetcher = stores[1].receive(OTHER, LAYOUT, public=True), PieceFetcher(SwarmKey(""))
    writer = threading.Thread(target=come, args=(coming, OTHER_CONTENT, digest))
    writer.start()
    fetcher.fetch(wanted, 0, messages.COMING, serve(""))
    writer.join()
    assert (wanted.held, wanted.checked, wanted.digests) == (1, 1, {0: digest})
    assert os.pread(wanted.fd, LAYOUT.length, 0) == OTHER_CONTENT[: LAYOUT.length]
    fetcher.close()


def test_whoever_knows_the_digest_gets_a_coming_piece_when_it_is_checked(
    stores: tuple[Store, Store], serve: Callable[[str], Address], coming: Blob
) -> None:
    digest = blake3(OTHER_CONTENT[: LAYOUT.length]).digest()
    wanted, fetcher = stores[1].receive(OTHER, LAYOUT, public=True), PieceFetcher(SwarmKey(""))
    writer = threading.Thread(target=come, args=(coming, OTHER_CONTENT, digest))
    writer.start()
    fetcher.fetch(wanted, 0, digest, serve(""))
    writer.join()
    assert wanted.checked == 1
    fetcher.close()


def test_a_coming_piece_whose_bytes_are_not_what_its_digest_says_is_wrong(
    stores: tuple[Store, Store], serve: Callable[[str], Address], coming: Blob
) -> None:
    wanted, fetcher = stores[1].receive(OTHER, LAYOUT, public=True), PieceFetcher(SwarmKey(""))
    writer = threading.Thread(target=come, args=(coming, OTHER_CONTENT, b"?" * 32))
    writer.start()
    with pytest.raises(SourceError) as raised:
        fetcher.fetch(wanted, 0, messages.COMING, serve(""))
    writer.join()
    assert raised.value.verdict == messages.CORRUPT
    assert wanted.held == 0
    fetcher.close()


@pytest.mark.parametrize("piece", [0, 1], ids=["half of it came", "none of it came"])
def test_a_piece_that_does_not_come_is_missing_and_no_fault_of_the_supernodes(
    stores: tuple[Store, Store], serve: Callable[[str], Address], coming: Blob, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("agent.swarm.piece_server.COMING_SECONDS_MAX", 0.05)
    wanted, fetcher = stores[1].receive(OTHER, LAYOUT, public=True), PieceFetcher(SwarmKey(""))
    with pytest.raises(SourceError) as raised:
        fetcher.fetch(wanted, piece, messages.COMING, serve(""))
    assert raised.value.verdict == messages.MISSING
    assert wanted.held == 0
    fetcher.close()


def test_a_blob_that_fails_ends_what_is_passed_on_of_it(
    stores: tuple[Store, Store], serve: Callable[[str], Address], coming: Blob
) -> None:
    wanted, fetcher = stores[1].receive(OTHER, LAYOUT, public=True), PieceFetcher(SwarmKey(""))
    failing = threading.Timer(0.05, coming.fail, [OriginError(502, "broke off")])
    failing.start()
    with pytest.raises(SourceError):
        fetcher.fetch(wanted, 0, messages.COMING, serve(""))
    failing.join()
    fetcher.close()


# After a restart.


Restart = Callable[[], tuple[Store, Address]]


@pytest.fixture
def restart(stores: tuple[Store, Store], tmp_path: Path) -> Iterator[Restart]:
    """The node that has the blob, started again with what its disk has by then, and where its pieces are."""
    started: list[tuple[Store, Listener]] = []

    def start() -> tuple[Store, Address]:
        stores[0].close()
        store = Store(tmp_path / "has", quota=1 << 30, free=0, age=1.0)
        handle, where = PieceServer(store, SwarmKey("")).handle, Address("127.0.0.1", 0)
        listener = Listener(where, handle, name="reopened", connections_max=9, per_address_max=9, idle_seconds=5)
        started.append((store, listener))
        listener.start()
        return store, listener.address

    yield start
    for store, listener in started:
        listener.stop()
        store.close()
    if started:
        stores[0].close = lambda: None  # type: ignore[method-assign]


@pytest.fixture
def fetcher() -> Iterator[PieceFetcher]:
    fetcher = PieceFetcher(SwarmKey(""))
    yield fetcher
    fetcher.close()


def verdict_of(fetcher: PieceFetcher, wanted: Blob, piece: int, where: Address, digest: bytes | None = None) -> int:
    with pytest.raises(SourceError) as raised:
        fetcher.fetch(wanted, piece, digest or digest_of(piece), where)
    return raised.value.verdict


def test_a_stored_blob_has_no_digests_of_pieces_to_tell(
    stores: tuple[Store, Store], restart: Restart, fetcher: PieceFetcher
) -> None:
    _, where = restart()
    assert verdict_of(fetcher, stores[1].receive(DIGEST, LAYOUT, public=True), 0, where, messages.COMING) == messages.MISSING


def test_a_restarted_node_gives_what_it_had_as_soon_as_that_was_found_right(
    stores: tuple[Store, Store], restart: Restart, fetcher: PieceFetcher
) -> None:
    store, where = restart()
    assert store.offered() == {DIGEST: len(CONTENT)}
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    for piece in range(LAYOUT.count):
        fetcher.fetch(wanted, piece, digest_of(piece), where)
    assert wanted.whole


def test_a_bit_that_flipped_at_rest_is_found_before_a_byte_is_given_and_the_blob_is_not_offered_any_more(
    stores: tuple[Store, Store], restart: Restart, fetcher: PieceFetcher
) -> None:
    file = stores[0].root / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")
    file.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    store, where = restart()
    heard: list[bool] = []
    store.on_change = lambda _digest, _size, held: heard.append(held)
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    assert [verdict_of(fetcher, wanted, piece, where) for piece in range(LAYOUT.count)] == [messages.MISSING] * LAYOUT.count
    wait_until(lambda: heard == [False])
    assert store.offered() == {}


def test_a_blob_that_takes_longer_to_verify_than_others_wait_is_offered_again_when_it_was_found_right(
    stores: tuple[Store, Store], restart: Restart, fetcher: PieceFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.swarm.piece_server.COMING_SECONDS_MAX", 0.05)
    go_on, check = threading.Event(), Blob.check
    monkeypatch.setattr(Blob, "check", lambda blob: go_on.wait(10) and check(blob))
    store, where = restart()
    heard: list[tuple[bool, dict[str, int]]] = []
    store.on_change = lambda _digest, _size, held: heard.append((held, store.offered()))
    wanted = stores[1].receive(DIGEST, LAYOUT, public=True)
    assert [verdict_of(fetcher, wanted, 0, where) for _ in range(2)] == [messages.MISSING] * 2
    assert heard == [(False, {})], "once"
    go_on.set()
    wait_until(lambda: heard[1:] == [(True, {DIGEST: len(CONTENT)})])
    fetcher.fetch(wanted, 0, digest_of(0), where)
    assert wanted.held == 1
