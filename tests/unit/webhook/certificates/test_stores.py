"""What every store promises, and what several processes make of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from webhook.certificates.stores import FILE_BYTES_MAX, DirectoryStore, KeyStore, Stored, settle
from webhook.errors import KeyStoreError, Unreachable


class MemoryStore:
    def __init__(self) -> None:
        self.stored: Stored | None = None
        self.writes = 0

    def read(self) -> Stored | None:
        return self.stored

    def write(self, files: Mapping[str, bytes], version: str | None) -> bool:
        if (self.stored.version if self.stored else None) != version:
            return False
        self.writes += 1
        self.stored = Stored(dict(files), str(self.writes))
        return True


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyStore:
    return DirectoryStore(str(tmp_path / "a" / "store")) if request.param == "directory" else MemoryStore()


def test_an_empty_store_holds_nothing_and_keeps_what_is_written(store: KeyStore) -> None:
    assert store.read() is None
    assert store.write({"a": b"1", "b": b""}, None)
    stored = store.read()
    assert stored is not None
    assert stored.files == {"a": b"1", "b": b""}


def test_a_write_is_refused_when_somebody_else_was_first(store: KeyStore) -> None:
    assert store.write({"a": b"1"}, None)
    assert not store.write({"a": b"2"}, None)
    before = store.read()
    assert before is not None
    assert store.write({"a": b"3"}, before.version)
    assert not store.write({"a": b"4"}, before.version)
    after = store.read()
    assert after is not None
    assert after.files == {"a": b"3"}
    assert after.version != before.version


def test_settling_makes_what_is_missing_and_leaves_what_is_right(store: KeyStore) -> None:
    assert settle(store, lambda files: files or {"a": b"mine"}) == {"a": b"mine"}
    assert settle(store, lambda files: files or {"a": b"another"}) == {"a": b"mine"}
    assert settle(store, lambda files: {"a": b"due"}) == {"a": b"due"}


def test_settling_gives_up_on_a_store_that_others_keep_changing() -> None:
    class Contested(MemoryStore):
        def write(self, files: Mapping[str, bytes], version: str | None) -> bool:
            return False

    with pytest.raises(Unreachable, match="8 times"):
        settle(Contested(), lambda files: {"a": b""})


def test_many_processes_that_start_at_once_agree_on_one(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    results: list[Mapping[str, bytes]] = []

    def start(number: int) -> None:
        together.wait()
        results.append(
            settle(DirectoryStore(str(tmp_path / "store")), lambda files: files or {"a": b"%d" % number, "b": b"%d" % number})
        )

    threads = [threading.Thread(target=start, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(result == results[0] for result in results)
    assert results[0]["a"] == results[0]["b"]


def test_nobody_reads_half_of_what_another_is_writing(tmp_path: Path) -> None:
    half, goes_on = threading.Event(), threading.Event()

    class Slow(DirectoryStore):
        def _replace(self, name: str, content: bytes) -> None:
            if name == "b":
                half.set()
                goes_on.wait(10)
            super()._replace(name, content)

    files = {"a": b"1", "b": b"1"}
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(Slow(str(tmp_path)).write, files, None)
        assert half.wait(10)
        reading = pool.submit(DirectoryStore(str(tmp_path)).read)
        with pytest.raises(TimeoutError):
            reading.result(0.2)
        goes_on.set()
        assert writing.result(10)
        stored = reading.result(10)
    assert stored is not None
    assert stored.files == files


def test_a_directory_and_its_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    assert DirectoryStore(str(tmp_path / "store")).write({"key": b"secret"}, None)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()} == {0o600}


def test_a_mounted_secret_is_read_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "..2026_11_24").mkdir()
    (tmp_path / "..2026_11_24" / "tls.crt").write_bytes(b"x")
    (tmp_path / "..data").symlink_to("..2026_11_24")
    (tmp_path / "tls.crt").symlink_to("..data/tls.crt")
    stored = DirectoryStore(str(tmp_path)).read()
    assert stored is not None
    assert stored.files == {"tls.crt": b"x"}


def test_a_path_that_is_no_directory_and_a_file_that_is_huge_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyStoreError, match="cannot be read: Not a directory"):
        DirectoryStore(str(tmp_path / "file")).read()
    with pytest.raises(KeyStoreError, match="cannot be written"):
        DirectoryStore(str(tmp_path / "file" / "store")).write({"a": b""}, None)
    (tmp_path / "file").write_bytes(b"x" * (FILE_BYTES_MAX + 1))
    with pytest.raises(KeyStoreError, match="more than"):
        DirectoryStore(str(tmp_path)).read()
