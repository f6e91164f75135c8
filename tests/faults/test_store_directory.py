"""Row 30: a store directory that is not safe to use ends the process at its start, with one clear line and status 1."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.storage.store import Store
from agent.values.errors import UsageError

TREE = Path(__file__).resolve().parent.parent.parent
Harm = Callable[[Path, Path], None]


def open_store(path: Path) -> Store:
    return Store(path, quota=1 << 20, free=0, age=1.0)


def a_symbolic_link(path: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    path.symlink_to(elsewhere)


def a_link_to_nowhere(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere)


def a_file(path: Path, _: Path) -> None:
    path.touch()


def below_a_file(path: Path, _: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


def world_writable(path: Path, _: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def group_writable(path: Path, _: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def of_another_user(path: Path, _: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)


HARMS: list[tuple[Harm, str]] = [
    (a_symbolic_link, "is a symbolic link"),
    (a_link_to_nowhere, "cannot be made: File exists"),
    (a_file, "cannot be made: File exists"),
    (below_a_file, "cannot be made: Not a directory"),
    (world_writable, "can be written by others"),
    (group_writable, "can be written by others"),
    (of_another_user, "belongs to user 12345"),
]


@pytest.mark.parametrize(("harm", "words"), HARMS, ids=lambda value: getattr(value, "__name__", "words"))
def test_a_directory_that_is_not_safe_is_refused_in_one_line_and_left_as_it_is(tmp_path: Path, harm: Harm, words: str) -> None:
    if harm is of_another_user and os.geteuid() != 0:
        pytest.skip("giving a directory away takes root")
    path = tmp_path / "parent" / "store"
    path.parent.mkdir()
    harm(path, tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=rf"^--store {path} .*{words}[^\n]*$"):
        open_store(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_of_two_agents_belongs_to_the_first_and_is_free_when_that_ends(tmp_path: Path) -> None:
    first = open_store(tmp_path / "store")
    with pytest.raises(UsageError, match="is in use by another process"):
        open_store(tmp_path / "store")
    first.close()
    open_store(tmp_path / "store").close()


def test_a_directory_that_is_made_is_for_its_owner_alone_and_so_are_its_blobs(tmp_path: Path) -> None:
    store = open_store(tmp_path / "deep" / "store")
    assert store.root.stat().st_mode & 0o777 == 0o700
    store.close()


def test_what_does_not_belong_in_the_store_is_no_blob(tmp_path: Path) -> None:
    blobs = tmp_path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / "readme").touch()
    (blobs / ("0" * 64)).mkdir()
    (blobs / ("1" * 64)).symlink_to("/etc/passwd")
    tmp_path.chmod(0o700)
    store = open_store(tmp_path)
    assert store.holdings() == {}
    assert store.blob("sha256:" + "1" * 64) is None
    store.close()


@pytest.mark.parametrize("package", ["agent", "supernode"])
def test_the_process_says_it_in_one_line_and_ends_with_status_1(tmp_path: Path, package: str) -> None:
    (tmp_path / "store").touch()
    argv = ["--node-name", "n", "--store", str(tmp_path / "store"), "--piece-address", "127.0.0.1:1"]
    for flag in ("--piece-listen", "--http-listen", "--registry-listen" if package == "agent" else "--channel-listen"):
        argv += [flag, "127.0.0.1:0"]
    ended = subprocess.run(
        [sys.executable, "-m", package, *argv], cwd=TREE, capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert f"--store {tmp_path / 'store'}" in ended.stderr
