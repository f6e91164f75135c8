"""The origin's stream of a download: the pieces that it fills, what is said of each, and how it ends."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast

import pytest
from blake3 import blake3

from agent.download import events
from agent.download.origin_stream import OriginStream
from agent.origin.blobstream import BlobStream
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.values.errors import DarnerError, OriginError
from agent.values.pieces import Layout
from tests.endpoint import wait_until
from tests.swarm import PIECE, noise

BODY = noise(4 * PIECE + 5)
DIGEST = "sha256:" + hashlib.sha256(BODY).hexdigest()
LAYOUT = Layout.of(len(BODY))
DIGESTS = [blake3(BODY[slice(*LAYOUT.span(piece))]).digest() for piece in range(LAYOUT.count)]


class Answer:
    """What a registry sends, from a piece on: all of it, or so many pieces and then an error."""

    def __init__(self, first: int, pieces: int = 99, error: Exception | None = None) -> None:
        self.size = len(BODY)
        self.denied: list[DarnerError | None] = []
        self.is_closed = False
        self._at = LAYOUT.span(first)[0]
        self._end = min(len(BODY), self._at + pieces * LAYOUT.length)
        self._error = error

    def read_into(self, buffer: memoryview) -> int:
        if self._at == self._end and self._error:
            raise self._error
        count = min(len(buffer), self._end - self._at)
        buffer[:count] = BODY[self._at : self._at + count]
        self._at += count
        return count

    def deny(self, error: DarnerError | None) -> None:
        self.denied.append(error)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Blob]:
    store = Store(tmp_path / "store", quota=1 << 30, free=0, age=3600.0)
    yield store.receive(DIGEST, LAYOUT)
    store.close()


def streamed(blob: Blob, answer: Answer, first: int = 0, end: int | None = None, *, shares: bool = True) -> list[events.Event]:
    """All that a stream says."""
    heard: list[events.Event] = []
    came: list[int] = []
    stream = OriginStream(
        lambda: cast(BlobStream, answer), lambda size: blob, heard.append, came=came.append, first=first, end=end, shares=shares
    )
    stream.begin("origin")
    wait_until(lambda: any(isinstance(event, events.OriginEnded) for event in heard))
    return heard


def pieces_of(heard: list[events.Event]) -> dict[int, bytes | None]:
    return {event.piece: event.digest for event in heard if isinstance(event, events.OriginPiece)}


def test_each_piece_is_said_with_its_digest_and_at_last_the_end(blob: Blob) -> None:
    answer = Answer(0)
    heard = streamed(blob, answer)
    assert pieces_of(heard) == dict(enumerate(DIGESTS))
    assert heard[-1] == events.OriginEnded(None)
    assert blob.whole
    assert (answer.is_closed, answer.denied) == (True, [None])


def test_a_part_ends_where_it_was_to_end(blob: Blob) -> None:
    assert pieces_of(streamed(blob, Answer(1, 2), 1, 3)) == {1: DIGESTS[1], 2: DIGESTS[2]}
    assert blob.held == 0b110


def test_it_ends_before_what_is_here_already(blob: Blob) -> None:
    streamed(blob, Answer(2, 1), 2, 3)
    heard = streamed(blob, Answer(0), 0, None)
    assert list(pieces_of(heard)) == [0, 1]
    assert heard[-1] == events.OriginEnded(None)


def test_where_nobody_may_ask_for_a_piece_none_has_a_digest_of_its_own(blob: Blob) -> None:
    assert pieces_of(streamed(blob, Answer(0), shares=False)) == dict.fromkeys(range(LAYOUT.count))
    assert blob.whole


def test_what_breaks_off_in_a_piece_leaves_the_pieces_before_it(blob: Blob) -> None:
    broken = OriginError(502, "broke off")
    heard = streamed(blob, Answer(0, 2, broken))
    assert list(pieces_of(heard)) == [0, 1]
    assert heard[-1] == events.OriginEnded(broken)
    assert blob.held == 0b11


def test_a_registry_that_sends_less_than_it_announced_is_said_to(blob: Blob) -> None:
    (*_, ended) = streamed(blob, Answer(0, 1))
    assert isinstance(ended, events.OriginEnded)
    assert "sent less than it announced" in str(ended.error)


def test_a_stream_for_which_no_thread_is_left_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def nobody(*_: object) -> NoReturn:
        raise AssertionError("nothing is asked or received")

    heard: list[events.Event] = []
    stream = OriginStream(nobody, nobody, heard.append, came=lambda _: None, first=0, end=None, shares=False)
    monkeypatch.setattr(threading.Thread, "start", exhausted)
    stream.begin("origin")
    assert [isinstance(event, events.OriginEnded) and event.error is not None for event in heard] == [True]
