"""Pieces that follow each other are fetched in one request, and what became of each is told as if it had its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.download import download as module
from agent.download.download import BlobOrigin, Download, in_requests
from agent.download.events import Broken, Event, Fetch, Superseded
from agent.pulls import BlobPull
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.messages import COMING, CORRUPT, DELIVERED, MISSING, SEED, STALLED, UNREACHABLE, Done
from agent.swarm.piece_client import TOGETHER_BYTES_MAX
from agent.swarm.supernodes import Memory
from agent.values.address import Address
from agent.values.errors import DarnerError, SourceError, StoreError, SupersededError
from agent.values.pieces import PIECE_BYTES_MAX, Layout

DIGEST = "sha256:" + "0" * 64
LENGTH = 1 << 20
WHERE, SUPERNODE = Address("127.0.0.1", 7), Address("127.0.0.1", 9)
PEER = 7


def fetches(*pieces: int, source: int = PEER, digest: bytes = b"d" * 32) -> list[Fetch]:
    return [Fetch(piece, digest, source) for piece in pieces]


# Which go together.


@pytest.mark.parametrize(
    ("asked", "requests"),
    [
        (fetches(), []),
        (fetches(3), [[3]]),
        (fetches(3, 4, 5), [[3, 4, 5]]),
        (fetches(3, 5, 6, 9), [[3], [5, 6], [9]]),
        (fetches(5, 4, 3), [[5], [4], [3]]),
        (fetches(3) + fetches(4, source=8), [[3], [4]]),
        (fetches(3, 4, source=SEED), [[3, 4]]),
        (fetches(3, 4, source=SEED, digest=COMING) + fetches(5, source=SEED), [[3], [4], [5]]),
        (fetches(3, source=SEED) + fetches(4, source=SEED, digest=COMING), [[3], [4]]),
    ],
)
def test_those_go_together_that_follow_each_other_and_are_of_one_node(asked: list[Fetch], requests: list[list[int]]) -> None:
    found = list(in_requests(asked, Layout(64 * LENGTH, LENGTH)))
    assert [[fetch.piece for fetch in together] for together in found] == requests


@pytest.mark.parametrize(
    ("length", "most"), [(PIECE_BYTES_MAX, 1), (TOGETHER_BYTES_MAX, 1), (TOGETHER_BYTES_MAX // 2, 2), (1 << 19, 8)]
)
def test_no_more_is_asked_for_at_once_than_a_slow_node_may_hold_up(length: int, most: int) -> None:
    found = in_requests(fetches(*range(40)), Layout(64 * length, length))
    assert next(found) == fetches(*range(most))


# What becomes of them.


class Requests:
    """In place of the network: what is asked for in each request, and an answer for each."""

    def __init__(self, *answers: Callable[[list[int]], Iterator[int]]) -> None:
        self.asked: list[list[int]] = []
        self._answers = list(answers)

    def fetch_together(self, _: Blob, digests: Mapping[int, bytes], *__: object) -> Iterator[int]:
        self.asked.append(sorted(digests))
        return self._answers.pop(0)(sorted(digests))


def bringing(count: int, error: Exception | None = None, seconds: float = 0.0) -> Callable[[list[int]], Iterator[int]]:
    """So many of the pieces, and then that."""

    def answer(pieces: list[int]) -> Iterator[int]:
        for piece in pieces[:count]:
            time.sleep(seconds)
            yield piece
        if error:
            raise error

    return answer


@pytest.fixture
def blob(tmp_path: Path) -> Iterator[Blob]:
    store = Store(tmp_path, quota=1 << 30, free=0, age=3600.0)
    blob = store.receive(DIGEST, Layout(64 * LENGTH, LENGTH), public=True)
    yield blob
    blob.fail(StoreError("the test is over"))
    store.close()


class Told:
    """A download, and what its thread would be told."""

    def __init__(self, blob: Blob, requests: Requests) -> None:
        self.memory, self.sources = Memory(), Memory()
        self._blob = blob
        threads = SimpleNamespace(submit=lambda do, *args: do(*args))
        shared: Any = SimpleNamespace(
            fetcher=requests, threads=threads, swarm=SimpleNamespace(memory=self.memory, sources=self.sources)
        )
        self.download = Download(BlobOrigin("registry", "app", DIGEST, None), shared, BlobPull(None, DIGEST, ""))
        self.channel: Any = SimpleNamespace(where=SUPERNODE, unix_seconds=0.0, fingerprints={}, peers={PEER: WHERE})
        self.times: list[float] = []

    def fetch(self, *pieces: int) -> list[Event]:
        self.download._fetching.update(pieces)
        self.download._fetch(self._blob, self.channel, self.download._opened, fetches(*pieces), WHERE)
        assert not self.download._fetching
        queue = self.download._events
        return [queue.get_nowait() for _ in range(queue.qsize())]


def verdicts(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.piece, event.verdict) for event in events if isinstance(event, Done)]


def test_all_that_came_are_told_together_as_if_each_had_taken_the_whole_time(blob: Blob) -> None:
    requests = Requests(bringing(3, seconds=0.005))
    told = Told(blob, requests)
    events = told.fetch(3, 4, 5)
    assert requests.asked == [[3, 4, 5]]
    assert verdicts(events) == [(3, DELIVERED), (4, DELIVERED), (5, DELIVERED)]
    assert {event.milliseconds >= 15 for event in events if isinstance(event, Done)} == {True}
    assert told.download.pull.sources["peer"] == 3 * LENGTH


def test_what_takes_long_is_told_before_the_next_has_come(blob: Blob) -> None:
    def dawdling(pieces: list[int]) -> Iterator[int]:
        yield pieces[0]
        told.download._tell_late(time.monotonic())
        assert verdicts([told.download._events.get_nowait()]) == [(3, DELIVERED)]
        yield pieces[1]

    told = Told(blob, Requests(dawdling))
    assert verdicts(told.fetch(3, 4)) == [(4, DELIVERED)], "and not again"
    assert told.download.pull.sources["peer"] == 2 * LENGTH
    assert not told.download._untold


def test_what_a_slow_node_gives_one_at_a_time_is_had_elsewhere_when_a_piece_would_be_late(
    blob: Blob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_SECONDS_MAX", 0.02)
    requests = Requests(bringing(1, seconds=0.015), bringing(1, seconds=0.015), bringing(1))
    assert verdicts(Told(blob, requests).fetch(3, 4, 5)) == [(3, DELIVERED), (4, DELIVERED), (5, STALLED)]
    assert requests.asked == [[3, 4, 5], [4, 5]]


def test_what_a_node_has_not_is_asked_for_by_itself(blob: Blob) -> None:
    requests = Requests(bringing(2), bringing(0, SourceError(MISSING, "not here")), bringing(1))
    events = Told(blob, requests).fetch(3, 4, 5, 6)
    assert requests.asked == [[3, 4, 5, 6], [5, 6], [6]]
    assert verdicts(events) == [(3, DELIVERED), (4, DELIVERED), (5, MISSING), (6, DELIVERED)]


def test_a_liar_is_blamed_for_the_piece_that_is_wrong_and_not_asked_for_the_others(blob: Blob) -> None:
    requests = Requests(bringing(1, SourceError(CORRUPT, "wrong")))
    assert verdicts(Told(blob, requests).fetch(3, 4, 5)) == [(3, DELIVERED), (4, CORRUPT), (5, MISSING)]


@pytest.mark.parametrize("verdict", [STALLED, UNREACHABLE])
def test_a_node_that_is_not_there_any_more_is_not_asked_for_each_of_the_others(blob: Blob, verdict: int) -> None:
    requests = Requests(bringing(1, SourceError(verdict, "silent")))
    told = Told(blob, requests)
    assert verdicts(told.fetch(3, 4, 5)) == [(3, DELIVERED), (4, verdict), (5, verdict)]
    assert told.sources.avoids(("pieces", WHERE), time.monotonic())


def test_what_another_source_brings_is_nobodys_failure(blob: Blob) -> None:
    events = Told(blob, Requests(bringing(1, SupersededError("another one")))).fetch(3, 4, 5)
    assert verdicts(events[:1]) == [(3, DELIVERED)]
    assert events[1:] == [Superseded(4, PEER), Superseded(5, PEER)]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("wrong inside")])
def test_a_disk_that_fails_and_a_mistake_of_ours_end_it_once(blob: Blob, error: Exception) -> None:
    events = Told(blob, Requests(bringing(1, error))).fetch(3, 4, 5)
    assert verdicts(events) == [(3, DELIVERED)]
    assert [type(event) for event in events[1:]] == [Broken]


def test_what_fails_of_a_swarm_that_was_left_is_nobodys_failure_and_what_came_is_here(blob: Blob) -> None:
    told = Told(blob, Requests(bringing(1, DarnerError("no key"))))

    def left(pieces: list[int]) -> Iterator[int]:
        yield pieces[0]
        told.download._opened += 1
        raise DarnerError("no key")

    told.download._shared.fetcher = Requests(left)  # type: ignore[misc, assignment]
    assert verdicts(told.fetch(3, 4)) == [(3, messages.DELIVERED)]
