"""A piece from another node: checked before it counts, and a verdict on whoever did not deliver it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from agent.http.server import Exchange
from agent.http.wire import chunks
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm import piece_client as module
from agent.swarm.piece_client import PieceFetcher, TicketRefusedError, fill
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.errors import RequestError, SourceError
from agent.values.pieces import Layout
from tests.swarm import PIECE, SECONDS, noise, nothing_left_running, piece_listener, wait_until

BODY = noise(3 * PIECE + 1000)
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
LAYOUT = Layout.of(len(BODY))
DIGESTS = [blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)]


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    with nothing_left_running():
        yield


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Blob]:
    store = Store(tmp_path / "taker", quota=1 << 30, free=0, age=3600.0)
    yield store.receive(DIGEST, LAYOUT, public=True)
    store.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Store]:
    """A store that holds the blob whole."""
    store = Store(tmp_path / "holder", quota=1 << 30, free=0, age=3600.0)
    held = store.receive(DIGEST, LAYOUT, public=True)
    for piece, digest in enumerate(DIGESTS):
        held.write(LAYOUT.span(piece)[0], BODY[slice(*LAYOUT.span(piece))])
        held.add(piece, digest, checked=True)
    yield store
    store.close()


@contextmanager
def serving(handle: Callable[[Exchange], None]) -> Iterator[Address]:
    listener = piece_listener(handle)
    yield listener.address
    listener.stop()


@contextmanager
def fetcher(key: str = "") -> Iterator[PieceFetcher]:
    fetcher = PieceFetcher(SwarmKey(key))
    yield fetcher
    fetcher.close()


def verdict(blob: Blob, handle: Callable[[Exchange], None], piece: int = 1) -> int:
    """What is said of a node that answers like that. Nothing of it is believed."""
    with serving(handle) as where, fetcher() as taker:
        with pytest.raises(SourceError) as failed:
            taker.fetch(blob, piece, DIGESTS[piece], where)
        assert str(where) in str(failed.value)
    assert not blob.held
    return failed.value.verdict


def answering(body: bytes, status: int = 200, length: int | None = None) -> Callable[[Exchange], None]:
    def handle(exchange: Exchange) -> None:
        exchange.start(status, {"Content-Length": str(len(body) if length is None else length)})
        exchange.send(body)
        exchange.finish()

    return handle


def breaking(holder: Store, *answers: tuple[int, bytes]) -> Callable[[Exchange], None]:
    """A node that breaks off: of each of these answers its length is announced and the bytes sent. Then it gives what it has."""
    whole, left = PieceServer(holder, SwarmKey("")).handle, list(answers)

    def handle(exchange: Exchange) -> None:
        if not left:
            whole(exchange)
            return
        length, sent = left.pop(0)
        exchange.start(200, {"Content-Length": str(length)})
        exchange.send(sent)
        exchange.abort()

    return handle


def test_pieces_come_from_a_node_that_holds_the_blob_and_make_it_whole(blob: Blob, holder: Store) -> None:
    with serving(PieceServer(holder, SwarmKey("")).handle) as where, fetcher() as taker:
        for piece in (3, 0, 2, 1):
            taker.fetch(blob, piece, DIGESTS[piece], where)
            assert blob.held >> piece & 1
            assert blob.checked >> piece & 1
    assert blob.whole
    assert os.pread(blob.fd, len(BODY), 0) == BODY


def test_without_a_limit_a_piece_is_sent_in_one_go_and_received_by_the_connections_own_function(
    blob: Blob, holder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    send_file = Exchange.send_file

    def noted(exchange: Exchange, fd: int, offset: int, end: int) -> None:
        sent.append((offset, end))
        send_file(exchange, fd, offset, end)

    monkeypatch.setattr(Exchange, "send_file", noted)
    monkeypatch.setattr("agent.swarm.piece_client.slowed", lambda *_: pytest.fail("there is no limit"))
    with serving(PieceServer(holder, SwarmKey("")).handle) as where, fetcher() as taker:
        taker.fetch(blob, 1, DIGESTS[1], where)
    assert sent == [LAYOUT.span(1)]


def test_a_piece_whose_digest_nobody_named_is_believed_with_the_whole_blob_only(blob: Blob, holder: Store) -> None:
    with serving(PieceServer(holder, SwarmKey("")).handle) as where, fetcher() as taker:
        taker.fetch(blob, 0, None, where)
        assert (blob.held, blob.checked) == (0b1, 0)
        for piece in (1, 2, 3):
            taker.fetch(blob, piece, None, where)
    assert blob.whole
    assert blob.checked == LAYOUT.everything


def test_the_key_of_the_swarm_opens_and_another_does_not(blob: Blob, holder: Store, tmp_path: Path) -> None:
    for name, text in (("key", "k" * 32), ("other", "o" * 32)):
        (tmp_path / name).write_text(text)
    with serving(PieceServer(holder, SwarmKey(str(tmp_path / "key"))).handle) as where:
        for key in ("", str(tmp_path / "other")):
            with fetcher(key) as taker, pytest.raises(TicketRefusedError, match="swarm key") as failed:
                taker.fetch(blob, 0, DIGESTS[0], where)
            assert failed.value.verdict == messages.UNREACHABLE
        with fetcher(str(tmp_path / "key")) as taker:
            taker.fetch(blob, 0, DIGESTS[0], where)
        with fetcher(str(tmp_path / "lost")) as taker, pytest.raises(SourceError, match="swarm key") as failed:
            taker.fetch(blob, 1, DIGESTS[1], where)
        assert failed.value.verdict == messages.UNREACHABLE, "nothing is wrong with that node"


@pytest.mark.parametrize(
    "body",
    [BODY[:PIECE], BODY[PIECE : 2 * PIECE - 1] + b"\x00", bytes(PIECE)],
    ids=["another piece's bytes", "one byte wrong", "zeros"],
)
def test_wrong_bytes_are_proof_against_whoever_sent_them(blob: Blob, body: bytes) -> None:
    assert verdict(blob, answering(body)) == messages.CORRUPT


@pytest.mark.parametrize("size", [0, PIECE - 1, PIECE + 1, 1 << 30])
def test_a_piece_of_another_length_is_proof_too_and_nothing_is_allocated_for_it(blob: Blob, size: int) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(size)})
        exchange.abort()

    assert verdict(blob, handle) == messages.CORRUPT


@pytest.mark.parametrize("status", [404, 416, 503])
def test_a_node_that_does_not_have_the_piece_is_not_accused(blob: Blob, status: int) -> None:
    def handle(exchange: Exchange) -> None:
        raise RequestError(status, "UNKNOWN", "not here")

    assert verdict(blob, handle) == messages.MISSING


def test_a_ticket_is_issued_on_the_supernodes_clock_and_the_reason_of_a_refusal_is_told(
    blob: Blob, holder: Store, tmp_path: Path
) -> None:
    """FAULTS 54."""
    (tmp_path / "key").write_text("k" * 32)
    key, now = str(tmp_path / "key"), time.time()
    server = PieceServer(holder, SwarmKey(key), clocks=lambda: (now + 1000.0, now - 1000.0))
    with serving(server.handle) as where, fetcher(key) as taker:
        with pytest.raises(TicketRefusedError, match="its clock, or that of its supernode"):
            taker.fetch(blob, 0, DIGESTS[0], where)
        for piece, clock in enumerate((now + 1000.0, now - 1000.0)):
            taker.fetch(blob, piece, DIGESTS[piece], where, clock)
    assert blob.held == 0b11


def test_a_connection_that_breaks_once_is_made_anew_at_once(blob: Blob, holder: Store) -> None:
    """FAULTS 99."""
    with serving(breaking(holder, (PIECE, BODY[PIECE : PIECE + 1000]))) as where, fetcher() as taker:
        taker.fetch(blob, 1, DIGESTS[1], where)
    assert blob.held == 0b10


def test_a_node_that_breaks_off_was_not_reached(blob: Blob) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(PIECE)})
        exchange.send(BODY[PIECE : PIECE + 1000])
        exchange.abort()

    assert verdict(blob, handle) == messages.UNREACHABLE


def test_a_node_that_is_not_there_was_not_reached(blob: Blob) -> None:
    with serving(answering(b"")) as where:
        pass
    with fetcher() as taker, pytest.raises(SourceError) as failed:
        taker.fetch(blob, 0, DIGESTS[0], where)
    assert failed.value.verdict == messages.UNREACHABLE


@pytest.mark.parametrize("after", ["nothing", "a head", "a byte"])
def test_a_node_that_stops_sending_has_stalled(blob: Blob, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    monkeypatch.setattr(module, "PIECE_STALL_SECONDS_MAX", 0.3)
    over = threading.Event()

    def handle(exchange: Exchange) -> None:
        if after != "nothing":
            exchange.start(200, {"Content-Length": str(PIECE)})
        if after == "a byte":
            exchange.send(BODY[PIECE : PIECE + 1])
        over.wait(SECONDS)

    try:
        assert verdict(blob, handle) == messages.STALLED
    finally:
        over.set()


def test_a_node_that_sends_a_byte_now_and_then_has_stalled_too(blob: Blob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_SECONDS_MAX", 0.5)

    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(PIECE)})
        for _ in range(PIECE):
            exchange.send(b"x")
            time.sleep(0.02)

    began = time.monotonic()
    assert verdict(blob, handle) == messages.STALLED
    assert time.monotonic() - began < SECONDS


def test_a_piece_of_any_length_is_given_up_before_its_grant_is_lost() -> None:
    longest = module.PIECE_STALL_SECONDS_MAX + module.PIECE_SECONDS_MAX + (16 << 20) / module.PIECE_BYTES_PER_SECOND_MIN
    assert longest < 30.0, "the scheduler counts a grant as lost then"


def test_one_connection_serves_many_pieces(blob: Blob, holder: Store) -> None:
    server = PieceServer(holder, SwarmKey(""))
    listener = piece_listener(server.handle)
    with fetcher() as taker:
        for piece in range(LAYOUT.count):
            taker.fetch(blob, piece, DIGESTS[piece], listener.address)
            assert len(listener._open) == 1
        taker.rest()
        wait_until(lambda: not listener._open)
    listener.stop()


def test_a_node_that_was_restarted_between_two_pieces_has_done_nothing_wrong(blob: Blob, holder: Store) -> None:
    handle = PieceServer(holder, SwarmKey("")).handle
    with fetcher() as taker, serving(handle) as where:
        taker.fetch(blob, 0, DIGESTS[0], where)
        for connections in taker._pool._idle.values():
            for connection in connections:
                connection.abort()
        taker.fetch(blob, 1, DIGESTS[1], where)
    assert blob.held == 0b11


def test_a_fetcher_that_is_closed_ends_what_is_under_way(blob: Blob) -> None:
    asked, over = threading.Event(), threading.Event()

    def handle(exchange: Exchange) -> None:
        asked.set()
        over.wait(SECONDS)

    with serving(handle) as where, fetcher() as taker:
        threading.Thread(target=lambda: (asked.wait(SECONDS), taker.close())).start()
        with pytest.raises(SourceError) as failed:
            taker.fetch(blob, 0, DIGESTS[0], where)
        assert failed.value.verdict == messages.UNREACHABLE
        over.set()


def test_a_disk_that_fails_is_not_the_nodes_fault(blob: Blob, holder: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(blob, "write", full)
    with serving(PieceServer(holder, SwarmKey("")).handle) as where, fetcher() as taker, pytest.raises(OSError, match="No space"):
        taker.fetch(blob, 0, DIGESTS[0], where)


def test_bytes_that_end_before_their_piece_does_are_no_piece(blob: Blob) -> None:
    parts = [b"x" * 1000, b""]

    def read_into(buffer: memoryview) -> int:
        part = parts.pop(0)
        buffer[: len(part)] = part
        return len(part)

    with pytest.raises(SourceError, match=f"{PIECE - 1000} bytes early"):
        fill(blob, 0, blob.claim(0), read_into)


def test_chunks_come_through_one_buffer_and_end_where_they_are_told_to() -> None:
    def endless(buffer: memoryview) -> int:
        buffer[:] = b"x" * len(buffer)
        return len(buffer)

    sizes, owners = [], set()
    for chunk in chunks(endless, 700_000):
        sizes.append(len(chunk))
        owners.add(id(chunk.obj))
    assert sum(sizes) == 700_000
    assert len(owners) == 1


# Several in one request.


ALL = dict(enumerate(DIGESTS))


@contextmanager
def counting(handle: Callable[[Exchange], None]) -> Iterator[tuple[Address, list[str]]]:
    """Where it serves, and the targets that it was asked for."""
    targets: list[str] = []

    def noted(exchange: Exchange) -> None:
        targets.append(exchange.request.target.rpartition("/")[2])
        handle(exchange)

    with serving(noted) as where:
        yield where, targets


def alone(handle: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """A node that does not know how to be asked for more than one."""

    def without(exchange: Exchange) -> None:
        exchange.request.headers.pop(module.PIECES_HEADER.lower(), None)
        handle(exchange)

    return without


def test_pieces_that_follow_each_other_come_in_one_answer_and_each_is_told_when_it_is_there(blob: Blob, holder: Store) -> None:
    with counting(PieceServer(holder, SwarmKey("")).handle) as (where, targets), fetcher() as taker:
        held = [(piece, blob.checked) for piece in taker.fetch_together(blob, ALL, where)]
    assert held == [(0, 0b1), (1, 0b11), (2, 0b111), (3, 0b1111)]
    assert targets == ["0"]
    assert blob.whole
    assert os.pread(blob.fd, len(BODY), 0) == BODY


def test_a_node_that_has_some_of_them_gives_these_and_no_fault_is_found(blob: Blob, tmp_path: Path) -> None:
    store = Store(tmp_path / "part", quota=1 << 30, free=0, age=3600.0)
    part = store.receive(DIGEST, LAYOUT, public=True)
    for piece in (0, 1, 3):
        part.write(LAYOUT.span(piece)[0], BODY[slice(*LAYOUT.span(piece))])
        part.add(piece, DIGESTS[piece], checked=True)
    with serving(PieceServer(store, SwarmKey("")).handle) as where, fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0, 1]
        with pytest.raises(SourceError) as failed:
            list(taker.fetch_together(blob, {2: DIGESTS[2], 3: DIGESTS[3]}, where))
        assert failed.value.verdict == messages.MISSING
    assert blob.held == 0b11
    part.fail(RequestError(503, "UNAVAILABLE", "the test is over"))
    store.close()


def test_a_node_of_an_earlier_version_gives_one(blob: Blob, holder: Store) -> None:
    with serving(alone(PieceServer(holder, SwarmKey("")).handle)) as where, fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0]
    assert blob.held == 0b1


@pytest.mark.parametrize("asked", ["", "0", "-1", "1.5", "two", "99999", "9999999999", "\xb2"])
def test_what_is_no_number_of_pieces_gets_one(blob: Blob, holder: Store, asked: str) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.request.headers[module.PIECES_HEADER.lower()] = asked
        PieceServer(holder, SwarmKey("")).handle(exchange)

    with serving(handle) as where, fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0]


def test_one_that_is_wrong_is_found_when_it_comes_and_those_before_it_are_kept(blob: Blob) -> None:
    wrong = bytearray(BODY)
    wrong[2 * PIECE] ^= 1
    with serving(answering(bytes(wrong))) as where, fetcher() as taker:
        came = taker.fetch_together(blob, ALL, where)
        assert (next(came), next(came)) == (0, 1)
        with pytest.raises(SourceError, match="not piece 2") as failed:
            next(came)
    assert failed.value.verdict == messages.CORRUPT
    assert blob.held == 0b11


@pytest.mark.parametrize("length", [PIECE - 1, PIECE + 1, 2 * PIECE + 5, len(BODY) + 1])
def test_an_answer_that_is_no_whole_number_of_them_is_proof_and_none_of_it_is_read(blob: Blob, length: int) -> None:
    with serving(answering(bytes(length))) as where, fetcher() as taker, pytest.raises(SourceError) as failed:
        list(taker.fetch_together(blob, ALL, where))
    assert failed.value.verdict == messages.CORRUPT
    assert not blob.held


def test_a_connection_that_breaks_between_them_is_made_anew_for_the_rest(blob: Blob, holder: Store) -> None:
    with counting(breaking(holder, (len(BODY), BODY[: 2 * PIECE + 1000]))) as (where, targets), fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0, 1, 2, 3]
    assert targets == ["0", "2"]
    assert blob.whole


def test_of_long_pieces_no_more_is_given_in_one_answer_than_a_slow_node_may_hold_up(tmp_path: Path) -> None:
    length = module.TOGETHER_BYTES_MAX // 2
    layout, name = Layout(4 * length, length), "sha256:" + "0" * 64
    digests = dict.fromkeys(range(3), blake3(bytes(length)).digest())
    stores = [Store(tmp_path / who, quota=1 << 30, free=0, age=3600.0) for who in ("has", "wants")]
    has, wants = (store.receive(name, layout, public=True) for store in stores)
    for piece, digest in digests.items():
        has.write(piece * length, bytes(length))
        has.add(piece, digest, checked=True)
    with serving(PieceServer(stores[0], SwarmKey("")).handle) as where, fetcher() as taker:
        assert list(taker.fetch_together(wants, digests, where)) == [0, 1]
    for store, blob in zip(stores, (has, wants), strict=True):
        blob.fail(RequestError(503, "UNAVAILABLE", "the test is over"))
        store.close()


def test_what_the_taker_does_with_a_piece_is_no_time_of_the_nodes(
    blob: Blob, holder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_SECONDS_MAX", 0.2)
    monkeypatch.setattr(module, "PIECE_BYTES_PER_SECOND_MIN", 1 << 40)
    add = Blob.add

    def slow(blob: Blob, piece: int, digest: bytes | None, **about: Any) -> None:
        time.sleep(0.15)
        add(blob, piece, digest, **about)

    monkeypatch.setattr(Blob, "add", slow)
    with serving(PieceServer(holder, SwarmKey("")).handle) as where, fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0, 1, 2, 3]


def test_each_piece_that_came_lets_a_connection_break_once_more(blob: Blob, holder: Store) -> None:
    spans = [LAYOUT.span(piece) for piece in range(3)]
    handle = breaking(holder, *((len(BODY) - start, BODY[start : end + 10]) for start, end in spans))
    with serving(handle) as where, fetcher() as taker:
        assert list(taker.fetch_together(blob, ALL, where)) == [0, 1, 2, 3]
