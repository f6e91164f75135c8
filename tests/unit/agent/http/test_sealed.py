"""TLS between two processes that know each other by a fingerprint: what goes through it, and what ends it."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent.http import certificate as module
from agent.http.certificate import Certificate
from agent.http.sealed import SEALED_BYTES, Sealed
from agent.http.wire import wait_to_receive
from agent.values.errors import UsageError
from tests.swarm import SECONDS, certificate

DATA = random.Random(26).randbytes(5 * SEALED_BYTES + 17)


@contextlib.contextmanager
def pair(serve: Callable[[Sealed], None], fingerprint: bytes = b"") -> Iterator[Sealed]:
    """A client's end; the server's is in the hand of `serve`, in a thread of its own."""
    here, there = socket.socketpair()

    def run() -> None:
        with there, contextlib.suppress(OSError):
            sealed = Sealed(there, certificate().context, server=True)
            sealed.shake(time.monotonic() + SECONDS)
            serve(sealed)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with here:
            yield Sealed.to(here, fingerprint or certificate().fingerprint, time.monotonic() + SECONDS)
    finally:
        thread.join(SECONDS)


def received(sealed: Sealed, count: int, at_once: int, flags: int = 0) -> bytes:
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        with contextlib.suppress(BlockingIOError):
            read = sealed.recv_into(view[got:], min(at_once, count - got), flags)
            if not read:
                break
            got += read
    return bytes(data[:got])


@pytest.mark.parametrize("at_once", [1000, SEALED_BYTES, len(DATA)])
def test_what_is_sent_comes_as_it_was_however_much_is_taken_at_once(at_once: int) -> None:
    with pair(lambda server: server.sendall(DATA)) as client:
        assert received(client, len(DATA), at_once) == DATA


def test_both_ends_say_something_in_turns_and_the_end_is_the_end() -> None:
    def echo(server: Sealed) -> None:
        while said := server.recv(100):
            server.sendall(said + b"!")

    with pair(echo) as client:
        for said in (b"one", b"two"):
            client.sendall(said)
            assert received(client, 4, 4) == said + b"!"
        client.shutdown(socket.SHUT_WR)
        wait_to_receive(client, SECONDS)
        assert client.recv(10) == b""


def test_a_part_of_a_record_says_nothing_yet_and_keeps_nobody_longer_than_a_plain_socket_would() -> None:
    may_go_on = threading.Event()

    def in_parts(server: Sealed) -> None:
        sealed = server._tls.seal_part(memoryview(b"a piece"))
        server.plain.sendall(sealed[:-1])
        may_go_on.wait(SECONDS)
        server.plain.sendall(sealed[-1:])
        may_go_on.clear()

    with pair(in_parts) as client:
        wait_to_receive(client, 0.1)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        with pytest.raises(BlockingIOError):
            client.recv(100)
        may_go_on.set()
        wait_to_receive(client, SECONDS)
        assert client.recv(100) == b"a piece"


def test_whoever_has_another_certificate_is_told_nothing() -> None:
    with (
        pytest.raises(ConnectionError, match=r"^it has another certificate than the supernode says$"),
        pair(lambda _: None, bytes(32)),
    ):
        pass


def test_bytes_that_somebody_changed_on_the_way_are_an_error_and_no_data() -> None:
    def changed(server: Sealed) -> None:
        sealed = bytearray(server._tls.seal_part(memoryview(b"a piece")))
        sealed[-1] ^= 1
        server.plain.sendall(sealed)

    with pair(changed) as client, pytest.raises(ssl.SSLError):
        client.recv(100)


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00"])
def test_a_handshake_that_stops_half_way_is_waited_for_as_long_as_is_said(said: bytes) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(said)
        with pytest.raises(TimeoutError):
            Sealed(here, certificate().context, server=True).shake(time.monotonic() + 0.2)


def test_a_handshake_that_trickles_has_no_more_time_than_one_that_is_silent() -> None:
    here, there = socket.socketpair()
    ended = threading.Event()

    def trickle() -> None:
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00" + bytes(500):
                there.sendall(bytes([byte]))
                if ended.wait(0.05):
                    return

    thread = threading.Thread(target=trickle)
    thread.start()
    with here, there:
        with pytest.raises((TimeoutError, ssl.SSLError)):
            Sealed(here, certificate().context, server=True).shake(time.monotonic() + 0.5)
        ended.set()
        thread.join(SECONDS)


def test_every_process_has_a_certificate_of_its_own_and_keeps_no_library_for_it() -> None:
    made = Certificate.make()
    assert made.fingerprint != certificate().fingerprint
    assert made.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert made.context.num_tickets == 0


def test_a_certificate_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAKER", "/no/such/program")
    with pytest.raises(UsageError, match=r"^no certificate for the piece server can be made: .*No such file") as failed:
        Certificate.make()
    assert os.linesep not in str(failed.value)
