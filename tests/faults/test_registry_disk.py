"""No wrong byte, whoever is at fault; and no disk, no cache, but the bytes all the same (rows 25, 27 and 28 at the endpoint)."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.storage.store import Store
from agent.values.pieces import PIECE_BYTES_CUT_MIN
from hack.origin import Fault, Origin
from tests.endpoint import DIGEST, LAYER, Endpoint, push, wait_until

BLOB = f"blobs/{DIGEST}"
SIZE = len(LAYER)
PIECE_BYTES = PIECE_BYTES_CUT_MIN
BROKEN = (ConnectionResetError, http.client.IncompleteRead)
"""What a client sees of a connection that is cut off: never the end of an answer."""
Fail = Callable[..., None]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(origin: Origin, tmp_path: Path) -> Iterator[Endpoint]:
    with Endpoint(tmp_path / "store", origin) as endpoint:
        assert endpoint.ask("manifests/1").status == 200
        yield endpoint


@pytest.fixture
def disk_fails(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fail]:
    """Makes a system call on the store's files fail, from some byte of them on or altogether."""

    def fail(call: str, number: int, beyond: int = 0) -> None:
        really = getattr(os, call)

        def broken(*arguments: object, **more: object) -> object:
            offset = arguments[2] if call in ("pwrite", "preadv", "sendfile") else 0
            if isinstance(offset, int) and offset >= beyond:
                raise OSError(number, os.strerror(number))
            return really(*arguments, **more)

        monkeypatch.setattr(os, call, broken)

    yield fail
    monkeypatch.undo()


def pull(endpoint: Endpoint) -> None:
    """Until the blob is in the store, which is a moment after its reader has it."""
    assert endpoint.ask(BLOB).body == LAYER
    wait_until(lambda: endpoint.store.holdings().get(DIGEST) == SIZE)


def stored(endpoint: Endpoint) -> list[str]:
    return os.listdir(endpoint.store.root / "blobs" / "sha256")


# No wrong byte.


@pytest.mark.parametrize("at", [0, PIECE_BYTES, SIZE // 2, SIZE - 1])
def test_a_wrong_byte_from_the_origin_never_ends_cleanly_and_the_next_try_is_right(endpoint: Endpoint, at: int) -> None:
    endpoint.origin.fail(Fault(path=DIGEST, flip_byte=at), times=1)
    with pytest.raises(BROKEN):
        endpoint.ask(BLOB)
    assert stored(endpoint) == []
    wait_until(lambda: not endpoint.downloads._active)
    assert endpoint.ask(BLOB).body == LAYER


@pytest.mark.parametrize("start", [1, PIECE_BYTES, SIZE - 100])
def test_a_reader_of_the_end_is_cut_off_though_the_wrong_byte_lies_before_its_part(endpoint: Endpoint, start: int) -> None:
    endpoint.origin.fail(Fault(path=DIGEST, flip_byte=0), times=1)
    try:
        answer = endpoint.ask(BLOB, Range=f"bytes={start}-")
    except BROKEN:
        return
    assert (answer.status, answer.code) == (502, "DIGEST_INVALID"), "nothing of it had been sent yet"


def test_a_small_blob_with_a_wrong_byte_is_told_before_anything_of_it_is_sent(endpoint: Endpoint, origin: Origin) -> None:
    small = push(origin, b"small", tag="small").layers[0]
    endpoint.ask("manifests/small")
    origin.fail(Fault(path=small, flip_byte=2), times=1)
    answer = endpoint.ask(f"blobs/{small}")
    assert (answer.status, answer.code) == (502, "DIGEST_INVALID")
    assert endpoint.ask(f"blobs/{small}").body == b"small"


def test_an_empty_body_for_a_blob_that_is_not_empty_is_no_blob(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=DIGEST, status=200, headers={"Content-Length": "0"}), times=1)
    assert endpoint.ask(BLOB).status == 502


def test_more_bytes_than_were_announced_are_cut_at_what_was_announced(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=DIGEST, extra=b"more"), times=1)
    assert endpoint.ask(BLOB).body == LAYER


def test_a_stream_that_breaks_is_taken_up_where_it_broke(endpoint: Endpoint) -> None:
    endpoint.origin.fail(Fault(path=DIGEST, cut_after=SIZE // 2, bytes_per_second=4 << 20), times=1)
    assert endpoint.ask(BLOB).body == LAYER
    first, second = endpoint.origin.asked(DIGEST)
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) == SIZE // 2 // PIECE_BYTES * PIECE_BYTES
    assert first.body_bytes + second.body_bytes < SIZE + PIECE_BYTES


def test_a_size_beyond_all_sense_takes_no_room_and_no_memory(endpoint: Endpoint) -> None:
    for length in (1 << 63, (1 << 40) + 1):
        endpoint.origin.fail(Fault(path=DIGEST, headers={"Content-Length": str(length)}), times=1)
        assert endpoint.ask(BLOB).status == 502
    assert os.listdir(endpoint.store.root / "partial") == []


# Damage at rest.


@pytest.mark.parametrize("damage", ["flipped", "truncated", "longer", "empty", "gone"])
def test_damage_at_rest_is_found_after_a_restart_and_the_blob_fetched_again(origin: Origin, tmp_path: Path, damage: str) -> None:
    with Endpoint(tmp_path / "store", origin) as before:
        before.ask("manifests/1")
        pull(before)
        file = before.store.root / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")
    harm = {
        "flipped": LAYER[:5000] + bytes([LAYER[5000] ^ 1]) + LAYER[5001:],
        "truncated": LAYER[: SIZE // 2],
        "longer": LAYER + b"x",
    }
    file.unlink() if damage == "gone" else file.write_bytes(harm.get(damage, b""))
    with Endpoint(tmp_path / "store", origin) as after:
        after.ask("manifests/1")
        with contextlib.suppress(*BROKEN):
            assert after.ask(BLOB).body == LAYER, "found before anything was promised"
        pull(after)


def test_what_is_sound_after_a_restart_is_served_from_the_store(origin: Origin, tmp_path: Path) -> None:
    for _ in range(2):
        with Endpoint(tmp_path / "store", origin) as endpoint:
            endpoint.ask("manifests/1")
            pull(endpoint)
    assert len(origin.asked(DIGEST, "GET")) == 1


# A disk that fails.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("beyond", [0, 300_000, SIZE - PIECE_BYTES])
def test_a_disk_that_cannot_be_written_from_some_byte_on_lets_the_bytes_stream_through(
    endpoint: Endpoint, disk_fails: Fail, number: int, beyond: int
) -> None:
    disk_fails("pwrite", number, beyond)
    answer = endpoint.ask(BLOB)
    assert (answer.status, answer.body) == (200, LAYER)
    assert stored(endpoint) == []


@pytest.mark.parametrize("call", ["open", "ftruncate", "fdatasync", "rename"])
def test_a_disk_that_fails_at_any_step_of_storing_lets_the_bytes_stream_through(
    endpoint: Endpoint, disk_fails: Fail, call: str
) -> None:
    disk_fails(call, errno.ENOSPC)
    assert endpoint.ask(BLOB).body == LAYER
    assert endpoint.ask(BLOB).body == LAYER, "and once more"


@pytest.mark.parametrize("beyond", [0, 300_000])
def test_a_disk_that_cannot_be_read_is_passed_by_and_its_blob_forgotten(
    endpoint: Endpoint, disk_fails: Fail, beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.http.server.SENDFILE_BYTES_MAX", 100_000)
    pull(endpoint)
    wait_until(lambda: not endpoint.store._open)
    disk_fails("sendfile", errno.EIO, beyond)
    assert endpoint.ask(BLOB).body == LAYER
    assert endpoint.store.blob(DIGEST) is None


def test_the_rest_comes_from_the_origin_by_a_range_and_not_all_of_it_again(endpoint: Endpoint, disk_fails: Fail) -> None:
    disk_fails("pwrite", errno.ENOSPC, 2 * PIECE_BYTES)
    assert endpoint.ask(BLOB).body == LAYER
    assert endpoint.origin.asked(DIGEST, "GET")[-1].headers["range"] == f"bytes={2 * PIECE_BYTES}-"


@pytest.mark.parametrize("beyond", [0, 2 * PIECE_BYTES])
def test_a_wrong_byte_on_its_way_past_the_disk_is_cut_off_too(endpoint: Endpoint, disk_fails: Fail, beyond: int) -> None:
    disk_fails("pwrite", errno.ENOSPC, beyond)
    endpoint.origin.fail(Fault(path=DIGEST, flip_byte=SIZE - 1))
    with pytest.raises(BROKEN):
        endpoint.ask(BLOB)


@pytest.mark.parametrize("beyond", [0, PIECE_BYTES])
@pytest.mark.parametrize("wanted", ["bytes=0-9", "bytes=300000-", "bytes=-5", "bytes=0-"])
def test_ranges_pass_by_the_disk_as_they_would_come_from_it(
    endpoint: Endpoint, disk_fails: Fail, wanted: str, beyond: int
) -> None:
    disk_fails("pwrite", errno.ENOSPC, beyond)
    answer = endpoint.ask(BLOB, Range=wanted)
    assert answer.status == 206
    first, last = answer.headers["Content-Range"].removeprefix("bytes ").removesuffix(f"/{SIZE}").split("-")
    assert answer.body == LAYER[int(first) : int(last) + 1]


def test_a_range_past_the_end_is_told_the_size_without_a_disk_too(endpoint: Endpoint, disk_fails: Fail) -> None:
    disk_fails("pwrite", errno.ENOSPC)
    answer = endpoint.ask(BLOB, Range=f"bytes={SIZE}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


def test_many_clients_without_a_disk_all_get_their_bytes(endpoint: Endpoint, disk_fails: Fail) -> None:
    disk_fails("pwrite", errno.ENOSPC, PIECE_BYTES)
    with ThreadPoolExecutor(8) as pool:
        assert {answer.body for answer in pool.map(lambda _: endpoint.ask(BLOB), range(8))} == {LAYER}


def test_an_origin_that_fails_as_well_is_told_and_nothing_ends_cleanly(endpoint: Endpoint, disk_fails: Fail) -> None:
    disk_fails("pwrite", errno.ENOSPC)
    # Slowly: what a reset overtakes is lost, and without a byte of the blob the origin's failure would be the only one.
    cut = Fault(path="/blobs/", methods=frozenset({"GET"}), cut_after=2 * PIECE_BYTES, bytes_per_second=16 << 20)
    endpoint.origin.fail(cut)
    with pytest.raises(BROKEN):
        endpoint.ask(BLOB)
    endpoint.origin.stop()
    answer = endpoint.ask(BLOB)
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")
    endpoint.origin.start()


def test_a_blob_over_the_quota_is_pulled_once_for_all_and_leaves_the_store_as_it_was(origin: Origin, tmp_path: Path) -> None:
    """FAULTS 70."""
    with Endpoint(tmp_path / "store", origin, quota=SIZE - 1) as endpoint:
        endpoint.ask("manifests/1")
        with ThreadPoolExecutor(4) as pool:
            assert {answer.body for answer in pool.map(lambda _: endpoint.ask(BLOB), range(4))} == {LAYER}
        wait_until(lambda: stored(endpoint) == os.listdir(endpoint.store.root / "partial") == [])
        assert sum(request.body_bytes for request in origin.asked(DIGEST)) == SIZE
        endpoint.store.let_go(time.monotonic())
        wait_until(lambda: endpoint.store.arriving(DIGEST) is None)


def test_on_a_disk_that_is_really_full_the_bytes_stream_through(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small"
    small.mkdir(mode=0o700)
    size = f"size={2 * PIECE_BYTES},mode=0700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own takes root")
    try:
        with Endpoint(small, origin) as endpoint:
            monkeypatch.setattr(Store, "_disk_has", lambda *_: True)  # as when others fill the disk meanwhile
            endpoint.ask("manifests/1")
            assert endpoint.ask(BLOB).body == LAYER
            assert endpoint.ask(BLOB, Range="bytes=-5").body == LAYER[-5:]
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
