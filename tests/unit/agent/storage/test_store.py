"""The store: what it takes in, what it finds again, and what it drops when there is no room."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from agent.metrics import STORE_EVICTIONS, STORE_REFUSALS
from agent.storage.blob import Blob
from agent.storage.store import Store
from agent.values.errors import StoreError
from agent.values.pieces import PIECE_BYTES_MIN, Layout
from agent.values.space import Percent
from tests.swarm import wait_until

MEBIBYTE = 1 << 20
GENEROUS = {"quota": 1 << 30, "free": 0, "age": 3600.0}
PAST = time.time() - 100_000


def content(number: int, size: int = MEBIBYTE) -> bytes:
    return random.Random(number).randbytes(size)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def cut(size: int) -> Layout:
    """A MiB in four pieces."""
    return Layout(size, PIECE_BYTES_MIN)


def receive(store: Store, data: bytes, pieces: range | None = None) -> Blob:
    """Let a blob, or some pieces of it, arrive."""
    blob = store.receive(digest_of(data), cut(len(data)))
    for piece in pieces if pieces is not None else range(blob.layout.count):
        start, end = blob.layout.span(piece)
        blob.write(start, data[start:end])
        blob.add(piece, blake3(data[start:end]).digest(), checked=True)
    return blob


def test_what_is_private_is_so_after_a_restart_and_what_is_public_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", **GENEROUS)
    for number, public in ((1, True), (2, False), (3, True)):
        blob = store.receive(digest_of(content(number)), cut(MEBIBYTE), public=public)
        blob.write(0, content(number))
        for piece in range(blob.layout.count):
            blob.add(piece, blake3(content(number)[slice(*blob.layout.span(piece))]).digest(), checked=True)
        if number == 3:  # somebody has come who needs a credential for it
            blob.hide()
    store.close()
    again = Store(tmp_path / "store", **GENEROUS)
    blobs = [again.blob(digest_of(content(number))) for number in (1, 2, 3)]
    assert [blob and blob.private for blob in blobs] == [False, True, True]
    again.close()


@pytest.mark.parametrize(("before", "now", "private"), [(True, True, False), (True, False, True), (False, True, True)])
def test_what_an_earlier_try_left_is_public_if_it_was_so_then_and_is_now(
    tmp_path: Path, before: bool, now: bool, private: bool
) -> None:
    store = Store(tmp_path / "store", **GENEROUS)
    data = content(1)
    blob = store.receive(digest_of(data), cut(len(data)), public=before)
    start, end = blob.layout.span(0)
    blob.write(start, data[start:end])
    blob.add(0, blake3(data[start:end]).digest(), checked=True)
    blob.fail(StoreError("the agent ends"))
    again = store.receive(digest_of(data), cut(len(data)), public=now)
    assert again.held == 1
    assert again.private is private
    store.close()


class Disk:
    """A filesystem of 100 MiB that others fill; what the store has on it comes on top."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
        self.taken = 0
        self._store = store
        usage = shutil.disk_usage(store.root)
        total = 100 * MEBIBYTE
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=total, free=total - self.taken - self._ours))

    @property
    def _ours(self) -> int:
        files = [path.stat() for path in self._store.root.rglob("*") if path.is_file()]
        removed = [status for blob in self._store._arriving.values() if not (status := os.fstat(blob.fd)).st_nlink]
        return sum(status.st_blocks * 512 for status in files + removed)

    @property
    def free(self) -> int:
        return shutil.disk_usage(self._store.root).free


@pytest.fixture
def disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch, store)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", **GENEROUS)
    yield store
    store.close()


def test_a_blob_that_is_whole_is_found_by_its_digest_and_tells_so(store: Store) -> None:
    heard = []
    store.on_change = lambda digest, size, held: heard.append((digest, size, held))
    blob = receive(store, content(1))
    assert store.blob(blob.digest) is blob
    assert store.arriving(blob.digest) is None
    assert store.holdings() == {blob.digest: MEBIBYTE}
    assert heard == [(blob.digest, MEBIBYTE, True)]
    assert os.listdir(store.root / "partial") == []


def test_a_blob_that_is_not_whole_is_found_among_the_arriving_ones_alone(store: Store) -> None:
    blob = receive(store, content(1), range(2))
    assert store.arriving(blob.digest) is blob
    assert store.blob(blob.digest) is None
    assert store.holdings() == {}


def test_what_it_held_is_there_after_a_restart_the_least_recently_used_first(tmp_path: Path) -> None:
    before = Store(tmp_path, **GENEROUS)
    digests = [receive(before, content(number)).digest for number in range(3)]
    for age, digest in enumerate(digests):
        os.utime(file_of(before, digest), (PAST + age, PAST + age))
    before.close()
    after = Store(tmp_path, **GENEROUS)
    assert list(after.holdings()) == digests
    assert after.blob(digests[0])
    assert list(after.holdings()) == [*digests[1:], digests[0]]
    after.close()


def test_a_download_goes_on_where_an_earlier_one_ended(store: Store) -> None:
    receive(store, content(1), range(2)).fail(StoreError("nobody waits"))
    resumed = store.receive(digest_of(content(1)), cut(MEBIBYTE))
    assert resumed.held == resumed.checked == 0b11


def test_a_download_that_is_begun_anew_ends_the_one_before(store: Store) -> None:
    before = receive(store, content(1), range(2))
    after = receive(store, content(1))
    assert isinstance(before.error, StoreError)
    assert store.blob(after.digest) is after
    assert after.whole


def test_whoever_leaves_late_takes_nothing_from_whoever_came_after(store: Store) -> None:
    before = receive(store, content(1), range(2))
    after = store.receive(before.digest, before.layout)
    before.fail(StoreError("leaves late"))
    assert store.arriving(after.digest) is after


def test_a_blob_that_is_about_to_be_kept_is_not_written_to_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fdatasync", lambda _: seen.append(store.receive(digest_of(content(1)), cut(MEBIBYTE))))
    assert [receive(store, content(1))] == seen


@pytest.fixture
def held_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that takes all it is to keep when this is set, and not before. Nobody waits for it as long as that."""
    free, really = threading.Event(), os.fdatasync
    monkeypatch.setattr("agent.storage.store.SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(os, "fdatasync", lambda fd: free.wait(20) and really(fd))
    yield free
    free.set()


def test_a_whole_blob_is_found_while_a_slow_disk_takes_it_and_kept_in_the_end(store: Store, held_up: threading.Event) -> None:
    heard: list[tuple[str, bool]] = []
    store.on_change = lambda digest, _, held: heard.append((digest, held))
    blob = receive(store, content(1))
    assert blob.whole
    assert store.blob(blob.digest) is blob
    assert store.holdings() == {}, "the disk may lose it yet"
    assert store.used == blob.size
    assert heard == [(blob.digest, True)], "others can have it all the same"
    assert store.offered() == {blob.digest: blob.size}
    held_up.set()
    wait_until(lambda: store.holdings() and not store.arriving(blob.digest))
    assert store.offered() == {blob.digest: blob.size}
    assert set(heard) == {(blob.digest, True)}
    assert store.blob(blob.digest) is blob


def test_a_blob_that_others_heard_of_is_taken_back_when_a_slow_disk_fails(
    store: Store, held_up: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        held_up.wait(20)
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", fails)
    heard: list[tuple[str, bool]] = []
    store.on_change = lambda digest, _, held: heard.append((digest, held))
    digest = receive(store, content(1)).digest
    held_up.set()
    wait_until(lambda: len(heard) == 2)
    assert heard == [(digest, True), (digest, False)]
    assert store.offered() == store.holdings() == {}


def test_a_store_that_ends_before_the_disk_has_taken_a_blob_leaves_it_to_the_next_one(
    tmp_path: Path, held_up: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.storage.disk.CLOSE_SECONDS_MAX", 0.01)
    before = Store(tmp_path / "another", **GENEROUS)
    busy = receive(before, content(1))  # the thread is at this one
    receive(before, content(2))
    before.close()
    held_up.set()
    wait_until(lambda: busy.digest in before.holdings())
    after = Store(tmp_path / "another", **GENEROUS)
    again = after.receive(digest_of(content(2)), cut(MEBIBYTE))
    assert again.missing == again.layout.last
    again.fail(StoreError("the agent ends"))
    after.close()


def test_a_blob_that_the_disk_did_not_take_stays_out_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("agent.storage.disk.WRITE_BACK_BYTES", MEBIBYTE // 2)
    monkeypatch.setattr("agent.storage.disk.bring_to_disk", fails)
    blob = receive(store, content(1))
    assert blob.whole, "what is in memory is right"
    assert store.holdings() == {}
    assert not file_of(store, blob.digest).exists()


def test_what_has_no_place_in_the_store_costs_the_disk_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    brought: list[tuple[int, ...]] = []
    monkeypatch.setattr("agent.storage.disk.WRITE_BACK_BYTES", MEBIBYTE // 2)
    monkeypatch.setattr("agent.storage.disk.bring_to_disk", lambda *span: brought.append(span))
    store.quota = MEBIBYTE // 2
    assert receive(store, content(1)).whole
    assert not brought


def test_a_wrong_size_of_an_earlier_try_leaves_no_bytes_behind_the_end(store: Store) -> None:
    digest = digest_of(content(1))
    lied_to = store.receive(digest, cut(3 * MEBIBYTE))
    lied_to.write(2 * MEBIBYTE, b"from nowhere")
    lied_to.fail(StoreError("given up"))
    receive(store, content(1))
    assert file_of(store, digest).read_bytes() == content(1)


# Room.


def test_a_blob_over_the_quota_is_shared_while_it_arrives_and_a_while_later_and_then_gone(store: Store) -> None:
    """FAULTS 70."""
    kept = receive(store, content(1)).digest
    store.quota = 2 * MEBIBYTE
    heard: list[tuple[str, bool]] = []
    store.on_change = lambda digest, _, held: heard.append((digest, held))
    data = content(2, 3 * MEBIBYTE)
    blob = receive(store, data, range(3))
    assert store.arriving(blob.digest) is blob
    assert blob.wait_to_share(0, 0, 0)
    receive(store, data)
    blob = found(store, digest := blob.digest)
    assert list(store.holdings()) == [kept], "the quota's room is for others"
    assert set(store.offered()) == {kept, digest}
    assert list((store.root / "partial").iterdir()) == [], "a crash leaves nothing of it"
    store.shrink()
    store.evict_old()
    assert set(store.offered()) == {kept, digest}
    assert os.pread(blob.fd, MEBIBYTE, 0) == data[:MEBIBYTE]
    assert store.receive(digest, cut(len(data))) is blob, "nothing more has to come"
    store.let_go(time.monotonic())
    store.shrink()
    assert store.blob(digest) is blob, "as long as somebody reads it"
    del blob
    assert store.blob(digest) is store.arriving(digest) is None
    assert heard == [(digest, True), (digest, False)]
    assert set(store.offered()) == {kept}


def test_a_file_that_stays_for_nobody_takes_no_blobs_place(store: Store) -> None:
    store.quota = 2 * MEBIBYTE
    receive(store, content(1))
    kept = store.holdings()
    store.receive("sha256:" + "f" * 64, cut(2 * MEBIBYTE - 1), contents="")
    assert store.holdings() == kept != {}


def found(store: Store, digest: str) -> Blob:
    blob = store.blob(digest)
    assert blob
    assert blob.whole
    return blob


def test_a_blob_over_the_quota_leaves_the_disk_its_free_bytes(store: Store, disk: Disk) -> None:
    """FAULTS 70."""
    old = receive(store, content(1)).digest
    store.quota, store.free = 2 * MEBIBYTE, 20 * MEBIBYTE
    disk.taken = 77 * MEBIBYTE - MEBIBYTE // 2
    arriving = receive(store, content(2, 3 * MEBIBYTE), range(1))
    assert not store.holdings(), f"{old} goes for what is wanted now"
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(3)), cut(3 * MEBIBYTE))
    assert store.unfinished() == [arriving]


def test_a_store_with_a_limit_never_exceeds_it_not_even_by_what_only_passes(store: Store) -> None:
    """A kubelet evicts a pod whose volume has outgrown its limit, however much room the disk has."""
    receive(store, content(1))
    store.quota, store.limit = 2 * MEBIBYTE, 4 * MEBIBYTE
    passing = receive(store, content(2, 3 * MEBIBYTE), range(1))
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(3)), cut(2 * MEBIBYTE))
    assert store.unfinished() == [passing]
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(4)), cut(5 * MEBIBYTE))


def test_a_whole_blob_over_the_quota_goes_before_those_with_a_place(store: Store, disk: Disk) -> None:
    kept = receive(store, content(1)).digest
    store.quota, store.free = 2 * MEBIBYTE, 20 * MEBIBYTE
    passing = receive(store, content(2, 3 * MEBIBYTE)).digest
    disk.taken = 78 * MEBIBYTE
    store.shrink()
    assert passing not in store.offered()
    assert list(store.holdings()) == [kept]


def test_who_fills_the_disk_gets_the_stores_room_least_recently_used_first(store: Store, disk: Disk) -> None:
    """FAULTS 69."""
    digests = [receive(store, content(number)).digest for number in range(6)]
    receive(store, content(9), range(2)).fail(StoreError("nobody waits"))
    store.free = Percent(20)
    heard: list[tuple[str, bool]] = []
    store.on_change = lambda digest, _, held: heard.append((digest, held))
    disk.taken = 74 * MEBIBYTE
    store.shrink()
    assert list(store.holdings()) == digests
    assert not list((store.root / "partial").iterdir()), "what earlier tries left goes first"
    disk.taken = 77 * MEBIBYTE - MEBIBYTE // 2
    store.shrink()
    assert list(store.holdings()) == digests[3:]
    assert heard == [(digest, False) for digest in digests[:3]]
    disk.taken = 88 * MEBIBYTE
    store.shrink()
    assert not store.holdings()


@pytest.mark.parametrize("free", [1, Percent(5), 16 * MEBIBYTE])
def test_the_store_stays_away_from_the_kubelets_thresholds_whatever_is_set(store: Store, disk: Disk, free: int | Percent) -> None:
    """FAULTS 69: image garbage collection begins at 85 % used, eviction at 15 % free."""
    store.free = free
    digests = [receive(store, content(number)).digest for number in range(6)]
    disk.taken = 82 * MEBIBYTE
    store.shrink()
    assert list(store.holdings()) == digests[-2:]
    assert disk.free * 100 // (100 * MEBIBYTE) > 15
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(7)), cut(3 * MEBIBYTE))


def test_who_asks_for_no_free_disk_gets_all_of_it(store: Store, disk: Disk) -> None:
    disk.taken = 98 * MEBIBYTE
    receive(store, content(1))
    store.shrink()
    assert len(store.holdings()) == 1


def test_what_arrives_is_given_up_when_the_disk_is_full_of_others_and_nothing_else_can_go(store: Store, disk: Disk) -> None:
    """FAULTS 69."""
    store.free = Percent(20)
    small, large = receive(store, content(1), range(2)), receive(store, content(2, 4 * MEBIBYTE), range(3))
    disk.taken = 77 * MEBIBYTE + MEBIBYTE // 2
    store.shrink()
    assert not large.error, "what is to come may still have its room"
    disk.taken = 79 * MEBIBYTE
    store.shrink()
    assert isinstance(large.error, StoreError)
    assert not small.error
    assert store.arriving(large.digest) is None
    assert [path.stem for path in (store.root / "partial").iterdir()] == [small.digest.removeprefix("sha256:")] * 2
    assert os.pread(large.fd, 100, 0) == content(2, 4 * MEBIBYTE)[:100], "its readers go on from where they are"


def test_a_quota_in_percent_is_of_the_filesystem(store: Store, disk: Disk) -> None:
    store.quota = Percent(3)
    for number in range(5):
        receive(store, content(number))
    assert len(store.holdings()) == 3
    assert disk.free == 97 * MEBIBYTE


def test_the_least_recently_used_go_first_and_no_more_than_it_takes(store: Store) -> None:
    digests = [receive(store, content(number)).digest for number in range(4)]
    store.quota = 4 * MEBIBYTE
    assert store.blob(digests[0]), "used just now"
    heard = []
    store.on_change = lambda digest, size, held: heard.append((digest, held))
    receive(store, content(5))
    assert heard == [(digests[1], False), (digest_of(content(5)), True)]
    assert not file_of(store, digests[1]).exists()


def test_others_are_told_of_what_made_room_when_the_next_blob_can_already_be_received(store: Store) -> None:
    """Telling may take as long as a full socket: until then, no other download of this node would begin."""
    store.quota = MEBIBYTE
    evicted = receive(store, content(1)).digest
    began: list[bool] = []

    def hear(digest: str, size: int, held: bool) -> None:
        if digest == evicted:
            other = threading.Thread(target=store.receive, args=(digest_of(b""), cut(0)), daemon=True)
            other.start()
            other.join(5)
            began.append(not other.is_alive())

    store.on_change = hear
    store.receive(digest_of(content(2)), cut(MEBIBYTE))
    assert began == [True]


def test_others_are_told_of_what_went_also_when_the_room_was_not_enough(store: Store, disk: Disk) -> None:
    evicted, open_ = receive(store, content(1)).digest, receive(store, content(2))
    store.quota = 2 * MEBIBYTE
    disk.taken = 98 * MEBIBYTE
    heard: list[tuple[str, bool]] = []
    store.on_change = lambda digest, _, held: heard.append((digest, held))
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(3)), cut(2 * MEBIBYTE))
    assert heard == [(evicted, False)]
    assert store.blob(open_.digest) is open_


def test_what_somebody_has_open_is_never_taken(store: Store, disk: Disk) -> None:
    readers = [receive(store, content(number)) for number in range(3)]
    store.quota = 3 * MEBIBYTE
    disk.taken = 97 * MEBIBYTE
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(9)), cut(MEBIBYTE))
    gone = readers.pop(1).digest
    receive(store, content(9))
    assert store.blob(gone) is None
    assert all(store.blob(blob.digest) is blob for blob in readers)


def test_what_is_pinned_is_never_taken_and_no_more_can_be_than_the_quota_has_room_for(store: Store) -> None:
    data = content(1)
    receive(store, data)
    store.pin({digest_of(data): MEBIBYTE})
    store.pin({digest_of(data): MEBIBYTE})
    with pytest.raises(StoreError, match="1048576 are pinned"):
        store.pin({digest_of(content(2)): store._quota_bytes})
    store.unpin([digest_of(data)])
    gc.collect()
    store._evict(digest_of(data), "quota")
    assert digest_of(data) in store.holdings()
    store.unpin([digest_of(data)])
    store._evict(digest_of(data), "quota")
    assert digest_of(data) not in store.holdings()


def test_what_arrives_has_its_room_from_the_start_and_uses_what_has_come(store: Store, disk: Disk) -> None:
    store.quota = 3 * MEBIBYTE
    disk.taken = 97 * MEBIBYTE
    arriving = store.receive(digest_of(content(1, 2 * MEBIBYTE)), cut(2 * MEBIBYTE))
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(2)), cut(2 * MEBIBYTE))
    assert store.reserved == store.to_come == arriving.size
    assert store.used == 0
    del arriving
    half = receive(store, content(1, 2 * MEBIBYTE), range(4))
    assert (store.reserved, store.to_come, store.used) == (half.size, half.size // 2, half.size // 2)


def test_what_finds_no_room_in_the_quota_because_all_of_it_is_in_use_is_shared_all_the_same(store: Store) -> None:
    """FAULTS 70."""
    store.quota = 3 * MEBIBYTE
    first, second = (receive(store, content(number, 2 * MEBIBYTE), range(1)) for number in (1, 2))
    assert store.reserved == first.size
    receive(store, content(2, 2 * MEBIBYTE))
    assert second.digest in store.offered()
    assert second.digest not in store.holdings()


def test_what_earlier_tries_left_counts_and_is_dropped_before_any_blob(store: Store) -> None:
    whole = receive(store, content(1)).digest
    receive(store, content(2), range(3)).fail(StoreError("nobody waits"))
    left = store.used - MEBIBYTE
    assert left >= 3 * PIECE_BYTES_MIN
    store.quota = 2 * MEBIBYTE
    receive(store, content(3))
    assert store.blob(whole)
    assert store.used == 2 * MEBIBYTE


def test_a_resumed_download_does_not_count_twice(store: Store) -> None:
    receive(store, content(1), range(3)).fail(StoreError("nobody waits"))
    store.quota = MEBIBYTE + 4 * 4096  # and the journal
    assert store.receive(digest_of(content(1)), cut(MEBIBYTE)).held == 0b111


def test_the_disk_keeps_its_free_bytes_what_is_to_come_included(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(store.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=20 * MEBIBYTE, free=10 * MEBIBYTE))
    store.free = 8 * MEBIBYTE
    arriving = store.receive(digest_of(content(1)), cut(MEBIBYTE))
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(2)), cut(MEBIBYTE + 1))
    assert store.receive(digest_of(content(3)), cut(MEBIBYTE))
    assert arriving.size == MEBIBYTE


def test_what_nobody_used_for_its_age_goes_and_what_is_open_stays(store: Store) -> None:
    old, open_, fresh = (receive(store, content(number)) for number in range(3))
    receive(store, content(7), range(1)).fail(StoreError("nobody waits"))
    arriving = receive(store, content(8), range(1))
    for path in [file_of(store, old.digest), file_of(store, open_.digest), *(store.root / "partial").iterdir()]:
        os.utime(path, (PAST, PAST))
    gone = old.digest
    del old
    store.evict_old()
    assert set(store.holdings()) == {open_.digest, fresh.digest} != {gone}
    assert {path.stem for path in (store.root / "partial").iterdir()} == {arriving.digest.removeprefix("sha256:")}


def file_of(store: Store, digest: str) -> Path:
    return store.root / "blobs" / "sha256" / digest.removeprefix("sha256:")


def evictions() -> dict[str, float]:
    found = {sample.labels["reason"]: sample.value for family in STORE_EVICTIONS.collect() for sample in family.samples}
    return {reason: value for reason, value in found.items() if value}


def test_why_blobs_went_is_counted(store: Store, disk: Disk) -> None:
    STORE_EVICTIONS.clear()
    old, *_ = (receive(store, content(number)).digest for number in range(5))
    os.utime(file_of(store, old), (PAST, PAST))
    store.evict_old()
    assert evictions() == {"age": 1}
    store.quota = 3 * MEBIBYTE
    store.shrink()
    assert evictions() == {"age": 1, "quota": 1}
    store.free = Percent(20)
    disk.taken = 78 * MEBIBYTE
    store.shrink()
    assert evictions() == {"age": 1, "quota": 1, "disk": 1}
    store.drop(found(store, next(iter(store.holdings()))))
    assert evictions() == {"age": 1, "quota": 1, "disk": 1, "damaged": 1}


def test_a_blob_that_the_disk_has_no_room_for_is_counted(store: Store, disk: Disk) -> None:
    before = STORE_REFUSALS._value.get()
    store.free = Percent(20)
    arriving = receive(store, content(1), range(2))
    disk.taken = 81 * MEBIBYTE
    with pytest.raises(StoreError, match="no room"):
        store.receive(digest_of(content(2)), cut(MEBIBYTE))
    store.shrink()
    assert arriving.error
    assert STORE_REFUSALS._value.get() == before + 2


def test_what_is_in_the_directory_beside_blobs_counts_towards_the_quota(tmp_path: Path) -> None:
    """FAULTS 95."""
    store = Store(tmp_path / "store", quota=100_000, free=0, age=3600.0)
    store.beside = 50_000
    assert store._quota_has(50_000)
    assert not store._quota_has(50_001)
    store.close()
