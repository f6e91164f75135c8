"""Heads that are read without a state machine mean what h11 makes of them, or are left to it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.http.plain import answer_head, read_answer, read_request, request_head
from agent.http.request import joined

TICKET = {"Host": "10.0.0.7:65002", "Accept-Encoding": "identity", "Authorization": "Ticket 1.ab"}
REQUEST = b"GET /pieces/x/1 HTTP/1.1\r\nHost: x\r\n%s\r\n"
ANSWER = b"HTTP/1.1 200 \r\nContent-Length: 5\r\n%s\r\nhello"

names = st.sampled_from(["Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "X-Any", "X Y", "", "Expect", "TE"])
values = st.sampled_from(
    ["x", "5", "5, 5", "05", "+5", "-5", "chunked", "close", "", " ", "a b", "a\tb", "\xe9", "a\x00b", " x "]
)
lines = st.lists(st.tuples(names, st.sampled_from([": ", ":", " : ", ""]), values), max_size=4)
ends = st.sampled_from(["\r\n", "\n", "\r"])
starts_of_requests = st.sampled_from(
    [
        "GET / HTTP/1.1",
        "GET /a?b HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET / HTTP/1.0",
        "HEAD / HTTP/1.1",
        "GET /\x7f HTTP/1.1",
        "get / HTTP/1.1",
    ]
)
starts_of_answers = st.sampled_from(
    [
        "HTTP/1.1 200 ",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 204 ",
        "HTTP/1.1 100 ",
        "HTTP/1.1 404 Not\x01",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 2000 ",
    ]
)


def message(first: str, fields: list[tuple[str, str, str]], end: str, rest: str) -> bytes:
    return (first + "\r\n" + "".join(f"{name}{colon}{value}{end}" for name, colon, value in fields) + "\r\n" + rest).encode(
        "latin-1"
    )


def h11_reads(role: type[h11.CLIENT] | type[h11.SERVER], data: bytes) -> tuple[h11.Connection, object]:
    connection = h11.Connection(role)
    if role is h11.CLIENT:
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    return connection, connection.next_event()


@given(starts_of_requests, lines, ends, st.sampled_from(["", "GET", "\r\n"]))
@example("GET / HTTP/1.1", [("Host", ": ", "x")], "\r\n", "")
def test_what_is_read_of_a_request_is_what_h11_reads(first: str, fields: list[tuple[str, str, str]], end: str, rest: str) -> None:
    data = message(first, fields, end, rest)
    plain = read_request(data)
    if plain is None:
        return
    connection, event = h11_reads(h11.SERVER, data)
    assert isinstance(event, h11.Request)
    assert (event.method, event.target.decode(), joined(event.headers)) == (b"GET", plain.target, plain.headers)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.their_state is h11.DONE, "its connection stays"
    assert connection.trailing_data == (b"", False)


@given(starts_of_answers, lines, ends, st.sampled_from(["", "hello", "\r\n\r\n"]))
@example("HTTP/1.1 200 OK", [("Content-Length", ": ", "5")], "\r\n", "hello")
def test_what_is_read_of_an_answer_is_what_h11_reads(first: str, fields: list[tuple[str, str, str]], end: str, rest: str) -> None:
    data = message(first, fields, end, rest)
    plain = read_answer(data)
    if plain is None:
        return
    connection, event = h11_reads(h11.CLIENT, data)
    assert isinstance(event, h11.Response)
    assert (event.status_code, joined(event.headers)) == (plain.status, plain.headers)
    assert int(plain.headers["content-length"]) == plain.length
    assert plain.rest == rest.encode()
    assert connection.their_state is h11.SEND_BODY or not plain.length


def test_what_a_node_asks_another_is_read() -> None:
    plain = read_request(request_head("GET", "/pieces/sha256:ab/7", TICKET))
    assert plain == ("/pieces/sha256:ab/7", {name.lower(): value for name, value in TICKET.items()})


def test_what_a_node_answers_is_read_with_what_came_behind_it() -> None:
    head = answer_head(200, {"Content-Type": "application/octet-stream", "Content-Length": "5"})
    assert read_answer(head + b"hel") == (200, {"content-type": "application/octet-stream", "content-length": "5"}, 5, b"hel")


@pytest.mark.parametrize(
    "field",
    [
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n"),
        *(b"Host: y\r\n", b"X: a\r\n b\r\n", b"X:\r\n", b"X : y\r\n", b"X: y\n", b"X: \xe9\r\n"),
    ],
)
def test_a_request_with_something_unusual_is_left_to_h11(field: bytes) -> None:
    assert read_request(REQUEST % b"") is not None
    assert read_request(REQUEST % field) is None


@pytest.mark.parametrize("data", [b"", REQUEST[:-2] % b"", REQUEST % b"" + b"GET", b"GET / HTTP/1.1\r\n\r\n"])
def test_less_and_more_than_one_request_is_left_to_h11(data: bytes) -> None:
    assert read_request(data) is None


@pytest.mark.parametrize(
    "data",
    [
        *(ANSWER % field for field in (b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Content-Length: 5\r\n")),
        *((ANSWER % b"").replace(b"200", status) for status in (b"100", b"204", b"304", b"999")),
        *(b"HTTP/1.1 200 \r\nX: y\r\n\r\n", (ANSWER % b"").replace(b"1.1", b"1.0"), ANSWER[:30]),
    ],
)
def test_an_answer_with_something_unusual_is_left_to_h11(data: bytes) -> None:
    assert read_answer(ANSWER % b"") is not None
    assert read_answer(data) is None


@pytest.mark.parametrize("bad", ["a\r\nX: y", "a\nb", "a\x00", "\u20ac"])
def test_nothing_is_written_that_would_be_read_as_something_else(bad: str) -> None:
    for write in (lambda: answer_head(200, {"X": bad}), lambda: request_head("GET", "/", {"X": bad})):
        with pytest.raises(ValueError, match="no field"):
            write()
    with pytest.raises(ValueError, match="no field"):
        answer_head(200, {f"X{bad}": "y"})
    with pytest.raises(ValueError, match="no target"):
        request_head("GET", f"/{bad}", {})
