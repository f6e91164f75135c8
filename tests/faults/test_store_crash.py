"""Row 29: a process that is killed while it stores leaves only verified blobs, and what it had is not fetched again."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from agent.storage.disk import Journal
from agent.storage.store import Store
from agent.values.pieces import Layout

TREE = Path(__file__).resolve().parent.parent.parent
SIZE = (2 << 20) + 777
CONTENT = random.Random(29).randbytes(SIZE)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
LAYOUT = Layout.of(SIZE)
LIMITS = {"quota": 1 << 30, "free": 0, "age": 3600.0}

WRITER = """
import hashlib, os, random, signal, sys
from blake3 import blake3
from pathlib import Path
from agent.values.pieces import Layout
from agent.storage.store import Store

root, call, count, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
content = random.Random(29).randbytes(size)
layout = Layout.of(len(content))
store = Store(root, quota=1 << 30, free=0, age=3600.0)
really, calls = getattr(os, call), 0

def killed(*arguments, **more):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return really(*arguments, **more)

setattr(os, call, killed)
blob = store.receive("sha256:" + hashlib.sha256(content).hexdigest(), layout)
for piece in range(layout.count):
    start, end = layout.span(piece)
    for at in range(start, end, 64 << 10):
        blob.write(at, content[at : min(at + (64 << 10), end)])
    blob.add(piece, blake3(content[start:end]).digest(), checked=True)
print("stored")
"""
STEPS = [
    *(("open", count) for count in (1, 2)),
    ("ftruncate", 1),
    *(("pwrite", count) for count in (1, 2, 6, 33)),
    *(("write", count) for count in (1, 5, LAYOUT.count)),
    ("preadv", LAYOUT.count),
    *((call, 1) for call in ("fdatasync", "rename")),
    *(("unlink", count) for count in (1, 2)),
]


def killed_at(root: Path, call: str, count: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", WRITER, str(root), call, str(count), str(SIZE)]
    return subprocess.run(argv, cwd=TREE, capture_output=True, text=True, timeout=30, check=False)


def finish(store: Store) -> int:
    """Let the rest arrive, and say how many pieces that were."""
    blob = store.receive(DIGEST, LAYOUT)
    arrived = 0
    for piece in range(LAYOUT.count):
        if not blob.held >> piece & 1:
            start, end = LAYOUT.span(piece)
            blob.write(start, CONTENT[start:end])
            blob.add(piece, blake3(CONTENT[start:end]).digest(), checked=True)
            arrived += 1
    assert blob.whole
    return arrived


def whole_file(root: Path) -> Path:
    return root / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")


@pytest.mark.parametrize(("call", "count"), STEPS, ids=lambda value: str(value))
def test_a_process_killed_at_any_step_shows_nothing_unverified_and_the_next_one_finishes(
    tmp_path: Path, call: str, count: int
) -> None:
    ended = killed_at(tmp_path / "store", call, count)
    assert ended.returncode == -9 or (call, ended.stdout) == ("unlink", "stored\n"), ended.stderr
    file = whole_file(tmp_path / "store")
    assert not file.exists() or file.read_bytes() == CONTENT
    store = Store(tmp_path / "store", **LIMITS)
    assert set(store.holdings()) == ({DIGEST} if file.exists() else set())
    if not file.exists():
        finish(store)
    assert file.read_bytes() == CONTENT
    store.close()


def test_what_was_written_down_before_the_kill_is_not_fetched_again(tmp_path: Path) -> None:
    assert killed_at(tmp_path / "store", "write", LAYOUT.count).returncode == -9
    store = Store(tmp_path / "store", **LIMITS)
    assert finish(store) == 1
    store.close()


# What a crash of the machine may leave.


def interrupted(root: Path, pieces: int) -> tuple[Path, Path]:
    """A store where so many pieces arrived: the partial file and its journal."""
    store = Store(root, **LIMITS)
    blob = store.receive(DIGEST, LAYOUT)
    for piece in range(pieces):
        start, end = LAYOUT.span(piece)
        blob.write(start, CONTENT[start:end])
        blob.add(piece, blake3(CONTENT[start:end]).digest(), checked=True)
    store.close()
    partial = root / "partial" / DIGEST.removeprefix("sha256:")
    return partial, partial.with_suffix(".pieces")


@pytest.mark.parametrize(("cut", "lost"), [(0, 0), (1, 1), (37, 1), (38, 2), (4 * 37, 4), (4 * 37 + 1, 4), (4 * 37 + 16, 4)])
def test_a_journal_that_was_cut_short_costs_the_pieces_that_it_no_longer_names(tmp_path: Path, cut: int, lost: int) -> None:
    _, journal = interrupted(tmp_path / "store", 4)
    assert journal.stat().st_size == 16 + 4 * 37
    os.truncate(journal, journal.stat().st_size - cut)
    store = Store(tmp_path / "store", **LIMITS)
    assert finish(store) == LAYOUT.count - 4 + lost
    store.close()


def test_a_journal_of_garbage_costs_all_pieces_and_no_wrong_byte(tmp_path: Path) -> None:
    _, journal = interrupted(tmp_path / "store", 4)
    for garbage in (bytes(200), b"\xff" * 200, journal.read_bytes()[:16] + random.Random(1).randbytes(370)):
        journal.write_bytes(garbage)
        assert set(Journal(journal, LAYOUT).earlier) <= set(range(LAYOUT.count))
    store = Store(tmp_path / "store", **LIMITS)
    assert finish(store) == LAYOUT.count
    store.close()


@pytest.mark.parametrize("harm", ["a flipped bit", "cut short", "never written", "gone"])
def test_a_partial_file_that_lost_bytes_gets_those_pieces_anew(tmp_path: Path, harm: str) -> None:
    partial, _ = interrupted(tmp_path / "store", 4)
    start, end = LAYOUT.span(2)
    with partial.open("r+b") as file:
        if harm == "a flipped bit":
            file.seek(start + 99)
            file.write(bytes([CONTENT[start + 99] ^ 1]))
        elif harm == "cut short":
            file.truncate(end - 1)
        elif harm == "never written":
            file.seek(start)
            file.write(bytes(end - start))
    if harm == "gone":
        partial.unlink()
    store = Store(tmp_path / "store", **LIMITS)
    lost = {"a flipped bit": 1, "cut short": 2, "never written": 1, "gone": 4}[harm]
    assert finish(store) == LAYOUT.count - 4 + lost
    assert whole_file(tmp_path / "store").read_bytes() == CONTENT
    store.close()


def test_a_file_and_a_journal_of_other_sizes_than_the_blob_has_do_no_harm(tmp_path: Path) -> None:
    root = tmp_path / "store"
    partial, journal = interrupted(root, 4)
    other = Layout.of(5 * SIZE)
    journal.unlink()
    Journal(journal, other).append(0, bytes(32), True)
    with partial.open("r+b") as file:
        file.truncate(other.size)
    store = Store(root, **LIMITS)
    assert finish(store) == LAYOUT.count
    assert whole_file(root).stat().st_size == SIZE
    store.close()
