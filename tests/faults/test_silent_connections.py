"""Row 34: connections to the piece port that say little, or nothing, in clear and inside TLS: few, slow, and ten thousand."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.http import server
from agent.http.sealed import client_context
from agent.http.server import Listener
from agent.storage.store import Store
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.address import Address
from agent.values.pieces import Layout
from tests.swarm import PIECE, SECONDS, certificate, noise, nothing_left_running, wait_until

KEY = b"a key of the laboratory's swarm."
BODY = noise(2 * PIECE)
LAYOUT = Layout.of(len(BODY))
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
DIGESTS = [blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)]
ALL, OF_EACH = 10_000, 200
DESCRIPTORS = ALL + 2000
END_SECONDS = 60.0


def greeting() -> bytes:
    """What a client of TLS says first."""
    outgoing = ssl.MemoryBIO()
    client = client_context().wrap_bio(ssl.MemoryBIO(), outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


HELLO = greeting()
SAID = {
    "nothing": b"",
    "half a head": b"GET /pieces/sha256:",
    "half a body": b"POST /pieces HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
    "a handshake that has hardly begun": HELLO[:1],
    "half a handshake": HELLO[: len(HELLO) // 2],
    "a handshake that goes no further": HELLO,
}


class Node:
    """A node with two blobs, as it were: one blob that it gives in clear, and inside TLS to who wants it so."""

    def __init__(self, root: Path) -> None:
        (root / "key").write_bytes(KEY)
        self.key = SwarmKey(str(root / "key"))
        self.stores = [Store(root / name, quota=1 << 30, free=0, age=3600.0) for name in ("holder", "taker")]
        blob = self.stores[0].receive(DIGEST, LAYOUT, public=True)
        for piece, digest in enumerate(DIGESTS):
            blob.write(LAYOUT.span(piece)[0], BODY[slice(*LAYOUT.span(piece))])
            blob.add(piece, digest, checked=True)
        self.listener: Listener = PieceServer(self.stores[0], self.key, certificate=certificate()).listener(
            Address("127.0.0.1", 0)
        )
        self.listener.start()

    def serve(self) -> None:
        """Somebody who is in a hurry gets a blob, one piece in clear and one inside TLS, over connections of its own."""
        blob = self.stores[1].receive(DIGEST, LAYOUT, public=True)
        fetcher = PieceFetcher(self.key)
        try:
            fetcher.fetch(blob, 0, DIGESTS[0], self.listener.address, fingerprint=certificate().fingerprint)
            assert not blob.private
            blob.hide()
            fetcher.fetch(blob, 1, DIGESTS[1], self.listener.address, fingerprint=certificate().fingerprint)
        finally:
            fetcher.close()

    def answer(self) -> None:
        """Somebody who is in no hurry is answered."""
        with self.connect() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 404 ")

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(self.listener.address, SECONDS, source_address=(host, 0))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with nothing_left_running():
        node = Node(tmp_path)
        yield node
        node.listener.stop()
        for store in node.stores:
            store.close()


def until_closed(sock: socket.socket) -> None:
    sock.settimeout(SECONDS)
    with contextlib.suppress(ConnectionError):
        while sock.recv(1 << 16):
            continue


@pytest.mark.parametrize("said", SAID)
def test_who_says_too_little_is_closed_in_time_and_others_are_served_meanwhile(
    node: Node, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.HEAD_SECONDS_MAX <= 5
    with monkeypatch.context() as patch:  # for this connection alone: the others may be slow here
        patch.setattr(server, "HEAD_SECONDS_MAX", 1.0)
        sock = node.connect()
        wait_until(lambda: len(node.listener._open) == 1)
    with sock:
        sock.sendall(SAID[said])
        node.serve()
        until_closed(sock)
    wait_until(lambda: not any(state is server.State.SILENT for state in list(node.listener._open.values())))


@pytest.mark.parametrize("said", [SAID["half a head"] + b"a" * 1000, HELLO])
def test_who_says_it_byte_by_byte_has_no_more_time(node: Node, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 1.0)
    with node.connect() as sock:
        until = time.monotonic() + SECONDS
        with contextlib.suppress(ConnectionError):
            for byte in said * 10:
                sock.sendall(bytes([byte]))
                time.sleep(0.1)
                assert time.monotonic() < until, "it is listened to for ever"


def test_half_a_request_inside_tls_has_no_more_time_than_one_in_clear(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 1.0)
    with node.connect() as plain, client_context().wrap_socket(plain) as sock:
        sock.sendall(SAID["half a head"])
        until_closed(sock)


def test_ten_thousand_connections_that_say_little_are_held_within_limits_closed_in_time_and_cost_nobody_a_piece(
    node: Node,
) -> None:
    """Fifty addresses have two hundred each: more than one may have, and four times of what they may, more than all may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < DESCRIPTORS:
        pytest.skip(f"it takes {DESCRIPTORS} descriptors, and {hard} are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, DESCRIPTORS), hard))
    open_max = of_one_max = served = turned_away = 0
    words = list(SAID.values())
    with contextlib.ExitStack() as held, selectors.DefaultSelector() as selector:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for number in range(ALL):
            sock = held.enter_context(node.connect(f"127.0.{1 + number // OF_EACH}.1"))
            with contextlib.suppress(ConnectionError):
                sock.sendall(words[number % len(words)])
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ)
            open_max = max(open_max, len(node.listener._open))
            of_one_max = max(of_one_max, max(list(node.listener._from.values()), default=0))
            if number % 1000 == 999:
                node.answer()  # to this one, who has come after them; what comes next is as quick as ever
                node.serve()
                served += 1
        until = time.monotonic() + END_SECONDS
        while selector.get_map():
            assert time.monotonic() < until, f"{len(selector.get_map())} of them are still open"
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    heard = key.fileobj.recv(1 << 16)
                    turned_away += heard.startswith(b"HTTP/1.1 503 ")
                except ConnectionError:
                    heard = b""
                if not heard:
                    selector.unregister(key.fileobj)
        node.serve()
    assert served == ALL // 1000
    assert of_one_max <= CONNECTIONS_PER_ADDRESS_MAX
    assert open_max <= CONNECTIONS_MAX
    assert turned_away, "one address had more than it may"
