"""containerd's content store as a source: what is read there, what is offered of it and when, and that it is left as it is."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent import metrics
from agent.storage import verified
from agent.storage.blob import Blob
from agent.storage.containerd import ContainerdContent
from agent.storage.scrubber import Scrubber
from agent.storage.store import SECOND_COPY_SECONDS, Store
from agent.storage.verified import Identity, Verified
from agent.values.errors import DigestError, StoreError
from agent.values.pieces import PIECE_BYTES_CUT_MIN, Layout
from tests.endpoint import wait_until

MEBIBYTE = 1 << 20
GENEROUS = {"quota": 1 << 30, "free": 0, "age": 3600.0}
FAST = 1 << 40
Heard = list[tuple[str, int, bool]]


def content(number: int, size: int = MEBIBYTE) -> bytes:
    return random.Random(number).randbytes(size)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Containerd:
    """What containerd does to its content store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)

    def commit(self, data: bytes, digest: str = "") -> str:
        digest = digest or digest_of(data)
        path = self.path(digest)
        beside = self.root / "ingest"
        beside.write_bytes(data)
        beside.chmod(0o444)
        beside.rename(path)
        return digest

    def collect(self, digest: str) -> None:
        self.path(digest).unlink()

    def path(self, digest: str) -> Path:
        return self.blobs / digest.removeprefix("sha256:")


class Node:
    """A store beside containerd's, and what supernodes are told of both."""

    def __init__(self, root: Path, containerd: Containerd, **limits: float) -> None:
        self.content = ContainerdContent(containerd.root, Verified(root / "verified"))
        self.store = Store(root / "store", **(GENEROUS | limits), containerd=self.content)  # type: ignore[arg-type]
        self.told: Heard = []
        self.store.on_change = lambda *change: self.told.append(change)
        self.scrubber = Scrubber(self.store, self.content, FAST)

    def inspect(self) -> None:
        """One round of what goes on in the background."""
        self.scrubber._look()
        assert not self.scrubber._check_some()
        self.content.remember()

    def receive(self, data: bytes) -> Blob:
        blob = self.store.receive(digest_of(data), Layout.of(len(data)))
        for piece in range(blob.layout.count):
            start, end = blob.layout.span(piece)
            blob.write(start, data[start:end])
            blob.add(piece, blake3(data[start:end]).digest(), checked=True)
        return blob


@pytest.fixture
def containerd(tmp_path: Path) -> Containerd:
    return Containerd(tmp_path / "containerd")


@pytest.fixture
def start(tmp_path: Path, containerd: Containerd) -> Iterator[Callable[..., Node]]:
    """A node, or the same one after a restart."""
    nodes: list[Node] = []

    def start(**limits: float) -> Node:
        if nodes:
            nodes.pop().store.close()
        nodes.append(Node(tmp_path, containerd, **limits))
        return nodes[0]

    yield start
    for node in nodes:
        node.store.close()


def body(blob: Blob | None) -> bytes:
    assert blob
    assert blob.wait_whole(10)
    return os.pread(blob.fd, blob.size, 0)


# Reading.


def test_a_blob_that_containerd_holds_is_read_from_there(start: Callable[..., Node], containerd: Containerd) -> None:
    digest = containerd.commit(content(1))
    assert body(start().store.blob(digest)) == content(1)


def test_a_blob_that_was_never_checked_is_read_but_for_its_end_and_offered_to_nobody_until_it_is_right(
    start: Callable[..., Node], containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    check = Blob.check
    monkeypatch.setattr(Blob, "check", lambda blob: go_on.wait(10) and check(blob))
    digest, node = containerd.commit(content(1)), start()
    blob = node.store.blob(digest)
    assert blob
    assert blob.wait(0, 0) == MEBIBYTE - PIECE_BYTES_CUT_MIN
    assert (blob.checked, blob.whole, node.store.offered(), node.told) == (0, False, {}, [])
    go_on.set()
    assert body(blob) == content(1)
    wait_until(lambda: node.told == [(digest, MEBIBYTE, True)])
    assert blob.checked == blob.layout.everything
    assert node.store.offered() == {digest: MEBIBYTE}


def test_wrong_bytes_are_never_read_to_their_end_nor_offered_and_the_file_is_left_alone(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    digest, node = containerd.commit(content(2), digest_of(content(1))), start()
    blob = node.store.blob(digest)
    assert blob
    with pytest.raises(DigestError):
        blob.wait_whole(10)
    wait_until(lambda: node.store.blob(digest) is None)
    node.inspect()
    assert node.told == []
    assert containerd.path(digest).read_bytes() == content(2)


def test_a_file_in_the_place_of_a_wrong_one_is_looked_at_anew(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(2), digest_of(content(1))), start()
    node.inspect()
    assert node.store.blob(digest) is None
    containerd.collect(digest)
    containerd.commit(content(1))
    assert body(node.store.blob(digest)) == content(1)


def test_a_blob_that_is_collected_while_it_is_read_is_read_to_its_end(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(1)), start()
    blob = node.store.blob(digest)
    containerd.collect(digest)
    assert body(blob) == content(1)


def test_a_blob_that_cannot_be_read_is_not_used_again_and_not_removed(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(1)), start()
    node.inspect()
    blob = node.store.blob(digest)
    assert blob
    node.store.drop(blob)
    assert node.store.blob(digest) is None
    assert containerd.path(digest).exists()
    assert node.told == [(digest, MEBIBYTE, True), (digest, MEBIBYTE, False)]


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo"])
def test_what_is_no_file_is_not_followed(start: Callable[..., Node], containerd: Containerd, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content(1))
    path = containerd.path(digest_of(content(1)))
    match kind:
        case "symlink":
            path.symlink_to(secret)
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
    node = start()
    node.inspect()
    assert node.store.blob(digest_of(content(1))) is None
    assert node.store.offered() == {}


def test_an_absent_or_closed_directory_is_no_source_and_no_error(
    start: Callable[..., Node], containerd: Containerd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    containerd.blobs.rmdir()
    node = start()
    for _ in range(3):
        node.inspect()
    assert node.store.blob(digest_of(content(1))) is None
    assert caplog.text.count("no source") == 1
    containerd.blobs.mkdir()
    digest = containerd.commit(content(1))
    node.inspect()
    assert node.told == [(digest, MEBIBYTE, True)]


# Offering.


def test_what_containerd_pulled_by_itself_is_checked_in_the_background_and_then_offered(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    node = start()
    digests = {containerd.commit(content(number)) for number in range(3)}
    node.inspect()
    assert node.store.offered() == dict.fromkeys(digests, MEBIBYTE)
    assert {digest for digest, _, held in node.told if held} == digests
    node.inspect()
    assert len(node.told) == 3


def test_what_containerd_collected_is_withdrawn_when_it_is_looked_at_or_asked_for(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    first, second, node = containerd.commit(content(1)), containerd.commit(content(2)), start()
    node.inspect()
    del node.told[:]
    containerd.collect(first)
    assert node.store.blob(first) is None
    assert node.told == [(first, MEBIBYTE, False)]
    containerd.collect(second)
    node.inspect()
    assert node.told[1:] == [(second, MEBIBYTE, False)]
    assert node.store.offered() == {}


def test_a_file_is_checked_once_also_over_a_restart(
    start: Callable[..., Node], containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, node = containerd.commit(content(1)), start()
    node.inspect()
    node = start()
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: pytest.fail("it is checked again"))
    node.inspect()
    assert node.told == [(digest, MEBIBYTE, True)]
    blob = node.store.blob(digest)
    assert body(blob) == content(1)
    assert blob
    assert blob.checked == blob.layout.everything


def rot(path: Path, at: int = 5000) -> None:
    """Flip a bit, as a disk does: nothing that is known of the file changes."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_no_piece_is_given_to_others_after_a_restart_of_a_blob_that_was_right_and_rotted(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    digest, node = containerd.commit(content(1)), start()
    node.inspect()
    rot(containerd.path(digest))
    node = start()
    node.inspect()
    assert node.store.offered() == {digest: MEBIBYTE}, "nothing tells yet that it rotted"
    blob = node.store.blob(digest)
    assert blob
    with pytest.raises(DigestError):
        blob.wait_to_share(1, PIECE_BYTES_CUT_MIN, 10)
    told = [(digest, MEBIBYTE, True), (digest, MEBIBYTE, False)]
    wait_until(lambda: node.told == told)
    node.inspect()
    assert (node.store.offered(), node.told) == ({}, told), "nor does a look offer it again"


def test_a_blob_whose_check_takes_long_after_a_restart_is_offered_again_when_it_was_found_right(
    start: Callable[..., Node], containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, node = containerd.commit(content(1)), start()
    node.inspect()
    node = start()
    node.inspect()
    go_on = threading.Event()
    check = Blob.check
    monkeypatch.setattr(Blob, "check", lambda blob: go_on.wait(10) and check(blob))
    blob = node.store.blob(digest)
    assert blob
    node.store.withhold(blob)
    node.inspect()
    assert node.store.offered() == {}, "also after a look"
    go_on.set()
    wait_until(lambda: node.store.offered() == {digest: MEBIBYTE})
    wait_until(lambda: [held for _, _, held in node.told] == [True, False, True])
    node.store.withhold(blob)
    assert node.store.offered() == {digest: MEBIBYTE}, "whoever asks that late changes nothing"


def test_another_file_under_the_same_name_is_checked_again(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(1)), start()
    node.inspect()
    containerd.collect(digest)
    containerd.commit(content(2), digest)
    node.inspect()
    assert node.told == [(digest, MEBIBYTE, True), (digest, MEBIBYTE, False)]
    assert node.store.blob(digest) is None


def test_the_bytes_that_are_offered_are_those_of_the_blobs_that_are_offered(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    first, second, third = (containerd.commit(content(number, MEBIBYTE + number)) for number in range(3))
    node = start()

    def offered() -> int:
        assert node.content.offered_bytes == sum(node.content.holdings().values())
        return node.content.offered_bytes

    assert offered() == 0
    node.inspect()
    assert offered() == 3 * MEBIBYTE + 3
    containerd.collect(first)
    node.inspect()
    assert offered() == 2 * MEBIBYTE + 3
    blob = node.store.blob(second)
    assert blob
    node.store.drop(blob)
    assert offered() == MEBIBYTE + 2
    rot(containerd.path(third))
    os.utime(containerd.path(third), (1, 1))
    node.inspect()
    assert offered() == 0
    assert metrics.CONTENT_BYTES._value.get() == 0


class CountedDigest(str):
    """A digest that counts how often it is compared with another one."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedDigest.comparisons += 1
        return str.__eq__(self, other)


def test_a_restart_compares_each_of_many_blobs_with_a_few_and_not_with_all(
    start: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()
    found = {CountedDigest(digest_of(number.to_bytes(2))): Identity(number, 1, 1) for number in range(4000)}
    for digest, identity in list(found.items())[::2]:
        node.content._verified.add(digest, identity)
    monkeypatch.setattr(node.content, "_found", lambda: found)
    CountedDigest.comparisons = 0
    assert len(node.content.look()) == len(node.content.holdings()) == len(found) / 2
    assert CountedDigest.comparisons < 10 * len(found)


def test_what_the_own_store_holds_is_not_checked_and_is_told_of_once(start: Callable[..., Node], containerd: Containerd) -> None:
    node = start()
    digest = node.receive(content(1)).digest
    containerd.commit(content(1))
    node.inspect()
    assert node.content.holdings() == {}
    assert node.told == [(digest, MEBIBYTE, True)]


# In place of a second copy.


def test_what_containerd_holds_too_makes_room_first_and_is_served_from_there(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    node = start(quota=3 * MEBIBYTE)
    blobs = [node.receive(content(number)).digest for number in range(3)]
    containerd.commit(content(2))
    node.receive(content(3))
    assert set(node.store.holdings()) == {blobs[0], blobs[1], digest_of(content(3))}
    assert body(node.store.blob(blobs[2])) == content(2)
    node.inspect()
    wait_until(lambda: set(node.store.offered()) == {*blobs, digest_of(content(3))})  # a moment after its reader has it


def test_a_copy_that_makes_room_while_containerds_is_known_to_be_right_is_not_withdrawn(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    digest, node = containerd.commit(content(1)), start(quota=MEBIBYTE)
    node.inspect()
    node.receive(content(1))
    node.receive(content(2))
    assert set(node.store.holdings()) == {digest_of(content(2))}
    assert (digest, MEBIBYTE, False) not in node.told
    containerd.collect(digest)
    node.inspect()
    assert node.told[-1] == (digest, MEBIBYTE, False)


# The background, and what it writes down.


def test_a_second_copy_goes_when_nobody_has_used_it_for_a_while_and_containerds_was_found_right(
    start: Callable[..., Node], containerd: Containerd
) -> None:
    node = start()
    right, wrong, used, alone = content(1), content(2), content(3), content(4)
    for data in (right, wrong, used, alone):
        assert body(node.receive(data)) == data
    for data in (right, used):
        containerd.commit(data)
    containerd.commit(content(5), digest_of(wrong))
    unused_since = time.time() - SECOND_COPY_SECONDS - 1
    for data in (right, wrong, alone):
        os.utime(node.store.root / "blobs" / "sha256" / digest_of(data).removeprefix("sha256:"), (unused_since, unused_since))
    node.told.clear()
    node.store.evict_old()
    assert len(node.store.holdings()) == 4, "none goes before containerd's was checked"
    node.inspect()
    node.store.evict_old()
    assert node.store.holdings().keys() == {digest_of(data) for data in (wrong, used, alone)}
    assert node.told == [], "other nodes get it from here as before"
    blob = node.store.blob(digest_of(right))
    assert body(blob) == right
    assert blob
    assert node.store.source_of(blob) == "containerd"


def test_a_stop_ends_a_check_under_way(start: Callable[..., Node], containerd: Containerd) -> None:
    containerd.commit(content(1, 8 * MEBIBYTE))
    node = start()
    scrubber = Scrubber(node.store, node.content, MEBIBYTE)
    scrubber.start()
    scrubber.stop()
    assert not scrubber._thread.is_alive()
    assert node.told == []


def test_a_blob_is_left_to_whoever_reads_it(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(1)), start()
    blob = node.store.blob(digest)
    node.content.check(digest, lambda start, end: pytest.fail("it is read twice"))
    assert body(blob) == content(1)


def test_a_list_of_verified_files_that_cannot_be_written_or_read_costs_only_work(tmp_path: Path) -> None:
    identity = Identity(1, 2, 3)
    digest = digest_of(b"")
    nowhere = Verified(tmp_path / "absent" / "verified")
    nowhere.add(digest, identity)
    nowhere.write()
    assert nowhere.holds(digest, identity)
    (tmp_path / "verified").write_bytes(f"{digest} 1 2 3\n{digest[:-1]} 1 2 3\n\xff\n{digest} 1".encode("latin-1"))
    found = Verified(tmp_path / "verified")
    assert found.holds(digest, identity)
    assert not found.holds(digest, Identity(1, 2, 4))


def test_no_more_verified_files_are_remembered_than_there_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "VERIFIED_MAX", 2)
    digests = [digest_of(bytes([number])) for number in range(3)]
    kept = Verified(tmp_path / "verified")
    for digest in digests:
        kept.add(digest, Identity(1, 2, 3))
    kept.write()
    assert [Verified(tmp_path / "verified").holds(digest, Identity(1, 2, 3)) for digest in digests] == [True, True, False]


def test_a_failing_disk_of_containerds_is_not_the_nodes_end(
    start: Callable[..., Node], containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, node = containerd.commit(content(1)), start()

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    for call in ("pread", "preadv"):
        monkeypatch.setattr(os, call, fail)
    node.inspect()
    blob = node.store.blob(digest)
    assert blob
    with pytest.raises(StoreError):
        blob.wait_whole(10)
    assert node.told == []


def test_checking_reads_every_byte_at_its_turn(start: Callable[..., Node], containerd: Containerd) -> None:
    digest, node = containerd.commit(content(1)), start()
    asked: list[tuple[int, int]] = []

    def turns_of(first: int, last: int) -> Iterator[tuple[int, int]]:
        asked.append((first, last))
        return iter([(first, last)])

    node.content.check(digest, turns_of)
    assert asked == [(0, MEBIBYTE)]
    assert node.store.offered() == {digest: MEBIBYTE}
