"""Questions over blocking sockets: what is read of an answer, what is none, and how long anybody is waited for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.http.client import (
    WAKE_BYTES,
    WINDOW_BYTES_MAX,
    Answer,
    Connection,
    ConnectionPool,
    Place,
    StalledError,
    TimeLimits,
    TransferError,
    window_for,
)
from agent.http.wire import bound_window
from agent.http.wire import receive_at_least as tell
from agent.values.address import Address
from tests.origins import Scripted, drain, http

LIMITS = TimeLimits(head=10.0, stall=10.0)
IMPATIENT = TimeLimits(head=0.5, stall=0.5)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
NO_LENGTH = b"HTTP/1.1 200 OK\r\n\r\nhello world"
ENDLESS_HEAD = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000


@contextmanager
def asked(server: Scripted, limits: TimeLimits = LIMITS, method: str = "GET") -> Iterator[tuple[Connection, Answer]]:
    pool = ConnectionPool()
    connection, answer = pool.ask(Place((server.address,)), method, "/", {"Host": "x"}, limits)
    try:
        yield connection, answer
    finally:
        pool.give_back(connection)


def read(connection: Connection) -> bytes:
    """A big body, four bytes at a time."""
    return drain(connection.read_into, 4)


@pytest.mark.parametrize("answer", [http(200, b"hello world"), CHUNKED, NO_LENGTH], ids=["length", "chunks", "end"])
def test_a_small_body_is_read_however_it_is_framed(answer: bytes) -> None:
    with Scripted(answer) as server, asked(server) as (connection, _):
        assert connection.read_all(100) == b"hello world"


def test_a_big_body_is_received_into_the_buffer_of_whoever_asks() -> None:
    with Scripted(http(200, b"hello world")) as server, asked(server) as (connection, answer):
        assert (answer.status, answer.length) == (200, 11)
        assert read(connection) == b"hello world"
        assert connection.read_into(memoryview(bytearray(4))) == 0


def drip_letters(sock: socket.socket) -> None:
    sock.sendall(http(200, b"he", Content_Length="11"))
    for letter in b"llo world":
        time.sleep(0.01)
        sock.sendall(bytes([letter]))


def test_a_buffer_is_filled_by_one_call_however_little_comes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.http.client.LOOK_SECONDS", 0.02)
    with Scripted(drip_letters) as server, asked(server) as (connection, _):
        buffer = memoryview(bytearray(11))
        assert connection.read_into(buffer[:8]) == 8
        assert connection.read_into(buffer[8:]) == 3
        assert bytes(buffer) == b"hello world"
        assert connection.reusable


def test_the_answer_to_a_head_has_a_length_and_no_body() -> None:
    with Scripted(http(200, Content_Length="4000")) as server, asked(server, method="HEAD") as (connection, answer):
        assert answer.length == 4000
        assert read(connection) == b""


@pytest.mark.parametrize("answer", [CHUNKED, NO_LENGTH], ids=["chunks", "end"])
def test_a_body_whose_length_nobody_knows_is_read_to_its_end(answer: bytes) -> None:
    with Scripted(answer) as server, asked(server) as (connection, found):
        assert found.length is None
        assert read(connection) == b"hello world"
        assert read(connection) == b""


def test_chunks_that_end_before_the_last_one_are_no_body() -> None:
    with (
        Scripted(CHUNKED.removesuffix(b"0\r\n\r\n")) as server,
        asked(server) as (connection, _),
        pytest.raises(TransferError, match="did not answer in HTTP"),
    ):
        read(connection)


def test_a_length_beside_chunks_counts_for_nothing() -> None:
    both = CHUNKED.replace(b"chunked\r\n", b"chunked\r\nContent-Length: 3\r\n")
    with Scripted(both) as server, asked(server) as (connection, answer):
        assert answer.length is None
        assert connection.read_all(100) == b"hello world"


@pytest.mark.parametrize("answer", [http(200, b"hello world"), CHUNKED, NO_LENGTH], ids=["length", "chunks", "end"])
def test_a_small_body_over_its_limit_is_refused(answer: bytes) -> None:
    with Scripted(answer) as server, asked(server) as (connection, _), pytest.raises(TransferError, match="more than 10 bytes"):
        connection.read_all(10)


@pytest.mark.parametrize("big", [True, False], ids=["big", "small"])
def test_a_body_that_ends_early_is_no_body(big: bool) -> None:
    with (
        Scripted(http(200, b"hello", Content_Length="6")) as server,
        asked(server) as (connection, _),
        pytest.raises(TransferError),
    ):
        read(connection) if big else connection.read_all(100)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e9\r\n\r\n",
        ENDLESS_HEAD,
    ],
    ids=["nothing", "another protocol", "negative length", "no number", "endless head"],
)
def test_what_is_no_answer_in_http_is_said_to_be_none(answer: bytes) -> None:
    with Scripted(answer) as server, pytest.raises(TransferError), asked(server):
        pytest.fail("this was taken for an answer")


def drip(sock: socket.socket) -> None:
    """A head whose end never comes, though something always does."""
    sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        sock.sendall(b"X: y\r\n")
        time.sleep(0.05)


def greet(sock: socket.socket) -> None:
    while True:
        sock.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)
        time.sleep(0.001)


def silence(sock: socket.socket) -> None:
    sock.recv(1)


@pytest.mark.parametrize("never", [drip, greet, silence])
def test_the_whole_head_is_waited_for_as_long_as_was_said_and_no_longer(never) -> None:  # type: ignore[no-untyped-def]
    with Scripted(never) as server:
        began = time.monotonic()
        with pytest.raises(StalledError), asked(server, IMPATIENT):
            pytest.fail("this was taken for an answer")
        assert time.monotonic() - began < 5


def drip_body(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        sock.sendall(b"x")
        time.sleep(0.02)


def test_a_small_body_has_to_come_within_the_time_of_its_head() -> None:
    with Scripted(drip_body) as server, asked(server, IMPATIENT) as (connection, _), pytest.raises(StalledError):
        connection.read_all(1 << 20)


def test_a_big_body_may_take_long_but_not_longer_than_was_said() -> None:
    limits = TimeLimits(head=10.0, stall=10.0, body=0.5)
    with Scripted(drip_body) as server, asked(server, limits) as (connection, _):
        began = time.monotonic()
        with pytest.raises(StalledError):
            read(connection)
        assert time.monotonic() - began < 5


def test_a_body_that_stops_coming_is_told_from_one_that_breaks_off() -> None:
    def stall(sock: socket.socket) -> None:
        sock.sendall(http(200, b"hello", Content_Length="6"))
        sock.recv(1)

    with Scripted(stall) as server, asked(server, IMPATIENT) as (connection, _), pytest.raises(StalledError):
        read(connection)


def test_a_connection_is_used_again_when_its_answer_was_read_to_the_end() -> None:
    pool, limits = ConnectionPool(idle_max=2), LIMITS
    with Scripted(http(200, b"hello"), keep=True) as server:
        for how in (lambda c: c.read_all(100), lambda c: read(c)):
            connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, limits)
            assert how(connection) == b"hello"
            pool.give_back(connection)
        assert server.connections == 1
        pool.close()


@pytest.mark.parametrize(
    ("answer", "read_it"),
    [
        (http(200, b"hello"), False),
        (http(200, b"hello", Connection="close"), True),
        (http(200, b"hello") + b"more", True),
        (CHUNKED, False),
        (NO_LENGTH.replace(b"1.1", b"1.0"), True),
    ],
    ids=["not read", "closing", "more than the answer", "chunks not read", "HTTP/1.0"],
)
def test_a_connection_is_closed_when_another_answer_could_not_follow(answer: bytes, read_it: bool) -> None:
    pool = ConnectionPool(idle_max=2)
    with Scripted(answer, keep=not answer.startswith(b"HTTP/1.0")) as server:
        for _ in range(2):
            connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
            if read_it:
                assert connection.read_all(100) in (b"hello", b"hello world")
            pool.give_back(connection)
        pool.close()
        assert server.connections == 2


def test_a_kept_connection_that_the_server_has_closed_meanwhile_is_nobodys_fault() -> None:
    pool = ConnectionPool(idle_max=2)
    with Scripted(http(200, b"hello")) as server:  # closes after each answer, without saying so
        for _ in range(3):
            connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
            connection.read_all(100)
            pool.give_back(connection)
        assert len(server.requests) == 3
        pool.close()


def test_nothing_is_kept_open_by_a_pool_that_rests() -> None:
    pool = ConnectionPool(idle_max=2)
    with Scripted(http(200, b"hello"), keep=True) as server:
        for _ in range(2):
            connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
            connection.read_all(100)
            pool.give_back(connection)
            pool.rest()
        assert server.connections == 2


def test_the_next_address_of_a_server_is_tried_when_one_does_not_accept() -> None:
    with Scripted(http(200, b"hello")) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        dead = Address(*closed.getsockname())
        closed.close()
        pool = ConnectionPool()
        connection, _ = pool.ask(Place((dead, server.address)), "GET", "/", {"Host": "x"}, LIMITS)
        assert connection.where == server.address
        pool.give_back(connection)
        with pytest.raises(TransferError, match="cannot be connected to"):
            pool.ask(Place((dead,)), "GET", "/", {"Host": "x"}, LIMITS)


def test_a_server_with_a_name_is_never_spoken_to_without_tls() -> None:
    with Scripted(http(200)) as server, pytest.raises(TransferError, match="no TLS"):
        ConnectionPool().ask(Place((server.address,), "registry.test"), "GET", "/", {"Host": "x"}, LIMITS)
    assert not server.connections


def test_closing_the_pool_ends_what_is_under_way_and_begins_nothing_more() -> None:
    pool = ConnectionPool()
    with Scripted(lambda sock: (sock.sendall(http(200, b"hello", Content_Length="6")), sock.recv(1))[0]) as server:
        connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, TimeLimits(head=10.0, stall=60.0))
        pool.close()
        with pytest.raises(TransferError):
            read(connection)
        pool.give_back(connection)
        with pytest.raises(TransferError, match="stopping"):
            pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/ä"])
def test_a_target_that_no_request_line_may_contain_is_not_sent(target: str) -> None:
    with Scripted(http(200)) as server:
        with pytest.raises(TransferError, match="cannot be asked"):
            ConnectionPool().ask(Place((server.address,)), "GET", target, {"Host": "x"}, LIMITS)
        assert not server.requests


def drip_packets(sock: socket.socket) -> None:
    sock.sendall(http(200, b"", Content_Length=str(len(BODY))))
    for start in range(0, len(BODY), 1448):
        time.sleep(0.0005)
        sock.sendall(BODY[start : start + 1448])


BODY = bytes(range(256)) * 512


def test_a_thread_that_waits_for_much_is_woken_for_much(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[int] = []
    monkeypatch.setattr("agent.http.client.receive_at_least", lambda sock, count: (asked_for.append(count), tell(sock, count)))
    with Scripted(drip_packets) as server, asked(server) as (connection, _):
        got = drain(connection.read_into, len(BODY))
    assert got == BODY
    assert asked_for == [WAKE_BYTES, 1]  # and at the end for whatever is left, for more will not come


def test_a_server_that_stops_within_what_is_worth_waking_for_is_noticed_in_time() -> None:
    def stop(sock: socket.socket) -> None:
        sock.sendall(http(200, BODY[: -WAKE_BYTES - 1], Content_Length=str(len(BODY))))
        time.sleep(5)

    with Scripted(stop) as server, asked(server, IMPATIENT) as (connection, _), pytest.raises(StalledError):
        drain(connection.read_into, len(BODY))


@pytest.mark.parametrize("length", [WAKE_BYTES - 1, WAKE_BYTES, WAKE_BYTES + 1, 2 * WAKE_BYTES])
def test_a_body_of_any_length_is_read_to_its_end_and_the_connection_used_again(length: int) -> None:
    with Scripted(http(200, BODY[:length]), http(200, b"next")) as server:
        pool = ConnectionPool(idle_max=1)
        for expected in (BODY[:length], b"next"):
            connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
            assert drain(connection.read_into, len(BODY)) == expected
            pool.give_back(connection)
        pool.close()


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The windows that are found right for one body after the other."""
    windows: list[int] = []
    monkeypatch.setattr("agent.http.client.window_for", lambda rate, least: windows.pop(0))
    return windows


def take(pool: ConnectionPool, server: Scripted) -> int:
    """The window that a body came through."""
    connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
    drain(connection.read_into, len(BODY))
    window = connection.window_bytes
    pool.give_back(connection)
    return window


def test_a_bounded_window_grows_and_shrinks_with_what_comes(wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr("agent.http.client.bound_window", lambda sock, count: told.append(count))
    wanted += [50_000, 50_000, 60_000, 16 << 10, 16 << 10]
    pool = ConnectionPool(idle_max=1, window_bytes=16 << 10)
    with Scripted(http(200, BODY), http(200, BODY), http(200, b"short"), http(200, BODY), keep=True) as server:
        windows = [take(pool, server) for _ in range(6)]
        pool.close()
    # A short body says nothing of a rate, and a small change is not worth a call.
    assert windows == [16 << 10, 50_000, 50_000, 50_000, 50_000, 16 << 10]
    assert told == [16 << 10, 50_000, 16 << 10]
    assert server.connections == 1


def test_a_new_connection_begins_with_what_the_last_one_needed_until_there_is_a_pause(wanted: list[int]) -> None:
    pool = ConnectionPool(idle_max=1, window_bytes=16 << 10)
    wanted += [50_000] * 3
    with Scripted(http(200, BODY), keep=True) as server:
        assert take(pool, server) == 16 << 10
        taken, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
        assert take(pool, server) == 50_000
        assert server.connections == 2
        pool.give_back(taken)
        pool.rest()
        assert take(pool, server) == 16 << 10
        pool.close()


def test_a_window_that_the_kernel_decides_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.http.client.bound_window", lambda sock, count: pytest.fail("it was bounded"))
    pool = ConnectionPool(idle_max=1)
    with Scripted(http(200, BODY)) as server:
        connection, _ = pool.ask(Place((server.address,)), "GET", "/", {"Host": "x"}, LIMITS)
        assert drain(connection.read_into, len(BODY)) == BODY
        pool.give_back(connection)
        pool.close()


def test_a_window_holds_ten_milliseconds_within_its_limits() -> None:
    assert window_for(12_500_000, 64 << 10) == 125_000
    assert window_for(6_000_000, 64 << 10) == 64 << 10  # two connections that share a link of 100 Mbit/s
    assert window_for(1e12, 64 << 10) == WINDOW_BYTES_MAX


def test_the_kernel_takes_another_window_of_a_connection_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        sizes = []
        for count in (16 << 10, 64 << 10, 32 << 10):
            bound_window(sock, count)
            sizes.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        assert sizes == [32 << 10, 128 << 10, 64 << 10]  # twice as much, for what the kernel itself needs (socket(7))
