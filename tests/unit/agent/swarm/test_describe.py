"""What a node says of a blob that it holds whole: the digests of its pieces, some at a time, and of others nothing at all."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.storage.store import Store
from agent.swarm import describe as module
from agent.swarm import messages
from agent.swarm.describe import BATCH, THREADS_MAX, WAITING_MAX, Describer
from agent.swarm.messages import Brought, Describe
from agent.values.pieces import PIECE_BYTES_MIN, Layout
from tests.endpoint import wait_until
from tests.swarm import noise

BODY = noise((BATCH + 2) * PIECE_BYTES_MIN + 7)
RAW = hashlib.sha256(BODY).digest()
LAYOUT = Layout(len(BODY), PIECE_BYTES_MIN)
DIGESTS = {piece: blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)}
WANTED = Describe(7, RAW, LAYOUT.size, LAYOUT.length)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", quota=1 << 30, free=0, age=3600.0)
    yield store
    store.close()


@pytest.fixture
def describer(store: Store) -> Iterator[Describer]:
    describer = Describer(store)
    yield describer
    describer.stop()


def fill(store: Store, body: bytes = BODY, pieces: int | None = None) -> None:
    """The whole blob, or its first pieces, cut as this node would."""
    blob = store.receive("sha256:" + hashlib.sha256(body).hexdigest(), Layout.of(len(body)))
    for piece in range(blob.layout.count if pieces is None else pieces):
        start, end = blob.layout.span(piece)
        blob.write(start, body[start:end])
        blob.add(piece, blake3(body[start:end]).digest(), checked=True)


def said(describer: Describer, wanted: Describe = WANTED) -> list[messages.Message]:
    """All that it says of a blob: known when it has stopped, for it is stopped when its threads are idle."""
    told: list[messages.Message] = []
    describer.describe(wanted, told.append)
    describer._threads.shutdown(wait=True)
    return told


def test_all_pieces_are_named_in_the_cut_that_was_asked_for_some_at_a_time(store: Store, describer: Describer) -> None:
    fill(store)
    told = said(describer)
    assert [list(message.pieces) for message in told if isinstance(message, Brought)] == [
        list(range(BATCH)),
        list(range(BATCH, LAYOUT.count)),
    ]
    named = {piece: digest for message in told if isinstance(message, Brought) for piece, digest in message.pieces.items()}
    assert named == DIGESTS
    assert {message.task for message in told if isinstance(message, Brought)} == {7}


def test_of_a_blob_that_is_not_here_or_not_whole_nothing_is_said(store: Store, describer: Describer) -> None:
    fill(store, pieces=1)
    assert Layout.of(len(BODY)).count > 1
    assert said(describer) == []


def test_of_a_blob_that_was_never_here_nothing_is_said(describer: Describer) -> None:
    assert said(describer) == []


@pytest.mark.parametrize(
    "wanted",
    [Describe(7, RAW, len(BODY) + 1, PIECE_BYTES_MIN), Describe(7, RAW, len(BODY), 0), Describe(7, RAW, len(BODY), 3)],
    ids=["another size", "no length", "a length that cannot be"],
)
def test_of_a_blob_that_is_cut_in_another_size_or_a_way_that_cannot_be_nothing_is_said(
    store: Store, describer: Describer, wanted: Describe
) -> None:
    fill(store)
    assert said(describer, wanted) == []


def test_a_disk_that_fails_is_said_in_the_log_and_ends_no_thread(
    store: Store, describer: Describer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)

    def fail(*_: object) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(module, "piece_digest", fail)
    with caplog.at_level(logging.INFO):
        assert said(describer) == []
    assert "cannot be described" in caplog.text


def test_no_more_blobs_wait_than_the_limit_and_a_place_is_free_again_when_one_is_done(
    store: Store, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    go_on, really = threading.Event(), module.piece_digest

    def wait(*of: object) -> bytes:
        go_on.wait()
        return really(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "piece_digest", wait)
    told: list[messages.Message] = []
    for _ in range(WAITING_MAX + 5):
        describer.describe(WANTED, told.append)
    go_on.set()
    wait_until(lambda: len(told) == 2 * WAITING_MAX)
    wait_until(lambda: describer._places._value == WAITING_MAX)  # type: ignore[attr-defined]
    describer.describe(WANTED, told.append)
    wait_until(lambda: len(told) == 2 * WAITING_MAX + 2)


def test_no_more_blobs_are_read_at_once_than_there_are_threads(
    store: Store, describer: Describer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    reading, most, lock, really = 0, 0, threading.Lock(), module.piece_digest

    def count(*of: object) -> bytes:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        digest = really(*of)  # type: ignore[arg-type]
        with lock:
            reading -= 1
        return digest

    monkeypatch.setattr(module, "piece_digest", count)
    told: list[messages.Message] = []
    for _ in range(8):
        describer.describe(WANTED, told.append)
    wait_until(lambda: len(told) == 16)
    assert most <= THREADS_MAX


def test_a_node_that_stops_says_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    describer, begun, go_on = Describer(store), threading.Event(), threading.Event()
    really = module.piece_digest

    def wait(*of: object) -> bytes:
        begun.set()
        go_on.wait()
        return really(*of)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "piece_digest", wait)
    told: list[messages.Message] = []
    describer.describe(WANTED, told.append)
    begun.wait()
    describer._stopping.set()
    go_on.set()
    describer.stop()
    assert told == []
    describer.describe(WANTED, told.append)
    assert told == []
