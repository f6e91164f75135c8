"""The swarm's key: a file that somebody else keeps, and that may change, be wrong, or be away for a while."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agent.swarm.tickets import KEY_BYTES_MAX, KEY_BYTES_MIN, SwarmKey, SwarmKeyError

FIRST, SECOND = b"the first key of this swarm.", b"the key that came after it."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_bytes(FIRST)
    return file


def test_without_a_file_there_is_no_key() -> None:
    assert SwarmKey("")() is None


def test_a_line_end_that_an_editor_left_is_no_part_of_the_key(file: Path) -> None:
    file.write_bytes(FIRST + b"\n")
    assert SwarmKey(str(file))() == FIRST


def test_a_key_that_was_replaced_is_the_key_from_then_on(file: Path) -> None:
    key = SwarmKey(str(file))
    assert key() == FIRST
    file.write_bytes(SECOND)
    os.utime(file, (1, 1))
    assert key() == SECOND


def test_a_secret_that_the_kubelet_swaps_by_its_link_is_read_again(tmp_path: Path) -> None:
    for number, content in enumerate((FIRST, SECOND), 1):
        (tmp_path / f"version-{number}").mkdir()
        (tmp_path / f"version-{number}" / "key").write_bytes(content)
        os.utime(tmp_path / f"version-{number}" / "key", (number, number))
    link = tmp_path / "data"
    link.symlink_to("version-1")
    key = SwarmKey(str(link / "key"))
    assert key() == FIRST
    (tmp_path / "new").symlink_to("version-2")
    (tmp_path / "new").replace(link)
    assert key() == SECOND


def test_a_file_that_did_not_change_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SwarmKey(str(file))
    assert key() == FIRST
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    assert key() == FIRST


@pytest.mark.parametrize(
    "content", [b"", b"short", b" " * 40, b"x" * (KEY_BYTES_MIN - 1), b"x" * (KEY_BYTES_MAX + 1), bytes(1 << 20)]
)
def test_a_key_of_another_length_is_no_key_and_is_not_shown(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(SwarmKeyError, match=rf"^{file} holds \d+ bytes; a key has 16 to 4096$"):
        SwarmKey(str(file))()


def test_a_file_that_is_away_is_an_error_and_no_missing_key_and_comes_back(file: Path) -> None:
    key = SwarmKey(str(file))
    assert key() == FIRST
    file.rename(file.with_name("elsewhere"))
    with pytest.raises(SwarmKeyError, match="cannot be read: No such file or directory") as raised:
        key()
    assert raised.value.status == 503
    file.with_name("elsewhere").rename(file)
    assert key() == FIRST


def test_a_directory_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SwarmKeyError, match="Is a directory"):
        SwarmKey(str(tmp_path))()


def test_many_threads_see_one_key(file: Path) -> None:
    key, seen = SwarmKey(str(file)), []
    threads = [threading.Thread(target=lambda: seen.append(key())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [FIRST] * 20


def test_two_lines_are_two_keys_while_they_change_and_the_first_signs(file: Path) -> None:
    file.write_bytes(FIRST + b"\n" + FIRST[::-1] + b"\n")
    key = SwarmKey(str(file))
    assert key() == FIRST
    assert key.all() == (FIRST, FIRST[::-1])


@pytest.mark.parametrize("content", [b"k" * 15 + b"\n" + b"l" * 16, b"k" * 40 + b"\n" + b"l", b"\n".join([b"k" * 16] * 3)])
def test_a_line_feed_in_a_key_of_any_bytes_makes_no_two_of_it(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert SwarmKey(str(file)).all() == (content,)
