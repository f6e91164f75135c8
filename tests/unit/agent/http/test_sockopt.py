"""Sockets whose waiting the kernel ends, and the buffers of threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from agent.http.body import buffer
from agent.http.sockopt import wait_to_receive, wait_to_send

Pair = tuple[socket.socket, socket.socket]


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
