"""Row 52: containerd 2 with parallel fetch asks for eight open-ended ranges at once and resets each after its share."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hack.lab import Lab, wait_until
from hack.lab.darner import REGISTRY_PORT, Agent
from hack.origin import Fault, Image, Origin

SHARE_BYTES = 2 << 20
LAYER = random.Random(52).randbytes(8 * SHARE_BYTES - 12345)
BLOB = f"blobs/sha256:{hashlib.sha256(LAYER).hexdigest()}"
STARTS = range(0, len(LAYER), SHARE_BYTES)
"""Of the eight shares."""
SLOW_BYTES_PER_SECOND = 4 << 20
SLOWEST_BYTES_PER_SECOND = 512 << 10
"""A piece of the smallest size takes half a second."""
STOPS_WITHIN_SECONDS = 1.0
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.push("team/app", "1", Image.of([LAYER]))
        yield origin


@pytest.fixture
def agent(origin: Origin) -> Iterator[Agent]:
    with Lab() as lab:
        agent = Agent(lab.loopback("node"), insecure_registries=[origin.address])
        read_whole(agent, origin, "manifests/1")  # every pull begins with it
        yield agent
        print(lab.last_words())  # noqa: T201 (pytest shows it with a test that fails)


class Reader:
    """One request, as containerd sends it; ends with the block, or by a reset in the middle of what is sent."""

    def __init__(self, agent: Agent, origin: Origin, what: str, start: int | None = None) -> None:
        self._connection = agent.connection(agent.host.port(REGISTRY_PORT))
        headers = {} if start is None else {"Range": f"bytes={start}-"}
        self._connection.request("GET", f"/v2/{origin.address.replace(':', '_')}/team/app/{what}", headers=headers)
        answer = self._connection.getresponse()
        self.read, self.status, self.content_range = answer.read, answer.status, answer.headers["Content-Range"]

    def leave(self) -> None:
        self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self._connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def read_whole(agent: Agent, origin: Origin, what: str) -> bytes:
    with Reader(agent, origin, what) as reader:
        return reader.read()


def read_share(agent: Agent, origin: Origin, start: int) -> tuple[int, str | None, bytes]:
    """What containerd takes of an open-ended range before it resets the connection."""
    with Reader(agent, origin, BLOB, start) as reader:
        content = reader.read(min(SHARE_BYTES, len(LAYER) - start))
        reader.leave()
        return reader.status, reader.content_range, content


def test_eight_ranges_at_once_each_reset_after_its_share_cross_the_network_once(agent: Agent, origin: Origin) -> None:
    with ThreadPoolExecutor(len(STARTS)) as pool:
        shares = list(pool.map(lambda start: read_share(agent, origin, start), STARTS))
    assert b"".join(content for _, _, content in shares) == LAYER
    assert [status for status, _, _ in shares] == [206] * 8
    assert [told for _, told, _ in shares] == [f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}" for start in STARTS]
    assert origin.blob_bytes_sent == len(LAYER)


def test_a_second_reader_of_all_ranges_is_served_from_the_store(agent: Agent, origin: Origin) -> None:
    assert read_whole(agent, origin, BLOB) == LAYER
    origin.stop()
    assert b"".join(read_share(agent, origin, start)[2] for start in STARTS) == LAYER
    origin.start()


def test_no_work_goes_on_for_a_reader_that_left(agent: Agent, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW_BYTES_PER_SECOND))
    with Reader(agent, origin, BLOB, 0) as reader:
        reader.read(SHARE_BYTES // 2)
        reader.leave()
    time.sleep(STOPS_WITHIN_SECONDS)
    sent = origin.blob_bytes_sent
    assert sent < len(LAYER) // 2
    time.sleep(STOPS_WITHIN_SECONDS)
    assert origin.blob_bytes_sent == sent


def test_work_goes_on_for_a_reader_that_stays_when_others_leave(agent: Agent, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=4 * SLOW_BYTES_PER_SECOND))
    with Reader(agent, origin, BLOB, 0) as staying:
        for start in STARTS[1:]:
            with Reader(agent, origin, BLOB, start) as leaving:
                leaving.leave()
        assert staying.read() == LAYER
    assert origin.blob_bytes_sent == len(LAYER)


def test_what_arrived_before_everybody_left_is_not_fetched_again(agent: Agent, origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", bytes_per_second=SLOW_BYTES_PER_SECOND))
    with Reader(agent, origin, BLOB, 0) as reader:
        reader.read(2 * SHARE_BYTES)
        reader.leave()
    wait_until(lambda: agent.metric("darner_agent_downloads") == 0)
    origin.heal()
    assert read_whole(agent, origin, BLOB) == LAYER
    assert origin.blob_bytes_sent < 1.25 * len(LAYER), "beyond the blob only what was on its way when the reader left"


def test_a_reader_of_a_slow_source_has_each_piece_when_it_comes(agent: Agent, origin: Origin) -> None:
    small = random.Random(1).randbytes(3 * SLOWEST_BYTES_PER_SECOND)
    origin.push("team/app", "small", Image.of([small]))
    origin.fail(Fault(path="/blobs/", bytes_per_second=SLOWEST_BYTES_PER_SECOND))
    read_whole(agent, origin, "manifests/small")
    began = time.monotonic()
    assert read_whole(agent, origin, f"blobs/sha256:{hashlib.sha256(small).hexdigest()}") == small
    assert time.monotonic() - began < 2 * 3


def test_a_range_on_a_manifest_is_answered_with_all_of_it(agent: Agent, origin: Origin) -> None:
    with Reader(agent, origin, "manifests/1") as plain, Reader(agent, origin, "manifests/1", 0) as ranged:
        assert plain.status == 200
        assert ranged.status in (200, 206)
        assert ranged.read() == plain.read()
