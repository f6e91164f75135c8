"""Rows 16 and 52: readers come and go, many at once; each byte crosses from the origin once, and nothing goes on for nobody."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.values.pieces import PIECE_BYTES_CUT_MIN
from hack.origin import Fault, Origin
from tests.endpoint import Endpoint, no_more_than, push, threads_and_descriptors, wait_until

SHARE_BYTES = 512 << 10
LAYER = random.Random(52).randbytes(8 * SHARE_BYTES - 4321)
DIGEST = "sha256:" + hashlib.sha256(LAYER).hexdigest()
BLOB = f"blobs/{DIGEST}"
STARTS = range(0, len(LAYER), SHARE_BYTES)
SLOW = Fault(path="/blobs/", bytes_per_second=1 << 20)
CLIENTS = 100


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin, LAYER)
        yield origin


@pytest.fixture
def endpoint(origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path / "store", origin) as endpoint:
        assert endpoint.ask("manifests/1").status == 200
        yield endpoint


@pytest.fixture
def nothing_leaks(endpoint: Endpoint) -> Iterator[Callable[[], None]]:
    """Called when all clients have left: threads and descriptors go back to what they were."""
    wait_until(lambda: not endpoint.listener._open)
    before = threads_and_descriptors()

    def check() -> None:
        wait_until(lambda: no_more_than(before))

    yield check
    check()


@pytest.mark.usefixtures("nothing_leaks")
def test_a_hundred_clients_are_one_download(endpoint: Endpoint, origin: Origin) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        bodies = list(pool.map(lambda _: hashlib.sha256(endpoint.ask(BLOB).body).hexdigest(), range(CLIENTS)))
    assert set(bodies) == {DIGEST.removeprefix("sha256:")}
    assert [request.method for request in origin.asked(DIGEST)] == ["GET"]
    assert origin.blob_bytes_sent == len(LAYER)


@pytest.mark.usefixtures("nothing_leaks")
def test_a_hundred_clients_that_leave_in_the_middle_leave_nothing_behind(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(SLOW)

    def come_and_go(number: int) -> None:
        with endpoint.reader(BLOB) as read:
            read(1 + number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(come_and_go, range(CLIENTS)))
    sent = stopped(origin)
    assert sent < len(LAYER) // 2
    origin.heal()


def stopped(origin: Origin) -> int:
    """What the origin has sent, once a second has passed since everybody left: it sends no more."""
    time.sleep(1.0)
    sent = origin.blob_bytes_sent
    time.sleep(0.3)
    assert origin.blob_bytes_sent == sent
    return sent


def test_what_arrived_before_everybody_left_is_not_fetched_again(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(SLOW)
    with endpoint.reader(BLOB) as read:
        read(SHARE_BYTES)
    stopped(origin)
    origin.heal()
    assert endpoint.ask(BLOB).body == LAYER
    *_, resumed = origin.asked(DIGEST)
    assert int(resumed.headers["range"].removeprefix("bytes=").removesuffix("-")) >= SHARE_BYTES
    assert resumed.body_bytes <= len(LAYER) - SHARE_BYTES


def test_a_client_that_comes_back_at_once_finds_its_download_going_on(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=8 << 20))
    for _ in range(5):
        with endpoint.reader(BLOB) as read:
            read(1000)
    assert endpoint.ask(BLOB).body == LAYER
    assert len(origin.asked(DIGEST)) == 1


@pytest.mark.usefixtures("nothing_leaks")
def test_a_client_that_leaves_before_the_first_byte_ends_what_was_asked_for_it(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", stall_after=0))
    with endpoint.connect() as sock:
        sock.sendall(f"GET {endpoint.prefix}/{BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        wait_until(lambda: endpoint.downloads._active != {})
    began = time.monotonic()
    wait_until(lambda: not endpoint.downloads._active and not endpoint.listener._open)
    assert time.monotonic() - began < 1.5
    origin.stop()
    origin.start()


@pytest.mark.usefixtures("nothing_leaks")
def test_eight_open_ended_ranges_each_reset_after_its_share_are_one_download(endpoint: Endpoint, origin: Origin) -> None:
    def share(start: int) -> bytes:
        with endpoint.reader(BLOB, Range=f"bytes={start}-") as read:
            return read(min(SHARE_BYTES, len(LAYER) - start))

    for _ in range(2):  # while it arrives, and from the store
        with ThreadPoolExecutor(len(STARTS)) as pool:
            assert b"".join(pool.map(share, STARTS)) == LAYER
    assert origin.blob_bytes_sent == len(LAYER)
    assert len(origin.asked(DIGEST)) == 1


def test_a_reader_of_a_range_ahead_does_not_make_the_first_reader_wait_for_it(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=1 << 20))
    with endpoint.connect() as ahead:
        ahead.sendall(f"GET {endpoint.prefix}/{BLOB} HTTP/1.1\r\nHost: x\r\nRange: bytes={STARTS[-1]}-\r\n\r\n".encode())
        wait_until(lambda: origin.asked(DIGEST) != [])
        with endpoint.reader(BLOB) as read:
            assert read(SHARE_BYTES) == LAYER[:SHARE_BYTES]
            assert origin.blob_bytes_sent < STARTS[-1], "the first share was there before what the other reader wants"


def test_each_reader_gets_each_piece_when_it_comes(endpoint: Endpoint, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=4 << 20))
    with endpoint.reader(BLOB) as first, endpoint.reader(BLOB) as second:
        for read in (first, second):
            assert read(PIECE_BYTES_CUT_MIN) == LAYER[:PIECE_BYTES_CUT_MIN]
    assert origin.blob_bytes_sent < len(LAYER)


def test_two_blobs_do_not_wait_for_each_other(endpoint: Endpoint, origin: Origin) -> None:
    other = push(origin, b"other", tag="other")
    endpoint.ask("manifests/other")
    origin.fail(Fault(path=DIGEST, stall_after=1000))
    with endpoint.connect() as sock:
        sock.sendall(f"GET {endpoint.prefix}/{BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert endpoint.ask(f"blobs/{other.layers[0]}").body == b"other"
    origin.stop()
    origin.start()


def test_a_blob_of_no_bytes_and_one_of_a_single_byte_are_blobs(endpoint: Endpoint, origin: Origin) -> None:
    small = push(origin, b"", b"x", tag="small")
    endpoint.ask("manifests/small")
    for digest, content in zip(small.layers, (b"", b"x"), strict=True):
        for _ in range(2):
            answer = endpoint.ask(f"blobs/{digest}")
            assert (answer.status, answer.body) == (200, content)


def test_readers_that_take_nothing_hold_no_bytes_back_in_this_process(endpoint: Endpoint) -> None:
    endpoint.ask(BLOB, Range="bytes=-1")
    tracemalloc.start()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(endpoint.connect())
            sock.sendall(f"GET {endpoint.prefix}/{BLOB} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.2)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20, "twenty readers of four megabytes each"
