"""The garbage collector: what is old goes, what is counted is told, and a failing disk stops neither it nor the process."""

from __future__ import annotations

import threading

import pytest

from agent import gc as gc_module
from agent import metrics
from agent.gc import GarbageCollector
from agent.storage.store import Room
from tests.endpoint import wait_until


class Disk:
    """A store and manifests at once: counts what is asked of it, and fails when it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.age = 5.0
        self.looks = 0
        self.shrinks = 0
        self.evictions: list[float] = []
        self.bytes_kept = 1000
        self.beside = 0

    def room(self) -> Room:
        self.looks += 1
        if self.fails:
            raise OSError(5, "Input/output error")
        return Room(4711, 8000, 815)

    def shrink(self) -> None:
        self.shrinks += 1

    def evict_old(self, age: float = 0.0) -> None:
        self.evictions.append(age)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(gc_module, "EVICT_SECONDS", 0.1)


def keep(disk: Disk) -> GarbageCollector:
    return GarbageCollector(disk, disk)  # type: ignore[arg-type]


@pytest.mark.usefixtures("often")
def test_it_tells_what_is_used_and_drops_what_is_old_more_rarely() -> None:
    disk = Disk()
    collector = keep(disk)
    collector.start()
    wait_until(lambda: len(disk.evictions) >= 4)
    collector.stop()
    assert metrics.STORE_BYTES._value.get() == 4711
    assert metrics.STORE_QUOTA_BYTES._value.get() == 8000
    assert metrics.STORE_FREE_BYTES._value.get() == 815
    assert disk.beside == 1000, "manifests count towards the quota"
    assert disk.looks > 2 * len(disk.evictions)
    assert disk.shrinks >= disk.looks, "others may fill the disk at any time"
    assert disk.evictions[:2] == [0.0, disk.age], "the store by its own age, manifests by the same"


@pytest.mark.usefixtures("often")
def test_a_failing_disk_is_a_line_in_the_log_and_the_next_look_comes(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(fails=True)
    collector = keep(disk)
    collector.start()
    wait_until(lambda: disk.looks > 3)
    collector.stop()
    assert "the store cannot be looked after: [Errno 5] Input/output error" in caplog.text


@pytest.mark.usefixtures("often")
def test_it_ends_when_it_is_told_to() -> None:
    collector = keep(Disk())
    collector.start()
    collector.stop()
    wait_until(lambda: not any(thread.name == "garbage collector" for thread in threading.enumerate()))
