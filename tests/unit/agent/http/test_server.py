"""The HTTP server under the registry endpoint and the piece server, spoken to over raw sockets."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.http import server
from agent.http.server import ClientGone, Exchange, Listener, Request, bind
from agent.http.wire import HEAD_BYTES_MAX
from agent.values.address import Address
from agent.values.errors import RequestError, StoreError, UsageError
from tests.endpoint import no_more_than, threads_and_descriptors

LOOPBACK = Address("127.0.0.1", 0)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Handler = Callable[[Exchange], None]
Serve = Callable[..., Listener]


def echo(exchange: Exchange) -> None:
    exchange.answer(200, {"Content-Type": "text/plain"}, f"{exchange.request.method} {exchange.request.target}".encode())


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts listeners for a test, and stops them after it."""
    with contextlib.ExitStack() as stack:

        def start(handle: Handler = echo, *, connections: int = 32, each: int = 32, idle: float = 5.0) -> Listener:
            listener = Listener(
                LOOPBACK, handle, name="server", connections_max=connections, per_address_max=each, idle_seconds=idle
            )
            stack.callback(listener.stop)
            listener.start()
            return listener

        yield start


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(listener.address, 5)


def read_all(sock: socket.socket) -> bytes:
    received = bytearray()
    while data := sock.recv(1 << 20):
        received += data
    return bytes(received)


def say(listener: Listener, *parts: bytes) -> bytes:
    """All that comes back until the server closes."""
    with connect(listener) as sock:
        for part in parts:
            sock.sendall(part)
        return read_all(sock)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


# What a connection may carry.


def test_requests_follow_each_other_on_a_connection_whatever_the_answers_were(serve: Serve) -> None:
    def handle(exchange: Exchange) -> None:
        status = int(exchange.request.target[1:])
        if status >= 400:
            raise RequestError(status, "UNKNOWN", "no")
        exchange.answer(status, {}, b"body")

    client = http.client.HTTPConnection(*serve(handle).address, timeout=5)
    client.connect()
    kept = client.sock
    for method, status in [("HEAD", 200), ("GET", 404), ("HEAD", 404), ("GET", 416), ("GET", 200)]:
        client.request(method, f"/{status}")
        answer = client.getresponse()
        body = answer.read()
        assert answer.status == status
        assert int(answer.headers["Content-Length"]) == len(body) or method == "HEAD"
        assert client.sock is kept
    client.close()


def test_pipelined_requests_are_answered_in_their_order(serve: Serve) -> None:
    last = b"GET /3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = say(serve(), b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: x\r\n\r\n" + last)
    assert statuses(received) == [200, 200, 200]
    assert received.index(b"GET /1") < received.index(b"GET /3")
    assert b"HEAD /2" not in received


def test_a_client_of_http_1_0_and_one_that_asks_for_a_close_get_their_answer_and_a_close(serve: Serve) -> None:
    for request in (b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
        received = say(serve(), request)
        assert statuses(received) == [200]
        assert received.endswith(b"GET /")


def test_a_request_that_comes_byte_by_byte_is_a_request(serve: Serve) -> None:
    request = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert say(serve(), *(request[at : at + 1] for at in range(len(request)))).endswith(b"GET /slow")


@pytest.mark.parametrize("size", [3, 100_000, 1 << 40])
def test_a_request_with_a_body_is_answered_without_reading_it_and_told_that_the_connection_ends(serve: Serve, size: int) -> None:
    received = say(serve(), b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size, bytes(min(size, 100_000)))
    assert statuses(received) == [200]
    assert b"connection: close" in received.lower()


@pytest.mark.parametrize(
    "field",
    [
        *(b"", b"Connection: keep-alive\r\n", b"X: a\r\nX: b\r\n", b"X: a\r\n b\r\n", b"X:\r\n", b"X:y\r\n", b"X: y\n"),
        *(b"X: \xe9\r\n", b"TE: trailers\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    ],
)
def test_a_request_may_have_fields_of_any_kind_and_another_may_follow_it(serve: Serve, field: bytes) -> None:
    with connect(serve()) as sock:
        answers = set()
        for request in (GET, GET[:-2] + field + b"\r\n", GET):
            sock.sendall(request)
            answer = b""
            while not answer.endswith(b"GET /"):
                part = sock.recv(1000)
                assert part, "the connection ended"
                answer += part
            answers.add(answer)
        assert len(answers) == 1


def test_a_chunked_body_and_one_that_is_announced_end_the_connection_too(serve: Serve) -> None:
    for headers in (b"Transfer-Encoding: chunked", b"Content-Length: 9\r\nExpect: 100-continue"):
        assert statuses(say(serve(), b"POST / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n")) == [200]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 2 * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"GET /" + b"a" * 2 * HEAD_BYTES_MAX,
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n\x00",
    ],
)
def test_what_is_not_quite_http_is_told_so_and_the_connection_ends(serve: Serve, garbage: bytes) -> None:
    assert statuses(say(serve(), garbage))[-1] == 400


# Silence.


def test_a_silent_connection_half_a_head_and_an_idle_one_are_closed_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.2)
    listener = serve(idle=0.2)
    for words, expected in ((b"", []), (b"GET / HTTP/1.1\r\nHost:", [400]), (GET, [200]), (GET + b"GET /", [200, 400])):
        began = time.monotonic()
        assert statuses(say(listener, words)) == expected
        assert 0.2 <= time.monotonic() - began < 1
    wait_until(lambda: not listener._open)


def test_a_head_that_trickles_in_has_no_more_time_than_one_that_does_not(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.3)
    began = time.monotonic()
    with connect(serve()) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(b"GET / HTTP/1.1\r\n")
        while time.monotonic() - began < 2:
            sock.sendall(b"A: b\r\n")
            time.sleep(0.02)
    assert time.monotonic() - began < 1


def test_a_client_that_takes_nothing_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "SEND_STALL_SECONDS_MAX", 0.2)
    left = threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(1 << 30)})
        try:
            send_sparse(exchange, tmp_path / "large", 1 << 30)
        except ClientGone:
            left.set()
            raise

    with connect(serve(handle)) as sock:
        sock.sendall(GET)
        assert left.wait(2)


# Answers that break off.


def send_sparse(exchange: Exchange, path: Path, size: int) -> None:
    with path.open("w+b") as file:
        file.truncate(size)
        exchange.send_file(file.fileno(), 0, size)


@pytest.mark.parametrize("length", [4, 6])
def test_an_answer_that_is_not_as_long_as_it_announced_is_cut_off(serve: Serve, length: int) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(length)})
        exchange.send(b"hello")
        exchange.finish()

    with connect(serve(handle)) as sock:
        sock.sendall(GET)
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def test_the_answer_to_a_head_announces_a_body_and_has_none(serve: Serve) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "1000"})
        exchange.finish()

    with connect(serve(handle)) as sock:
        for _ in range(2):
            sock.sendall(GET.replace(b"GET", b"HEAD"))
            assert sock.recv(1000) == b"HTTP/1.1 200 \r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\x00b", "€"])
def test_an_answer_with_a_field_that_would_be_read_as_something_else_is_not_sent(serve: Serve, bad: str) -> None:
    with connect(serve(lambda exchange: exchange.answer(200, {"X": bad}))) as sock:
        sock.sendall(GET)
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def test_the_head_of_an_answer_and_its_first_bytes_come_together(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"from a file")

    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "11"})
        if exchange.request.target == "/file":
            with (tmp_path / "file").open("rb") as file:
                exchange.send_file(file.fileno(), 0, 11)
        else:
            exchange.send(b"from memory")
        exchange.finish()

    with connect(serve(handle)) as sock:
        for target, body in ((b"/file", b"from a file"), (b"/memory", b"from memory")):
            sock.sendall(GET.replace(b"/ ", target + b" "))
            assert sock.recv(1000).endswith(b"\r\n\r\n" + body)


def test_the_head_of_an_answer_without_a_body_comes_at_its_end(serve: Serve) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "0"})
        exchange.finish()

    with connect(serve(handle)) as sock:
        for _ in range(2):
            sock.sendall(GET)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_file_arrives_whole_and_is_counted_on_the_way(serve: Serve, tmp_path: Path) -> None:
    counts = []

    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": str(20 << 20)})
        send_sparse(exchange, tmp_path / "large", 20 << 20)
        exchange.finish()
        counts.append(exchange.body_sent)

    received = say(serve(handle), GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert len(received.partition(b"\r\n\r\n")[2]) == counts[0] == 20 << 20


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v2/a/manifests/1?ns=registry.test%3A5000&token=s3cret", "GET /v2/a/manifests/1?ns=registry.test%3A5000"),
        ("/v2/a/blobs/b?X-Amz-Signature=s3cret&X=y", "GET /v2/a/blobs/b?"),
        ("/v2/a/blobs/b?ns=alice:s3cret@registry.test", "GET /v2/a/blobs/b?"),
        ("http://alice:s3cret@registry.test/v2/", "GET http://registry.test/v2/"),
        ("/v2/\x1b[31m", "GET /v2/\\x1b[31m"),
    ],
)
def test_a_request_is_logged_without_what_its_client_may_have_put_in_as_a_secret(target: str, shown: str) -> None:
    """FAULTS 50."""
    assert str(Request("GET", target, {})) == shown


@pytest.mark.parametrize("error", [StoreError("the disk is gone"), ValueError("a mistake of ours")])
def test_an_answer_that_cannot_go_on_is_reset_and_one_that_has_not_begun_is_told_why(
    serve: Serve, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.request.target == "/begun":
            exchange.start(200, {"Content-Length": "100"})
            exchange.send(b"some of it")
        raise error

    listener = serve(handle)
    client = http.client.HTTPConnection(*listener.address, timeout=5)
    client.request("GET", "/begun")
    answer = client.getresponse()
    with pytest.raises(ConnectionResetError):
        answer.read()
    client.close()
    received = say(listener, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert statuses(received) == [500]
    assert b'"errors"' in received
    assert all(record.levelno >= logging.WARNING for record in caplog.records)


def test_a_file_that_is_shorter_than_it_should_be_resets_the_connection(serve: Serve, tmp_path: Path) -> None:
    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "100"})
        (tmp_path / "short").write_bytes(b"short")
        with (tmp_path / "short").open("rb") as file:
            exchange.send_file(file.fileno(), 0, 100)

    with connect(serve(handle)) as sock:
        sock.sendall(GET)
        with pytest.raises(ConnectionResetError):
            read_all(sock)


def test_whether_the_client_left_is_seen_without_taking_what_it_said(serve: Serve) -> None:
    seen: list[bool] = []
    go_on = threading.Event()

    def handle(exchange: Exchange) -> None:
        seen.append(exchange.client_left())
        go_on.wait(5)
        wait_until(exchange.client_left)
        seen.append(True)

    with connect(serve(handle)) as sock:
        sock.sendall(GET)
        wait_until(lambda: bool(seen))
    go_on.set()
    wait_until(lambda: seen == [False, True])


# Limits.


def test_connections_over_a_limit_are_told_so_at_once_and_the_others_go_on(serve: Serve) -> None:
    for listener in (serve(connections=2), serve(each=2)):
        with connect(listener) as first, connect(listener) as second:
            for sock in (first, second):
                sock.sendall(GET)
                assert statuses(sock.recv(65536)) == [200]
            began = time.monotonic()
            for _ in range(50):
                assert statuses(say(listener)) == [503]
            assert time.monotonic() - began < 1
            first.sendall(GET)
            assert statuses(first.recv(65536)) == [200]
        wait_until(lambda listener=listener: not listener._open)
        assert statuses(say(listener, b"GET / HTTP/1.0\r\n\r\n")) == [200]


def test_without_a_thread_to_serve_it_a_client_is_told_to_come_back(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = serve()

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more)
        assert statuses(say(listener)) == [503]
    assert statuses(say(listener, b"GET / HTTP/1.0\r\n\r\n")) == [200]


def test_connections_leave_no_thread_and_no_descriptor(serve: Serve) -> None:
    listener = serve()
    say(listener, b"GET / HTTP/1.0\r\n\r\n")
    wait_until(lambda: not listener._open)
    before = threads_and_descriptors()
    for words in (b"GET / HTTP/1.0\r\n\r\n", b"garbage\r\n", b"GET / HTTP/1.0\r\n\r\n") * 20:
        say(listener, words)
    for _ in range(20):
        connect(listener).close()
    wait_until(lambda: no_more_than(before))


# Start and stop.


def test_a_stop_closes_what_is_idle_at_once_and_lets_what_is_under_way_end(serve: Serve) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handle(exchange: Exchange) -> None:
        begun.set()
        go_on.wait(5)
        echo(exchange)

    listener = serve(handle)
    where = listener.address
    with connect(listener) as idle, connect(listener) as busy:
        busy.sendall(GET)
        begun.wait(5)
        stopping = threading.Thread(target=listener.stop, args=(5.0,))
        stopping.start()
        assert idle.recv(1) == b""
        assert stopping.is_alive()
        go_on.set()
        assert statuses(read_all(busy)) == [200]
        stopping.join(2)
        assert not stopping.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where)


def test_a_stop_cuts_off_what_does_not_end_in_time(serve: Serve) -> None:
    begun = threading.Event()

    def handle(exchange: Exchange) -> None:
        exchange.start(200, {"Content-Length": "1"})
        begun.set()
        while not exchange.client_left():
            time.sleep(0.01)

    listener = serve(handle)
    with connect(listener) as sock:
        sock.sendall(GET)
        begun.wait(5)
        listener.stop(0.1)
        assert not read_all(sock).endswith(b"\r\n\r\n0")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Address("192.0.2.1", 0), "Cannot assign requested address"),
        (Address("no-such-name.invalid", 0), "not known|No address|Temporary failure"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_clear_line(where: Address, words: str) -> None:
    with pytest.raises(UsageError, match=rf"^the server cannot listen on {where}: .*({words})[^\n]*$"):
        bind(where, "server")


def test_a_taken_port_is_one_clear_line_and_families_do_not_mix() -> None:
    with bind(LOOPBACK, "first") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^the second cannot listen on 127\.0\.0\.1:{port}: Address already in use$"):
            bind(Address("127.0.0.1", port), "second")
        with bind(Address("::1", port), "of the other family") as other:
            assert other.family == socket.AF_INET6


def wait_until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come about in time"
        time.sleep(0.01)


@pytest.mark.parametrize(("host", "algorithm"), [("127.0.0.1", "reno"), ("127.0.0.2", "reno"), ("0.0.0.0", None)])
def test_what_goes_to_this_machine_alone_is_not_paced_and_what_may_go_further_is_as_the_system_says(
    host: str, algorithm: str | None
) -> None:
    def algorithm_of(sock: socket.socket) -> str:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()

    with socket.socket() as other:
        expected = algorithm or algorithm_of(other)
    with bind(Address(host, 0), "test") as listening:
        with socket.create_connection(listening.getsockname(), 5):
            accepted, _ = listening.accept()
        with accepted:
            assert algorithm_of(accepted) == expected


def test_a_system_that_lets_nobody_choose_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "TCP_CONGESTION", 9999)
    with bind(Address("127.0.0.1", 0), "test") as listening:
        socket.create_connection(listening.getsockname(), 5).close()
