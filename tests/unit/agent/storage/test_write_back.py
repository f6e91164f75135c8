"""What was written goes to the disk a little at a time, one file after the other, and nobody waits for a slow disk."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.storage import disk
from agent.storage.disk import WRITE_BACK_BYTES, WriteBack
from tests.swarm import wait_until

STEP = WRITE_BACK_BYTES
SECONDS = 20.0


class File:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.fd = -1


class SlowDisk:
    """Notes what is brought to it, and takes nothing while it is held."""

    def __init__(self) -> None:
        self.brought: list[tuple[int, int, int]] = []
        self.error: OSError | None = None
        self.free = threading.Event()
        self.free.set()

    def bring(self, fd: int, start: int, end: int) -> None:
        assert self.free.wait(SECONDS)
        self.brought.append((fd, start, end))
        if self.error:
            raise self.error


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    slow = SlowDisk()
    monkeypatch.setattr(disk, "bring_to_disk", slow.bring)
    return slow


@pytest.fixture
def write_back(slow: SlowDisk) -> Iterator[WriteBack]:
    write_back = WriteBack()
    yield write_back
    slow.free.set()
    write_back.close()


def idle(write_back: WriteBack) -> Callable[[], bool]:
    return lambda: write_back._thread is None


def settle(write_back: WriteBack, file: File, seconds: float = SECONDS) -> list[OSError | None]:
    said: list[OSError | None] = []
    write_back.settle(file, said.append, seconds)
    return said


def test_what_is_not_worth_a_request_waits_for_more_or_for_the_end(write_back: WriteBack, slow: SlowDisk) -> None:
    file = File()
    write_back.wrote(file, 0, STEP - 1)
    assert idle(write_back)()
    write_back.wrote(file, STEP - 1, STEP)
    wait_until(idle(write_back))
    write_back.wrote(file, STEP, STEP + 1)
    assert settle(write_back, file) == [None]
    assert slow.brought == [(-1, 0, STEP)], "the last byte is left to the fdatasync of whoever settles it"


def test_no_more_than_a_step_is_under_way_however_much_has_come_in_whatever_order(write_back: WriteBack, slow: SlowDisk) -> None:
    slow.free.clear()
    file, piece = File(), STEP // 4
    order = [11, 3, 2, 1, 0, 10, 9, 8, 4, 5, 7, 6]
    for number in order:
        write_back.wrote(file, number * piece, (number + 1) * piece)
    slow.free.set()
    assert settle(write_back, file) == [None]
    assert max(end - start for _, start, end in slow.brought) <= STEP
    rest = 12 * piece - sum(end - start for _, start, end in slow.brought)
    assert 0 <= rest <= STEP
    spans = sorted((start, end) for _, start, end in slow.brought)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "nothing twice"


def test_pieces_that_come_out_of_order_are_worth_a_thread_for_each_step_and_not_for_each_piece(
    write_back: WriteBack, slow: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda thread: (begun.append(thread.name), start(thread)))
    file, piece, steps = File(), STEP // 8, 6
    for number in range(0, 2 * 8 * steps, 2):  # none follows another
        write_back.wrote(file, number * piece, (number + 1) * piece)
        wait_until(idle(write_back))
    assert len(slow.brought) == 8 * steps
    assert len(begun) == steps


def test_a_short_blob_does_not_wait_for_a_long_one(write_back: WriteBack, slow: SlowDisk) -> None:
    slow.free.clear()
    long, short = File("long"), File("short")
    long.fd, short.fd = 1, 2
    write_back.wrote(long, 0, 100 * STEP)
    write_back.wrote(short, 0, 2 * STEP)
    at_its_end: list[int] = []
    write_back.settle(short, lambda _: at_its_end.append(len(slow.brought)), 0)
    slow.free.set()
    wait_until(lambda: at_its_end)
    assert at_its_end[0] < 10, "of the long one's hundred"


def test_nobody_waits_for_a_slow_disk_and_the_end_comes_all_the_same(write_back: WriteBack, slow: SlowDisk) -> None:
    slow.free.clear()
    file = File()
    write_back.wrote(file, 0, 3 * STEP)
    said = settle(write_back, file, seconds=0.01)
    assert said == []
    slow.free.set()
    wait_until(lambda: said)
    assert said == [None]
    wait_until(idle(write_back))


def test_what_the_disk_did_not_take_is_said_at_the_end(write_back: WriteBack, slow: SlowDisk) -> None:
    broken = slow.error = OSError(errno.EIO, "broken")
    file = File()
    write_back.wrote(file, 0, 2 * STEP)
    wait_until(idle(write_back))
    slow.error = None
    write_back.wrote(file, 2 * STEP, 4 * STEP)
    assert settle(write_back, file) == [broken]


def test_a_file_that_nobody_has_is_not_kept_open_for_what_is_not_on_the_disk(write_back: WriteBack) -> None:
    file = File()
    write_back.wrote(file, 0, STEP + 1)
    wait_until(idle(write_back))
    gone = weakref.ref(file)
    del file
    gc.collect()
    wait_until(lambda: gone() is None)


def test_a_file_that_is_forgotten_costs_the_disk_nothing_more(write_back: WriteBack, slow: SlowDisk) -> None:
    slow.free.clear()
    file = File()
    write_back.wrote(file, 0, 50 * STEP)
    write_back.forget(file)
    slow.free.set()
    wait_until(idle(write_back))
    assert len(slow.brought) <= 1


def test_without_a_thread_whoever_settles_does_it(write_back: WriteBack, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    file = File()
    write_back.wrote(file, 0, 2 * STEP)
    assert settle(write_back, file) == [None]


def test_what_is_settled_wrongly_leaves_the_others_their_thread(write_back: WriteBack) -> None:
    def fails(_: OSError | None) -> None:
        raise ValueError("wrong inside")

    write_back.settle(File(), fails, SECONDS)
    assert settle(write_back, File()) == [None]


def test_what_is_settled_is_settled_once_and_nobody_holds_it_afterwards(write_back: WriteBack) -> None:
    for _ in range(200):
        file = File()
        assert settle(write_back, file) == [None]
        gone = weakref.ref(file)
        del file
        assert gone() is None


def test_a_store_that_is_closed_brings_nothing_more_to_the_disk(write_back: WriteBack, slow: SlowDisk) -> None:
    slow.free.clear()
    file = File()
    write_back.wrote(file, 0, 50 * STEP)
    slow.free.set()
    write_back.close()
    brought = len(slow.brought)
    write_back.wrote(file, 0, 50 * STEP)
    assert idle(write_back)()
    assert len(slow.brought) == brought


# The system call.


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(2 * STEP), 0)
    yield fd
    os.close(fd)


def test_bytes_are_brought_to_a_real_disk(file: int) -> None:
    disk.bring_to_disk(file, 0, STEP)
    disk.bring_to_disk(file, STEP, 2 * STEP)


def test_what_the_disk_says_is_raised_because_nobody_is_told_again(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(disk, "_sync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        disk.bring_to_disk(file, 0, STEP)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.ESPIPE])
def test_where_the_call_is_not_to_be_had_it_is_done_without(file: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuses(*_: int) -> int:
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(disk, "_sync", refuses)
    disk.bring_to_disk(file, 0, STEP)
    monkeypatch.setattr(disk, "_sync", None)
    disk.bring_to_disk(file, 0, STEP)


def test_a_c_library_without_the_call_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    assert disk._sync_file_range() is None
