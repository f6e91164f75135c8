"""One download for each blob that somebody waits for: its readers, its end, and everything that can fail on this node."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.download import manager as module
from agent.download import planner
from agent.download.download import LINGER_SECONDS, LOOK_SECONDS_MAX, Reader
from agent.download.manager import DownloadManager
from agent.http.ratelimit import Pace
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.swarm import messages
from agent.swarm.tickets import SwarmKey
from agent.values.credential import Credential
from agent.values.errors import DarnerError, DigestError, OriginError, RequestError, StoreError
from agent.values.pieces import Layout
from agent.values.reference import raw_digest
from agent.values.space import Percent
from hack.origin import Access, Fault
from tests.swarm import PIECE, REPOSITORY, SECONDS, Lab, Node, RawAgent, noise, wait_until

BODY = noise(6 * PIECE + 99)
ALICE = Credential("alice", "wonderland")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, supernodes=0) as lab:
        yield lab


@pytest.fixture
def node(lab: Lab) -> Node:
    return lab.node()


@pytest.fixture
def digest(lab: Lab) -> str:
    return lab.push(BODY).layers[0]


@contextlib.contextmanager
def reading(node: Node, lab: Lab, digest: str, offset: int = 0) -> Iterator[Reader]:
    with node.downloads.reading(lab.origin.address, REPOSITORY, digest, None, offset) as reader:
        yield reader


@pytest.mark.parametrize(
    ("first", "second", "private"),
    [(None, None, False), (ALICE, ALICE, True), (ALICE, None, True), (None, ALICE, True)],
)
def test_a_blob_is_private_once_a_reader_has_needed_a_credential(
    node: Node, lab: Lab, digest: str, first: Credential | None, second: Credential | None, private: bool
) -> None:
    lab.origin.repositories.access = Access(users={"alice": "wonderland"})
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=1 << 20))
    read = node.downloads.reading
    with read(lab.origin.address, REPOSITORY, digest, first, 0) as reader:
        blob = reader.download.blob(SECONDS)
        assert blob.private is (first is not None)
        with read(lab.origin.address, REPOSITORY, digest, second, 0) as other:
            assert other.download is reader.download
            assert blob.private is private


def test_a_blob_is_private_when_the_supernode_says_that_somebody_else_needs_a_credential_for_it(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        node, digest = lab.node(), lab.push(BODY).layers[0]
        lab.origin.fail(Fault(path="/blobs/", bytes_per_second=1 << 20))
        with reading(node, lab, digest) as reader, RawAgent.joined(lab.channels[0], "other") as other:
            blob = reader.download.blob(SECONDS)
            assert not blob.private
            other.say(messages.Open(1, raw_digest(digest), lab.origin.address, REPOSITORY, b"", [], private=True))
            assert other.hear(messages.Task).private
            wait_until(lambda: blob.private)


def test_whoever_comes_while_a_blob_arrives_takes_part(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=4 << 20))
    with reading(node, lab, digest) as first, reading(node, lab, digest, 3 * PIECE) as second:
        assert first.download is second.download
        assert first.download.blob(SECONDS) is second.download.blob(SECONDS)
        assert first.download.blob(SECONDS).wait_whole(SECONDS)
    assert len(lab.origin.asked(digest)) == 1


def test_a_reader_that_comes_back_within_a_moment_finds_its_download(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=1 << 20))
    with reading(node, lab, digest) as reader:
        assert reader.download.blob(SECONDS)
    with reading(node, lab, digest) as again:
        assert again.download is reader.download


def test_a_download_that_nobody_waits_for_ends_within_a_second_or_so_and_with_it_its_stream(
    node: Node, lab: Lab, digest: str
) -> None:
    lab.origin.fail(Fault(path="/blobs/", stall_after=PIECE))
    with reading(node, lab, digest) as reader:
        blob = reader.download.blob(SECONDS)
        assert blob.wait(0, SECONDS)
    left_at = time.monotonic()
    wait_until(lambda: not node.downloads._active)
    wait_until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("origin sha256")])
    assert time.monotonic() - left_at < 5, "and not after the 15 s that a stream may stall"
    with pytest.raises(RequestError, match="nobody waits"):
        blob.wait(3 * PIECE, SECONDS)


@pytest.mark.parametrize("waits", [True, False])
def test_a_blob_that_a_slow_disk_is_taking_is_pulled_though_nobody_reads_it_any_more(
    node: Node, lab: Lab, digest: str, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    ended: list[str | None] = []
    free, really = threading.Event(), os.fdatasync
    monkeypatch.setattr(node.downloads.pulls, "ended", lambda _, error: ended.append(error))
    monkeypatch.setattr(os, "fdatasync", lambda fd: free.wait(SECONDS) and really(fd))
    monkeypatch.setattr("agent.storage.store.SETTLE_SECONDS", SECONDS if waits else 0.01)
    with reading(node, lab, digest) as reader:
        assert reader.download.blob(SECONDS).wait_whole(SECONDS)
    if waits:
        time.sleep(LINGER_SECONDS + 2 * LOOK_SECONDS_MAX)
        assert not ended
        free.set()
    wait_until(lambda: ended)
    assert ended == [None]
    free.set()
    wait_until(lambda: node.store.holdings())


def test_what_had_arrived_of_it_is_kept_for_whoever_comes_later(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", stall_after=4 * PIECE), times=1)
    with reading(node, lab, digest) as reader:
        wait_until(lambda: reader.download.blob(SECONDS).held.bit_count() >= 2)
    wait_until(lambda: not node.downloads._active)
    assert node.pull(digest) == BODY
    assert lab.origin.asked(digest)[-1].headers["Range"] is not None


def test_a_reader_in_the_middle_is_served_first_where_the_blob_is_known(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", stall_after=PIECE), times=1)
    with reading(node, lab, digest) as reader:
        wait_until(lambda: reader.download.blob(SECONDS).held)
    wait_until(lambda: not node.downloads._active)
    with reading(node, lab, digest, 5 * PIECE) as late:
        blob = late.download.blob(SECONDS)
        assert blob.wait(5 * PIECE, SECONDS) > 5 * PIECE
        assert blob.wait_whole(SECONDS)
    assert f"bytes={5 * PIECE}-" in [request.headers.get("Range") for request in lab.origin.asked(digest)]


def test_a_broken_stream_is_resumed_and_nothing_is_fetched_twice(node: Node, lab: Lab, digest: str) -> None:
    short = {"Content-Length": str(len(BODY)), "Connection": "close"}
    lab.origin.fail(Fault(path="/blobs/", status=200, body=BODY[: 2 * PIECE + 10], headers=short), times=1)
    assert node.pull(digest) == BODY
    assert [request.headers.get("Range") for request in lab.origin.asked(digest)] == [None, f"bytes={2 * PIECE}-"]


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_the_registrys_refusal_is_what_readers_hear(node: Node, lab: Lab, digest: str, status: int) -> None:
    lab.origin.fail(Fault(path="/blobs/", status=status, body=b'{"errors": [{"code": "X", "message": "because"}]}'))
    with pytest.raises(OriginError, match="because"):
        node.pull(digest)
    assert not node.downloads._active


def test_the_credential_of_whoever_came_first_is_sent(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.repositories.access = Access({"alice": "s3cret"}, frozenset({REPOSITORY}))
    with pytest.raises(OriginError):
        node.pull(digest)
    alice = Credential("alice", "s3cret")
    with node.downloads.reading(lab.origin.address, REPOSITORY, digest, alice, 0) as reader:
        assert reader.download.blob(SECONDS).wait_whole(SECONDS)


@pytest.mark.parametrize(
    "fault", [Fault(headers={"Content-Length": None}), Fault(headers={"Content-Length": str(2**63)}, cut_after=1)]
)
def test_a_blob_whose_size_cannot_be_known_is_refused(node: Node, lab: Lab, digest: str, fault: Fault) -> None:
    lab.origin.fail(fault)
    with pytest.raises(OriginError):
        node.pull(digest)
    assert not list((node.store.root / "partial").iterdir())


def test_a_blob_that_changes_its_size_in_the_middle_is_never_spliced(node: Node, lab: Lab, digest: str) -> None:
    short = {"Content-Length": str(len(BODY)), "Connection": "close"}
    lab.origin.fail(Fault(path="/blobs/", status=200, body=BODY[: 2 * PIECE], headers=short), times=1)
    lab.origin.fail(Fault(path="/blobs/", status=200, body=BODY + b"more"))
    with pytest.raises(DigestError, match="differ in its size"):
        node.pull(digest)


def test_whoever_asks_again_after_a_failure_begins_anew(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", flip_byte=0), times=1)
    with reading(node, lab, digest) as reader, pytest.raises(DigestError):
        reader.download.blob(SECONDS).wait_whole(SECONDS)
    assert node.pull(digest) == BODY


def test_a_failed_download_that_still_has_readers_is_not_joined(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", flip_byte=0), times=1)
    with reading(node, lab, digest) as reader:
        blob = reader.download.blob(SECONDS)
        wait_until(lambda: blob.error)
        assert node.pull(digest) == BODY


class SlowStore:
    """Makes room for a blob only when the test says so."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting: list[str] = []
        self.has_room = threading.Event()
        self._receive = store.receive
        monkeypatch.setattr(store, "receive", self.receive)

    def receive(self, digest: str, layout: Layout, *, public: bool = False, contents: str | None = None) -> Blob:
        self.waiting.append(digest)
        assert self.has_room.wait(SECONDS)
        return self._receive(digest, layout, public=public, contents=contents)


def test_while_the_store_makes_room_for_an_abandoned_blob_others_are_begun_at_once(
    node: Node, lab: Lab, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = lab.push(noise(PIECE, 2)).layers[0]
    store = SlowStore(node.store, monkeypatch)
    try:
        with reading(node, lab, digest):
            wait_until(lambda: store.waiting)
        time.sleep(2 * LINGER_SECONDS)
        with ThreadPoolExecutor(1) as pool:
            begun = pool.submit(lambda: reading(node, lab, other).__enter__())
            try:
                begun.result(2.0)
            finally:
                store.has_room.set()
    finally:
        store.has_room.set()


def test_a_blob_that_is_wanted_again_is_begun_when_the_abandoned_download_cannot_write_any_more(
    node: Node, lab: Lab, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore(node.store, monkeypatch)
    with reading(node, lab, digest) as reader:
        abandoned = reader.download
        wait_until(lambda: store.waiting)
    time.sleep(2 * LINGER_SECONDS)
    with reading(node, lab, digest) as reader:
        assert reader.download is not abandoned
        assert not reader.download.known(2 * LINGER_SECONDS)
        assert store.waiting == [digest], "the second file is not made while the first one may still be"
        store.has_room.set()
        assert reader.download.blob(SECONDS).wait_whole(SECONDS)
    with pytest.raises(DarnerError):
        abandoned.blob(SECONDS).wait_whole(SECONDS)


def test_the_file_of_a_blob_is_closed_with_its_last_reader_and_not_when_memory_is_tidied_up(
    node: Node, lab: Lab, digest: str
) -> None:
    gc.disable()
    try:
        with reading(node, lab, digest) as reader:
            file = weakref.ref(reader.download.blob(SECONDS))
            wait_until(lambda: not node.downloads._active)
        del reader
        wait_until(lambda: file() is None)
    finally:
        gc.enable()


# Limits and failures of this node.


def test_so_many_blobs_are_downloaded_at_once_and_no_more(node: Node, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOWNLOADS_MAX", 2)
    image = lab.push(noise(PIECE, 1), noise(PIECE, 2), noise(PIECE, 3))
    lab.origin.fail(Fault(path="/blobs/", delay_seconds=600))
    with contextlib.ExitStack() as stack:
        for digest in image.layers[:2]:
            stack.enter_context(reading(node, lab, digest))
        stack.enter_context(reading(node, lab, image.layers[0]))
        with pytest.raises(RequestError, match="2 blobs are being downloaded already") as refused:
            stack.enter_context(reading(node, lab, image.layers[2]))
        assert refused.value.status == 503


def test_one_registry_leaves_places_for_the_others(node: Node, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 85: also where it is a registry that is asked for nothing but blobs, and sends none."""
    monkeypatch.setattr(module, "DOWNLOADS_OF_ONE_MAX", 2)
    image = lab.push(noise(PIECE, 1), noise(PIECE, 2), noise(PIECE, 3))
    lab.origin.fail(Fault(path="/blobs/", delay_seconds=600))
    with contextlib.ExitStack() as stack:
        for digest in image.layers[:2]:
            stack.enter_context(reading(node, lab, digest))
        with pytest.raises(RequestError, match="2 blobs of the registry ") as refused:
            stack.enter_context(reading(node, lab, image.layers[2]))
        assert refused.value.status == 503
        other = node.downloads.reading("127.0.0.1:1", "team/app", image.layers[2], None, 0)
        assert stack.enter_context(other).download.registry == "127.0.0.1:1"


@pytest.mark.parametrize("limit", ["DOWNLOADS_MAX", "DOWNLOADS_OF_ONE_MAX"])
def test_what_is_kept_for_nobody_makes_room_for_whoever_waits(
    node: Node, lab: Lab, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(module, limit, 2)
    image = lab.push(noise(PIECE, 1), noise(PIECE, 2), noise(PIECE, 3), noise(PIECE, 4))
    lab.origin.fail(Fault(path="/blobs/", delay_seconds=600))
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(reading(node, lab, image.layers[0])).download
        first.keep()
        with reading(node, lab, image.layers[1]) as reader:
            second = reader.download
            second.keep()
        stack.enter_context(reading(node, lab, image.layers[2]))
        wait_until(lambda: second not in node.downloads._active.values())
        assert first in node.downloads._active.values(), "somebody reads it"
        with pytest.raises(RequestError, match="are being downloaded already"):
            stack.enter_context(reading(node, lab, image.layers[3]))


def test_a_download_is_kept_without_readers_for_a_limited_time(
    node: Node, lab: Lab, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.origin.fail(Fault(path="/blobs/", bytes_per_second=PIECE // 4))
    with reading(node, lab, digest) as reader:
        reader.download.keep()
    time.sleep(LINGER_SECONDS + 2 * LOOK_SECONDS_MAX)
    assert node.downloads._active, "it goes on"
    monkeypatch.setattr("agent.download.download.KEPT_SECONDS_MAX", 0.0)
    wait_until(lambda: not node.downloads._active)


def test_a_store_without_room_is_said_to_be_full(node: Node, digest: str) -> None:
    node.store.free = Percent(100)
    with pytest.raises(StoreError):
        node.pull(digest)


def test_a_disk_that_fails_in_the_middle_ends_the_download_with_its_reason(
    node: Node, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(blob: Blob, offset: int, data: memoryview | bytes, claim: int) -> None:
        if offset >= 2 * PIECE:
            raise OSError(5, "Input/output error")
        os.pwrite(blob.fd, data, offset)

    monkeypatch.setattr(Blob, "write", write)
    received: list[int] = []
    with pytest.raises(StoreError, match="Input/output error"):
        node.pull(digest, on_bytes=received.append)
    assert max(received) == 2 * PIECE, "what was there before has been read"


def test_a_mistake_of_ours_ends_one_download_and_is_told(
    node: Node, lab: Lab, digest: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(planner.Planner, "start", lambda *_, **__: 1 / 0)
    with pytest.raises(DarnerError, match="failed inside: ZeroDivisionError"):
        node.pull(digest)
    assert "failed inside" in caplog.text
    monkeypatch.undo()
    assert node.pull(digest) == BODY


def test_a_node_that_stops_tells_its_readers_and_begins_nothing_more(lab: Lab, digest: str) -> None:
    node = lab.node()
    lab.origin.fail(Fault(path="/blobs/", stall_after=PIECE))
    with ThreadPoolExecutor(1) as pool:
        pull = pool.submit(node.pull, digest)
        wait_until(lambda: node.downloads._active)
        began = time.monotonic()
        node.downloads.stop()
        assert time.monotonic() - began < 10
        assert "stopping" in str(pull.exception(SECONDS))
    with pytest.raises(RequestError, match="stopping"):
        node.pull(digest)


def test_a_size_that_is_not_known_in_time_is_said_so_with_the_registrys_name(node: Node, lab: Lab, digest: str) -> None:
    lab.origin.fail(Fault(path="/blobs/", delay_seconds=600))
    with reading(node, lab, digest) as reader:
        assert not reader.download.known(0.1)
        with pytest.raises(OriginError, match=f"the registry {lab.origin.address} included") as failed:
            reader.download.blob(0.1)
        assert failed.value.status == 504


def test_without_a_limit_on_downloads_as_much_is_asked_for_as_is_wanted(node: Node) -> None:
    assert node.downloads.window(16, 16 << 20, 16) == 16


def test_with_a_limit_no_more_pieces_are_asked_for_than_come_in_time(node: Node) -> None:
    limited = DownloadManager(node.store, node.swarm, node.client, SwarmKey(""), Pace(4 << 20))
    assert [limited.window(4, 16 << 20, fetching) for fetching in (0, 1, 2)] == [2, 1, 1]
    assert limited.window(16, 256 << 10, 0) == 16
    assert limited.window(0, 256 << 10, 0) == 0
    limited.stop()
