"""What both ends share: heads mean to h11 what was meant, the kernel ends a socket's waiting, and a thread has one buffer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.http.wire import answer_head, buffer, joined, request_head, wait_to_receive, wait_to_send

Pair = tuple[socket.socket, socket.socket]

TICKET = {"Host": "10.0.0.7:65002", "Accept-Encoding": "identity", "Authorization": "Ticket 1.ab"}

names = st.sampled_from(["Range", "range", "X-Any", "X Y", "", "X:", "X\r\n", "É"])
values = st.sampled_from(["x", "5", "", " ", "a b", "a\tb", "\xe9", "a\x00b", " x ", "a\r\nX: y", "a\nb", "a\rb", "\x7f", "€"])
fields = st.dictionaries(names, values, max_size=4)
targets = st.sampled_from(["/", "/a?b", "*", "docker.io:443", "/a b", "/\x7f", "/é", "/a\r\nX: y", ""])


def meant(headers: dict[str, str]) -> dict[str, str]:
    """What a reader makes of the fields: names in any case, values without the white space around them, a name's lines joined."""
    return joined((name.encode(), value.strip(" \t").encode("latin-1")) for name, value in headers.items())


@given(st.sampled_from(["GET", "HEAD"]), targets, fields)
@example("GET", "/pieces/sha256:ab/7", TICKET)
def test_a_request_is_read_as_it_was_meant_or_not_written(method: str, target: str, headers: dict[str, str]) -> None:
    headers = {"Host": "x", **headers}
    try:
        head = request_head(method, target, headers)
    except ValueError:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(head)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method.decode(), event.target.decode(), joined(event.headers)) == (method, target, meant(headers))
    assert isinstance(server.next_event(), h11.EndOfMessage)
    assert server.trailing_data == (b"", False)


@given(st.integers(200, 599), fields)
@example(200, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": "sha256:ab"})
def test_an_answer_is_read_as_it_was_meant_or_not_written(status: int, headers: dict[str, str]) -> None:
    headers = {"Content-Length": "5", **headers}
    try:
        head = answer_head(status, headers)
    except ValueError:
        return
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(head + b"hello")
    event = client.next_event()
    assert isinstance(event, h11.Response)
    assert (event.status_code, joined(event.headers)) == (status, meant(headers))
    assert client.trailing_data == (b"hello", False)


def test_what_nodes_ask_and_answer_each_other_is_written() -> None:
    assert request_head("GET", "/pieces/sha256:ab/7", TICKET) == (
        b"GET /pieces/sha256:ab/7 HTTP/1.1\r\nHost: 10.0.0.7:65002\r\nAccept-Encoding: identity\r\n"
        b"Authorization: Ticket 1.ab\r\n\r\n"
    )
    assert answer_head(200, {"Content-Length": "5"}) == b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\x00", "€"])
def test_what_cannot_be_written_is_refused_without_what_may_be_a_secret(bad: str) -> None:
    for write in (
        lambda: request_head("GET", "/", {"Authorization": f"Bearer t0ken{bad}"}),
        lambda: request_head("GET", f"/blob?signature=t0ken{bad}", {}),
    ):
        with pytest.raises(ValueError, match=r"is no|are no") as refused:
            write()
        assert "t0ken" not in str(refused.value)


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\x00", "€"])
def test_nothing_is_written_that_would_be_read_as_something_else(bad: str) -> None:
    for write in (lambda: answer_head(200, {"X": bad}), lambda: request_head("GET", "/", {"X": bad})):
        with pytest.raises(ValueError, match="no field"):
            write()
    with pytest.raises(ValueError, match="no field"):
        answer_head(200, {f"X{bad}": "y"})
    with pytest.raises(ValueError, match="no target"):
        request_head("GET", f"/{bad}", {})


# Sockets and buffers.


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1e-9])
def test_receiving_ends_when_nothing_comes(pair: Pair, seconds: float) -> None:
    wait_to_receive(pair[0], seconds)
    with pytest.raises(BlockingIOError):
        pair[0].recv(1)


def test_what_came_of_what_was_wanted_is_given_when_no_more_comes(pair: Pair) -> None:
    wait_to_receive(pair[0], 0.05)
    pair[1].sendall(b"some")
    assert pair[0].recv_into(memoryview(bytearray(10)), 10, socket.MSG_WAITALL) == 4


def test_sending_ends_when_nothing_is_taken(pair: Pair) -> None:
    wait_to_send(pair[0], 0.05)
    with pytest.raises(BlockingIOError):
        pair[0].sendall(bytes(64 << 20))


def test_a_wait_of_more_than_a_second_is_one(pair: Pair) -> None:
    wait_to_receive(pair[0], 20.25)
    threading.Timer(0.05, pair[1].sendall, args=(b"late",)).start()
    assert pair[0].recv(10) == b"late"


def test_a_thread_has_one_buffer_and_no_other_has_it() -> None:
    mine, theirs = buffer(), []
    assert buffer() is mine
    thread = threading.Thread(target=lambda: theirs.append(buffer()))
    thread.start()
    thread.join()
    assert theirs[0] is not mine
