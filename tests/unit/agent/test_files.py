"""What is made of files is made anew when one of them has changed, and only then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.files import Reread


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_text("one")
    return file


def test_files_are_read_when_they_have_changed_and_only_then(file: Path) -> None:
    reads: list[str | None] = []

    def read(last: str | None) -> str:
        reads.append(last)
        return file.read_text()

    kept = Reread(read, file)
    assert [kept(), kept()] == ["one", "one"]
    replace(file, "two")
    assert [kept(), kept()] == ["two", "two"]
    assert reads == [None, "one"]


def test_a_new_file_of_the_same_length_and_the_same_time_is_another_one(file: Path) -> None:
    kept = Reread(lambda _: file.read_text(), file)
    assert kept() == "one"
    status = file.stat()
    replace(file, "two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept() == "two"


def test_what_could_not_be_read_is_read_again_and_counts_as_before_where_the_reader_says_so(file: Path) -> None:
    def read(last: str | None) -> str:
        return file.read_text() if file.exists() else last or "nothing"

    raising, patient = Reread(lambda _: file.read_text(), file), Reread(read, file)
    assert (raising(), patient()) == ("one", "one")
    file.rename(file.with_name("away"))
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            raising()
    assert patient() == "one"
    file.with_name("away").rename(file)
    assert raising() == "one"


def test_any_of_several_files_counts_also_one_that_comes_later(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("1")
    kept = Reread(lambda _: [path.name for path in (first, second) if path.exists()], first, second)
    assert kept() == ["first"]
    second.write_text("2")
    assert kept() == ["first", "second"]


def replace(file: Path, text: str) -> None:
    """As a kubelet does it: another file by the same name."""
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)
